# ruff: noqa: S608  the only thing put into SQL text is a partition number
"""One topic's SQLite file, and the only importer of apsw in the log.

::

    topic          one row: format, generation, partitions, retention_s
    floor          partition → start offset and last timestamp, written by trims: what an emptied partition must remember
    p0, p1 …       one table a partition: offset (the rowid), ts (ns), value

A table a partition makes every insert an append at the right edge of its tree. Offsets are dense, so the end is one past the
last row, and a time is found by bisection. Timestamps never go back within a partition.

A `TopicFile` belongs to one thread at a time. SQLite before 3.51.3 is refused: in WAL mode it can lose a committed
transaction when a checkpoint races a commit of another connection.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import apsw

from dimint.errors import AppendFailed, LogBroken, LogError, LogMismatch, OffsetOutOfRange, SettingsError
from dimint.limits import PARTITIONS_MAX
from dimint.log.embedded.directory import LogDirectory
from dimint.log.port import Bounds, Record, TopicSpec

__all__ = ["READ_MAX_RECORDS", "TopicFile", "Written", "check_sqlite"]

FORMAT = 1
READ_MAX_RECORDS = 1000
"""Most rows in one read transaction: a long one keeps the write-ahead log from being reused."""
WAL_MAX_PAGES = 512
"""A checkpoint follows the commit that makes the write-ahead log longer than this (2 MiB): longer ones hardly append
faster, but make whoever waits behind a checkpoint wait longer."""
_BUSY_MS = 10_000
_CHECKPOINT_BUSY_MS = 200
"""How long a checkpoint waits for readers to leave the write-ahead log; if they do not, the next one tries again."""
_TRIM_ROWS = 500
"""Rows removed in one transaction: between two of them others commit."""
_SHRINK_PAGES = 256
"""Free pages given back in one transaction."""
_SPARE_PAGES = 256
_OLDEST_SQLITE = (3, 51, 3)


def check_sqlite(version: str) -> None:
    """Raises SettingsError if SQLite's version is older than the oldest safe one."""
    if tuple(int(part) for part in version.split(".")[:3]) < _OLDEST_SQLITE:
        raise SettingsError(
            f"SQLite {version} can lose committed records", hint="install apsw 3.51.3 or newer: pip install --upgrade apsw"
        )


class Written(NamedTuple):
    """Offsets of appended rows, in order, and the pages that the write-ahead log has now."""

    offsets: list[int]
    wal_pages: int


