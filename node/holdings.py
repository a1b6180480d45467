"""The partitions that a node keeps: taken up, checked against the log, applied, dropped.

A partition of which there is nothing usable here is awaited: it has no replica until a peer's snapshot was loaded or the
log is read from its start, whatever node/building.py finds possible.

All of them share one store, so a full disk stops all: nothing since the last commit is kept, every replica is made again
from what was committed, and after RETRY_S it is tried again.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dimint.door import Building
from dimint.door import Replica as ReplicaState
from dimint.errors import LogUnavailable, OffsetOutOfRange, StoreFull
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Log, Record, TopicPartition
from dimint.node.disputes import Disputes
from dimint.node.fitting import mismatch
from dimint.node.replica import META, Applied, Replica, read_meta
from dimint.node.store import MapFull, Store

__all__ = ["COMMIT_BYTES", "COMMIT_S", "Holdings"]

COMMIT_S: Final = 0.1
COMMIT_BYTES: Final = 32 << 20
RETRY_S: Final = 2.0
LOG_AWAY_S: Final = 10.0
"""Pause after a log that did not answer: asking it keeps the readers of other partitions waiting."""
KEEP_MOVED_S: Final = 600.0
"""A partition that moved away stays on disk for so long: assignments may change back."""
NEAR_RECORDS: Final = 100
"""A replica this near to the log's end counts as caught up."""

SNAPSHOT_FROM_RECORDS: Final = 100
"""With fewer records the log is read sooner than a peer is asked."""

logger = logging.getLogger("dimint.node")


