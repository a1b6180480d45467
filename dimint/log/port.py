"""The log port: what every backend (memory, embedded, Kafka) gives. [S]

A log has topics, a topic has partitions, a partition is a sequence of records with increasing offsets. A record is
opaque here; what stands in it is dimint/batch.py. Offsets need not be dense. `end` is the offset that the next record
will get, so [start, end) is what can be read and a reader that has position `end` has seen everything.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

__all__ = [
    "Bounds",
    "Broker",
    "Entry",
    "Log",
    "LogDescription",
    "LogHealth",
    "Reader",
    "Record",
    "TopicHealth",
    "TopicPartition",
    "TopicSpec",
]


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Entry(NamedTuple):
    """One record to append."""

    topic: str
    partition: int
    value: bytes


class Record(NamedTuple):
    """One record as read. `timestamp_ns` is when the log took it, ns since the epoch, UTC, by the log's own clock.

    `reign` is the number of the leader's reign in which it was appended, −1 where the log has no such thing. With it the
    offset names one record for ever, and all before it: what was truncated comes in a later reign if it comes again.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ns: int
    value: bytes
    reign: int = -1


class Bounds(NamedTuple):
    """`start` is the first offset still there, `end` the next one to be given out."""

    start: int
    end: int


class TopicSpec(NamedTuple):
    """A topic to be created, or to be checked if it is there.

    `retention_s` None keeps everything until it is trimmed.
    """

    name: str
    partitions: int
    retention_s: int | None = None


class LogDescription(NamedTuple):
    """What a log is.

    `generation` identifies the log for ever: a position is meaningful only together with it. `durability` says in words
    what an acknowledged record survives. `end_is_linearizable` is True where `bounds` asked after an append was
    acknowledged anywhere is sure to include it (one machine); False where a cut-off leader may answer (Kafka), so that
    a strong read needs an acknowledged barrier.
    """

    kind: str
    url: str
    generation: str
    topics: Mapping[str, int]
    durability: str
    end_is_linearizable: bool
    together_max_bytes: int = 0


class Broker(NamedTuple):
    """A server that keeps a part of the log. `address` is "" where only the id of one that is down is known."""

    id: int
    address: str
    up: bool


class TopicHealth(NamedTuple):
    """Copies of one topic's partitions, as they are now.

    `copies` is how many each should have, `copies_needed` how many must be in sync for an append to be acknowledged.
    `lacking` counts partitions with fewer copies in sync than there should be, `stopped` those that take no append now.
    """

    name: str
    partitions: int
    copies: int
    copies_needed: int
    lacking: int
    stopped: int


class LogHealth(NamedTuple):
    """How the log is kept now. `durability` is as in LogDescription, of the settings as they are now; brokers in the order
    of their ids, none where a log has none; topics by name."""

    durability: str
    brokers: tuple[Broker, ...]
    topics: tuple[TopicHealth, ...]


class Log(Protocol):
    """One opened log. All methods may be called from any thread; a writer settles unknown batches on a thread of its own."""

    def describe(self) -> LogDescription:
        """Kind, generation, topics with partition counts. Cheap; never blocks on the network."""

    def health(self) -> LogHealth:
        """Who keeps the log and how well; asks them. Raises LogUnavailable when nobody answers."""

    def create(self, topics: Sequence[TopicSpec]) -> None:
        """Create what is missing. Raises LogMismatch if a topic is there with another partition count."""

    def append(self, entries: Sequence[Entry]) -> Sequence[Future[int]]:
        """Hand over records; each future gives its record's offset once the record is durable.

        Every record is atomic by itself; entries of one call are likely, not sure, to share a commit. Entries of one
        partition keep their order if they land. Futures are resolved on a thread of the log, or before this returns:
        callbacks only enqueue. They cannot be cancelled.

        Raises RecordTooLarge at once (nothing of the call is appended). A future fails with AppendFailed (certainly not
        in the log), AppendUnknown (perhaps in the log, perhaps later) or LogBroken (end the process).
        """

    def read(self, topic: str, partition: int, offset: int, *, max_records: int = 1000, max_bytes: int = 4 << 20) -> list[Record]:
        """Records from `offset` on, at least one if there is one, at most the bounds given; empty at the end.

        Raises OffsetOutOfRange below `start` or above `end`.
        """

    def bounds(self, topic: str, partition: int) -> Bounds:
        """First offset and end offset now."""

    def offset_at(self, topic: str, partition: int, time_ns: int) -> int:
        """Offset of the first record whose timestamp is at or after `time_ns`; the end offset if there is none."""

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop records below offset `before`. Nothing happens if they are gone already."""

    def reader(self) -> "Reader":
        """A new reader; it belongs to the thread that uses it."""

    def close(self) -> None:
        """Wait for what was handed over, then end the log's threads. Later calls raise LogError. Idempotent."""


class Reader(Protocol):
    """Follows partitions from positions that its owner keeps. `wake` may be called from any thread."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions from these offsets on; replaces what was assigned before."""

    def poll(self, timeout_s: float, *, max_bytes: int = 4 << 20) -> list[Record]:
        """Records that are there, else those that come within `timeout_s`; empty on time-out or `wake`.

        Where records come over a network, "there" is what has arrived: it may take a moment, and a second poll.

        Per partition in offset order without holes, over partitions fairly. Raises OffsetOutOfRange when a position is
        outside its partition; the other partitions go on after `assign`.
        """

    def wake(self) -> None:
        """Make a `poll` that waits now (or the next one) return at once."""

    def close(self) -> None:
        """Idempotent."""
