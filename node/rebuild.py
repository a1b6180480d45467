"""Builds partitions anew from the log, into a store of their own beside the live one; and goes on with one that is unfinished.

::

    nodes/NAME/store     the live store
    nodes/NAME/rebuild   a store that is being built (with a note of what for: dimint/begun.py)
    nodes/NAME/rebuilt   one that is whole and waits to be put in the live one's place (node/renewing.py)

What is committed of a store that is being built is a prefix of the log, as with every store, so whatever ends a rebuild, the
next one reads on from there.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dimint.begun import note_begun, was_begun
from dimint.code_version import code_version
from dimint.errors import BadSnapshot, LogMismatch
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.opening import genesis_of
from dimint.log.port import Log
from dimint.node.fitting import mismatch
from dimint.node.replica import META, Meta, Replica, read_meta
from dimint.node.snapshots import load_partition
from dimint.node.store import Store
from dimint.progress import NO_PROGRESS, Progress
from dimint.snapshot_folder import SnapshotFolder

__all__ = ["Rebuilt", "Snapshots", "begin", "catch_up", "is_unfinished", "open_unfinished", "read_to", "rebuild_store"]

COMMIT_BYTES: Final = 32 << 20
COMMIT_SAVES: Final = 4
"""What is not committed is folded again if this is killed: some 64 MB of the log at most."""
SAVE_BYTES: Final = 16 << 20
"""Records are folded in memory up to this size before their rows are written: the more, the fewer rows a key costs."""
_NEAR_RECORDS: Final = 100
"""A store that lacks no more than this may be switched to: the node reads the rest in a moment."""
_PASSES: Final = 20
_NOTE: Final = "begun.json"


class Snapshots(NamedTuple):
    """Snapshots to begin with, the best first; `before` are offsets by partition that they may not be past."""

    folders: Sequence[SnapshotFolder] = ()
    always: bool = False
    """Whether they are used even where the log has everything."""
    before: Mapping[int, int] = {}


class Rebuilt(NamedTuple):
    """One partition. `same` compares with the live store, None where the two were never at the same offset."""

    partition: int
    next_offset: int
    key_count: int
    digest: str
    same: bool | None

    def __str__(self) -> str:
        compared = {True: "same as before", False: "DIFFERENT from before", None: "not comparable"}[self.same]
        return f"partition {self.partition}: {self.next_offset} records, {self.key_count} keys, digest {self.digest}, {compared}"


def open_unfinished(directory: Path, generation: str) -> Store:
    """The store in `directory` to build in: the one that a rebuild of this log by this code left, else an empty one.

    Raises StoreInUse if another rebuild is at work there.
    """
    # the note comes first: a kill between the two leaves no store that seems to be somebody else's
    if not (directory / "store").exists():
        directory.mkdir(parents=True, exist_ok=True)
        note_begun(directory / _NOTE, _what(generation))
    store = Store(directory)
    if not is_unfinished(directory, generation):
        store.close()
        shutil.rmtree(directory / "store")
        note_begun(directory / _NOTE, _what(generation))
        store = Store(directory)
    return store


def is_unfinished(directory: Path, generation: str) -> bool:
    """Whether a rebuild of this log by this code was begun in `directory`."""
    return was_begun(directory / _NOTE, _what(generation))


def _what(generation: str) -> dict[str, object]:
    return {"log": generation, "code": code_version()}


def rebuild_store(
    log: Log,
    store: Store,
    ends: Mapping[int, int],
    *,
    live: Mapping[int, Meta] | None = None,
    snapshots: Snapshots = Snapshots(),  # noqa: B008 - it is frozen
    progress: Progress = NO_PROGRESS,
) -> Iterator[Rebuilt]:
    """Read the partitions of `ends` up to these offsets, from where `store` is, each committed when it is given.

    `live` says where the live store is: a partition that comes past that offset is compared with it. Raises LogMismatch if
    the log cannot be read that far, BadSnapshot. After any end of the iteration, what was committed last is whole.
    """
    genesis = genesis_of(log)
    replicas = {partition: begin(log, store, partition, genesis, snapshots._replace(before=ends)) for partition in ends}
    meter = _Meter(replicas, ends, progress)
    try:
        for partition, end in ends.items():
            replica = replicas[partition]
            before = (live or {}).get(partition)
            same: bool | None = None
            if (
                before is not None
                and before.fingerprint.generation == genesis.generation
                and replica.next_offset <= before.next_offset <= end
            ):
                read_to(replica, log, store, before.next_offset, tell=meter.tell)
                same = replica.next_offset == before.next_offset and replica.digest == before.digest
            read_to(replica, log, store, end, tell=meter.tell)
            store.commit()
            yield Rebuilt(partition, replica.next_offset, replica.key_count, f"{replica.digest:032x}", same)
    finally:
        store.abort()
        meter.end()


class _Meter:
    """How far several replicas are, of how far they are to come."""

    def __init__(self, replicas: Mapping[int, Replica], ends: Mapping[int, int], progress: Progress) -> None:
        self._replicas, self._progress = replicas.values(), progress
        self._first = sum(replica.next_offset for replica in self._replicas)
        self._total = sum(max(0, end - replicas[partition].next_offset) for partition, end in ends.items())

    def tell(self) -> None:
        self._progress.at(*self._now())

    def end(self) -> None:
        self._progress.end(*self._now())

    def _now(self) -> tuple[int, int, int]:
        done = sum(replica.next_offset for replica in self._replicas) - self._first
        return done, self._total, sum(replica.events for replica in self._replicas)


def catch_up(log: Log, store: Store) -> None:
    """Read every partition of the store on until it is next to the log's end. Raises LogMismatch."""
    genesis = genesis_of(log)
    replicas = [Replica(partition, genesis, store.partition(partition)) for partition in store.partitions()]
    for _ in range(_PASSES):
        behind = 0
        for replica in replicas:
            end = log.bounds(KV_TOPIC, replica.partition).end
            behind = max(behind, end - replica.next_offset)
            read_to(replica, log, store, end)
        store.commit()
        if behind <= _NEAR_RECORDS:
            return