class Holdings:
    """Replicas by partition. `moved_positions` is called when the log has to be read from other positions; `has_peers`
    says whether others hold a partition too."""

    def __init__(
        self,
        store: Store,
        log: Log,
        genesis: Genesis,
        *,
        moved_positions: Callable[[], None],
        has_peers: Callable[[int], bool] = lambda _partition: False,
    ) -> None:
        self._store, self._log = store, log
        self._has_peers = has_peers
        self._genesis = genesis
        self._moved_positions = moved_positions
        self.replicas: dict[int, Replica] = {}
        self._goals: dict[int, int] = {}
        self._caught_up: set[int] = set()
        self.lacking: set[int] = set()
        """Those whose replica has not been at the log's end since it was opened: what it lacks would look deleted."""
        self._dropping: dict[int, float] = {}
        self._dirty_since: float | None = None
        self._retry_at: float | None = None
        self._wanted: frozenset[int] = frozenset()
        self._full: str | None = None
        self._told_full = False
        self._dead_letters: dict[int, int] = {}
        self._disputes = Disputes()
        self._awaited: dict[int, str | None] = {}
        self._now = 0.0
        self._log_is_away = False
        self.aborts = 0
        """How often what was not committed was thrown away."""
        self._began: dict[int, tuple[int, float]] = {}

    # --- which partitions -----------------------------------------------------------------------------------------------
    def hold(self, wanted: frozenset[int], now: float) -> set[int]:
        """Hold exactly these from now on; those that are held no more. Their rows are removed after a while."""
        self._wanted = wanted
        gone = (self.replicas.keys() | self._awaited.keys()) - wanted
        for partition in gone:
            self._close(partition)
            self._awaited.pop(partition, None)
            self._disputes.forget(partition)
        new = wanted - self.replicas.keys() - self._awaited.keys()
        try:
            for partition in self._store.partitions():
                if partition not in wanted:
                    self._dropping.setdefault(partition, now + KEEP_MOVED_S)
            for partition in sorted(new):
                self._dropping.pop(partition, None)
                if not self._take_up(partition, now):
                    break
        except StoreFull as error:
            self._no_room(error, now)
        if gone or new:
            self._moved_positions()
        return gone

    def _take_up(self, partition: int, now: float) -> bool:
        """Open one partition's store; build it anew if it does not fit the log. False: the log does not answer now."""
        try:
            state = self._store.partition(partition)
            meta = read_meta(state.side.get(META))
            start, end = self._log.bounds(KV_TOPIC, partition)
            reason = None if meta is None else mismatch(meta, self._genesis.generation, self._log, partition)
        except LogUnavailable as error:
            logger.warning("partition %d has to wait for the log: %s", partition, error)
            self._log_is_away = True
            return False
        if reason is not None:
            logger.error("the store of partition %d is thrown away and rebuilt: %s", partition, reason)
        if meta is None or reason is not None:
            self.empty(partition)
            if start > 0 or (end - start >= SNAPSHOT_FROM_RECORDS and self._has_peers(partition)):
                self._await(partition, start)
                return True
        self._begin(partition, end, now)
        return True

    def _await(self, partition: int, start: int) -> None:
        self._close(partition)
        self._awaited[partition] = None
        if start > 0:
            self.trimmed(partition, start)

    def _close(self, partition: int) -> None:
        """There is no replica of the partition any more."""
        self.replicas.pop(partition, None)
        self._caught_up.discard(partition)
        self.lacking.discard(partition)
        self._goals.pop(partition, None)
        self._disputes.closed(partition)

    def _begin(self, partition: int, goal: int, now: float) -> None:
        """There is a replica, which reads on from where its store ends."""
        self._open(partition)
        self._goals[partition] = goal
        self._caught_up.discard(partition)
        self.lacking.add(partition)
        self._began[partition] = self.replicas[partition].next_offset, now

    def _open(self, partition: int) -> None:
        replica = self.replicas[partition] = Replica(partition, self._genesis, self._store.partition(partition))
        self._dead_letters[partition] = replica.dead_letters

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
                del self.replicas[partition]
                self._take_up(partition, now)
            except StoreFull as full:
                self._no_room(full, now)
            self._caught_up.discard(partition)
            self._moved_positions()

    def dispute(self, partition: int, text: str | None, now: float, *, agreed: bool = False) -> None:
        """An overlord says that the partition's contents are not those of the other replicas; None: nothing is said any more.

        A disputed replica serves no reads and is derived again once: from the log, which is always right. Where the log is
        not whole any more, one that does not fit its own rows is taken from a peer; one that does is kept.
        """
        if partition not in self.replicas or (text is not None and self._disputes.text(partition) == text):
            return
        if text is None:
            if self._disputes.end(partition, agreed=agreed):
                logger.warning("partition %d is not disputed any more", partition)
            return
        if not self._disputes.take(partition, text):
            logger.error("partition %d was derived again and serves no reads still: %s", partition, text)
            return
        try:
            start, end = self._log.bounds(KV_TOPIC, partition)
            if start > 0 and self.replicas[partition].fits_its_rows():
                logger.error("partition %d fits its rows, but serves no reads: %s", partition, text)
                self._disputes.derived(partition)
                return
            logger.error("partition %d serves no reads and is built anew: %s", partition, text)
            self.empty(partition)
        except LogUnavailable:
            self._disputes.end(partition)  # it is told again
            return
        except StoreFull as error:
            self._no_room(error, now)
            return
        if start > 0:
            self._await(partition, start)
        else:
            self._begin(partition, end, now)
        self._disputes.renews(partition, from_log=start == 0)
        self._moved_positions()

    def disputed(self) -> frozenset[int]:
        """Partitions whose contents an overlord disputes."""
        return self._disputes.disputed()

    # --- what is awaited: node/building.py gets it ----------------------------------------------------------------------
    def awaited(self) -> Collection[int]:
        """Partitions without a replica, that have to be built from something."""
        return self._awaited.keys()

    def empty(self, partition: int) -> None:
        """Remove what is there of a partition, also half a snapshot. Raises StoreFull."""
        state = self._store.partition(partition)
        if state.side.scan(b"", b"", 1) or state.data.scan(b"", b"", 1):
            self._store.drop(partition)

    def trimmed(self, partition: int, start: int, why: str = "") -> None:
        """Nothing is left to build an awaited partition from but a snapshot, which nobody gives now."""
        problem = f"the log of partition {partition} starts at {start}: a snapshot of a node that has it is needed"
        self._close(partition)
        if self._awaited.get(partition) is None:
            logger.error("%s", problem)
        self._awaited[partition] = f"{problem} ({why})" if why else problem

    def built(self, partition: int, goal: int) -> None:
        """The store of an awaited partition can be used, and read on; `goal` is the log's end."""
        del self._awaited[partition]
        self._disputes.end(partition)
        self._begin(partition, goal, self._now)
        self._moved_positions()

    def no_room(self, error: StoreFull) -> None:
        """A write did not fit: nothing since the last commit is kept."""
        self._no_room(error, self._now)

    # --- commits --------------------------------------------------------------------------------------------------------
    def end_turn(self, now: float) -> None:
        """Commit if it is time; let go of the transaction if nothing is in it; do what was put off."""
        self._now = now
        if self._log_is_away:  # waited for from now on: asking took its time
            self._log_is_away = False
            self._retry_at = now + LOG_AWAY_S
        if self._dirty_since is None and self._store.uncommitted_bytes:  # rows of a snapshot
            self._dirty_since = now
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
        self.aborts += 1
        self._store.abort()
        if not (isinstance(error, MapFull) and self._store.grow()):
            if not self._told_full:
                logger.error("%s", error)
            self._full, self._told_full = str(error), True
            self._retry_at = now + RETRY_S
        for partition, replica in list(self.replicas.items()):
            problem = replica.problem
            self._open(partition)
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
    def states(self, now: float = 0.0) -> list[ReplicaState]:
        """Every replica's state, as Progress carries it; those that are being built say how far they are."""
        states = []
        for partition in sorted(self.replicas.keys() | self._awaited.keys()):
            replica = self.replicas.get(partition)
            if replica is None:
                problem = self._full or self._awaited[partition] or self._disputes.text(partition)
                states.append(ReplicaState(partition, 0, 0, 0, False, problem=problem, building=Building("peer")))
                continue
            caught_up = self.caught_up(partition)
            state = replica.state(caught_up=caught_up)
            problem = self._full or state.problem or self._disputes.text(partition)
            building = None if caught_up or replica.problem is not None else self._replayed(partition, now)
            anew = self._disputes.anew(partition)
            if problem != state.problem or building is not None or anew:
                state = msgspec.structs.replace(state, problem=problem, building=building, anew=anew)
            states.append(state)
        return states

    def _replayed(self, partition: int, now: float) -> Building | None:
        """How much of the log was read, of what there was to read."""
        first, since = self._began[partition]
        done, whole = self.replicas[partition].next_offset - first, self._goals[partition] - first
        if whole <= 0:
            return None
        return Building("log", "", min(100.0, 100 * done / whole), done / max(now - since, 0.001))

    def caught_up(self, partition: int) -> bool:
        """Whether the replica has been at the log's end since it was taken up, and goes on."""
        replica = self.replicas.get(partition)
        if replica is None or replica.problem is not None or self._full is not None:
            return False
        if partition in self._disputes and not self._disputes.is_renewing(partition):
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
            self.lacking.discard(partition)
            if self._disputes.is_renewing(partition) and self._disputes.end(partition):
                logger.warning("partition %d was built anew from the log and serves reads again", partition)
        return True
