"""The embedded log does what the memory log does, call for call."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dimint.clock import ManualClock
from dimint.errors import OffsetOutOfRange
from dimint.log.embedded import EmbeddedLog
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import Entry, Log, Reader, Record, TopicPartition, TopicSpec

TOPIC, PARTITIONS = "t.model", 2
_partitions = st.integers(0, PARTITIONS - 1)


class TwoLogs(RuleBasedStateMachine):
    """Every step is done to both; both must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.directory = tempfile.TemporaryDirectory()
        self.broker = MemoryBroker(clock=self.clock)
        self.open()
        self.model.create([TopicSpec(TOPIC, PARTITIONS)])
        self.embedded.create([TopicSpec(TOPIC, PARTITIONS)])

    def open(self) -> None:
        self.model: Log = MemoryLog(self.broker)
        self.embedded: Log = EmbeddedLog(Path(self.directory.name), clock=self.clock)
        self.other: Log = EmbeddedLog(Path(self.directory.name), clock=self.clock)
        self.readers: tuple[Reader, ...] = ()

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        for log in (self.model, self.embedded, self.other):
            log.close()

    @rule(sizes=st.lists(st.tuples(_partitions, st.integers(0, 3000)), max_size=5), other=st.booleans())
    def append(self, sizes: list[tuple[int, int]], other: bool) -> None:
        entries = [Entry(TOPIC, partition, bytes([size % 256]) * size) for partition, size in sizes]
        offsets = [future.result(10) for future in self.model.append(entries)]
        assert [future.result(10) for future in (self.other if other else self.embedded).append(entries)] == offsets

    @rule(seconds=st.floats(0, 100), jump=st.booleans())
    def pass_time(self, seconds: float, jump: bool) -> None:
        if jump:
            self.clock.jump(seconds - 50)
        else:
            self.clock.advance(seconds)

    @rule(partition=_partitions, before=st.integers(0, 40), other=st.booleans())
    def trim(self, partition: int, before: int, other: bool) -> None:
        self.model.trim(TOPIC, partition, before)
        (self.other if other else self.embedded).trim(TOPIC, partition, before)

    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    @rule(partition=_partitions, offset=st.integers(0, 40), records=st.integers(1, 5), size=st.integers(1, 5000))
    def read(self, partition: int, offset: int, records: int, size: int) -> None:
        answers = [
            _answer(log, partition, offset, max_records=records, max_bytes=size)
            for log in (self.model, self.embedded, self.other)
        ]
        assert answers[1:] == answers[:1] * 2

    @rule(partition=_partitions, seconds=st.integers(-100, 200))
    def offset_at(self, partition: int, seconds: int) -> None:
        at = self.clock.time_ns() - seconds * 10**9
        assert self.model.offset_at(TOPIC, partition, at) == self.embedded.offset_at(TOPIC, partition, at)

    @rule()
    def follow(self) -> None:
        """Readers of both from the start of what is there; later polls go on from there."""
        positions = {TopicPartition(TOPIC, part): self.model.bounds(TOPIC, part).start for part in range(PARTITIONS)}
        for reader in self.readers:
            reader.close()
        self.readers = (self.model.reader(), self.embedded.reader())
        for reader in self.readers:
            reader.assign(positions)

    @rule()
    def poll(self) -> None:
        if self.readers:
            taken = []
            for reader in self.readers:
                try:
                    taken.append(sorted(reader.poll(0)))
                except OffsetOutOfRange as error:
                    taken.append([Record(TOPIC, error.partition, error.start, error.end, b"")])
            assert taken[0] == taken[1]

    @invariant()
    def same_bounds(self) -> None:
        for partition in range(PARTITIONS):
            bounds = self.model.bounds(TOPIC, partition)
            assert self.embedded.bounds(TOPIC, partition) == bounds
            assert self.other.bounds(TOPIC, partition) == bounds

    def teardown(self) -> None:
        self.close()
        self.directory.cleanup()


def _answer(log: Log, partition: int, offset: int, *, max_records: int, max_bytes: int) -> object:
    try:
        return log.read(TOPIC, partition, offset, max_records=max_records, max_bytes=max_bytes)
    except OffsetOutOfRange as error:
        return (error.offset, error.start, error.end)


TwoLogs.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestTwoLogs = pytest.mark.timeout(120)(TwoLogs.TestCase)
