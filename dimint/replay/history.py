"""An index beside the log: every change of every key, so that a key's history costs its own length and not the log's.

The index is one more projection of dimint.kv. The log alone does not tell whether a cas applied or what an incr came to, so
the same fold that the nodes run goes over it (its state is an LMDB store, as a node's), and the changes go into a SQLite
file under their keys. A row has many changes of a key (dimint/replay/runs.py): much of the log is folded before its changes
are written, key by key, which costs a tenth of a row for each. They commit, with how far they reach, before the fold's
position does; what a crash leaves is folded again, and what had been written is passed over.

    people    id → client id or NULL, host, process
    runs      id, rising with the log → key, partition, offsets and log times of the first and the last change, changes
    reached   partition → every change below this offset is in the runs

`catch_up` brings it to the log's end; reads are answered from what is there. One process at a time catches up.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import apsw

from dimint.batch import By
from dimint.errors import BadPosition, LogMismatch, SettingsError
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.embedded.topic import check_sqlite
from dimint.log.opening import genesis_of
from dimint.log.port import Bounds, Log
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.cut import LAST_US, Cut, count_in, parameter_of, side
from dimint.replay.positions import format_position
from dimint.replay.runs import KINDS, OFFSET, Change, Portion, runs, unpack, whole

if TYPE_CHECKING:
    from dimint.node.replica import Replica
    from dimint.node.store import Store

__all__ = ["Cut", "Difference", "HistoryInUse", "HistoryIndex", "KeyChange", "history_folder"]

_LOOK_S: Final = 0.02
_BUSY_MS: Final = 30_000
_FLUSH_BYTES: Final = 32 << 20
"""Records are folded up to this size before their changes are written: in memory they take four times as much."""
_FORMAT: Final = 2
_SCHEMA: Final = """
create table meta(name text primary key, value) without rowid;
create table people(id integer primary key, client text, host text not null, process text not null);
create table runs(id integer primary key, key blob not null, part integer not null, offset integer not null,
                  last integer not null, from_us integer not null, to_us integer not null, changes blob not null);