class TopicFile:
    """One connection to one topic's file. Raises LogError if there is no such topic, LogMismatch if it is another log's."""

    def __init__(self, directory: LogDirectory, topic: str) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        path = directory.topic_file(topic)
        if not path.exists():
            raise LogError(f"there is no topic {topic} in {directory.path}")
        self.topic = topic
        self._lock_fd = directory.open_lock(f"{topic}.lock")
        self._wal_pages = 0
        try:
            with _translated():
                self._db = _connect(str(path))
                self._db.set_wal_hook(self._on_commit)
                try:
                    row = self._db.execute("SELECT format, generation, partitions, retention_s FROM topic").fetchone()
                except apsw.SQLError:
                    row = None
            if row is None:
                raise LogError(f"there is no topic {topic} in {directory.path}")
            if row[0] != FORMAT:
                raise LogMismatch(f"{path} has format {row[0]}, this program reads {FORMAT}")
            if row[1] != directory.generation:
                raise LogMismatch(f"{path} belongs to log {row[1]}, the directory is log {directory.generation}")
        except BaseException:
            os.close(self._lock_fd)
            raise
        self.partitions: int = row[2]
        self.retention_s: int | None = row[3]

    @staticmethod
    def create(directory: LogDirectory, spec: TopicSpec) -> None:
        """Make the topic if it is missing; finishes what a killed process began. Raises LogMismatch for another count."""
        if not 1 <= spec.partitions <= PARTITIONS_MAX:
            raise SettingsError(f"{spec.name}: {spec.partitions} partitions are outside 1…{PARTITIONS_MAX}")
        check_sqlite(apsw.sqlite_lib_version())
        path = directory.topic_file(spec.name)
        with directory.lock("lock"), directory.lock(f"{spec.name}.lock"), _translated():
            db = _connect(str(path), create=True)
            try:
                db.execute("BEGIN IMMEDIATE")
                if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'topic'").fetchall():
                    db.execute("CREATE TABLE topic(format INTEGER, generation TEXT, partitions INTEGER, retention_s INTEGER)")
                    db.execute("CREATE TABLE floor(partition INTEGER PRIMARY KEY, start INTEGER, last_ns INTEGER)")
                    for index in range(spec.partitions):
                        db.execute(f"CREATE TABLE p{index}(offset INTEGER PRIMARY KEY, ts INTEGER NOT NULL, value BLOB NOT NULL)")
                    row = (FORMAT, directory.generation, spec.partitions, spec.retention_s)
                    db.execute("INSERT INTO topic VALUES (?, ?, ?, ?)", row)
                count = _one(db, "SELECT partitions FROM topic")[0]
                db.execute("COMMIT")
            finally:
                db.close()
            directory.sync()
        if count != spec.partitions:
            raise LogMismatch(f"topic {spec.name} has {count} partitions, not {spec.partitions}")

    # --- writing -----------------------------------------------------------------------------------------------------

    def append(self, rows: Sequence[tuple[int, bytes]], now_ns: int, *, wait: bool = True) -> Written | None:
        """Append (partition, value) rows in one durable commit; None if it would have to `wait` for somebody else's.

        Raises AppendFailed (rolled back, nothing of it is there) or LogBroken.
        """
        with self._locked(wait=wait) as held, _translated():
            if not held:
                return None
            self._db.execute("BEGIN IMMEDIATE")
            try:
                offsets = self._insert(rows, now_ns)
                self._db.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
        return Written(offsets, self._wal_pages)

    def _insert(self, rows: Sequence[tuple[int, bytes]], now_ns: int) -> list[int]:
        tails: dict[int, tuple[int, int]] = {}
        offsets = []
        for partition, value in rows:
            end, last_ns = tails.get(partition) or self._tail(partition)
            ts = max(now_ns, last_ns)
            tails[partition] = (end + 1, ts)
            self._db.execute(f"INSERT INTO p{partition} VALUES (?, ?, ?)", (end, ts, value))
            offsets.append(end)
        return offsets

    def trim(self, partition: int, before: int) -> None:
        """Drop rows below `before`, in many small transactions; `before` past the end means the end."""
        while self._trim_some(partition, before):
            pass
        self._shrink()

    def expire(self, now_ns: int) -> bool:
        """Drop some of what is older than the topic's retention; True if there may be more to drop."""
        if self.retention_s is None:
            return False
        limit_ns = now_ns - self.retention_s * 1_000_000_000
        more = False
        for partition in range(self.partitions):
            before = self.offset_at(partition, limit_ns)
            more |= self._trim_some(partition, before)
        return more

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file so that it starts anew; False if a reader is in the way."""
        with self._locked():
            self._db.set_busy_timeout(_CHECKPOINT_BUSY_MS)
            try:
                with _translated():
                    self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            except AppendFailed:  # busy, or no room: the commits are safe in the write-ahead log
                return False
            finally:
                self._db.set_busy_timeout(_BUSY_MS)
        return True

    def _trim_some(self, partition: int, before: int) -> bool:
        bounds = self.bounds(partition)
        upto = min(before, bounds.end, bounds.start + _TRIM_ROWS)
        if upto <= bounds.start:
            return False
        with self._locked(), _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                _, last_ns = self._tail(partition)
                self._db.execute(f"DELETE FROM p{partition} WHERE offset < ?", (upto,))
                self._db.execute(
                    "INSERT INTO floor VALUES (?, ?, ?) ON CONFLICT(partition) DO UPDATE "
                    "SET start = max(start, excluded.start), last_ns = max(last_ns, excluded.last_ns)",
                    (partition, upto, last_ns),
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
        if self._wal_pages > WAL_MAX_PAGES:
            self.checkpoint()
        return upto < min(before, bounds.end)

    def _shrink(self) -> None:
        """Give pages that have become free back to the file system, but for some that the next appends take."""
        free = self._free_pages()
        while free > _SPARE_PAGES:
            with self._locked(), _translated():
                self._db.execute(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})").fetchall()
            if self._wal_pages > WAL_MAX_PAGES:
                self.checkpoint()
            before, free = free, self._free_pages()
            if free >= before:
                return
        self.checkpoint()

    def _free_pages(self) -> int:
        with _translated():
            free: int = _one(self._db, "PRAGMA freelist_count")[0]
        return free

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _tail(self, partition: int) -> tuple[int, int]:
        """End offset and last timestamp."""
        row = self._db.execute(f"SELECT offset + 1, ts FROM p{partition} ORDER BY offset DESC LIMIT 1").fetchone()
        if row is None:
            row = self._db.execute("SELECT start, last_ns FROM floor WHERE partition = ?", (partition,)).fetchone()
        return row or (0, 0)

    def _on_commit(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    @contextmanager
    def _locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Alone among all who change the topic, if that is so without waiting or `wait`."""
        with _translated():
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                held = False
        try:
            yield held
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    # --- reading -----------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """Changes whenever another connection, of this process or another, committed."""
        with _translated():
            version: int = _one(self._db, "PRAGMA data_version")[0]
        return version

    def read(self, partition: int, offset: int, max_records: int, max_bytes: int) -> tuple[list[Record], bool]:
        """Records from `offset` on, and whether a bound cut them short. Raises OffsetOutOfRange."""
        records: list[Record] = []
        max_records = min(max_records, READ_MAX_RECORDS)
        topic = self.topic
        left = max_bytes
        with _translated():
            cursor = self._db.execute(
                f"SELECT offset, ts, value FROM p{partition} WHERE offset >= ? ORDER BY offset LIMIT ?",
                (offset, max_records),
            )
            for at, ts, value in cursor:
                left -= len(value)
                if left < 0 and records:
                    break
                records.append(Record(topic, partition, at, ts, value))
            cursor.close()
        if not records or records[0].offset != offset:
            bounds = self.bounds(partition)
            if not bounds.start <= offset <= bounds.end:
                raise OffsetOutOfRange(topic, partition, offset, *bounds)
            if records:  # trimmed and read at once: what was read is no longer the whole
                return self.read(partition, offset, max_records, max_bytes)
        return records, left < 0 or len(records) == max_records

    def bounds(self, partition: int) -> Bounds:
        with _translated():
            start, end = _one(
                self._db,
                f"SELECT coalesce((SELECT start FROM floor WHERE partition = ?), 0), (SELECT max(offset) + 1 FROM p{partition})",
                (partition,),
            )
        return Bounds(start, start if end is None else end)

    def offset_at(self, partition: int, time_ns: int) -> int:
        """First offset whose timestamp is at or after the time, by bisection over dense offsets."""
        start, end = self.bounds(partition)
        with _translated():
            while start < end:
                middle = (start + end) // 2
                row = self._db.execute(f"SELECT ts FROM p{partition} WHERE offset = ?", (middle,)).fetchone()
                if row is None or row[0] < time_ns:  # None: trimmed meanwhile
                    start = middle + 1
                else:
                    end = middle
        return start

    def close(self) -> None:
        """Idempotent. Leaves the write-ahead log as it is; it belongs to all processes."""
        if self._lock_fd >= 0:
            self._db.close()
            os.close(self._lock_fd)
            self._lock_fd = -1


def _connect(path: str, *, create: bool = False) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    db = apsw.Connection(path, flags=flags)
    db.set_busy_timeout(_BUSY_MS)
    # closing the last connection must not checkpoint: that would happen outside the lock
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    if create:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts before there is anything; free pages are given back by trims
        db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    return db


def _one(db: apsw.Connection, sql: str, bindings: tuple[int, ...] = ()) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = db.execute(sql, bindings).fetchone()
    assert row is not None
    return row


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as the port's. Only what SQLite surely rolled back may be tried again."""
    try:
        yield
    except (apsw.FullError, apsw.BusyError, apsw.LockedError) as error:
        raise AppendFailed(f"the embedded log takes nothing now: {error}", hint="is the disk full?") from error
    except (apsw.Error, OSError) as error:
        raise LogBroken(f"the embedded log is broken: {type(error).__name__}: {error}") from error
