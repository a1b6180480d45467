"""The read side of the status tables: what pages, alerts and reports see.

A folder holds numbered table files and a small file CURRENT that names the live one; a rebuild writes a new file and
then switches CURRENT, and a reader follows at its next call. Every call sees one committed state: a sample is there with
everything that was committed with it. Nothing is created and nothing is waited for.
"""

import contextlib
import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import apsw
import msgpack

from dimint.consumers.names import clean_name
from dimint.consumers.rows import HostRow, Placed, StoredSample, is_host_id, unpack_sample, unseal
from dimint.limits import FETCH_MAX_SAMPLES

__all__ = ["CURRENT", "TABLES_FOLDER", "HostRow", "StatusReader", "StoredSample"]

TABLES_FOLDER: Final = "tables"
"""Folder of the status tables in the data directory: `StatusReader(settings.data_dir / TABLES_FOLDER)`."""
CURRENT: Final = "CURRENT"
_BUSY_MS = 5_000
_LAST_NS: Final = (1 << 63) - 1
_FILE_BITS = 20
"""Versions of different table files never coincide: their upper part counts the switches."""

_HOST = """select m.id, m.name, m.ip, m.facts, m.simulated, m.registered_ns, l.first_ns, l.last_ns, l.received_ns, m.given_name
           from machines m left join latest l on l.id = m.id"""


class StatusReader:
    """Reads the status tables in the folder `path`; one thread at a time, any thread.

    A folder that is missing or empty is a system without hosts. Raises CorruptRecord where a stored blob is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)
        self._db: apsw.Connection | None = None
        self._file = ""
        self._switches = 0
        self._stamp: tuple[int, int] | None = None

    def __enter__(self) -> "StatusReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent; the next call opens again."""
        if self._db is not None:
            self._db.close()
        self._db, self._stamp, self._file = None, None, ""

    # --- hosts ------------------------------------------------------------------------------------------------------
    def hosts(self) -> list[HostRow]:
        """Every host, by name."""
        db = self._open()
        return [] if db is None else [_host_row(row) for row in db.execute(_HOST + " order by m.name, m.id")]

    def host(self, id_or_name: str) -> HostRow | None:
        """The host with this id, this unique name (`gpu_01_lab`), or the name that cleans to it (`gpu-01.lab`)."""
        db = self._open()
        if db is None:
            return None
        if is_host_id(id_or_name):
            for row in db.execute(_HOST + " where m.id = ?", (id_or_name,)):
                return _host_row(row)
        for row in db.execute(_HOST + " where m.name = ?", (clean_name(id_or_name),)):
            return _host_row(row)
        return None

    # --- samples ----------------------------------------------------------------------------------------------------
    def latest(self, host_ids: Iterable[str]) -> dict[str, StoredSample]:
        """The newest sample of each of these hosts that has one."""
        found = {}
        db = self._open()
        if db is not None:
            with _snapshot(db):
                for host in host_ids:
                    for _, stored in islice(_newest_first(db, host, 1), 1):
                        found[host] = stored
        return found

    def last(self, host_id: str, n: int) -> list[StoredSample]:
        """The newest `n` samples (at most FETCH_MAX_SAMPLES), oldest first."""
        db = self._open()
        if db is None or n <= 0:
            return []
        n = min(n, FETCH_MAX_SAMPLES)
        with _snapshot(db):
            return [stored for _, stored in islice(_newest_first(db, host_id, n), n)][::-1]

    def between(self, host_id: str, from_ns: int, to_ns: int, limit: int = FETCH_MAX_SAMPLES) -> list[StoredSample]:
        """Samples with from_ns ≤ time_ns ≤ to_ns, oldest first: the oldest `limit` of them (at most FETCH_MAX_SAMPLES)."""
        db = self._open()
        if db is None or limit <= 0:
            return []
        limit = min(limit, FETCH_MAX_SAMPLES)
        with _snapshot(db):
            return [stored for _, stored in islice(_oldest_first(db, host_id, from_ns, to_ns, limit), limit)]

    def at(self, host_id: str, time_ns: int) -> StoredSample | None:
        """The last sample taken at or before this time."""
        db = self._open()
        if db is None:
            return None
        with _snapshot(db):
            found = next(_newest_first(db, host_id, 1, time_ns), None)
        return None if found is None else found[1]

    # --- following --------------------------------------------------------------------------------------------------
    def version(self) -> int:
        """A number that differs from the last one if anything was committed in between. A few µs: poll it."""
        db = self._open()
        return 0 if db is None else (self._switches << _FILE_BITS * 2) + int(db.pragma("data_version"))

    def changed_since(self, sequence: int) -> tuple[int, set[str]]:
        """(sequence now, hosts with a new sample or registration since that sequence). Start with -1: every host."""
        db = self._open()
        if db is None:
            return -1, set()
        with _snapshot(db):
            now = int(db.execute("select value from meta where name = 'sequence'").get)
            since = sequence if sequence <= now else -1
            changed = {host for (host,) in db.execute("select id from latest where changed > ?", (since,))}
        return now, changed

    def positions(self) -> dict[int, int]:
        """Partition of the status topic → next offset to be read: what these tables have seen."""
        db = self._open()
        return {} if db is None else dict(db.execute("select partition, position from positions"))

    def counts(self) -> dict[str, int]:
        """What was passed over, and why: name → events or records."""
        db = self._open()
        return {} if db is None else dict(db.execute("select name, n from counts order by name"))

    # --- inside -----------------------------------------------------------------------------------------------------
    def _open(self) -> apsw.Connection | None:
        """The live file's connection, following a switch; None while there is no live file."""
        pointer = self._folder / CURRENT
        try:
            status = pointer.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return self._db
            file = pointer.read_text().strip()
        except FileNotFoundError:
            self.close()
            return None
        if file != self._file:
            self.close()
            self._db = open_read_only(self._folder / file)
            self._file = file
            self._switches += 1
        self._stamp = stamp
        return self._db


