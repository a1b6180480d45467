"""Samples that could not be published yet: an ordered, bounded queue on disk that survives kill -9. Imports apsw.

One row holds the events of one tick, packed and with a checksum; each commit is durable. When the spool is full the
oldest rows go, and every sample in them is declared in a `host.gap` event, which is sent before what is left. Samples
keep the run and number that they were taken with, so sending one twice changes nothing.

::

    rows   id · events (count) · body (lz4 of msgpack [event, …]) · sum (xxh3 of body)
    gaps   id · time_ns · host · run · first_seq · last_seq · reason

A file that SQLite finds damaged is moved aside and a new one begun. A spool belongs to one thread.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import lz4.block
import msgpack
from xxhash import xxh3_64_digest

from dimint.clock import Clock
from dimint.sample import SpoolState

__all__ = ["SPOOL_MAX_BYTES", "Spool", "SpoolFull", "Taken"]

SPOOL_MAX_BYTES = 256 << 20
"""About two weeks of one host with 8 GPUs at a sample every 5 s."""
_KEEP_SHARE = 0.9
"""A full spool is emptied to this share, so that not every new row has to drop one."""
_VACUUM_BYTES = 8 << 20
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA cache_size = -512;
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY AUTOINCREMENT, events INTEGER NOT NULL, body BLOB NOT NULL, sum BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS gaps (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, host TEXT NOT NULL, run BLOB NOT NULL,
    first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, reason TEXT NOT NULL);
"""

Event = list[Any]
"""`[kind, host id, time_ns, field, …]`, as `publish` takes it."""

log = logging.getLogger("dimint.agent")


class SpoolFull(Exception):
    """The disk takes nothing: the caller keeps the events."""


class Taken(NamedTuple):
    """The oldest events: gaps first, then rows up to and including `row`."""

    events: list[Event]
    row: int
    gap: int


