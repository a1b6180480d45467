"""Logs under test: every backend behind one small factory, so that one more backend is one more parameter."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dimint.clock import Clock
from dimint.log.embedded import EmbeddedLog
from dimint.log.kafka import KafkaLog, KafkaOptions
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import Entry, Log, Reader, Record, TopicSpec
from dimint.testing import FaultyLog
from tests.support.services.kafka import shared_broker, shared_cluster
from tests.support.topics import OTHER, PARTITIONS, TOPIC


class LogUnderTest:
    """One log; `open` gives another handle on it, as another process would have. All are closed at the end."""

    def __init__(self, opener: Callable[[], Log]) -> None:
        self._opener = opener
        self._opened: list[Log] = []

    def open(self) -> Log:
        log = self._opener()
        self._opened.append(log)
        return log

    def close(self) -> None:
        for log in self._opened:
            log.close()


def _memory(_path: Path, clock: Clock) -> Callable[[], Log]:
    broker = MemoryBroker(clock=clock)
    return lambda: MemoryLog(broker)


def _embedded(path: Path, clock: Clock) -> Callable[[], Log]:
    return lambda: EmbeddedLog(path, clock=clock)


def _embedded_slow(path: Path, clock: Clock) -> Callable[[], Log]:
    return lambda: EmbeddedLog(path, clock=clock, quick_s=0.0)


def _faulty(path: Path, clock: Clock) -> Callable[[], Log]:
    opener = _memory(path, clock)
    return lambda: FaultyLog(opener())


def _kafka(_path: Path, clock: Clock) -> Callable[[], Log]:
    return _on(shared_broker().servers, clock)


def _kafka_of_three(_path: Path, clock: Clock) -> Callable[[], Log]:
    return _on(shared_cluster().servers, clock)


def _on(servers: list[str], clock: Clock) -> Callable[[], Log]:
    options = KafkaOptions(prefix=f"{os.urandom(6).hex()}.")
    return lambda: KafkaLog(servers, options=options, clock=clock)


BACKENDS = {
    "memory": _memory,
    "embedded": _embedded,
    "embedded-slow": _embedded_slow,
    "faulty": _faulty,
    "kafka": _kafka,
    "kafka-of-three": _kafka_of_three,
}
"""`embedded-slow` never takes its disk for a quick one, so that its own thread commits.

`faulty` is the fake that breaks on purpose: unbroken it keeps the contract too."""
WITH_OUR_CLOCK = [backend for backend in BACKENDS if not backend.startswith("kafka")]
"""Backends that stamp records with the clock that they are given."""


@contextmanager
def log_under_test(backend: str, path: Path, clock: Clock = time) -> Iterator[LogUnderTest]:
    """A new log of the backend with two topics."""
    under_test = LogUnderTest(BACKENDS[backend](path, clock))
    try:
        under_test.open().create([TopicSpec(TOPIC, PARTITIONS), TopicSpec(OTHER, 1)])
        yield under_test
    finally:
        under_test.close()


def append(log: Log, *values: bytes, partition: int = 0, topic: str = TOPIC) -> list[int]:
    """Append records one after the other; their offsets."""
    return [future.result(10) for future in log.append([Entry(topic, partition, value) for value in values])]


def values_of(records: list[Record]) -> list[bytes]:
    """What stands in records."""
    return [record.value for record in records]


def poll_values(reader: Reader, count: int) -> list[bytes]:
    """Values of the next `count` records."""
    values: list[bytes] = []
    deadline = time.monotonic() + 10
    while len(values) < count and time.monotonic() < deadline:
        values += values_of(reader.poll(1.0))
    return values
