"""When a node's reading thread rests, and what ends a rest."""

import threading
from collections.abc import Iterator

import pytest

from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import Entry, Record, TopicPartition, TopicSpec
from dimint.node import feed as feed_module
from dimint.node.feed import REST_BELOW_BYTES, Feed
from dimint.system_clock import SystemClock

PLACE = TopicPartition("t", 0)
PATIENCE_S = 20.0


class _Fed:
    """A feed that reads a log in memory on a thread of its own, and what was taken of it."""

    def __init__(self) -> None:
        self.log = MemoryLog(MemoryBroker(clock=SystemClock()))
        self.log.create([TopicSpec(PLACE.topic, 1, None)])
        self._came = threading.Event()
        self.feed = Feed(self.log, wake=self._came.set)
        self.feed.assign({PLACE: 0})
        self._thread = threading.Thread(target=self.feed.run, daemon=True)
        self._thread.start()

    def append(self, value: bytes) -> None:
        self.log.append([Entry(*PLACE, value)])[0].result()

    def next(self, timeout_s: float = PATIENCE_S) -> list[bytes] | None:
        """The values that are read next; None if nothing is within the time."""
        if not self._came.wait(timeout_s):
            return None
        self._came.clear()
        taken = self.feed.take()
        assert isinstance(taken, list)
        return [record.value for record in taken if isinstance(record, Record)]

    def close(self) -> None:
        self.feed.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.log.close()


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Fed]:
    """One whose rests end only when something ends them."""
    monkeypatch.setattr(feed_module, "REST_S", 600.0)
    fed = _Fed()
    yield fed
    fed.close()


def test_what_comes_during_a_rest_is_read_together_when_somebody_waits(fed: _Fed) -> None:
    fed.append(b"1")
    assert fed.next() == [b"1"]
    fed.append(b"2")
    fed.append(b"3")
    assert fed.next(timeout_s=0.1) is None
    fed.feed.hurry()
    assert fed.next() == [b"2", b"3"]


def test_while_somebody_waits_there_is_no_rest(fed: _Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "EAGER_S", 600.0)
    fed.feed.hurry()
    for value in (b"1", b"2", b"3"):
        fed.append(value)
        assert fed.next() == [value]


def test_a_backlog_is_read_without_a_rest(fed: _Fed) -> None:
    large = bytes(REST_BELOW_BYTES)
    fed.append(large)
    assert fed.next() == [large]
    fed.append(b"2")
    assert fed.next() == [b"2"]


def test_a_new_position_ends_a_rest(fed: _Fed) -> None:
    fed.append(b"1")
    assert fed.next() == [b"1"]
    fed.feed.assign({PLACE: 0})
    assert fed.next() == [b"1"]


def test_a_rest_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "REST_S", 0.05)
    fed = _Fed()
    fed.append(b"1")
    assert fed.next() == [b"1"]
    fed.append(b"2")
    assert fed.next() == [b"2"]
    fed.close()
