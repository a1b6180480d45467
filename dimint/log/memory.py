"""The reference backend: a log in memory, for tests and simulations.

A `MemoryBroker` is the log itself; every `MemoryLog` on it is one opened handle, as another process would have. Appends
are settled, and their futures resolved, before `append` returns, so a simulation on one thread is deterministic.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from dimint.clock import Clock
from dimint.errors import LogError, LogMismatch, OffsetOutOfRange, RecordTooLarge, SettingsError
from dimint.limits import PARTITIONS_MAX, RECORD_MAX_BYTES
from dimint.log.port import Bounds, Entry, LogDescription, LogHealth, Record, TopicHealth, TopicPartition, TopicSpec

__all__ = ["MemoryBroker", "MemoryLog"]

_POLL_MAX_RECORDS = 1000
_TOGETHER_MAX_BYTES = 8 << 20


class _Stored(NamedTuple):
    timestamp_ns: int
    value: bytes


class _Partition:
    """Records from offset `start` on."""

    def __init__(self) -> None:
        self.start = 0
        self.records: list[_Stored] = []
        self.last_ns = 0

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    def drop(self, before: int) -> None:
        before = min(before, self.end)
        if before > self.start:
            del self.records[: before - self.start]
            self.start = before


class MemoryBroker:
    """What all handles share. `generation` is any string that no other log has."""

    def __init__(self, *, clock: Clock, generation: str = "00" * 16) -> None:
        self.clock, self.generation = clock, generation
        self.changed = threading.Condition(threading.RLock())
        self.topics: dict[str, list[_Partition]] = {}
        self.retention_s: dict[str, int | None] = {}

    def find(self, topic: str, partition: int) -> _Partition:
        """Hold `changed`. Raises LogError if there is no such topic or partition."""
        partitions = self.topics.get(topic)
        if partitions is None:
            raise LogError(f"there is no topic {topic}")
        if not 0 <= partition < len(partitions):
            raise LogError(f"{topic} has no partition {partition}")
        return partitions[partition]

    def expire(self) -> None:
        """Drop what is older than its topic's retention, as backends do once in a while."""
        with self.changed:
            for topic, partitions in self.topics.items():
                keep_s = self.retention_s[topic]
                if keep_s is not None:
                    limit_ns = self.clock.time_ns() - keep_s * 1_000_000_000
                    for found in partitions:
                        found.drop(found.start + bisect_left(found.records, limit_ns, key=_timestamp))


