"""The log on a real Kafka: topics and their settings, times, and a writer through every kind of fault on the way."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from dimint.batch import By, decode
from dimint.clock import Clock
from dimint.errors import (
    AppendFailed,
    AppendUnknown,
    LogBroken,
    LogError,
    LogMismatch,
    LogUnavailable,
    NotApplied,
    OffsetOutOfRange,
    SettingsError,
)
from dimint.log.kafka import KafkaLog, KafkaOptions, security_of
from dimint.log.kafka.library import KafkaAdminClient, KafkaProducer
from dimint.log.kafka.sending import Sending
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.log.port import Entry, Log, Reader, TopicPartition, TopicSpec
from dimint.log.reading import Counted, DeadLetter, Intake
from dimint.writer import BatchWriter, Outgoing
from tests.support.proxy import Proxy
from tests.support.services.kafka import PASSWORD, USER, KafkaCluster, shared_broker

# the client library leaves a socket whose connecting was refused to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TOPIC = "t.one"
BY = (By("client", "host", "process"),)
CLOCK: Clock = time


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
def broker() -> KafkaCluster:
    return shared_broker()


@pytest.fixture
def prefix() -> str:
    return f"{os.urandom(6).hex()}."


@pytest.fixture
def log(broker: KafkaCluster, prefix: str) -> Iterator[KafkaLog]:
    log = KafkaLog(broker.servers, options=KafkaOptions(prefix=prefix), clock=CLOCK)
    yield log
    log.close()


@pytest.fixture
def proxy(broker: KafkaCluster) -> Iterator[Proxy]:
    with Proxy(broker.brokers[0].proxied_port, broker.brokers[0].proxy_port) as proxy:
        yield proxy


@pytest.fixture
def far(log: KafkaLog, proxy: Proxy, prefix: str) -> Iterator[KafkaLog]:
    """The same log through the proxy, with short time-outs; its topic is there."""
    log.create([TopicSpec(TOPIC, 2)])
    far = KafkaLog([f"127.0.0.1:{proxy.port}"], options=_short(prefix), clock=CLOCK)
    yield far
    proxy.mend()
    far.close()


@pytest.fixture
def writer(far: KafkaLog) -> Iterator[BatchWriter]:
    writer = BatchWriter(far, clock=CLOCK, host="host", process="process")
    yield writer
    writer.close()


def _batch(key: str, partition: int = 0) -> Outgoing:
    return Outgoing(TOPIC, partition, BY, (["x", key, 0, 0],))


def _numbers(log: Log) -> list[int]:
    """Numbers of the batches of partition 0, in log order."""
    return [decode(record.value).header.number for record in log.read(TOPIC, 0, 0)]


def _counted(log: Log) -> list[str]:
    intake = Intake(TOPIC, 0)
    taken = [intake.take(record) for record in log.read(TOPIC, 0, 0)]
    return [event[1] for batch in taken if isinstance(batch, Counted) for event in batch.events]


def _admin(broker: KafkaCluster) -> Any:
    return KafkaAdminClient(bootstrap_servers=broker.servers)


# --- topics ----------------------------------------------------------------------------------------------------------


def test_topics_are_made_with_the_settings_that_they_need(broker: KafkaCluster, log: KafkaLog, prefix: str) -> None:
    """Deleted only by age or by us, stamped by the broker, large enough for our largest record."""
    log.create([TopicSpec(TOPIC, 2), TopicSpec("t.aged", 1, retention_s=60)])
    settings = log._control.settings([prefix + TOPIC, prefix + "t.aged"])
    for found in settings.values():
        assert found["cleanup.policy"] == "delete"
        assert found["message.timestamp.type"] == "LogAppendTime"
        assert found["unclean.leader.election.enable"] == "false"
        assert int(found["max.message.bytes"] or 0) > 4 << 20
    assert [settings[prefix + name]["retention.ms"] for name in (TOPIC, "t.aged")] == ["-1", "60000"]
    assert log.describe().durability == "on one broker: survives process kill, not power loss or the loss of that broker's disk"
    assert not log.describe().end_is_linearizable


def test_a_topic_set_up_wrongly_is_refused_with_the_command_that_repairs_it(
    broker: KafkaCluster, log: KafkaLog, prefix: str
) -> None:
    """Nothing is changed behind the operator's back."""
    admin = _admin(broker)
    configs = {"cleanup.policy": "compact", "max.message.bytes": "1000000"}
    admin.create_topics(
        {prefix + TOPIC: {"num_partitions": 1, "replication_factor": 1, "configs": configs}}, wait_for_metadata=True
    )
    admin.close()
    with pytest.raises(LogMismatch) as caught:
        log.create([TopicSpec(TOPIC, 1)])
    assert caught.value.hint == (
        f"kafka-configs.sh --bootstrap-server {broker.servers[0]} --alter --entity-type topics --entity-name {prefix}{TOPIC} "
        "--add-config 'cleanup.policy=delete,max.message.bytes=4259840,message.timestamp.type=LogAppendTime,"
        "retention.ms=-1'"
    )


