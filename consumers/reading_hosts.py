"""The hosts in a table file: their rows, with what they say of themselves decoded once and kept."""

from typing import Any, Final

import apsw
import msgpack

from dimint.consumers.names import clean_name
from dimint.consumers.reading_joined import joined_row, owners, parts_by_owner
from dimint.consumers.rows import HostRow, is_host_id

__all__ = ["HostRows"]

_HOST: Final = """select m.id, m.name, m.ip, m.facts, m.simulated, m.registered_ns, l.first_ns, l.last_ns, l.received_ns,
                         m.given_name
                  from machines m left join latest l on l.id = m.id"""


class HostRows:
    """Every method runs inside the caller's transaction. What hosts say changes seldom, and they are listed at every commit."""

    def __init__(self) -> None:
        self._facts: dict[str, tuple[bytes, dict[str, Any]]] = {}
        """By host, as stored and decoded; of the hosts that were listed last."""

    def listed(self, db: apsw.Connection) -> list[HostRow]:
        """By name, without those that are merged into others."""
        before, self._facts = self._facts, {}
        rows = []
        for host, name, ip, blob, *rest in list(db.execute(_HOST + " where m.merged_into = '' order by m.name, m.id")):
            known = before.get(host)
            kept = self._facts[host] = known if known is not None and known[0] == blob else (blob, _facts_of(blob))
            rows.append(_host_row(host, name, ip, kept[1], *rest))
        return _joined(db, rows)

    def merged(self, db: apsw.Connection) -> dict[str, tuple[HostRow, str]]:
        """Those that are merged into others: id → (the host, id of the one that stays)."""
        rows = _rows(db, " where m.merged_into <> '' order by m.name, m.id")
        into = dict(db.execute("select id, merged_into from machines where merged_into <> ''"))
        return {row.id: (row, into[row.id]) for row in rows}

    def one(self, db: apsw.Connection, id_or_name: str) -> HostRow | None:
        """The host with this id, this unique name, or the name that cleans to it."""
        rows = _rows(db, " where m.id = ?", id_or_name) if is_host_id(id_or_name) else []
        rows = rows or _rows(db, " where m.name = ?", clean_name(id_or_name))
        return _joined(db, rows)[0] if rows else None


def _joined(db: apsw.Connection, rows: list[HostRow]) -> list[HostRow]:
    """These rows with the times of the hosts that are merged into them."""
    parts = parts_by_owner(owners(db))
    if not parts:
        return rows
    merged = {row.id: row for row in _rows(db, " where m.merged_into <> ''")}
    return [joined_row(row, merged, parts[row.id]) if row.id in parts else row for row in rows]


def _rows(db: apsw.Connection, which: str, *values: str) -> list[HostRow]:
    return [_host_row(*row[:3], _facts_of(row[3]), *row[4:]) for row in list(db.execute(_HOST + which, values))]


def _facts_of(blob: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = msgpack.unpackb(blob, strict_map_key=False)
    return facts


def _host_row(host: str, name: str, ip: str, facts: dict[str, Any], simulated: int, *rest: Any) -> HostRow:
    return HostRow(host, name, ip, facts, bool(simulated), *rest)
