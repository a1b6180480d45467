"""The log on a real Kafka: topics and their settings, who may connect, times, and records of others."""

import threading
import time
from typing import Any

import pytest

from dimint.errors import (
    LogBroken,
    LogError,
    LogMismatch,
    LogUnavailable,
    OffsetOutOfRange,
    SettingsError,
)
from dimint.log.kafka import KafkaLog, KafkaOptions, security_of
from dimint.log.kafka.library import KafkaAdminClient, KafkaProducer
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.log.port import Entry, Reader, TopicPartition, TopicSpec
from dimint.log.reading import Counted, DeadLetter, Intake
from dimint.writer import BatchWriter
from tests.support import kafka_lab
from tests.support.batches import batch_of, counted_keys
from tests.support.proxy import Proxy
from tests.support.services.kafka import PASSWORD, USER, KafkaCluster
from tests.support.topics import TOPIC

log = kafka_lab.log


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
        log = open_log(url, clock=time)
        assert log.describe().url == url
        found.append(genesis(log, wanted=GenesisSettings(kv_partitions=3), clock=time, host="h", process="p"))
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
    writer = BatchWriter(log, clock=time, host="h", process="p")
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    for key in "ab":
        writer.append([batch_of(key)])[0].result(10)
        assert len(reader.poll(10)) == 1
    admin = _admin(broker)
    admin.delete_topics([prefix + TOPIC])
    admin.close()
    time.sleep(0.5)
    other = KafkaLog(broker.servers, options=KafkaOptions(prefix=prefix), clock=time)
    other.create([TopicSpec(TOPIC, 1)])
    other.close()
    assert isinstance(writer.append([batch_of("c")])[0].exception(40), LogBroken)
    assert isinstance(writer.append([batch_of("d")])[0].exception(10), LogBroken)
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
        KafkaLog(["127.0.0.1:1"], clock=time)
    assert time.monotonic() - began < 3


def test_somebody_else_listens() -> None:
    """A server that is not Kafka is given up after the time to connect, and leaves no thread behind."""
    with Proxy(1) as deaf:
        deaf.hold()
        with pytest.raises(LogUnavailable, match="cannot connect"):
            KafkaLog([f"127.0.0.1:{deaf.port}"], options=KafkaOptions(connect_timeout_s=0.5, request_timeout_s=0.5), clock=time)
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

    log = open_log(url, clock=time, kafka=options())
    log.create([TopicSpec(TOPIC, 1)])
    assert log.append([Entry(TOPIC, 0, b"x")])[0].result(10) == 0
    assert [record.value for record in log.read(TOPIC, 0, 0)] == [b"x"]
    log.close()
    for refused in (options(password="wrong", wait_s=1), options(ca=None, wait_s=1)):
        with pytest.raises(LogError) as caught:
            open_log(url, clock=time, kafka=refused)
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
    writer = BatchWriter(log, clock=time, host="h", process="p")
    assert writer.append([batch_of("ours")])[0].result(10).offset == 7
    writer.close()
    assert [isinstance(intake.take(record), Counted) for record in reader.poll(10)] == [True]
    reader.close()
    assert counted_keys(log) == ["ours"]