def test_genesis_and_generation(broker: KafkaCluster, prefix: str) -> None:
    """Of two processes one writes it; the generation is the same for all, and another after the topics were made anew."""
    url = f"{broker.url}/{prefix[:-1]}"
    found = []

    def start() -> None:
        log = open_log(url, clock=CLOCK)
        assert log.describe().url == url
        found.append(genesis(log, wanted=GenesisSettings(kv_partitions=3), clock=CLOCK, host="h", process="p"))
        assert log.describe().generation == found[-1].generation
        log.close()

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    start()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert found[0].kv_partitions == 3
    assert ":" not in found[0].generation
    admin = _admin(broker)
    admin.delete_topics([prefix + "dimint.status"])
    admin.close()
    time.sleep(0.3)
    start()
    assert found[3].generation != found[0].generation


def test_a_topic_made_anew_under_a_running_process(broker: KafkaCluster, log: KafkaLog, prefix: str) -> None:
    """The writer stops for good as soon as an offset goes back, and a reader says that its position is gone."""
    log.create([TopicSpec(TOPIC, 1)])
    writer = BatchWriter(log, clock=CLOCK, host="h", process="p")
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    for key in "ab":
        writer.append([_batch(key)])[0].result(10)
        assert len(reader.poll(10)) == 1
    admin = _admin(broker)
    admin.delete_topics([prefix + TOPIC])
    admin.close()
    time.sleep(0.5)
    other = KafkaLog(broker.servers, options=KafkaOptions(prefix=prefix), clock=CLOCK)
    other.create([TopicSpec(TOPIC, 1)])
    other.close()
    assert isinstance(writer.append([_batch("c")])[0].exception(40), LogBroken)
    assert isinstance(writer.append([_batch("d")])[0].exception(10), LogBroken)
    writer.close()
    with pytest.raises(OffsetOutOfRange):
        _read_on(reader)
    reader.close()


def _read_on(reader: Reader) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert not reader.poll(1)


def test_nobody_listens() -> None:
    """One line within the time, that says whom it asked."""
    began = time.monotonic()
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1: Connection refused"):
        KafkaLog(["127.0.0.1:1"], clock=CLOCK)
    assert time.monotonic() - began < 3


def test_somebody_else_listens() -> None:
    """A server that is not Kafka is given up after the time to connect, and leaves no thread behind."""
    with Proxy(1) as deaf:
        deaf.hold()
        with pytest.raises(LogUnavailable, match="cannot connect"):
            KafkaLog([f"127.0.0.1:{deaf.port}"], options=KafkaOptions(connect_timeout_s=0.5, request_timeout_s=0.5), clock=CLOCK)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kafka")]