create index runs_by_key on runs(key, from_us, to_us);
create table reached(part integer primary key, offset integer not null);
"""
_COLUMNS: Final = "key, part, offset, from_us, changes"


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
            self._db.pragma("synchronous", 2)  # the fold's position must not outlive the changes
            self._db.pragma("cache_size", -131_072)
            with self._db:
                if not self._db.table_exists("main", "meta"):
                    self._db.execute(_SCHEMA)
                    self._db.execute("insert into meta values('generation', ?)", (generation,))
                    self._db.pragma("user_version", _FORMAT)
            found = self._db.execute("select value from meta where name = 'generation'").get
            if found != generation:
                raise LogMismatch(f"{directory} is the history of another log", hint="remove it or name another directory")
            if self._db.pragma("user_version") != _FORMAT:
                raise LogMismatch(f"{directory} is a history of another format", hint="remove it: it is made anew from the log")
        except BaseException:
            self._db.close()
            raise
        self._people: dict[int, By] = {}
        self._numbers: dict[By, int] = {}

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
        except BaseException:
            self._learn_people()  # some may have been thought of for what is not written
            raise
        finally:
            store.close()

    def _advance(
        self, log: Log, store: "Store", bounds: dict[int, Bounds], pause: Callable[[], bool], progress: Progress
    ) -> bool:
        first = self.taken
        total = sum(end for _, end in bounds.values())
        genesis = genesis_of(log)
        reached: dict[int, int] = dict(self._db.execute("select part, offset from reached"))
        replicas = {at: self._replica(store, at, genesis, reached.get(at, 0)) for at in bounds}
        done = sum(replica.next_offset for replica in replicas.values())
        paused = False
        for partition, (start, end) in bounds.items():
            replica = replicas[partition]
            if replica.next_offset < start:
                where = format_position(KV_TOPIC, partition, start)
                raise LogMismatch(f"the log begins at {where}, the history is known to {replica.next_offset} only",
                                  hint="what was trimmed cannot be indexed any more")  # fmt: skip
            portion = Portion(reached.get(partition, 0))
            while not paused and replica.next_offset < end:
                before = replica.next_offset
                records = log.read(KV_TOPIC, partition, before)
                if not records:
                    break
                replica.advance(records)
                for batch in replica.take_batches():
                    portion.add(batch, self._known_people(batch.header.by))
                done += replica.next_offset - before
                if replica.unsaved_bytes >= _FLUSH_BYTES:
                    self._commit(store, replica, portion)
                if replica.problem is not None:
                    self._commit(store, replica, portion)
                    raise LogMismatch(replica.problem.text)
                progress.at(done, total, self.taken + portion.count - first)
                paused = pause()
            self._commit(store, replica, portion)
            if paused:
                break
        progress.end(done, total, self.taken - first)
        return all(replica.next_offset >= bounds[at].end for at, replica in replicas.items())

    def _replica(self, store: "Store", partition: int, genesis: Genesis, reached: int) -> "Replica":
        from dimint.node.replica import Replica

        replica = Replica(partition, genesis, store.partition(partition))
        if replica.next_offset > reached:  # the changes were lost, or removed
            store.drop(partition)
            replica = Replica(partition, genesis, store.partition(partition))
        replica.watched = True
        return replica

    def _commit(self, store: "Store", replica: "Replica", portion: "Portion") -> None:
        partition = replica.partition
        reached = max(portion.reached, replica.next_offset)
        if reached > portion.reached:
            with self._db:
                self._db.executemany(
                    "insert or ignore into people values(?, ?, ?, ?)", [(number, *by) for number, by in self._new_people.items()]
                )
                self._db.executemany(
                    "insert into runs(key, part, offset, last, from_us, to_us, changes) values(?, ?, ?, ?, ?, ?, ?)",
                    ((key, partition, *run) for key in sorted(portion.changes) for run in runs(portion.changes[key])),
                )
                self._db.execute("insert or replace into reached values(?, ?)", (partition, reached))
        self._new_people.clear()
        replica.save()
        store.commit()
        self.taken += portion.count
        self.known[partition] = reached
        portion.begin(reached)

    def _learn_people(self) -> None:
        """Read the people that are there: other processes put some in too."""
        self._new_people: dict[int, By] = {}
        self._people = {row[0]: By(*row[1:]) for row in self._db.execute("select id, client, host, process from people")}
        self._numbers = {by: number for number, by in self._people.items()}

    def _known_people(self, people: Sequence[By]) -> list[int]:
        """Their numbers."""
        numbers = []
        for by in people:
            number = self._numbers.get(by)
            if number is None:
                number = self._numbers[by] = len(self._numbers) + 1
                self._people[number] = self._new_people[number] = by
            numbers.append(number)
        return numbers

    # --- asking -----------------------------------------------------------------------------------------------------
    def history(
        self,
        key: str,
        *,
        since: Cut = 0,
        until: Cut = LAST_US,
        after: tuple[int, int] | None = None,
        newest_first: bool = False,
        limit: int = -1,
    ) -> list[KeyChange]:
        """The changes of a key from `since` to `until`, both included, oldest or newest first, beginning behind `after`
        (offset, index) in that order; at most `limit`. Raises BadPosition for positions that do not name its partition."""
        self._check(key, since, until)
        order = "desc" if newest_first else "asc"
        edge = after or ((LAST_US, 0) if newest_first else (-1, 0))
        # the run that `after` is in may have more, those before it have not
        beyond = "offset <= ?4" if newest_first else "last >= ?4"
        sql = f"""select {_COLUMNS} from runs where key = ?1 and {side(since, ">=", 2)} and {side(until, "<=", 3)} and {beyond}
                  order by from_us {order}, to_us {order}, id {order}"""  # noqa: S608 (constants)
        found: list[KeyChange] = []
        for row in self._db.execute(sql, (key.encode(), parameter_of(since), parameter_of(until), edge[0])):
            changes = unpack(row[-1])
            wanted = changes[count_in(changes, row, since, before=True) : count_in(changes, row, until)]
            for change in reversed(wanted) if newest_first else wanted:
                place = row[2] + change[OFFSET], change[1]
                if place < edge if newest_first else place > edge:
                    if len(found) == limit:
                        return found
                    found.append(self._change(row, change))
        return found

    def at(self, key: str, until: Cut) -> KeyChange | None:
        """What set the key as it was then; None if it was not there. Raises as `history` does."""
        found = self.history(key, until=until, newest_first=True, limit=1)
        return found[0] if found and found[0].value is not None else None

    def scan(
        self, prefix: str, until: Cut, *, start: str = "", limit: int = -1, look: Callable[[str], None] = lambda key: None
    ) -> Iterator[KeyChange]:
        """The keys that start with `prefix` (and are not below `start`) as they were then, in order. Raises BadPosition.

        `look` is called with each key when everything up to it was looked at: there may be long stretches without a row.
        """
        given = 0
        for change in self._last_changes(prefix.encode(), start.encode(), -1, until, look):
            if change.value is not None:
                if given == limit:
                    return
                given += 1
                yield change

    def diff(
        self, since: Cut, until: Cut, prefix: str = "", *, start: str = "", look: Callable[[str], None] = lambda key: None
    ) -> Iterator[Difference]:
        """The keys (that start with `prefix` and are not below `start`) whose value at `until` is another than at `since`,
        in order. Raises BadPosition. `look` is as in `scan`."""
        for after in self._last_changes(prefix.encode(), start.encode(), since, until, look):
            before = self.at(after.key, since)
            present = after if after.value is not None else None
            if (before and before.value) != (present and present.value):
                yield Difference(after.key, before, present)

    def _last_changes(
        self, prefix: bytes, start: bytes, since: Cut, until: Cut, look: Callable[[str], None]
    ) -> Iterator[KeyChange]:
        """The last change after `since`, up to `until`, of each key that has one, by key."""
        self._check(None, since, until)
        sql = f"""select max(iif({side(since, ">", 3)} and {side(until, "<=", 4)}, id, null)), key from runs
                  where key >= ?1 and (?2 is null or key < ?2) group by key order by key"""  # noqa: S608 (constants)
        bounds = max(prefix, start), _after(prefix), parameter_of(since), parameter_of(until)
        for number, key in self._db.execute(sql, bounds):
            if number is not None:
                row = self._db.execute(f"select {_COLUMNS} from runs where id = ?", (number,)).get  # noqa: S608 (a constant)
                changes = unpack(row[-1])
                count = count_in(changes, row, until)
                if count > count_in(changes, row, since):
                    yield self._change(row, changes[count - 1])
            look(key.decode())

    def _change(self, row: tuple[Any, ...], change: Change) -> KeyChange:
        key, partition, start, from_us, _ = row
        offset, index, kind, value, version, log_time_us, person = whole(change, start, from_us)
        if person not in self._people:
            self._learn_people()  # of another process
        return KeyChange(key.decode(), partition, offset, index, KINDS[kind], value, version, log_time_us, self._people[person])

    def _check(self, key: str | None, *cuts: Cut) -> None:
        """That positions are of this log, and of a key's partition. Raises BadPosition."""
        positions = [cut for cut in cuts if not isinstance(cut, int)]
        if not positions:
            return
        home = None if key is None else self._db.execute("select part from runs where key = ? limit 1", (key.encode(),)).get
        for cut in positions:
            if home is not None and home not in cut:
                raise BadPosition(f"{key!r} is in partition {home}, which the positions do not name")
            for partition, offset in cut.items() if self.known else ():
                end = self.known.get(partition, 0 if key is None else LAST_US)
                if offset >= end and home in (None, partition):
                    where = format_position(KV_TOPIC, partition, offset)
                    raise BadPosition(f"there is no {where} in the log: what is known of that partition ends at {end}")


def _after(prefix: bytes) -> bytes | None:
    """The first key past all that start with `prefix`; None if there is none."""
    bare = prefix.rstrip(b"\xff")
    return bare[:-1] + bytes([bare[-1] + 1]) if bare else None