def read_to(replica: Replica, log: Log, store: Store, end: int, *, tell: Callable[[], None] = lambda: None) -> None:
    """Apply the records below `end`. Raises LogMismatch at one that cannot be applied."""
    saves = 0
    while replica.next_offset < end:
        records = log.read(KV_TOPIC, replica.partition, replica.next_offset)
        replica.advance([record for record in records if record.offset < end])
        at_end = not records or records[-1].offset >= end - 1 or replica.problem is not None
        if at_end or replica.unsaved_bytes >= SAVE_BYTES:
            replica.save()
            saves += 1
            if store.uncommitted_bytes >= COMMIT_BYTES or saves % COMMIT_SAVES == 0:
                store.commit()
        tell()
        if replica.problem is not None:
            raise LogMismatch(replica.problem.text)
        if at_end:
            return


def begin(log: Log, store: Store, partition: int, genesis: Genesis, snapshots: Snapshots) -> Replica:
    """The partition as far as it is built; emptied if that does not fit the log any more.

    An empty one begins with the log, or with the newest snapshot that fits where the log does not begin at 0 or where
    `always` says so. Raises LogMismatch if there is neither, BadSnapshot if the only ones are damaged.
    """
    state = store.partition(partition)
    meta = read_meta(state.side.get(META))
    start = log.bounds(KV_TOPIC, partition).start
    if meta is not None and mismatch(meta, genesis.generation, log, partition) is not None:
        meta = None
    if meta is None:
        store.drop(partition)
        if start > 0 or (snapshots.always and any(partition in folder.partitions for folder in snapshots.folders)):
            _load(log, store, partition, start, snapshots)
    return Replica(partition, genesis, store.partition(partition))


def _load(log: Log, store: Store, partition: int, start: int, snapshots: Snapshots) -> None:
    before = snapshots.before.get(partition)
    problem: BadSnapshot | None = None
    for snapshot in snapshots.folders:
        part = snapshot.partitions.get(partition)
        if part is None or part.next_offset < start or (before is not None and part.next_offset > before):
            continue
        try:
            load_partition(store, log, snapshot, partition)
        except BadSnapshot as error:
            problem = error
            store.drop(partition)
        else:
            return
    if problem is not None:
        raise problem
    raise LogMismatch(
        f"the log of partition {partition} starts at {start}, and there is no snapshot that reaches there",
        hint="name a folder with one by --snapshot",
    )
