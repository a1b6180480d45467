"""The log on Kafka: one handle, made of a producer, an admin client and a consumer for single reads, each opened when needed."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from dimint.clock import Clock
from dimint.errors import LogError, LogUnavailable, OffsetOutOfRange, RecordTooLarge, SettingsError
from dimint.events import CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC
from dimint.limits import PARTITIONS_MAX, RECORD_MAX_BYTES
from dimint.log.kafka.client import check_reachable, quiet_logging
from dimint.log.kafka.control import Control, Found, generation_of
from dimint.log.kafka.options import KafkaOptions
from dimint.log.kafka.reader import KafkaReader, open_consumer
from dimint.log.kafka.sending import Sending, open_producer
from dimint.log.kafka.topic_settings import durability_of
from dimint.log.port import Bounds, Entry, LogDescription, LogHealth, Record, TopicPartition, TopicSpec

__all__ = ["KafkaLog"]

_OURS: Final = (CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC)
"""The topics whose identity is the log's."""
_READ_WAIT_S: Final = 0.01
_MS: Final = 1_000_000


class KafkaLog:
    """See the port's Log. All methods may be called from any thread.

    A log is the topics of one cluster whose names begin with the prefix of the options. Times are the brokers', in
    milliseconds; `clock` is not asked. `append` never waits for room or for a connection, but for the first one: it fails
    with AppendFailed. The other calls raise LogUnavailable when Kafka does not answer in time.

    Raises LogUnavailable if nobody listens at the servers, or who listens does not answer.
    """

    def __init__(self, servers: Sequence[str], *, options: KafkaOptions | None = None, clock: Clock) -> None:
        self._servers = list(servers)
        self._options = KafkaOptions() if options is None else options
        self._prefix = self._options.prefix
        self._closed = False
        self._lock = threading.Lock()
        quiet_logging()
        check_reachable(self._servers, self._options.connect_timeout_s)
        self._control = Control(self._servers, self._options)
        self._sending = Sending(partial(open_producer, self._servers, self._options), self._options)
        self._reading = threading.Lock()
        self._cursor: KafkaReader | None = None
        self._cursor_at: tuple[TopicPartition, int] | None = None
        self._topics: dict[str, Found] = {}
        try:
            self._cluster_id, self._brokers = self._control.cluster()
            self._learn()
        except BaseException:
            self.close()
            raise

    def describe(self) -> LogDescription:
        with self._lock:
            return self._description

    def health(self) -> LogHealth:
        self._check_open()
        return self._control.health(self._prefix)

    def create(self, topics: Sequence[TopicSpec]) -> None:
        """See the port. What is there must be set up right: LogMismatch says the command that does it."""
        self._check_open()
        for name, count, _ in topics:
            if not 1 <= count <= PARTITIONS_MAX:
                raise SettingsError(f"{name}: {count} partitions are outside 1…{PARTITIONS_MAX}")
        try:
            self._control.create([spec._replace(name=self._prefix + spec.name) for spec in topics], self._brokers)
        finally:
            self._learn()

    def append(self, entries: Sequence[Entry]) -> list[Future[int]]:
        self._check_open()
        for topic, partition, value in entries:
            self._check(topic, partition)
            if len(value) > RECORD_MAX_BYTES:
                raise RecordTooLarge(f"a record of {len(value)} bytes is over the limit of {RECORD_MAX_BYTES}")
        if self._prefix:
            entries = [entry._replace(topic=self._prefix + entry.topic) for entry in entries]
        return self._sending.append(entries)

    def read(self, topic: str, partition: int, offset: int, *, max_records: int = 1000, max_bytes: int = 4 << 20) -> list[Record]:
        """See the port. Reading on where the last call ended costs no question for the bounds."""
        self._check(topic, partition)
        place = TopicPartition(topic, partition)
        with self._reading:
            self._check_open()
            if self._cursor is None:
                open_it = partial(open_consumer, self._servers, self._options, wait_s=_READ_WAIT_S)
                self._cursor = KafkaReader(open_it, check=self._check, bounds=self.bounds, prefix=self._prefix)
            if self._cursor_at == (place, offset):
                records = self._cursor.poll(0.0, max_bytes=max_bytes, max_records=max_records)
            else:
                self._cursor.assign({place: offset})
                records = []
            if not records:
                start, end = self.bounds(topic, partition)
                if not start <= offset <= end:
                    self._cursor_at = None
                    raise OffsetOutOfRange(topic, partition, offset, start, end)
                self._cursor_at = (place, offset)
                if offset == end:
                    return []
                records = self._read_now(self._cursor, place, max_bytes, max_records)
            self._cursor_at = (place, records[-1].offset + 1)
            return records

    def bounds(self, topic: str, partition: int) -> Bounds:
        self._check(topic, partition)
        return self._control.bounds(self._prefix + topic, partition)

    def offset_at(self, topic: str, partition: int, time_ns: int) -> int:
        self._check(topic, partition)
        found = self._control.offset_at(self._prefix + topic, partition, -(-time_ns // _MS))
        return self._control.end(self._prefix + topic, partition) if found is None else found

    def trim(self, topic: str, partition: int, before: int) -> None:
        start, end = self.bounds(topic, partition)
        if before > start:
            self._control.trim(self._prefix + topic, partition, min(before, end))

    def reader(self) -> KafkaReader:
        self._check_open()
        opener = partial(open_consumer, self._servers, self._options)
        return KafkaReader(opener, check=self._check, bounds=self.bounds, prefix=self._prefix)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._sending.close()
        with self._reading:
            if self._cursor is not None:
                self._cursor.close()
        self._control.close()

    def _read_now(self, cursor: KafkaReader, place: TopicPartition, max_bytes: int, max_records: int) -> list[Record]:
        """Records that are known to be there."""
        deadline = time.monotonic() + self._options.call_timeout_s
        while time.monotonic() < deadline:
            records = cursor.poll(1.0, max_bytes=max_bytes, max_records=max_records)
            if records:
                return records
            self._check_open()
        raise LogUnavailable(f"cannot read {place.topic}/{place.partition} now")

    def _check(self, topic: str, partition: int) -> None:
        """Raises LogError if there is no such place."""
        found = self._topics.get(topic)
        if found is None:
            self._check_open()
            self._learn()
            found = self._topics.get(topic)
        if found is None:
            raise LogError(f"there is no topic {topic}")
        if not 0 <= partition < found.partitions:
            raise LogError(f"{topic} has no partition {partition}")

    def _learn(self) -> None:
        """Look which topics there are, and what that makes of the log."""
        found = self._control.topics(self._prefix)
        ours = {name: found[self._prefix + name] for name in _OURS if self._prefix + name in found}
        settings = self._control.settings([self._prefix + name for name in ours])
        topics = {name[len(self._prefix) :]: topic for name, topic in found.items()}
        description = LogDescription(
            kind="kafka",
            url="kafka://" + ",".join(self._servers) + ("/" + self._prefix.removesuffix(".") if self._prefix else ""),
            generation=generation_of(self._cluster_id, {name: topic.id for name, topic in ours.items()}),
            topics={name: topic.partitions for name, topic in topics.items()},
            durability=durability_of(
                [(topic.replication, settings[self._prefix + name]) for name, topic in ours.items()], self._brokers
            ),
            end_is_linearizable=False,
        )
        with self._lock:
            self._topics, self._description = topics, description

    def _check_open(self) -> None:
        if self._closed:
            raise LogError("the log is closed")
