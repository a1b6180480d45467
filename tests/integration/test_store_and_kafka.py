"""A node's store against real brokers whose log is not the one it was built from: noticed, thrown away, built anew."""

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dimint.batch import By, encode
from dimint.clock import Clock
from dimint.errors import DimintError, OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.genesis import GenesisSettings
from dimint.log.kafka.library import KafkaAdminClient
from dimint.log.opening import genesis, genesis_of, open_log
from dimint.log.port import Entry, Log, Reader, TopicPartition
from dimint.node.holdings import Holdings
from dimint.node.store import Store
from dimint.writer import BatchWriter, Outgoing
from tests.support.services.kafka import KafkaCluster, shared_broker

CLOCK: Clock = time

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaCluster]:
    with KafkaCluster() as cluster:
        yield cluster


@contextmanager
def opened(broker: KafkaCluster, name: str) -> Iterator[Log]:
    """The log with one partition; it may take a moment after a start of the broker."""
    deadline = time.monotonic() + 60
    while True:
        try:
            log = open_log(f"{broker.url}/{name}", clock=CLOCK)
            genesis(log, wanted=GenesisSettings(kv_partitions=1), clock=CLOCK, host="h", process="p")
            break
        except DimintError:
            assert time.monotonic() < deadline
            time.sleep(0.3)
    with closing(log):
        yield log


def write(log: Log, *keys: str) -> None:
    """A record a key."""
    with closing(BatchWriter(log, clock=CLOCK, host="h", process="p")) as writer:
        for key in keys:
            event = ["kv.set", key, 0, 0, None, b"J1", None, 0]
            writer.append_and_wait(Outgoing(KV_TOPIC, 0, (By(None, "h", "p"),), (event,)), 30)


def read(holdings: Holdings, log: Log) -> list[str]:
    """Apply what the log has; the keys of the replica."""
    end = log.bounds(KV_TOPIC, 0).end
    while holdings.replicas[0].next_offset < end:
        holdings.apply(log.read(KV_TOPIC, 0, holdings.replicas[0].next_offset), 0.0)
    holdings.commit(0.0)
    return [found.key for found in holdings.replicas[0].scan("", None, 100).found]


def follow(reader: Reader, offset: int) -> None:
    """Read on from there, for a while."""
    reader.assign({TopicPartition(KV_TOPIC, 0): offset})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        reader.poll(1.0)


@contextmanager
def held(directory: Path, log: Log) -> Iterator[Holdings]:
    """The store of a node in `directory`, taken up on the log."""
    with closing(Store(directory)) as store:
        holdings = Holdings(store, log, genesis_of(log), moved_positions=lambda: None)
        holdings.hold(frozenset({0}), 0.0)
        yield holdings


def test_a_truncated_log(broker: KafkaCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records that were acknowledged are gone (as after an unclean election): the store that has them is rebuilt, also
    under a running node, and also when others stand in their place by then."""
    name = "truncated"
    with opened(broker, name) as log:
        write(log, "a", "b")
    server = broker.brokers[0]
    server.server.kill()
    (folder,) = server._folder.rglob(f"{name}.{KV_TOPIC}-0")
    shutil.copytree(folder, tmp_path / "copy")
    server.start()
    with opened(broker, name) as log:
        write(log, "c", "d")
        for node in ("down", "overtaken"):
            with held(tmp_path / node, log) as holdings:
                assert read(holdings, log) == ["a", "b", "c", "d"]
    server.server.kill()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    server.start()
    with opened(broker, name) as log:
        assert log.bounds(KV_TOPIC, 0).end == 2
        with held(tmp_path / "down", log) as holdings:
            assert "it holds records up to 4, the log ends at 2" in caplog.text
            assert read(holdings, log) == ["a", "b"]
            write(log, "e")
            reader = log.reader()
            with closing(reader), pytest.raises(OffsetOutOfRange) as gone:
                follow(reader, 4)
            holdings.misread(0, gone.value, 0.0)
            assert read(holdings, log) == ["a", "b", "e"]
        write(log, "f")
        with held(tmp_path / "overtaken", log) as holdings:
            assert "record 3 of the log is another one than it has applied" in caplog.text
            assert read(holdings, log) == ["a", "b", "e", "f"]


def test_a_truncated_log_that_ends_alike(broker: KafkaCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same batch came again at the same offset, behind another one than before: the leader's reign tells."""
    name = "same"
    first, gone, other, last = (
        encode(key.encode() * 16, 1, 0, [By(None, "h", "p")], [["kv.set", key, 0, 0, None, b"J1", None, 0]]) for key in "fgol"
    )

    def put(log: Log, *values: bytes) -> None:
        for value in values:
            log.append([Entry(KV_TOPIC, 0, value)])[0].result(30)

    with opened(broker, name) as log:
        put(log, first)
    server = broker.brokers[0]
    server.server.kill()
    (folder,) = server._folder.rglob(f"{name}.{KV_TOPIC}-0")
    shutil.copytree(folder, tmp_path / "copy")
    server.start()
    with opened(broker, name) as log:
        put(log, gone, last)
        before = log.read(KV_TOPIC, 0, 2)[0]
        with held(tmp_path / "node", log) as holdings:
            assert read(holdings, log) == ["f", "g", "l"]
        with held(tmp_path / "node", log) as holdings:
            assert holdings.replicas[0].next_offset == 3, "what fits is kept"
    server.server.kill()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    server.start()
    with opened(broker, name) as log:
        put(log, other, last)
        after = log.read(KV_TOPIC, 0, 2)[0]
        assert after.value == before.value
        assert 0 <= before.reign < after.reign
        with held(tmp_path / "node", log) as holdings:
            assert f"record 2 of the log was appended again, in reign {after.reign} of a leader" in caplog.text
            assert read(holdings, log) == ["f", "l", "o"]


def test_a_topic_made_anew_and_another_cluster(broker: KafkaCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The generation is another one, however alike the records are."""
    with opened(broker, "anew") as log:
        write(log, "a", "b")
        with held(tmp_path / "node", log) as holdings:
            assert read(holdings, log) == ["a", "b"]
    admin = KafkaAdminClient(bootstrap_servers=broker.servers)
    admin.delete_topics([f"anew.{KV_TOPIC}"])
    admin.close()
    time.sleep(0.5)
    with opened(broker, "anew") as log:
        write(log, "a", "c", "d")
        with held(tmp_path / "node", log) as holdings:
            assert caplog.text.count("it was built from another log") == 1
            assert read(holdings, log) == ["a", "c", "d"]
    with opened(shared_broker(), f"anew-{time.time_ns()}") as log:
        write(log, "a", "c", "d")
        with held(tmp_path / "node", log) as holdings:
            assert caplog.text.count("it was built from another log") == 2
            assert read(holdings, log) == ["a", "c", "d"]