@pytest.mark.parametrize(
    "options",
    [
        {"security": {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "a,b"}},
        {"security": {"bootstrap_servers": "x"}},
        {"delivery_timeout_s": 1.0},
        {"bytes_in_flight_max": 1000},
    ],
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    """They are refused before anything is connected."""
    with pytest.raises(SettingsError):
        KafkaOptions(**options)


def test_tls_and_a_user(broker: KafkaCluster, prefix: str) -> None:
    """Everything works over TLS with a SCRAM user; a wrong password or an unknown certificate is refused in one line."""
    url = f"kafka://localhost:{broker.brokers[0].secure_port}/{prefix[:-1]}"

    def options(ca: object = broker.certificate, password: str = PASSWORD, wait_s: float = 5.0) -> KafkaOptions:
        auth = f"scram-sha-512:{USER}:{password}"
        security = security_of(tls=True, ca=ca, certificate=None, key=None, auth=auth)
        return KafkaOptions(connect_timeout_s=wait_s, security=security)

    log = open_log(url, clock=CLOCK, kafka=options())
    log.create([TopicSpec(TOPIC, 1)])
    assert log.append([Entry(TOPIC, 0, b"x")])[0].result(10) == 0
    assert [record.value for record in log.read(TOPIC, 0, 0)] == [b"x"]
    log.close()
    for refused in (options(password="wrong", wait_s=1), options(ca=None, wait_s=1)):
        with pytest.raises(LogError) as caught:
            open_log(url, clock=CLOCK, kafka=refused)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"ca": "/x"}, "without TLS"),
        ({"auth": "basic:a:b"}, "mechanism"),
        ({"auth": "plain:a"}, "mechanism"),
        ({"auth": "plain::b"}, "mechanism"),
    ],
)
def test_security_that_cannot_work(given: dict[str, str], problem: str) -> None:
    """It is refused in one line that does not show the password."""
    arguments: dict[str, Any] = {"tls": False, "ca": None, "certificate": None, "key": None, "auth": "", **given}
    with pytest.raises(SettingsError, match=problem):
        security_of(**arguments)


# --- times and foreign records ---------------------------------------------------------------------------------------


def test_times_are_the_brokers(log: KafkaLog) -> None:
    """Records carry the broker's time; looking for a time finds the first record at or after it."""
    log.create([TopicSpec(TOPIC, 1)])
    assert log.offset_at(TOPIC, 0, 0) == 0
    for turn in range(4):
        log.append([Entry(TOPIC, 0, b"%d" % turn)])[0].result(10)
        time.sleep(0.01)
    times = [record.timestamp_ns for record in log.read(TOPIC, 0, 0)]
    assert times == sorted(times)
    assert abs(times[0] - time.time_ns()) < 60e9
    assert [log.offset_at(TOPIC, 0, at) for at in (-5, 0, *times, times[1] + 1, times[3] + 1)] == [0, 0, 0, 1, 2, 3, 2, 4]
    log.trim(TOPIC, 0, 2)
    assert log.offset_at(TOPIC, 0, times[0]) == 2


def test_records_of_others_are_dead_letters(broker: KafkaCluster, log: KafkaLog, prefix: str) -> None:
    """Without a value, compressed otherwise, transactional: each is read as what it is, and none stops the partition."""
    log.create([TopicSpec(TOPIC, 1)])
    for more in ({}, {"compression_type": "gzip"}, {"transactional_id": prefix}):
        producer = KafkaProducer(bootstrap_servers=broker.servers, **more)
        if "transactional_id" in more:
            producer.init_transactions()
            producer.begin_transaction()
        producer.send(prefix + TOPIC, value=b"foreign", key=b"k", partition=0)
        producer.send(prefix + TOPIC, value=None, key=b"k", partition=0)
        if "transactional_id" in more:
            producer.commit_transaction()
        producer.close()
    deadline = time.monotonic() + 10
    while log.bounds(TOPIC, 0).end < 7:  # the last offset is the mark of the transaction's end, which comes a little later
        assert time.monotonic() < deadline
    assert [record.offset for record in log.read(TOPIC, 0, 6)] == [6]
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    intake, dead = Intake(TOPIC, 0), 0
    while intake.position < 7 and time.monotonic() < deadline:
        dead += sum(isinstance(intake.take(record), DeadLetter) for record in reader.poll(1))
    assert (intake.position, dead) == (7, 7)
    writer = BatchWriter(log, clock=CLOCK, host="h", process="p")
    assert writer.append([_batch("ours")])[0].result(10).offset == 7
    writer.close()
    assert [isinstance(intake.take(record), Counted) for record in reader.poll(10)] == [True]
    reader.close()
    assert _counted(log) == ["ours"]


