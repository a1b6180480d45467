"""An index beside the log: every change of every key, so that a key's history costs its own length and not the log's.

The index is one more projection of dimint.kv. The log alone does not tell whether a cas applied or what an incr came to, so
the same fold that the nodes run goes over it (its state is an LMDB store, as a node's), and each change goes into a SQLite
table under its key. The changes commit before the fold's position does: what a crash leaves is folded again, and the same
changes at the same places change nothing.

    people    id → client id or NULL, host, process
    changes   (key, offset, index) → partition, kind, stored value or NULL, version, log time µs, person

`catch_up` brings it to the log's end; reads are answered from what is there. One process at a time catches up.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

import apsw

from dimint.batch import BY, By, decode
from dimint.errors import BadPosition, LogMismatch, SettingsError
from dimint.events import KV_TOPIC
from dimint.log.embedded.topic import check_sqlite
from dimint.log.opening import genesis_of
from dimint.log.port import Bounds, Log, Record
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.positions import format_position

if TYPE_CHECKING:
    from dimint.node.replica import Replica
    from dimint.node.store import Store

__all__ = ["Cut", "Difference", "HistoryInUse", "HistoryIndex", "KeyChange", "history_folder"]

Cut: TypeAlias = int | Mapping[int, int]
"""A state of the store: after everything up to a log time in µs, or partition → offset, after everything up to the record
there. Both are in it. Keys of partitions that positions do not name are left out."""

_LOOK_S: Final = 0.02
_BUSY_MS: Final = 30_000
_COMMIT_CHANGES: Final = 50_000
_COMMIT_BYTES: Final = 64 << 20
_LAST_US: Final = (1 << 63) - 1
_SCHEMA: Final = """
create table meta(name text primary key, value) without rowid;
create table people(id integer primary key, client text, host text not null, process text not null);
create table changes(key blob, offset integer, at integer, part integer not null, kind text not null, value blob,
                     version integer not null, log_time_us integer not null, person integer not null,
                     primary key(key, offset, at)) without rowid;