class Spool:
    """The spool in `path`, created if it is not there. `taken` rows stay until `done`."""

    def __init__(self, path: Path, clock: Clock, *, max_bytes: int = SPOOL_MAX_BYTES) -> None:
        self._path, self._clock, self._max_bytes = path, clock, max_bytes
        try:
            self._open()
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self._set_aside(error)
        self._floor = Taken([], 0, 0)

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self._waits

    @property
    def events(self) -> int:
        """Events that wait, gaps not counted."""
        return self._events

    @property
    def bytes(self) -> int:
        """Size of what waits."""
        return self._bytes

    def state(self) -> SpoolState:
        """What waits, as samples tell it."""
        return {"events": self._events, "bytes": self._bytes, "max": self._max_bytes}

    def put(self, parcels: Sequence[Sequence[Event]]) -> int:
        """Append parcels, one row each, in one durable commit; the first one's row.

        Raises SpoolFull if the disk takes nothing.
        """
        bodies: list[bytes] = [lz4.block.compress(msgpack.packb(parcel)) for parcel in parcels]
        with self._commit():
            for parcel, body in zip(parcels, bodies, strict=True):
                row = (len(parcel), body, xxh3_64_digest(body))
                self._db.execute("INSERT INTO rows (events, body, sum) VALUES (?, ?, ?)", row)
                self._events += len(parcel)
                self._bytes += len(body)
            first: int = self._db.last_insert_rowid() - len(bodies) + 1
            if self._bytes > self._max_bytes:
                self._drop(int(self._max_bytes * _KEEP_SHARE))
        return first

    def declare(self, events: Sequence[Event], reason: str) -> None:
        """Declare the samples among these events as lost. Raises SpoolFull if the disk takes nothing."""
        with self._commit():
            self._gap(events, reason)

    def take(self, max_events: int) -> Taken:
        """The oldest events, about `max_events` of them. They stay in the spool; until `done` or `release` none is dropped."""
        events: list[Event] = []
        row_id = gap_id = 0
        try:
            gaps: list[Any] = self._db.execute("SELECT * FROM gaps ORDER BY id LIMIT ?", (max_events,)).fetchall()
            for gap in gaps:
                gap_id, time_ns, host, *fields = gap
                events.append(["host.gap", host, time_ns, *fields])
            counts: list[Any] = self._db.execute("SELECT id, events FROM rows ORDER BY id LIMIT ?", (max_events,)).fetchall()
            for row, count in counts:
                if events and len(events) + count > max_events:
                    break
                events += self._read(row)
                row_id = row
        except apsw.CorruptError as error:
            self._set_aside(error)
            return Taken([], 0, 0)
        self._floor = Taken([], row_id, gap_id)
        return Taken(events, row_id, gap_id)

    def release(self) -> None:
        """Sending what was taken failed: it may be dropped again, before what is newer."""
        self._floor = Taken([], 0, 0)

    def done(self, taken: Taken) -> None:
        """Forget what was taken: it is in the log. Raises SpoolFull if the disk takes nothing; it is sent again then."""
        with self._commit():
            sizes = "SELECT ifnull(sum(events), 0), ifnull(sum(length(body)), 0) FROM rows WHERE id <= ?"
            gone: Any = self._db.execute(sizes, (taken.row,)).fetchone()
            self._db.execute("DELETE FROM rows WHERE id <= ?", (taken.row,))
            self._db.execute("DELETE FROM gaps WHERE id <= ?", (taken.gap,))
            self._events -= gone[0]
            self._bytes -= gone[1]
        self._waits = bool(self._db.execute("SELECT EXISTS (SELECT 1 FROM rows) OR EXISTS (SELECT 1 FROM gaps)").get)
        if not self and self._path.stat().st_size > _VACUUM_BYTES:
            with self._translated():
                self._db.execute("VACUUM")

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = apsw.Connection(str(self._path))
        self._db.set_busy_timeout(5000)
        self._db.execute(_SCHEMA).fetchall()
        self._count()

    def _set_aside(self, error: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged-{self._clock.time_ns() // 10**9}")
        log.error("the spool is damaged (%s): moved to %s; samples in it are lost and show as missing numbers", error, aside)
        self._db.close()
        for suffix in ("", "-wal", "-shm"):
            file = self._path.with_name(self._path.name + suffix)
            if file.exists():
                file.rename(aside.with_name(aside.name + suffix))
        self._floor = Taken([], 0, 0)
        self._open()

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        """One durable transaction. Raises SpoolFull, with the counters as the file has it."""
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
        self._waits = True

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (apsw.FullError, apsw.ReadOnlyError) as error:
            self._count()
            raise SpoolFull(str(error)) from error
        except apsw.IOError as error:
            # a commit that failed is never tried again on the same open file: only the file itself knows what it has
            self._db.close()
            self._open()
            raise SpoolFull(str(error)) from error
        except apsw.CorruptError as error:
            self._set_aside(error)
            raise SpoolFull(str(error)) from error

    def _count(self) -> None:
        totals: Any = self._db.execute("SELECT count(*), ifnull(sum(events), 0), ifnull(sum(length(body)), 0) FROM rows").get
        gaps: Any = self._db.execute("SELECT count(*) FROM gaps").get
        self._events: int = totals[1]
        self._bytes: int = totals[2]
        self._waits = totals[0] > 0 or gaps > 0

    def _drop(self, keep_bytes: int) -> None:
        """Remove the oldest rows that nobody has taken, and declare their samples."""
        oldest = "SELECT id, events, length(body) FROM rows WHERE id > ? ORDER BY id LIMIT 1"
        while self._bytes > keep_bytes:
            found: Any = self._db.execute(oldest, (self._floor.row,)).fetchone()
            if found is None:
                return
            row_id, count, size = found
            self._gap(self._read(row_id), "the spool was full")
            self._db.execute("DELETE FROM rows WHERE id = ?", (row_id,))
            self._events -= count
            self._bytes -= size

    def _gap(self, events: Sequence[Event], reason: str) -> None:
        for event in events:
            if event[0] != "host.sample":
                continue
            host, run, seq = event[1], event[3], event[4]
            self._db.execute(
                "UPDATE gaps SET last_seq = ? WHERE id > ? AND host = ? AND run = ? AND last_seq = ? AND reason = ?",
                (seq, self._floor.gap, host, run, seq - 1, reason),
            )
            if not self._db.changes():
                self._db.execute(
                    "INSERT INTO gaps (time_ns, host, run, first_seq, last_seq, reason) VALUES (?, ?, ?, ?, ?, ?)",
                    (self._clock.time_ns(), host, run, seq, seq, reason),
                )

    def _read(self, row_id: int) -> list[Event]:
        """Events of one row; none, with a line in the log, if its bytes are not what was written."""
        found: Any = self._db.execute("SELECT body, sum FROM rows WHERE id = ?", (row_id,)).fetchone()
        body, check = found
        if xxh3_64_digest(body) == check:
            events: list[Event] = msgpack.unpackb(lz4.block.decompress(body))
            return events
        log.error("row %d of the spool is damaged and left out; its samples show as missing numbers", row_id)
        return []
