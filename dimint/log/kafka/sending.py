"""Appending to Kafka: futures, a bound on the bytes under way, and a producer that is replaced when it is stuck.

What is known about a record that failed: if the producer refused to take it, it is certainly not in the log. For anything
else (a time-out, a broker's refusal after attempts whose answers were lost) it may be in the log, now or later, and
`BatchWriter` finds out by its next batch. So the library may retry as it likes; Kafka's idempotence stays off, because a
producer with it stops for ever once a retried batch passes its delivery time-out.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from dimint.errors import AppendFailed, AppendUnknown, LogBroken, LogError
from dimint.log.kafka.client import LIBRARY_ERRORS, connect, shared_settings, to_log_error
from dimint.log.kafka.library import KafkaProducer
from dimint.log.kafka.options import KafkaOptions
from dimint.log.kafka.topic_settings import MESSAGE_MAX_BYTES
from dimint.log.port import Entry

__all__ = ["Sending", "open_producer"]

log = logging.getLogger("dimint.kafka")

_BATCH_BYTES: Final = 512 << 10
_REQUEST_MAX_BYTES: Final = 16 << 20
_LOOK_S: Final = 0.5
_FORCED_END_S: Final = 2.0

assert MESSAGE_MAX_BYTES < _REQUEST_MAX_BYTES


def open_producer(servers: Sequence[str], options: KafkaOptions) -> Any:
    """A connected KafkaProducer. Raises LogError."""
    settings = shared_settings(servers, options) | {
        "acks": "all",
        "enable_idempotence": False,
        "max_in_flight_requests_per_connection": 1,
        "linger_ms": 0,  # batching is ours
        "batch_size": _BATCH_BYTES,
        "compression_type": "lz4",
        "max_request_size": _REQUEST_MAX_BYTES,
        "delivery_timeout_ms": round(options.delivery_timeout_s * 1000),
        "max_block_ms": round(options.connect_timeout_s * 1000),
        "metrics_enabled": False,
    }
    return connect(KafkaProducer, settings)


class _Flight:
    """One record under way."""

    __slots__ = ("future", "since", "size")

    def __init__(self, size: int) -> None:
        self.future: Future[int] = Future()
        self.future.set_running_or_notify_cancel()
        self.size = size
        self.since = time.monotonic()


class Sending:
    """Entries carry names of topics in Kafka, which exist. `open_producer` connects one, or raises LogError."""

    def __init__(self, open_producer: Callable[[], Any], options: KafkaOptions) -> None:
        self._open_producer, self._options = open_producer, options
        self._changed = threading.Condition()
        self._producer: Any = None
        self._warm: set[str] = set()
        self._last: dict[tuple[str, int], int] = {}
        self._flights: set[_Flight] = set()
        self._bytes = 0
        self._opening = False
        self._closed = False
        self._watch: threading.Thread | None = None
        self.replaced = 0
        """How many producers were given up."""

    def append(self, entries: Sequence[Entry]) -> list[Future[int]]:
        """See the port. Fails with AppendFailed at once while there is no connection or too much is under way."""
        size = sum([len(entry.value) for entry in entries])
        with self._changed:
            if self._closed:
                raise LogError("the log is closed")
            if self._bytes and self._bytes + size > self._options.bytes_in_flight_max:
                return _refused(entries, f"{self._bytes} bytes wait for Kafka already")
            if self._watch is None:
                self._open_first()
                self._watch = threading.Thread(target=self._run, name="kafka-watch", daemon=True)
                self._watch.start()
            producer = self._producer
            if producer is None:
                return _refused(entries, "there is no connection to Kafka now")
            flights = [_Flight(len(entry.value)) for entry in entries]
            self._flights.update(flights)
            self._bytes += size
        for entry, flight in zip(entries, flights, strict=True):
            self._send(producer, entry, flight)
        return [flight.future for flight in flights]

    def close(self) -> None:
        """Wait for what is under way, for a while; the rest is unknown. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            producer, self._producer = self._producer, None
            self._changed.notify_all()
        if self._watch is not None:
            self._watch.join()
        if producer is not None:
            _end(producer, self._options.close_timeout_s)
        self._give_up(self._take_all(), "the log was closed")

    # --- one record --------------------------------------------------------------------------------------------------
    def _send(self, producer: Any, entry: Entry, flight: _Flight) -> None:
        try:
            if entry.topic not in self._warm:
                producer.partitions_for(entry.topic)
                self._warm.add(entry.topic)
            sent = producer.send(entry.topic, value=entry.value, partition=entry.partition)
        except LIBRARY_ERRORS as error:  # whatever it is, the producer did not take the record
            if self._landed(flight):
                flight.future.set_exception(AppendFailed(str(to_log_error(error, "Kafka's producer took nothing"))))
            return
        sent.add_callback(self._acknowledged, flight)
        sent.add_errback(self._failed, flight)

    def _acknowledged(self, flight: _Flight, metadata: Any) -> None:
        """On the producer's thread."""
        if not self._landed(flight):
            return
        place, offset = (metadata.topic, metadata.partition), metadata.offset
        if offset < 0:
            flight.future.set_exception(AppendUnknown("the broker did not name an offset"))
        elif offset <= self._last.get(place, -1):
            text = f"{place[0]}/{place[1]} has lost records or was made anew: offset {offset} came after {self._last[place]}"
            flight.future.set_exception(LogBroken(text))
        else:
            self._last[place] = offset
            flight.future.set_result(offset)

    def _failed(self, flight: _Flight, error: BaseException) -> None:
        """On the producer's thread."""
        if self._landed(flight):
            flight.future.set_exception(AppendUnknown(f"Kafka did not acknowledge: {type(error).__name__}: {error}"[:500]))

    def _landed(self, flight: _Flight) -> bool:
        """Whether the flight was still open."""
        with self._changed:
            if flight not in self._flights:
                return False
            self._flights.remove(flight)
            self._bytes -= flight.size
            return True

    # --- the producer ------------------------------------------------------------------------------------------------
    def _open_first(self) -> None:
        try:
            self._producer = self._open_producer()
        except LogError as error:
            log.warning("%s", error)

    def _run(self) -> None:
        """Replace what is stuck, until closed."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, _LOOK_S):
                    return
                latest = time.monotonic() - self._options.delivery_timeout_s - self._options.stuck_s
                stuck = None
                if self._producer is not None and any(flight.since < latest for flight in self._flights):
                    stuck, self._producer = self._producer, None
            if stuck is not None:
                self.replaced += 1
                log.warning("Kafka's producer is stuck: it is replaced")
                self._give_up(self._take_all(), "the producer was stuck and has been replaced")
                _end(stuck, 0.0)
            if self._producer is None:
                self._reopen()

    def _reopen(self) -> None:
        try:
            producer = self._open_producer()
            for topic in self._warm:
                producer.partitions_for(topic)
        except (LogError, *LIBRARY_ERRORS) as error:
            log.warning("%s", to_log_error(error, "cannot open a producer"))
            return
        with self._changed:
            if not self._closed:
                self._producer = producer
                return
        _end(producer, 0.0)

    def _take_all(self) -> list[_Flight]:
        with self._changed:
            flights, self._flights, self._bytes = list(self._flights), set(), 0
            return flights

    def _give_up(self, flights: Iterable[_Flight], why: str) -> None:
        for flight in flights:
            flight.future.set_exception(AppendUnknown(why))


def _refused(entries: Sequence[Entry], why: str) -> list[Future[int]]:
    futures = []
    for _ in entries:
        future: Future[int] = Future()
        future.set_exception(AppendFailed(why))
        futures.append(future)
    return futures


def _end(producer: Any, timeout_s: float) -> None:
    """Close a producer, by force if something is left at the end of the time."""
    try:
        producer.close(timeout=timeout_s)
    except LIBRARY_ERRORS:  # it raises for what it could not deliver, and then stays open
        producer._sender.force_close()
        producer._sender.join(_FORCED_END_S)
        try:
            producer.close(timeout=0)
        except LIBRARY_ERRORS as error:
            log.warning("a producer did not end: %s", error)