"""
_COLUMNS: Final = "c.key, c.part, c.offset, c.at, c.kind, c.value, c.version, c.log_time_us, p.client, p.host, p.process"


def history_folder(data_dir: Path, generation: str) -> Path:
    """Where a data directory keeps the history of the log with this generation."""
    return data_dir / "history" / blake2b(generation.encode(), digest_size=8).hexdigest()


class HistoryInUse(SettingsError):
    """Another process catches up."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One change of a key as it counted. `value` is the stored value (dimint/values.py), None where the key was removed;
    `version` is the key's from then on, or the one that was removed; `kind` "set", "cas", "incr", "delete" or "expire".
    """

    key: str
    partition: int
    offset: int
    index: int
    kind: str
    value: bytes | None
    version: int
    log_time_us: int
    by: By

    @property
    def position(self) -> str:
        """`dimint.kv/3@1234`"""
        return format_position(KV_TOPIC, self.partition, self.offset)


class Difference(NamedTuple):
    """A key that differs between two times; None: it was not there."""

    key: str
    before: KeyChange | None
    after: KeyChange | None


class HistoryIndex:
    """The index in `directory` (made if need be) of the log with this generation. One thread.

    Raises LogMismatch if the directory has the index of another log.
    """

    def __init__(self, directory: Path, generation: str) -> None:
        self.known: dict[int, int] = {}
        """Partition → position that this object has seen the index at or past."""
        self.taken = 0
        """Changes that this object has put into it."""
        check_sqlite(apsw.sqlite_lib_version())
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._db = apsw.Connection(str(directory / "history.db"))
        try:
            self._db.set_busy_timeout(_BUSY_MS)
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", 1)
            self._db.pragma("cache_size", -131_072)
            with self._db:
                if not self._db.table_exists("main", "meta"):
                    self._db.execute(_SCHEMA)
                    self._db.execute("insert into meta values('generation', ?)", (generation,))
            found = self._db.execute("select value from meta where name = 'generation'").get
            if found != generation:
                raise LogMismatch(f"{directory} is the history of another log", hint="remove it or name another directory")
        except BaseException:
            self._db.close()
            raise
        self._people: dict[By, int] = {}

    @staticmethod
    def is_in(directory: Path) -> bool:
        """Whether somebody has asked for a history here before."""
        return (directory / "history.db").exists()

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- filling ----------------------------------------------------------------------------------------------------
    def catch_up(self, log: Log, *, progress: Progress = NO_PROGRESS, wait_s: float = 10.0) -> int:
        """Take in everything that the log has now; how many changes that were.

        Another process that does the same just now is waited for, so long: a consumer holds the index for moments only.
        Raises LogMismatch at a record that no reader may pass over, or if the log was trimmed beyond what is known.
        """
        before, until = self.taken, time.monotonic() + wait_s
        while True:
            try:
                self.advance(log, progress=progress)
                return self.taken - before
            except HistoryInUse:
                if time.monotonic() >= until:
                    raise
                time.sleep(_LOOK_S)

    def advance(
        self,
        log: Log,
        *,
        partitions: Sequence[int] | None = None,
        pause: Callable[[], bool] = lambda: False,
        progress: Progress = NO_PROGRESS,
    ) -> bool:
        """Take in what the log has now of these partitions (None: of all), until `pause()`; whether that was everything.

        `known` says how far it has come. Raises as `catch_up` does, and HistoryInUse if another process catches up.
        """
        from dimint.node.store import Store, StoreInUse

        wanted = range(log.describe().topics.get(KV_TOPIC, 0)) if partitions is None else partitions
        bounds = {at: log.bounds(KV_TOPIC, at) for at in wanted}
        if all(self.known.get(at, -1) >= end for at, (_, end) in bounds.items()):
            return True
        try:
            store = Store(self._directory / "fold")
        except StoreInUse:
            raise HistoryInUse(f"another process brings {self._directory} up to date", hint="wait for it") from None
        try:
            self._learn_people()
            return self._advance(log, store, bounds, pause, progress)
        finally:
            if self._db.in_transaction:
                self._db.execute("rollback")
                self._people.clear()  # some of them were in it
            store.close()

    def _advance(
        self, log: Log, store: "Store", bounds: dict[int, Bounds], pause: Callable[[], bool], progress: Progress
    ) -> bool:
        from dimint.node.replica import Replica

        first = self.taken
        total = sum(end for _, end in bounds.values())
        genesis = genesis_of(log)
        replicas = {at: Replica(at, genesis, store.partition(at)) for at in bounds}
        done = sum(replica.next_offset for replica in replicas.values())
        paused = False
        for partition, (start, end) in bounds.items():
            replica = replicas[partition]
            replica.watched = True
            if replica.next_offset < start:
                where = format_position(KV_TOPIC, partition, start)
                raise LogMismatch(f"the log begins at {where}, the history is known to {replica.next_offset} only",
                                  hint="what was trimmed cannot be indexed any more")  # fmt: skip
            pending = 0
            while not paused and replica.next_offset < end:
                before = replica.next_offset
                records = log.read(KV_TOPIC, partition, before)
                if not records:
                    break
                replica.apply(records)
                pending += self._put(partition, records, replica)
                if replica.problem is not None:
                    raise LogMismatch(replica.problem.text)
                done += replica.next_offset - before
                if pending >= _COMMIT_CHANGES or store.uncommitted_bytes >= _COMMIT_BYTES:
                    self._commit(store, replica, pending)
                    pending = 0
                progress.at(done, total, self.taken + pending - first)
                paused = pause()
            self._commit(store, replica, pending)
            if paused:
                break
        progress.end(done, total, self.taken - first)
        return all(replica.next_offset >= bounds[at].end for at, replica in replicas.items())

    def _put(self, partition: int, records: Sequence[Record], replica: "Replica") -> int:
        changes = replica.take_fresh()
        if not changes:
            return 0
        if not self._db.in_transaction:
            self._db.execute("begin immediate")
        by_offset = {record.offset: record for record in records}
        rows = []
        offset = -1
        events: list[list[Any]] = []
        people: list[int] = []
        for change in changes:
            if change.offset != offset:
                header, events = decode(by_offset[change.offset].value)
                offset, people = change.offset, [self._person(by) for by in header.by]
            person = people[events[change.index][BY]]
            rows.append((change.key.encode(), offset, change.index, partition, change.kind, change.value, change.version,
                         change.log_time_us, person))  # fmt: skip
        rows.sort()
        self._db.executemany("insert or ignore into changes values(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return len(rows)

    def _learn_people(self) -> None:
        """Those that other processes put in meanwhile: numbers go on from theirs."""
        rows = self._db.execute("select id, client, host, process from people where id > ?", (len(self._people),))
        self._people.update((By(*row[1:]), row[0]) for row in rows)

    def _person(self, by: By) -> int:
        found = self._people.get(by)
        if found is None:
            found = self._people[by] = len(self._people) + 1
            self._db.execute("insert into people values(?, ?, ?, ?)", (found, *by))
        return found

    def _commit(self, store: "Store", replica: "Replica", changes: int) -> None:
        if self._db.in_transaction:
            self._db.execute("commit")
        store.commit()
        self.taken += changes
        self.known[replica.partition] = replica.next_offset

    # --- asking -----------------------------------------------------------------------------------------------------
    def history(
        self,
        key: str,
        *,
        since: Cut = 0,
        until: Cut = _LAST_US,
        after: tuple[int, int] | None = None,
        newest_first: bool = False,
        limit: int = -1,
    ) -> list[KeyChange]:
        """The changes of a key from `since` to `until`, both included, oldest or newest first, beginning behind `after`
        (offset, index) in that order; at most `limit`. Raises BadPosition for positions that do not name its partition."""
        self._check(key, since, until)
        order, beyond = ("desc", "<") if newest_first else ("asc", ">")
        sql = f"""select {_COLUMNS} from changes c join people p on p.id = c.person
                  where c.key = ?1 and {_side(since, ">=", 2)} and {_side(until, "<=", 3)} and (c.offset, c.at) {beyond} (?4, ?5)
                  order by c.offset {order}, c.at {order} limit ?6"""  # noqa: S608 (constants)
        offset, index = after or ((_LAST_US, 0) if newest_first else (-1, 0))
        rows = self._db.execute(sql, (key.encode(), _number(since), _number(until), offset, index, limit))
        return [_change(row) for row in rows]

    def at(self, key: str, until: Cut) -> KeyChange | None:
        """What set the key as it was then; None if it was not there. Raises as `history` does."""
        found = self.history(key, until=until, newest_first=True, limit=1)
        return found[0] if found and found[0].value is not None else None

    def scan(self, prefix: str, until: Cut, *, start: str = "", limit: int = -1) -> Iterator[KeyChange]:
        """The keys that start with `prefix` (and are not below `start`) as they were then, in order. Raises BadPosition."""
        given = 0
        for change in self._last_changes(prefix.encode(), start.encode(), -1, until):
            if change.value is not None:
                if given == limit:
                    return
                given += 1
                yield change

    def diff(self, since: Cut, until: Cut, prefix: str = "", *, start: str = "") -> Iterator[Difference]:
        """The keys (that start with `prefix` and are not below `start`) whose value at `until` is another than at `since`,
        in order. Raises BadPosition."""
        for after in self._last_changes(prefix.encode(), start.encode(), since, until):
            before = self.at(after.key, since)
            present = after if after.value is not None else None
            if (before and before.value) != (present and present.value):
                yield Difference(after.key, before, present)

    def _last_changes(self, prefix: bytes, start: bytes, since: Cut, until: Cut) -> Iterator[KeyChange]:
        """The last change after `since`, up to `until`, of each key that has one, by key."""
        self._check(None, since, until)
        # of the columns beside max() SQLite takes those of the row that has it
        sql = f"""select {_COLUMNS}, max(c.offset * 65536 + c.at) from changes c join people p on p.id = c.person
                  where c.key >= ?1 and (?2 is null or c.key < ?2) and {_side(since, ">", 3)} and {_side(until, "<=", 4)}
                  group by c.key order by c.key"""  # noqa: S608 (constants)
        bounds = max(prefix, start), _after(prefix), _number(since), _number(until)
        return (_change(row) for row in self._db.execute(sql, bounds))

    def _check(self, key: str | None, *cuts: Cut) -> None:
        """That positions are of this log, and of a key's partition. Raises BadPosition."""
        positions = [cut for cut in cuts if not isinstance(cut, int)]
        if not positions:
            return
        home = None if key is None else self._db.execute("select part from changes where key = ? limit 1", (key.encode(),)).get
        for cut in positions:
            if home is not None and home not in cut:
                raise BadPosition(f"{key!r} is in partition {home}, which the positions do not name")
            for partition, offset in cut.items() if self.known else ():
                end = self.known.get(partition, 0 if key is None else _LAST_US)
                if offset >= end and home in (None, partition):
                    where = format_position(KV_TOPIC, partition, offset)
                    raise BadPosition(f"there is no {where} in the log: what is known of that partition ends at {end}")


def _side(cut: Cut, compare: str, parameter: int) -> str:
    """SQL: whether a change stands on this side of a cut, which is the parameter of this number (`_number`)."""
    if isinstance(cut, int):
        return f"c.log_time_us {compare} ?{parameter}"
    last = f"(select value ->> 1 from json_each(?{parameter}) where value ->> 0 = c.part)"  # noqa: S608 (a number)
    return f"c.offset {compare} {last}"  # of a partition that is not named: null, which is on no side


def _number(cut: Cut) -> int | str:
    return min(cut, _LAST_US) if isinstance(cut, int) else json.dumps(sorted(cut.items()))


def _after(prefix: bytes) -> bytes | None:
    """The first key past all that start with `prefix`; None if there is none."""
    bare = prefix.rstrip(b"\xff")
    return bare[:-1] + bytes([bare[-1] + 1]) if bare else None


def _change(row: tuple[Any, ...]) -> KeyChange:
    key, partition, offset, index, kind, value, version, log_time_us, *who = row[:11]
    return KeyChange(key.decode(), partition, offset, index, kind, value, version, log_time_us, By(*who))
