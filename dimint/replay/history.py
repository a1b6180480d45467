"""An index beside the log: every change of every key, so that a key's history costs its own length and not the log's.

The index is one more projection of dimint.kv. The log alone does not tell whether a cas applied or what an incr came to, so
the same fold that the nodes run goes over it (its state is an LMDB store, as a node's), and the changes go into a SQLite
file under their keys (dimint/replay/history_filling.py). A row has many changes of a key (dimint/replay/runs.py).

    people    id → client id or NULL, host, process
    runs      id, rising with the log → key, partition, offsets and log times of the first and the last change, changes
    reached   partition → every change below this offset is in the runs

`catch_up` brings it to the log's end; reads are answered from what is there. One process at a time catches up.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import apsw

from dimint.batch import By
from dimint.errors import BadPosition, LogMismatch
from dimint.events import KV_TOPIC
from dimint.log.embedded.topic import check_sqlite
from dimint.log.port import Log
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.cut import LAST_US, Cut, count_in, parameter_of, side
from dimint.replay.history_filling import Filling, HistoryInUse, People
from dimint.replay.positions import format_position
from dimint.replay.runs import KINDS, OFFSET, Change, unpack, whole

__all__ = ["Cut", "Difference", "HistoryInUse", "HistoryIndex", "KeyChange", "history_folder"]

_LOOK_S: Final = 0.02
_BUSY_MS: Final = 30_000
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
        check_sqlite(apsw.sqlite_lib_version())
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = apsw.Connection(str(directory / "history.db"))
        try:
            self._db.set_busy_timeout(_BUSY_MS)
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", 2)  # the fold's position must not outlive the changes
            self._db.pragma("cache_size", -131_072)
            with self._db:
                self._make(generation)
            found = self._db.execute("select value from meta where name = 'generation'").get
            if found != generation:
                raise LogMismatch(f"{directory} is the history of another log", hint="remove it or name another directory")
            if self._db.pragma("user_version") != _FORMAT:
                raise LogMismatch(f"{directory} is the history of a newer program", hint="use that, or remove the directory")
        except BaseException:
            self._db.close()
            raise
        self._people = People(self._db)
        self._filling = Filling(self._db, directory, self._people)

    def _make(self, generation: str) -> None:
        """The tables, if there are none, or in the place of those of an older format: the log has all that was in them."""
        if 0 < self._db.pragma("user_version") < _FORMAT:
            for (name,) in list(self._db.execute("select name from sqlite_schema where type = 'table'")):
                self._db.execute(f'drop table "{name}"')
        if not self._db.table_exists("main", "meta"):
            self._db.execute(_SCHEMA)
            self._db.execute("insert into meta values('generation', ?)", (generation,))
            self._db.pragma("user_version", _FORMAT)

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
    @property
    def known(self) -> Mapping[int, int]:
        """Partition → position that this object has seen the index at or past."""
        return self._filling.known

    @property
    def taken(self) -> int:
        """Changes that this object has put into it."""
        return self._filling.taken

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
        return self._filling.advance(log, partitions=partitions, pause=pause, progress=progress)

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
        by = self._people.who(person)
        return KeyChange(key.decode(), partition, offset, index, KINDS[kind], value, version, log_time_us, by)

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
