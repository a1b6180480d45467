"""The partitions that a node keeps: taken up, checked against the log, applied, dropped.

All of them share one store, so a full disk stops all: nothing since the last commit is kept, every replica is made again
from what was committed, and after RETRY_S it is tried again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from xxhash import xxh3_64_digest

from dimint.door import Replica as ReplicaState
from dimint.errors import LogUnavailable, OffsetOutOfRange, StoreFull
from dimint.events import KV_TOPIC
from dimint.log.port import Log, Record, TopicPartition
from dimint.node.replica import META, Applied, Meta, Problem, Replica, read_meta
from dimint.node.state import State
from dimint.node.store import MapFull, Store

__all__ = ["COMMIT_BYTES", "COMMIT_S", "Holdings", "mismatch"]

COMMIT_S: Final = 0.1
COMMIT_BYTES: Final = 32 << 20
RETRY_S: Final = 2.0
KEEP_MOVED_S: Final = 600.0
"""A partition that moved away stays on disk for so long: assignments may change back."""
NEAR_RECORDS: Final = 100
"""A replica this near to the log's end counts as caught up."""

logger = logging.getLogger("dimint.node")


def mismatch(meta: Meta, generation: str, log: Log, partition: int) -> str | None:
    """Why a store's content cannot be a prefix of the log's partition, in words; None if it ends with a record of it.

    A record that was trimmed away cannot be compared: then the log's generation has to do.
    """
    fingerprint = meta.fingerprint
    if fingerprint.generation != generation:
        return f"it was built from another log ({fingerprint.generation}, this is {generation})"
    start, end = log.bounds(KV_TOPIC, partition)
    if meta.next_offset > end:
        return f"it holds records up to {meta.next_offset}, the log ends at {end}"
    if meta.next_offset < start:
        return f"it ends at {meta.next_offset}, the log starts at {start}"
    if fingerprint.offset >= start:
        try:
            records = log.read(KV_TOPIC, partition, fingerprint.offset, max_records=1)
        except OffsetOutOfRange:
            return None
        if not records or records[0].offset != fingerprint.offset or xxh3_64_digest(records[0].value) != fingerprint.digest:
            return f"record {fingerprint.offset} of the log is another one than it has applied"
    return None