# --- faults on the way -----------------------------------------------------------------------------------------------


def test_a_batch_that_lands_after_the_next_one_does_not_count(log: KafkaLog, proxy: Proxy, writer: BatchWriter) -> None:
    """Batch 2 is held on its way until its fence is acknowledged: it was answered as not applied, and stays so."""
    writer.append([_batch("a")])[0].result(10)
    proxy.hold("up")
    (late,) = writer.append([_batch("late")])
    assert isinstance(late.exception(20), NotApplied)
    numbers = _numbers(log)
    assert 2 not in numbers
    assert numbers[-1] >= 3
    proxy.release()
    deadline = time.monotonic() + 10
    while 2 not in _numbers(log) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _numbers(log)[-1] == 2, "the held request must land at last, or nothing was tested"
    writer.append([_batch("b")])[0].result(10)
    assert _counted(log) == ["a", "b"]


def test_a_lost_answer_is_found(log: KafkaLog, proxy: Proxy, writer: BatchWriter) -> None:
    """The batch is in the log and its acknowledgement is held: the writer finds it there, once."""
    writer.append([_batch("a")])[0].result(10)
    proxy.hold("down")
    (found,) = writer.append([_batch("b")])
    assert found.result(20).number == 2
    proxy.release()
    writer.append([_batch("c")])[0].result(10)
    assert _counted(log) == ["a", "b", "c"]


def test_an_outage_longer_than_the_delivery_timeout(log: KafkaLog, proxy: Proxy, far: KafkaLog, writer: BatchWriter) -> None:
    """What was under way gets its answer afterwards, the writer goes on by itself, and readers too."""
    reader = far.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0, TopicPartition(TOPIC, 1): 0})
    writer.append([_batch("a")])[0].result(10)
    assert len(reader.poll(10)) == 1
    proxy.cut()
    (unknown,) = writer.append([_batch("b")])
    time.sleep(1.5)
    assert not unknown.done()
    assert not writer.idle(TOPIC, 0)
    assert reader.poll(0.1) == []
    (first,) = writer.append([_batch("x", partition=1)])  # nobody can say where this partition begins
    assert isinstance(first.exception(20), NotApplied)
    with pytest.raises(LogUnavailable):
        far.bounds(TOPIC, 0)
    proxy.mend()
    landed = unknown.exception(20) is None
    writer.append([_batch("c")])[0].result(10)
    assert _counted(log) == (["a", "b", "c"] if landed else ["a", "c"])
    keys, intake = [], Intake(TOPIC, 0, position=1)
    deadline = time.monotonic() + 10
    while "c" not in keys and time.monotonic() < deadline:
        taken = [intake.take(record) for record in reader.poll(1)]
        keys += [event[1] for batch in taken if isinstance(batch, Counted) for event in batch.events]
    reader.close()
    assert ["a", *keys] == _counted(log)


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


def test_bytes_under_way_are_bounded(proxy: Proxy, far: KafkaLog) -> None:
    """What does not fit is refused at once, and room comes back."""
    far.append([Entry(TOPIC, 0, b"a")])[0].result(10)
    proxy.hold()
    size = 4 << 20
    futures: list[Future[int]] = []
    while not futures or not isinstance(futures[-1].exception(0) if futures[-1].done() else None, AppendFailed):
        futures += far.append([Entry(TOPIC, 1, bytes(size))])
        assert len(futures) <= 17
    assert len(futures) == 17
    proxy.release()
    for future in futures[:-1]:
        future.exception(20)
    far.append([Entry(TOPIC, 1, b"b")])[0].result(10)


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
