"""Filling the history of keys: the log is folded as nodes fold it, and what it changes is put under its keys.

Much of the log is folded before its changes are written, key by key, which costs a tenth of a row for each. The changes
commit, with how far they reach, before the fold's position does; what a crash leaves is folded again, and what had been
written is passed over. dimint/replay/history.py has the tables.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from dimint.batch import By
from dimint.errors import LogMismatch, SettingsError
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.opening import genesis_of
from dimint.log.port import Bounds, Log
from dimint.progress import Progress
from dimint.replay.positions import format_position
from dimint.replay.runs import Portion, runs

if TYPE_CHECKING:
    from dimint.node.replica import Replica
    from dimint.node.store import Store

__all__ = ["Filling", "HistoryInUse", "People"]

_FLUSH_BYTES: Final = 32 << 20
"""Records are folded up to this size before their changes are written: in memory they take four times as much."""

_READ_BYTES: Final = 512 << 10
"""So much is folded before the next look at who else wants something: a fraction of a second's work."""


class HistoryInUse(SettingsError):
    """Another process catches up."""


class People:
    """Who made changes, by number. Each process may think of numbers, only the one that catches up; all read them."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._known: dict[int, By] = {}
        self._numbers: dict[By, int] = {}
        self._new: dict[int, By] = {}

    def learn(self) -> None:
        """Read those that are stored: other processes put some in too. What is not stored is forgotten."""
        self._new = {}
        self._known = {row[0]: By(*row[1:]) for row in self._db.execute("select id, client, host, process from people")}
        self._numbers = {by: number for number, by in self._known.items()}

    def numbers(self, people: Sequence[By]) -> list[int]:
        """Their numbers; some are new and to be stored. `learn` first, and let nobody else fill the index until `store`."""
        numbers = []
        for by in people:
            number = self._numbers.get(by)
            if number is None:
                number = self._numbers[by] = len(self._numbers) + 1
                self._known[number] = self._new[number] = by
            numbers.append(number)
        return numbers

    def store(self) -> None:
        """Put the new ones in, in the caller's transaction."""
        self._db.executemany("insert or ignore into people values(?, ?, ?, ?)", [(at, *by) for at, by in self._new.items()])

    def stored(self) -> None:
        """That transaction was committed."""
        self._new.clear()

    def who(self, number: int) -> By:
        """The one with this number."""
        if number not in self._known:
            self.learn()  # of another process
        return self._known[number]


class Filling:
    """How far the index in `directory` has come, and bringing it on. One thread."""

    def __init__(self, db: apsw.Connection, directory: Path, people: People) -> None:
        self._db, self._directory, self._people = db, directory, people
        self.known: dict[int, int] = {}
        """Partition → position that this object has seen the index at or past."""
        self.taken = 0
        """Changes that this object has put in."""

    def advance(self, log: Log, *, partitions: Sequence[int] | None, pause: Callable[[], bool], progress: Progress) -> bool:
        """`HistoryIndex.advance`."""
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
            self._people.learn()
            return self._advance(log, store, bounds, pause, progress)
        except BaseException:
            self._people.learn()  # some may have been thought of for what is not written
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
        progress.begin(done)
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
                records = log.read(KV_TOPIC, partition, before, max_bytes=_READ_BYTES)
                if not records:
                    break
                replica.advance(records)
                for batch in replica.take_batches():
                    portion.add(batch, self._people.numbers(batch.header.by))
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
                self._people.store()
                self._db.executemany(
                    "insert into runs(key, part, offset, last, from_us, to_us, changes) values(?, ?, ?, ?, ?, ?, ?)",
                    ((key, partition, *run) for key in sorted(portion.changes) for run in runs(portion.changes[key])),
                )
                self._db.execute("insert or replace into reached values(?, ?)", (partition, reached))
        self._people.stored()
        replica.save()
        store.commit()
        self.taken += portion.count
        self.known[partition] = reached
        portion.begin(reached)
