"""The log on three real brokers: every acknowledged batch survives the death of any one of them."""

import threading
import time
from collections.abc import Iterator

import pytest

from dimint.batch import By
from dimint.clock import Clock
from dimint.errors import NotApplied
from dimint.log.kafka import KafkaLog, KafkaOptions
from dimint.log.kafka.library import KafkaAdminClient
from dimint.log.port import TopicHealth, TopicPartition, TopicSpec
from dimint.log.reading import Counted, Intake
from dimint.writer import BatchWriter, Outgoing
from tests.support.services.kafka import KafkaBroker, KafkaCluster
from tests.support.system import wait_until

TOPIC = "t.one"
PARTITIONS = 3
BY = (By("client", "host", "process"),)
CLOCK: Clock = time
# long enough for brokers on a busy machine: what they answer in time only when it is quiet is asked again and again
OPTIONS = KafkaOptions(delivery_timeout_s=6, request_timeout_s=2, call_timeout_s=15)
MORE_S = 60

# the client library leaves a socket whose connecting was refused to the garbage collector
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster(3, extra={"broker.session.timeout.ms": 1500, "broker.heartbeat.interval.ms": 300}) as cluster:
        yield cluster


def _leader(cluster: KafkaCluster, partition: int) -> KafkaBroker:
    admin = KafkaAdminClient(bootstrap_servers=cluster.servers)
    try:
        (topic,) = admin.describe_topics([TOPIC])
    finally:
        admin.close()
    (number,) = [found["leader_id"] for found in topic["partitions"] if found["partition_index"] == partition]
    found: KafkaBroker = cluster.brokers[number - 1]
    return found


class _Load:
    """Appends numbered batches to a partition, one after the other, on a thread; keeps what was acknowledged."""

    def __init__(self, log: KafkaLog, partition: int) -> None:
        self._writer = BatchWriter(log, clock=CLOCK, host="host", process="process")
        self.partition = partition
        self.applied: list[str] = []
        self.refused: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            key = f"{self.partition}:{number}"
            number += 1
            future = self._writer.append([Outgoing(TOPIC, self.partition, BY, (["x", key, 0, 0],))])[0]
            error = future.exception(60)
            if error is None:
                self.applied.append(key)
            else:
                assert isinstance(error, NotApplied)
                self.refused.add(key)
            time.sleep(0.005)

    def more(self, count: int = 20) -> None:
        """Wait until so many more were acknowledged."""
        wanted, deadline = len(self.applied) + count, time.monotonic() + MORE_S
        while len(self.applied) < wanted:
            assert time.monotonic() < deadline, f"partition {self.partition} does not go on"
            time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._writer.close()


def test_every_acknowledged_batch_survives_the_death_of_any_broker(cluster: KafkaCluster) -> None:
    """A leader is killed under load and a follower with it in turn; with two gone nothing is acknowledged, and nothing lost."""
    log = KafkaLog(cluster.servers, options=OPTIONS, clock=CLOCK)
    log.create([TopicSpec(TOPIC, PARTITIONS)])
    settings = log._control.settings([TOPIC])[TOPIC]
    assert settings["min.insync.replicas"] == "2"
    assert log._control.topics(TOPIC)[TOPIC].replication == 3
    # the reader was there before, and reads through every death
    reader = log.reader()
    places = {TopicPartition(TOPIC, partition): 0 for partition in range(PARTITIONS)}
    reader.assign(places)
    loads = [_Load(log, partition) for partition in range(PARTITIONS)]
    try:
        for load in loads:
            load.more()
        dead = _leader(cluster, 0)
        dead.server.kill()
        for load in loads:
            load.more()
        other = next(broker for broker in cluster.brokers if broker is not dead)
        other.server.pause()  # of three replicas one is left: nothing may be acknowledged
        try:
            time.sleep(2)
            before = [len(load.applied) for load in loads]
            time.sleep(0.7)
            assert [len(load.applied) for load in loads] == before
        finally:
            other.server.resume()
        dead.start()
        for load in loads:
            load.more()
        dead.wait()
    finally:
        for load in loads:
            load.stop()
    intakes = {place: Intake(place.topic, place.partition) for place in places}
    counted: dict[int, list[str]] = {partition: [] for partition in range(PARTITIONS)}
    ends = {place: log.bounds(*place).end for place in places}
    deadline = time.monotonic() + 20
    while any(intakes[place].position < ends[place] for place in places):
        assert time.monotonic() < deadline
        for record in reader.poll(1):
            taken = intakes[TopicPartition(record.topic, record.partition)].take(record)
            if isinstance(taken, Counted):
                counted[record.partition] += [event[1] for event in taken.events]
    reader.close()
    log.close()
    for load in loads:
        # exactly what was acknowledged, in order; what was refused for good is not there
        assert counted[load.partition] == load.applied
        assert not load.refused & set(load.applied)


def test_durability_in_words(cluster: KafkaCluster) -> None:
    """With three copies of which two must have a record, the loss of one broker and its disk is survived."""
    log = KafkaLog(cluster.servers, options=KafkaOptions(prefix="w."), clock=CLOCK)
    log.create([TopicSpec("dimint.cluster", 1)])
    expected = "on 2 brokers before every acknowledgement: survives the loss of any 1 broker and its disk"
    assert log.describe().durability == expected
    log.close()


def test_health_names_a_dead_broker(cluster: KafkaCluster) -> None:
    """Its copies are lacking, nothing has stopped, and both pass when it is back."""
    log = KafkaLog(cluster.servers, options=KafkaOptions(prefix="h."), clock=CLOCK)
    log.create([TopicSpec("dimint.kv", 4)])

    def state() -> tuple[list[bool], list[TopicHealth]]:
        health = log.health()
        assert [broker.id for broker in health.brokers] == [1, 2, 3]
        return [broker.up for broker in health.brokers], list(health.topics)

    whole = ([True, True, True], [TopicHealth("dimint.kv", 4, 3, 2, 0, 0)])
    wait_until(lambda: state() == whole, 20, "all are there")
    dead = cluster.brokers[2]
    dead.server.kill()
    wait_until(lambda: state() == ([True, True, False], [TopicHealth("dimint.kv", 4, 3, 2, 4, 0)]), 30, "the dead broker is seen")
    assert log.health().durability.endswith("survives the loss of any 1 broker and its disk")
    assert log._control.cluster() == (log._control.cluster()[0], 2), "what is down is not counted"
    dead.start()
    dead.wait()
    wait_until(lambda: state() == whole, 30, "it is back")
    log.close()