class MemoryLog:
    """One handle; see the port's Log."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._closed = False

    def describe(self) -> LogDescription:
        with self._broker.changed:
            topics = {topic: len(partitions) for topic, partitions in self._broker.topics.items()}
        return LogDescription(
            kind="memory",
            url="memory:",
            generation=self._broker.generation,
            topics=topics,
            durability="none: gone with the process",
            end_is_linearizable=True,
            together_max_bytes=_TOGETHER_MAX_BYTES,
        )

    def health(self) -> LogHealth:
        with self._using() as broker:
            topics = sorted((name, len(partitions)) for name, partitions in broker.topics.items())
        return LogHealth(self.describe().durability, (), tuple(TopicHealth(name, count, 1, 1, 0, 0) for name, count in topics))

    def create(self, topics: Sequence[TopicSpec]) -> None:
        with self._using() as broker:
            for name, count, retention_s in topics:
                if not 1 <= count <= PARTITIONS_MAX:
                    raise SettingsError(f"{name}: {count} partitions are outside 1…{PARTITIONS_MAX}")
                there = broker.topics.get(name)
                if there is None:
                    broker.topics[name] = [_Partition() for _ in range(count)]
                    broker.retention_s[name] = retention_s
                elif len(there) != count:
                    raise LogMismatch(f"topic {name} has {len(there)} partitions, not {count}")

    def append(self, entries: Sequence[Entry]) -> list[Future[int]]:
        offsets = []
        with self._using() as broker:
            found = [broker.find(topic, partition) for topic, partition, _ in entries]
            for _, _, value in entries:
                if len(value) > RECORD_MAX_BYTES:
                    raise RecordTooLarge(f"a record of {len(value)} bytes is over the limit of {RECORD_MAX_BYTES}")
            for partition, entry in zip(found, entries, strict=True):
                partition.last_ns = max(partition.last_ns, broker.clock.time_ns())
                offsets.append(partition.end)
                partition.records.append(_Stored(partition.last_ns, entry.value))
            broker.changed.notify_all()
        futures = []
        for offset in offsets:
            future: Future[int] = Future()
            future.set_result(offset)
            futures.append(future)
        return futures

    def read(self, topic: str, partition: int, offset: int, *, max_records: int = 1000, max_bytes: int = 4 << 20) -> list[Record]:
        with self._using() as broker:
            found = broker.find(topic, partition)
            if not found.start <= offset <= found.end:
                raise OffsetOutOfRange(topic, partition, offset, found.start, found.end)
            records: list[Record] = []
            for at in range(offset, min(found.end, offset + max_records)):
                stored = found.records[at - found.start]
                max_bytes -= len(stored.value)
                if max_bytes < 0 and records:
                    break
                records.append(Record(topic, partition, at, stored.timestamp_ns, stored.value))
            return records

    def bounds(self, topic: str, partition: int) -> Bounds:
        with self._using() as broker:
            found = broker.find(topic, partition)
            return Bounds(found.start, found.end)

    def offset_at(self, topic: str, partition: int, time_ns: int) -> int:
        with self._using() as broker:
            found = broker.find(topic, partition)
            return found.start + bisect_left(found.records, time_ns, key=_timestamp)

    def trim(self, topic: str, partition: int, before: int) -> None:
        with self._using() as broker:
            broker.find(topic, partition).drop(before)

    def reader(self) -> "MemoryReader":
        with self._using() as broker:
            return MemoryReader(broker, self.read)

    def close(self) -> None:
        self._closed = True

    @contextmanager
    def _using(self) -> Iterator[MemoryBroker]:
        if self._closed:
            raise LogError("the log is closed")
        with self._broker.changed:
            yield self._broker


class MemoryReader:
    """See the port's Reader."""

    def __init__(self, broker: MemoryBroker, read: Callable[..., list[Record]]) -> None:
        self._broker, self._read = broker, read
        self._positions: dict[TopicPartition, int] = {}
        self._order: list[TopicPartition] = []
        self._woken = False
        self._closed = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        with self._broker.changed:
            self._check_open()
            for topic, partition in positions:
                self._broker.find(topic, partition)
            self._positions = dict(positions)
            self._order = sorted(positions)

    def poll(self, timeout_s: float, *, max_bytes: int = 4 << 20) -> list[Record]:
        deadline = time.monotonic() + timeout_s
        with self._broker.changed:
            while True:
                self._check_open()
                records = self._take(max_bytes)
                left = deadline - time.monotonic()
                if records or self._woken or left <= 0:
                    self._woken = False
                    return records
                self._broker.changed.wait(left)

    def wake(self) -> None:
        with self._broker.changed:
            self._woken = True
            self._broker.changed.notify_all()

    def close(self) -> None:
        self._closed = True

    def _take(self, max_bytes: int) -> list[Record]:
        records: list[Record] = []
        advanced = {}
        for place in self._order:
            if len(records) < _POLL_MAX_RECORDS and max_bytes > 0:
                room = _POLL_MAX_RECORDS - len(records)
                got = self._read(*place, self._positions[place], max_records=room, max_bytes=max_bytes)
                if got:
                    max_bytes -= sum(len(record.value) for record in got)
                    records += got
                    advanced[place] = got[-1].offset + 1
        self._positions.update(advanced)
        if self._order:
            self._order.append(self._order.pop(0))
        return records

    def _check_open(self) -> None:
        if self._closed:
            raise LogError("the reader is closed")


def _timestamp(stored: _Stored) -> int:
    return stored.timestamp_ns
