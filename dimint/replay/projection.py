"""Projections of one's own: `apply(event)` over all of history and then live, each event exactly once.

A projection keeps its state and a `Checkpoint` together: `commit` stores both or neither. Whatever ends the process and
whenever, the next `run` goes on behind the last commit.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, NamedTuple

import msgpack

from dimint.dedupe import WriterRow
from dimint.errors import LogMismatch
from dimint.events import TOPICS
from dimint.log.port import Log, TopicPartition
from dimint.log.reading import Counted
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.event import LoggedEvent, events_of
from dimint.replay.positions import Bound
from dimint.replay.ranges import select
from dimint.replay.readers import KnownReader
from dimint.replay.stream import Item, PartitionState, Stream

__all__ = ["Checkpoint", "Projection", "run"]

COMMIT_S: Final = 0.5
"""Longest time that an event which was applied waits for its commit."""
_LOOK_EVENTS: Final = 256


class Checkpoint(NamedTuple):
    """How far a projection has read: the log's generation, and the state of each partition."""

    log: str
    partitions: Mapping[TopicPartition, PartitionState]

    def to_bytes(self) -> bytes:
        """To be stored with the projection's data, in the same transaction."""
        rows = [[*place, *state] for place, state in self.partitions.items()]
        packed: bytes = msgpack.packb([self.log, rows])
        return packed

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Checkpoint":
        """The inverse of `to_bytes`."""
        log, rows = msgpack.unpackb(packed, use_list=False)
        partitions = {}
        for topic, partition, position, log_time_us, offset, digest, writers in rows:
            known = tuple((writer, WriterRow(*row)) for writer, row in writers)
            partitions[TopicPartition(topic, partition)] = PartitionState(position, log_time_us, offset, digest, known)
        return cls(log, partitions)


class Projection(ABC):
    """What is made of the events. Subclasses say how its state and its checkpoint are stored together."""

    topics: ClassVar[Sequence[str]] = TOPICS
    """What to read."""
    commit_events: ClassVar[int] = 20_000
    """So many events are applied between two commits at most, but for a batch that has more."""

    @abstractmethod
    def load(self) -> Checkpoint | None:
        """What the last commit stored, None before the first one. What was applied since then must be gone."""

    @abstractmethod
    def apply(self, event: LoggedEvent) -> None:
        """Take one event. Called once for each, in the order of its partition; events of one key are in one partition."""

    @abstractmethod
    def commit(self, checkpoint: Checkpoint) -> None:
        """Make what was applied since the last commit durable together with the checkpoint, or nothing of it."""

    def apply_batch(self, item: Item, batch: Counted) -> None:
        """Take the events of one batch; quicker where the raw lists of `batch.events` will do."""
        for event in events_of(item.place, batch):
            self.apply(event)


def run(
    projection: Projection,
    log: Log,
    *,
    follow: bool = False,
    until: Bound | None = None,
    stop: threading.Event | None = None,
    progress: Progress = NO_PROGRESS,
    reader: KnownReader | None = None,
) -> Checkpoint:
    """Apply everything that the projection has not seen, up to the log's present end or to `until`; with `follow` go on
    with what comes, until `stop` is set.

    With a `reader` (`known_reader`) the system knows what is still needed, and does not trim it.

    The last commit's checkpoint. Raises LogMismatch if the projection was made from another log, or at a record that no
    reader may pass over; OffsetOutOfRange if the log was trimmed past what the projection has read.
    """
    generation = log.describe().generation
    stored = projection.load()
    if stored is not None and stored.log != generation:
        raise LogMismatch(f"this projection is of log {stored.log}, not of {generation}", hint="make it anew in a new place")
    ranges = select(log, topics=projection.topics, end=until, open_end=follow)
    states = {} if stored is None else stored.partitions
    with Stream(log, ranges, states=states) as stream:
        feeding = _Feeding(projection, stream, generation, states, reader)
        total = stream.left()
        done = stream.counts
        for item in stream.history():
            feeding.take(item)
            if done["batches"] % _LOOK_EVENTS == 0:
                progress.at(total - stream.left(), total, done["events"])
                if stop is not None and stop.is_set():
                    break
        progress.end(total - stream.left(), total, done["events"])
        feeding.commit()
        if follow and not (stop is not None and stop.is_set()):
            for came in stream.follow(COMMIT_S):
                if came is not None:
                    feeding.take(came)
                feeding.commit_if_due()
                if stop is not None and stop.is_set():
                    break
        return feeding.end()


class _Feeding:
    """Applies items, and commits often enough."""

    def __init__(
        self,
        projection: Projection,
        stream: Stream,
        generation: str,
        states: Mapping[TopicPartition, PartitionState],
        reader: KnownReader | None,
    ) -> None:
        self._projection, self._stream, self._generation, self._reader = projection, stream, generation, reader
        self._needs = dict(stream.positions)
        if reader is not None:
            reader.needs(self._needs, now=True)
        self._states = dict(states)
        self._touched: set[TopicPartition] = set()
        self._events = 0
        self._due_s: float | None = None

    def take(self, item: Item) -> None:
        if isinstance(item.taken, Counted):
            self._projection.apply_batch(item, item.taken)
            self._events += len(item.taken.events)
        self._touched.add(item.place)
        if self._due_s is None:
            self._due_s = time.monotonic() + COMMIT_S
        if self._events >= self._projection.commit_events:
            self.commit()

    def commit_if_due(self) -> None:
        if self._due_s is not None and time.monotonic() >= self._due_s:
            self.commit()

    def commit(self) -> Checkpoint:
        checkpoint = Checkpoint(self._generation, self._states)
        if self._touched:
            self._states |= {place: self._stream.state(place) for place in self._touched}
            self._projection.commit(checkpoint)
            self._touched.clear()
        self._events, self._due_s = 0, None
        self._needs |= {place: state.position for place, state in self._states.items()}
        if self._reader is not None:
            self._reader.needs(self._needs)
        return checkpoint

    def end(self) -> Checkpoint:
        checkpoint = self.commit()
        if self._reader is not None:
            self._reader.needs(self._needs, now=True)
        return checkpoint
