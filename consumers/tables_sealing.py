"""Samples of a host on their way through a table file: into chunks and summaries, and out when they are old enough.

Whoever writes has a transaction open. How long things are kept is counted by log time and looked at when a host is sealed,
so it is the log that says what is gone, and tables that are filled again have let go of the same. A host that is silent
keeps what it has.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import apsw

from dimint.consumers.rows import Placed, pack_sample, seal, unpack_sample, unseal
from dimint.consumers.sealing import KEEP_TAIL, SEAL_LEAST, SEAL_MOST, ChunkSpan, Group, Key, group_rows, split_sizes
from dimint.consumers.tables_summaries import add_samples
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, block_of

__all__ = ["FOR_EVER", "Keep", "Sealer", "let_go", "put_chunks"]


class Keep(NamedTuple):
    """For how many ns chunks of single samples and blocks of the two tiers are kept; 0 is for ever."""

    samples_ns: int
    minutes_ns: int
    hours_ns: int


FOR_EVER: Final = Keep(0, 0, 0)


def let_go(db: apsw.Connection, host: str, now_ns: int, keep: Keep) -> None:
    """Remove chunks and blocks of a host that end before what is to be kept at log time `now_ns`."""
    if keep.samples_ns:
        before_ns = now_ns - keep.samples_ns
        gone = "delete from chunks where host = ?1 and timestamp < ?2 and until < ?2 returning n"
        numbers = list(db.execute(gone, (host, before_ns)))
        db.executemany(f"delete from host_{host} where n = ?", numbers)  # noqa: S608  # a name of our own
    for length_ns, keep_ns in ((MINUTE_NS, keep.minutes_ns), (HOUR_NS, keep.hours_ns)):
        if keep_ns:
            first = block_of(max(0, now_ns - keep_ns) // length_ns)
            db.execute("delete from tiers where host = ? and length_ns = ? and block < ?", (host, length_ns, first))


def put_chunks(db: apsw.Connection, host: str, made: Iterable[tuple[ChunkSpan, bytes]]) -> None:
    """Store chunks of a host."""
    for (first, until_ns), blob in made:
        time_ns, n = first
        db.execute("insert into chunks values(?, ?, ?, ?)", (host, time_ns, n, until_ns))
        db.execute(f"insert into host_{host} values(?, ?, 1, ?)", (n, time_ns, blob))  # a name of our own


class Sealer:
    """Moves the older tail rows of one host's table into chunks (consumers/sealing.py) and adds them to its summaries."""

    def __init__(self, db: apsw.Connection, host: str) -> None:
        self._db, self._host, self._table = db, host, f"host_{host}"

    def run(self) -> None:
        ((size,),) = self._all("select count(*) from TABLE where sealed = 0")
        if size < KEEP_TAIL + SEAL_LEAST:
            return
        most = min(size - KEEP_TAIL, SEAL_MOST)
        sql = "select timestamp, n from TABLE where sealed = 0 order by timestamp, n limit ?"
        rows: list[Key] = self._all(sql, most)
        for group in group_rows(rows, self._chunks_from(rows[0])):
            self._seal(group)

    def _chunks_from(self, first: Key) -> list[ChunkSpan]:
        """Chunks from the last one at or before the row on."""
        edge = self._all(
            """select timestamp, n from chunks where host = ? and (timestamp, n) <= (?, ?)
               order by timestamp desc, n desc limit 1""",
            self._host,
            *first,
        )
        start = edge[0] if edge else (-1, -1)
        sql = "select timestamp, n, until from chunks where host = ? and (timestamp, n) >= (?, ?) order by timestamp, n"
        return [ChunkSpan((time, n), until) for time, n, until in self._all(sql, self._host, *start)]

    def _seal(self, group: Group) -> None:
        tail = [(n, *self._all("select blob from TABLE where n = ?", n)[0], time) for time, n in group.rows]
        # a tail blob starts with its plain size
        sizes = [int.from_bytes(blob[:4], "little") for _, blob, _ in tail]
        if group.into is None:
            placed = None
        else:
            ((blob,),) = self._all("select blob from TABLE where n = ?", group.into.first[1])
            placed = [*unseal(blob), *((n, unpack_sample(time, blob)) for n, blob, time in tail)]
            placed.sort(key=_order)
            sizes = [pack_sample(stored)[1] for _, stored in placed]
        at = 0
        made = []
        fresh = {n for n, _, _ in tail}
        for count in split_sizes(sizes):
            if placed is not None:
                part = placed[at : at + count]
            else:
                part = [(n, unpack_sample(time, blob)) for n, blob, time in tail[at : at + count]]
            made.append((ChunkSpan(_order(part[0]), part[-1][1].time_ns), seal(part)))
            at += count
            add_samples(self._db, self._host, [stored for n, stored in part if n in fresh])
        gone = [(n,) for n, _, _ in tail]
        if group.into is not None:
            gone.append((group.into.first[1],))
            self._db.execute("delete from chunks where host = ? and (timestamp, n) = (?, ?)", (self._host, *group.into.first))
        self._db.executemany(self._sql("delete from TABLE where n = ?"), gone)
        put_chunks(self._db, self._host, made)

    def _all(self, sql: str, *values: Any) -> list[Any]:
        return list(self._db.execute(self._sql(sql), values))

    def _sql(self, sql: str) -> str:
        return sql.replace("TABLE", self._table)


def _order(placed: Placed) -> Key:
    return placed[1].time_ns, placed[0]