class Holdings:
    """Replicas by partition. `moved_positions` is called when the log has to be read from other positions."""

    def __init__(self, store: Store, log: Log, *, moved_positions: Callable[[], None]) -> None:
        self._store, self._log = store, log
        self._generation = log.describe().generation
        self._moved_positions = moved_positions
        self.replicas: dict[int, Replica] = {}
        self._goals: dict[int, int] = {}
        self._caught_up: set[int] = set()
        self._dropping: dict[int, float] = {}
        self._dirty_since: float | None = None
        self._retry_at: float | None = None
        self._wanted: frozenset[int] = frozenset()
        self._full: str | None = None
        self._told_full = False
        self._dead_letters: dict[int, int] = {}
        self._disputed: dict[int, str] = {}

    # --- which partitions -----------------------------------------------------------------------------------------------
    def hold(self, wanted: frozenset[int], now: float) -> set[int]:
        """Hold exactly these from now on; those that are held no more. Their rows are removed after a while."""
        self._wanted = wanted
        gone = self.replicas.keys() - wanted
        for partition in gone:
            del self.replicas[partition]
            self._caught_up.discard(partition)
            self._goals.pop(partition, None)
            self._disputed.pop(partition, None)
        new = wanted - self.replicas.keys()
        try:
            for partition in self._store.partitions():
                if partition not in wanted:
                    self._dropping.setdefault(partition, now + KEEP_MOVED_S)
            for partition in sorted(new):
                self._dropping.pop(partition, None)
                self._take_up(partition)
        except StoreFull as error:
            self._no_room(error, now)
        if gone or new:
            self._moved_positions()
        return gone

    def _take_up(self, partition: int) -> None:
        """Open one partition's store; start it again from the log if it does not fit."""
        state = self._store.partition(partition)
        meta = read_meta(state.side.get(META))
        if meta is not None:
            reason = mismatch(meta, self._generation, self._log, partition)
            if reason is not None:
                logger.error("the store of partition %d is thrown away and rebuilt from the log: %s", partition, reason)
                self._store.drop(partition)
                meta = None
        self._open(partition, state)
        if meta is None:
            self._refuse_if_trimmed(partition)
        self._goals[partition] = self._log.bounds(KV_TOPIC, partition).end

    def _open(self, partition: int, state: State) -> None:
        replica = self.replicas[partition] = Replica(partition, self._generation, state)
        self._dead_letters[partition] = replica.dead_letters

    def _refuse_if_trimmed(self, partition: int) -> None:
        start = self._log.bounds(KV_TOPIC, partition).start
        if start > 0:
            text = f"the log of partition {partition} starts at {start}: what came before is needed to rebuild it"
            self.replicas[partition].problem = Problem(text, unreadable=False)
            logger.error("%s", text)

    def positions(self) -> Mapping[TopicPartition, int]:
        """Where to read on, of every partition that can go on."""
        if self._full is not None:
            return {}
        return {
            TopicPartition(KV_TOPIC, partition): replica.next_offset
            for partition, replica in self.replicas.items()
            if replica.problem is None
        }

    # --- records --------------------------------------------------------------------------------------------------------
    def apply(self, records: Iterable[Record], now: float) -> dict[int, list[Applied]]:
        """Apply records as they were read; per partition that came on, the batches that had outcomes."""
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(record.partition, []).append(record)
        applied: dict[int, list[Applied]] = {}
        try:
            for partition, found in by_partition.items():
                replica = self.replicas.get(partition)
                if replica is not None and replica.problem is None:
                    applied[partition] = replica.apply(found)
                    self._tell(partition, replica, found, now)
        except StoreFull as error:
            self._no_room(error, now)
            return {}
        if applied and self._dirty_since is None:
            self._dirty_since = now
        return applied

    def _tell(self, partition: int, replica: Replica, records: Sequence[Record], now: float) -> None:
        if replica.dead_letters != self._dead_letters[partition]:
            count = replica.dead_letters - self._dead_letters[partition]
            self._dead_letters[partition] = replica.dead_letters
            last = records[-1].offset
            logger.warning(
                "partition %d: %d records up to offset %d are no batches of ours and were passed over", partition, count, last
            )
        if replica.problem is not None:
            logger.error("partition %d stands still: %s", partition, replica.problem.text)
            self._caught_up.discard(partition)
            if replica.problem.unreadable:
                self._retry_at = now + RETRY_S
            self._moved_positions()

    def misread(self, partition: int, error: OffsetOutOfRange, now: float) -> None:
        """The log has no such position (any more): look again at how the store fits the log."""
        logger.error("partition %d: %s", partition, error)
        if partition in self.replicas:
            try:
                self._store.commit()
                self._take_up(partition)
            except StoreFull as full:
                self._no_room(full, now)
            self._caught_up.discard(partition)
            self._moved_positions()

    def dispute(self, partition: int, text: str | None) -> None:
        """An overlord says that the partition's contents are not those of the other replicas; None: they are again."""
        if partition not in self.replicas or self._disputed.get(partition) == text:
            return
        if text is None:
            del self._disputed[partition]
            logger.warning("partition %d agrees with the other replicas again", partition)
        else:
            self._disputed[partition] = text
            logger.error("partition %d serves no reads: %s; `dimint rebuild` builds it anew", partition, text)

    def disputed(self) -> frozenset[int]:
        """Partitions whose contents an overlord disputes."""
        return frozenset(self._disputed)

    # --- commits --------------------------------------------------------------------------------------------------------
    def end_turn(self, now: float) -> None:
        """Commit if it is time; let go of the transaction if nothing is in it; do what was put off."""
        if self._dirty_since is not None and (
            now - self._dirty_since >= COMMIT_S or self._store.uncommitted_bytes >= COMMIT_BYTES
        ):
            self.commit(now)
        self._store.release()
        for partition in [partition for partition, at in self._dropping.items() if at <= now]:
            del self._dropping[partition]
            logger.info("partition %d moved away: its rows are removed", partition)
            self._attempt(lambda partition=partition: self._store.drop(partition), now)  # type: ignore[misc]
        if self._retry_at is not None and now >= self._retry_at:
            self._retry(now)

    def commit(self, now: float) -> None:
        """Make what was applied durable."""
        self._dirty_since = None
        self._attempt(self._store.commit, now)
        if self._full is None and self._told_full:
            self._told_full = False
            logger.warning("the node's store has room again")

    def next_time(self, now: float) -> float | None:
        """Seconds until `end_turn` has something to do; None if it has nothing."""
        times = [*self._dropping.values()]
        if self._dirty_since is not None:
            times.append(self._dirty_since + COMMIT_S)
        if self._retry_at is not None:
            times.append(self._retry_at)
        return max(0.0, min(times) - now) if times else None

    def _attempt(self, act: Callable[[], None], now: float) -> None:
        try:
            act()
        except StoreFull as error:
            self._no_room(error, now)

    def _no_room(self, error: StoreFull, now: float) -> None:
        self._dirty_since = None
        self._store.abort()
        if not (isinstance(error, MapFull) and self._store.grow()):
            if not self._told_full:
                logger.error("%s", error)
            self._full, self._told_full = str(error), True
            self._retry_at = now + RETRY_S
        for partition, replica in list(self.replicas.items()):
            problem = replica.problem
            self._open(partition, self._store.partition(partition))
            self.replicas[partition].problem = problem
        self._moved_positions()

    def _retry(self, now: float) -> None:
        """Try again what may have got better by itself."""
        self._retry_at = None
        self._full = None
        for replica in self.replicas.values():
            if replica.problem is not None and replica.problem.unreadable:
                replica.problem = None
        self.hold(self._wanted, now)
        self._moved_positions()

    # --- what others want to know ---------------------------------------------------------------------------------------
    def states(self) -> list[ReplicaState]:
        """Every replica's state, as Progress carries it."""
        states = []
        for partition, replica in sorted(self.replicas.items()):
            state = replica.state(caught_up=self.caught_up(partition))
            problem = self._full or state.problem or self._disputed.get(partition)
            states.append(state if problem == state.problem else msgspec.structs.replace(state, problem=problem))
        return states

    def caught_up(self, partition: int) -> bool:
        """Whether the replica has been at the log's end since it was taken up, and goes on."""
        replica = self.replicas.get(partition)
        if replica is None or replica.problem is not None or self._full is not None or partition in self._disputed:
            return False
        if partition not in self._caught_up:
            if replica.next_offset < self._goals[partition]:
                return False
            # the log went on meanwhile: a goal that is reached within the next look is near enough
            try:
                end = self._log.bounds(KV_TOPIC, partition).end
            except LogUnavailable:
                return False
            if end - replica.next_offset > NEAR_RECORDS:
                self._goals[partition] = end
                return False
            self._caught_up.add(partition)
        return True
