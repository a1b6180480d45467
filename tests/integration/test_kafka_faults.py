"""A writer on a real Kafka through every kind of fault on the way, and a producer that says nothing."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from dimint.batch import decode
from dimint.errors import (
    AppendFailed,
    AppendUnknown,
    LogError,
    LogUnavailable,
    NotApplied,
)
from dimint.limits import RECORD_MAX_BYTES
from dimint.log.kafka import KafkaLog, KafkaOptions
from dimint.log.kafka.sending import Sending
from dimint.log.port import Entry, Log, TopicPartition, TopicSpec
from dimint.log.reading import Counted, Intake
from dimint.writer import BatchWriter
from tests.support import kafka_lab
from tests.support.batches import batch_of, counted_keys
from tests.support.proxy import Proxy
from tests.support.services.kafka import KafkaCluster
from tests.support.topics import TOPIC

log = kafka_lab.log


def _short(prefix: str) -> KafkaOptions:
    """Time-outs for faults that a test waits for. An append has no time for a second attempt."""
    return KafkaOptions(
        prefix=prefix,
        delivery_timeout_s=0.8,
        request_timeout_s=0.8,
        call_timeout_s=1.0,
        connect_timeout_s=1.0,
        close_timeout_s=0.3,
    )


@pytest.fixture
def proxy(broker: KafkaCluster) -> Iterator[Proxy]:
    with Proxy(broker.brokers[0].proxied_port, broker.brokers[0].proxy_port) as proxy:
        yield proxy


@pytest.fixture
def far(log: KafkaLog, proxy: Proxy, prefix: str) -> Iterator[KafkaLog]:
    """The same log through the proxy, with short time-outs; its topic is there."""
    log.create([TopicSpec(TOPIC, 2)])
    far = KafkaLog([f"127.0.0.1:{proxy.port}"], options=_short(prefix), clock=time)
    yield far
    proxy.mend()
    far.close()


@pytest.fixture
def writer(far: KafkaLog) -> Iterator[BatchWriter]:
    writer = BatchWriter(far, clock=time, host="host", process="process")
    yield writer
    writer.close()


def _numbers(log: Log) -> list[int]:
    """Numbers of the batches of partition 0, in log order."""
    return [decode(record.value).header.number for record in log.read(TOPIC, 0, 0)]


def test_a_batch_that_lands_after_the_next_one_does_not_count(log: KafkaLog, proxy: Proxy, writer: BatchWriter) -> None:
    """Batch 2 is held on its way until its fence is acknowledged: it was answered as not applied, and stays so."""
    writer.append([batch_of("a")])[0].result(10)
    proxy.hold("up")
    (late,) = writer.append([batch_of("late")])
    assert isinstance(late.exception(20), NotApplied)
    numbers = _numbers(log)
    assert 2 not in numbers
    assert numbers[-1] >= 3
    proxy.release()
    deadline = time.monotonic() + 10
    while 2 not in _numbers(log) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _numbers(log)[-1] == 2, "the held request must land at last, or nothing was tested"
    writer.append([batch_of("b")])[0].result(10)
    assert counted_keys(log) == ["a", "b"]


def test_a_lost_answer_is_found(log: KafkaLog, proxy: Proxy, writer: BatchWriter) -> None:
    """The batch is in the log and its acknowledgement is held: the writer finds it there, once."""
    writer.append([batch_of("a")])[0].result(10)
    proxy.hold("down")
    (found,) = writer.append([batch_of("b")])
    assert found.result(20).number == 2
    proxy.release()
    writer.append([batch_of("c")])[0].result(10)
    assert counted_keys(log) == ["a", "b", "c"]


def test_an_outage_longer_than_the_delivery_timeout(log: KafkaLog, proxy: Proxy, far: KafkaLog, writer: BatchWriter) -> None:
    """What was under way gets its answer afterwards, the writer goes on by itself, and readers too."""
    reader = far.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0, TopicPartition(TOPIC, 1): 0})
    writer.append([batch_of("a")])[0].result(10)
    assert len(reader.poll(10)) == 1
    proxy.cut()
    (unknown,) = writer.append([batch_of("b")])
    time.sleep(1.5)
    assert not unknown.done()
    assert not writer.idle(TOPIC, 0)
    assert reader.poll(0.1) == []
    (first,) = writer.append([batch_of("x", partition=1)])  # nobody can say where this partition begins
    assert isinstance(first.exception(20), NotApplied)
    with pytest.raises(LogUnavailable):
        far.bounds(TOPIC, 0)
    proxy.mend()
    landed = unknown.exception(20) is None
    writer.append([batch_of("c")])[0].result(10)
    assert counted_keys(log) == (["a", "b", "c"] if landed else ["a", "c"])
    keys, intake = [], Intake(TOPIC, 0, position=1)
    deadline = time.monotonic() + 10
    while "c" not in keys and time.monotonic() < deadline:
        taken = [intake.take(record) for record in reader.poll(1)]
        keys += [event[1] for batch in taken if isinstance(batch, Counted) for event in batch.events]
    reader.close()
    assert ["a", *keys] == counted_keys(log)


def test_closing_during_an_outage(proxy: Proxy, far: KafkaLog) -> None:
    """It ends in its time, every future is answered, and no thread stays."""
    far.append([Entry(TOPIC, 0, b"a")])[0].result(10)
    before = set(threading.enumerate())
    proxy.cut()
    futures = far.append([Entry(TOPIC, 0, b"b"), Entry(TOPIC, 1, b"c")])
    began = time.monotonic()
    far.close()
    assert time.monotonic() - began < 5
    assert all(isinstance(future.exception(0), AppendUnknown) for future in futures)
    assert not [thread for thread in before & set(threading.enumerate()) if thread.name.startswith(("dimint-net", "kafka-watch"))]
    with pytest.raises(LogError, match="closed"):
        far.append([Entry(TOPIC, 0, b"d")])


def test_bytes_under_way_are_bounded(log: KafkaLog, proxy: Proxy, prefix: str) -> None:
    """What does not fit is refused at once, and room comes back."""
    log.create([TopicSpec(TOPIC, 2)])
    # nothing may be given up meanwhile, however long the machine takes to fill the room
    options = KafkaOptions(prefix=prefix, bytes_in_flight_max=4 * RECORD_MAX_BYTES)
    with closing(KafkaLog([f"127.0.0.1:{proxy.port}"], options=options, clock=time)) as far:
        far.append([Entry(TOPIC, 0, b"a")])[0].result(10)
        proxy.hold()
        fitting = far.append([Entry(TOPIC, 1, bytes(RECORD_MAX_BYTES))] * 4)
        (refused,) = far.append([Entry(TOPIC, 1, b"too much")])
        assert isinstance(refused.exception(0), AppendFailed)
        assert not any(future.done() for future in fitting)
        proxy.release()
        assert [future.result(40) for future in fitting] == [0, 1, 2, 3]
        assert far.append([Entry(TOPIC, 1, b"b")])[0].result(10) == 4


# --- a producer that says nothing ------------------------------------------------------------------------------------


class _Deaf:
    """A producer that takes everything and never says a word."""

    def __init__(self) -> None:
        self.closed = False

    def partitions_for(self, _topic: str) -> set[int]:
        return {0}

    def send(self, *_: object, **__: object) -> "_Deaf":
        return self

    def add_callback(self, *_: object) -> None:
        pass

    def add_errback(self, *_: object) -> None:
        pass

    def close(self, timeout: float) -> None:
        self.closed = True


def test_a_stuck_producer_is_replaced() -> None:
    """Its records are unknown, appends are refused until there is a new one, and the new one takes over."""
    deaf = _Deaf()
    ready = threading.Event()
    fresh = _Deaf()

    def open_producer() -> _Deaf:
        if not deaf.closed and not sending.replaced:
            return deaf
        if not ready.is_set():
            raise LogUnavailable("not yet")
        return fresh

    sending = Sending(
        open_producer, KafkaOptions(delivery_timeout_s=0.2, request_timeout_s=0.1, stuck_s=0.1, close_timeout_s=0.1)
    )
    (stuck,) = sending.append([Entry("t", 0, b"x")])
    assert isinstance(stuck.exception(10), AppendUnknown)
    (refused,) = sending.append([Entry("t", 0, b"y")])
    assert isinstance(refused.exception(10), AppendFailed)
    ready.set()
    deadline = time.monotonic() + 10
    while (taken := sending.append([Entry("t", 0, b"z")])[0]).done() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert deaf.closed
    sending.close()
    assert isinstance(taken.exception(0), AppendUnknown)
    assert fresh.closed