def open_read_only(path: Path) -> apsw.Connection:
    """A connection that cannot write."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=256)
    db.set_busy_timeout(_BUSY_MS)
    return db


@contextlib.contextmanager
def _snapshot(db: apsw.Connection) -> Iterator[None]:
    """One read transaction: everything inside sees the same commit."""
    with db:
        yield


def samples_in_order(db: apsw.Connection, host: str) -> Iterator[Placed]:
    """Every sample of a host, oldest first; for whoever checks or copies whole tables."""
    return _oldest_first(db, host, 0, _LAST_NS, -1)


def _host_row(row: tuple[Any, ...]) -> HostRow:
    host, name, ip, facts, simulated, registered, first, last, received, given = row
    return HostRow(host, name, ip, msgpack.unpackb(facts, strict_map_key=False), bool(simulated), registered, first, last,
                   received, given)  # fmt: skip


# the table's name goes into the text: it is made of a checked id only
_TAIL_DOWN: Final = """select n, timestamp, blob from TABLE where sealed = 0 and timestamp <= ?
                       order by timestamp desc, n desc limit ?"""
_TAIL_UP: Final = """select n, timestamp, blob from TABLE where sealed = 0 and timestamp between ? and ?
                     order by timestamp, n limit ?"""
_CHUNK_BEFORE: Final = """select timestamp, n, blob from TABLE where sealed > 0 and (timestamp, n) < (?, ?)
                          order by timestamp desc, n desc limit 1"""
_CHUNK_FROM: Final = """select timestamp, n, blob from TABLE where sealed > 0 and (timestamp, n) >= (?, ?) and timestamp <= ?
                        order by timestamp, n limit 1"""
_EDGE_BEFORE: Final = """select timestamp, n from TABLE where sealed > 0 and timestamp < ?
                         order by timestamp desc, n desc limit 1"""


def _table(host: str) -> str:
    return f"host_{host}"


def _has_table(db: apsw.Connection, host: str) -> bool:
    return is_host_id(host) and db.table_exists("main", _table(host))


def _order(placed: Placed) -> tuple[int, int]:
    return placed[1].time_ns, placed[0]


def _newest_first(db: apsw.Connection, host: str, most: int, to_ns: int = _LAST_NS) -> Iterator[Placed]:
    """Samples at or before `to_ns`, newest first, at least `most` of them if there are that many."""
    if not _has_table(db, host):
        return iter(())
    to_ns = max(-1, min(to_ns, _LAST_NS))
    sql = _TAIL_DOWN.replace("TABLE", _table(host))
    tail = [(n, unpack_sample(time, blob)) for n, time, blob in db.execute(sql, (to_ns, most))]

    def sealed() -> Iterator[Placed]:
        sql = _CHUNK_BEFORE.replace("TABLE", _table(host))
        edge = (to_ns, _LAST_NS)
        while row := db.execute(sql, edge).get:
            edge = (row[0], row[1])
            for placed in reversed(unseal(row[2])):
                if placed[1].time_ns <= to_ns:
                    yield placed

    return heapq.merge(tail, sealed(), key=_order, reverse=True)


def _oldest_first(db: apsw.Connection, host: str, from_ns: int, to_ns: int, most: int) -> Iterator[Placed]:
    """Samples in the closed range, oldest first, at least `most` of them (-1 = all) if there are that many."""
    if not _has_table(db, host):
        return iter(())
    from_ns, to_ns = max(0, min(from_ns, _LAST_NS)), max(-1, min(to_ns, _LAST_NS))
    sql = _TAIL_UP.replace("TABLE", _table(host))
    tail = [(n, unpack_sample(time, blob)) for n, time, blob in db.execute(sql, (from_ns, to_ns, most))]

    def sealed() -> Iterator[Placed]:
        # chunks do not overlap, so the last one that starts before the range is the only one that may reach into it
        start, at = db.execute(_EDGE_BEFORE.replace("TABLE", _table(host)), (from_ns,)).get or (from_ns, -1)
        sql = _CHUNK_FROM.replace("TABLE", _table(host))
        while row := db.execute(sql, (start, at, to_ns)).get:
            start, at = row[0], row[1] + 1
            for placed in unseal(row[2]):
                if from_ns <= placed[1].time_ns <= to_ns:
                    yield placed

    return heapq.merge(tail, sealed(), key=_order)
