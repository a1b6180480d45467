"""Following partitions of a log on Kafka, from positions that the owner keeps: `assign`, no consumer groups."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dimint.errors import LogError, LogUnavailable, OffsetOutOfRange
from dimint.log.kafka.client import LIBRARY_ERRORS, connect, is_passing, shared_settings, to_log_error
from dimint.log.kafka.library import KafkaConsumer, KafkaPartition, kafka_errors
from dimint.log.kafka.options import KafkaOptions
from dimint.log.port import Bounds, Record, TopicPartition

__all__ = ["KafkaReader", "open_consumer"]

_POLL_MAX_RECORDS: Final = 1000
_FETCH_MAX_RECORDS: Final = 20_000
_FETCH_MAX_BYTES: Final = 8 << 20
_PARTITION_FETCH_MAX_BYTES: Final = 1 << 20  # a record larger than that still comes, alone
_SLICE_S: Final = 0.05
"""How often a waiting poll looks whether it was woken: the library's own wait cannot be ended from outside."""
_RETRY_MS: Final = 20
_CLOSE_MS: Final = 1000


def open_consumer(servers: Sequence[str], options: KafkaOptions, *, wait_s: float = 0.5) -> Any:
    """A connected KafkaConsumer. `wait_s` is how long a broker holds a fetch that finds nothing. Raises LogError."""
    settings = shared_settings(servers, options) | {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "check_crcs": False,  # our batches have a checksum of their own, which every reader checks
        "fetch_max_wait_ms": round(wait_s * 1000),
        "fetch_max_bytes": _FETCH_MAX_BYTES,
        "max_partition_fetch_bytes": _PARTITION_FETCH_MAX_BYTES,
        "allow_auto_create_topics": False,
        "retry_backoff_ms": _RETRY_MS,
        "metrics_enabled": False,
    }
    return connect(KafkaConsumer, settings)


class KafkaReader:
    """See the port's Reader. While Kafka cannot be reached, `poll` finds nothing and goes on trying.

    `check` raises LogError for a place that is not there, `bounds` asks for a place's bounds, `prefix` stands before the
    topics' names in Kafka. Records are prefetched, so that a trim of what was fetched already goes unnoticed.
    """

    def __init__(
        self,
        open_consumer: Callable[[], Any],
        *,
        check: Callable[[str, int], None],
        bounds: Callable[[str, int], Bounds],
        prefix: str,
    ) -> None:
        self._open_consumer, self._check, self._bounds, self._prefix = open_consumer, check, bounds, prefix
        self._consumer: Any = None
        self._stale = False
        self._positions: dict[TopicPartition, int] = {}
        self._order: list[TopicPartition] = []
        self._fetched: dict[TopicPartition, deque[Record]] = {}
        self._fetched_bytes = 0
        self._lost: OffsetOutOfRange | None = None
        self._woken = threading.Event()
        self._closed = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._check_open()
        for topic, partition in positions:
            self._check(topic, partition)
        self._positions = dict(positions)
        self._order = sorted(positions)
        self._fetched = {place: deque() for place in self._order}
        self._fetched_bytes = 0
        self._lost = None
        self._stale = True

    def poll(self, timeout_s: float, *, max_bytes: int = 4 << 20, max_records: int = _POLL_MAX_RECORDS) -> list[Record]:
        self._check_open()
        deadline = time.monotonic() + timeout_s
        if self._fetched_bytes < max_bytes:
            self._fetch(0.0)
        while True:
            if self._lost is not None:
                raise self._lost
            records = self._take(max_bytes, max_records)
            left = deadline - time.monotonic()
            if records or self._woken.is_set() or left <= 0:
                self._woken.clear()
                return records
            self._fetch(min(left, _SLICE_S))

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self._closed = True
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            _end(consumer)

    def _take(self, max_bytes: int, max_records: int) -> list[Record]:
        """What was fetched, every partition first in its turn."""
        records: list[Record] = []
        for place in self._order:
            waiting = self._fetched[place]
            while waiting and len(records) < max_records:
                size = len(waiting[0].value)
                if records and size > max_bytes:
                    break
                max_bytes -= size
                self._fetched_bytes -= size
                records.append(waiting.popleft())
                self._positions[place] = records[-1].offset + 1
        if self._order:
            self._order.append(self._order.pop(0))
        return records

    def _fetch(self, wait_s: float) -> None:
        """Get what is there, waiting for it at most so long."""
        if not self._positions:
            self._woken.wait(wait_s)
            return
        try:
            consumer = self._ready()
            fetched = consumer.poll(timeout_ms=round(wait_s * 1000), max_records=_FETCH_MAX_RECORDS)
        except kafka_errors.OffsetOutOfRangeError:
            self._find_lost()
            return
        except kafka_errors.LogTruncationError as error:
            self._truncated(error)
            return
        except (LogUnavailable, *LIBRARY_ERRORS) as error:
            if not is_passing(error) and not isinstance(error, LogUnavailable):
                raise to_log_error(error, "cannot read") from error
            self._woken.wait(wait_s)
            return
        for place, records in fetched.items():
            self._put(TopicPartition(place.topic[len(self._prefix) :], place.partition), records)
        if not fetched and wait_s > 0:
            self._pass_over(consumer)

    def _put(self, place: TopicPartition, records: Sequence[Any]) -> None:
        waiting = self._fetched[place]
        for record in records:
            # what has no value is not ours: every reader counts it as a dead letter
            value = record.value or b""
            taken_ns, reign = record.timestamp * 1_000_000, record.leader_epoch
            waiting.append(Record(place.topic, place.partition, record.offset, taken_ns, value, reign))
            self._fetched_bytes += len(value)

    def _pass_over(self, consumer: Any) -> None:
        """Where the consumer went on without a record, there is one: the mark that ends a foreign transaction.

        It comes as a record without content, a dead letter like the transaction's records, or else nobody who reads up to
        the end of the log would ever get there.
        """
        for place, position in self._positions.items():
            # the public `position` looks at all partitions each time
            state = consumer._subscription.assignment.get(KafkaPartition(self._prefix + place.topic, place.partition))
            if state is not None and state.position is not None and not self._fetched[place] and state.position.offset > position:
                self._fetched[place].append(Record(*place, state.position.offset - 1, 0, b""))

    def _ready(self) -> Any:
        if self._consumer is None:
            self._consumer = self._open_consumer()
            self._stale = True
        if self._stale:
            places = {place: KafkaPartition(self._prefix + place.topic, place.partition) for place in self._order}
            self._consumer.assign(list(places.values()))
            for place, name in places.items():
                waiting = self._fetched[place]
                self._consumer.seek(name, waiting[-1].offset + 1 if waiting else self._positions[place])
            self._stale = False
        return self._consumer

    def _find_lost(self) -> None:
        """A broker says that a position is out of range: look which one is. A new leader may have been a little behind."""
        for place, position in self._positions.items():
            try:
                start, end = self._bounds(*place)
            except LogUnavailable:
                break
            waiting = self._fetched[place]
            if not start <= position <= end and not waiting:
                self._lost = OffsetOutOfRange(place.topic, place.partition, position, start, end)
                return
        self._stale = True
        self._woken.wait(_SLICE_S)

    def _truncated(self, error: kafka_errors.LogTruncationError) -> None:
        """Records that were read are gone from the log: what was built from them must be rebuilt."""
        for name, found in error.divergent_offsets.items():
            place = TopicPartition(name.topic[len(self._prefix) :], name.partition)
            end = 0 if found is None else found.offset
            self._lost = OffsetOutOfRange(place.topic, place.partition, self._positions[place], 0, end)

    def _check_open(self) -> None:
        if self._closed:
            raise LogError("the reader is closed")


def _end(consumer: Any) -> None:
    consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
