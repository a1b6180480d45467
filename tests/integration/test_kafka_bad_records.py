"""What others put into the topics of a running system on a real Kafka: nothing stops it, and nothing is skipped silently."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.block
import pytest

from dimint.batch import By, _frame, encode
from dimint.cli import main
from dimint.client import Client
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.limits import EVENTS_MAX_BYTES
from dimint.log.kafka.library import KafkaProducer
from dimint.log.port import Entry
from dimint.replay.opening import open_log
from tests.support.kv_system import KvSystem, kv_system
from tests.support.placing import placed
from tests.support.services.kafka import shared_broker
from tests.support.system import wait_until

pytestmark = pytest.mark.timeout(180)


def replicas(client: Client) -> list[dict[str, Any]]:
    """Of each partition, that of the only node."""
    return [dict(found) for part in client.status()["partitions"] for found in part["replicas"].values()]


def check_strays(system: KvSystem, log: str, put: Callable[[int, bytes], object], capsys: pytest.CaptureFixture[str]) -> None:
    """Put sound batches with keys of another partition into the log: counted, named, never applied, by whoever reads."""
    genesis = Genesis("", 10_000, 2, 1)
    keys = [placed("counter", partition, genesis) for partition in range(2)]
    with Client(system.address) as client:
        client.mset(dict.fromkeys(keys, 5))
        for partition, key in enumerate(reversed(keys)):
            strays: list[list[Any]] = [
                ["kv.incr", key, 0, 0, None, 100],
                ["kv.set", key, 0, 0, None, b"J666", None, 0],
                ["kv.expire", key, 0, 0, 1],
            ]
            for number, event in enumerate(strays, 1):
                put(partition, encode(b"f" * 16, number, 0, [By(None, "h", "foreign")], [["barrier", None, 0, 0], event]))
        wait_until(lambda: [part["dead_letters"] for part in replicas(client)] == [3, 3], 20, "every stray is counted")
        assert not any(part["problem"] for part in replicas(client))
        assert client.get(keys[0], consistency="strong") == 5
        assert dict(client.scan("counter")) == dict.fromkeys(keys, 5)
        assert [client.incr(key) for key in keys] == [6, 6]
    flags = ["--data_dir", str(system.directory), "--log", log]

    def printed(*command: str) -> str:
        assert main([*command, *flags]) == 0
        return str(capsys.readouterr().out)

    dead = printed("deadletters", "list", "--topic=dimint.kv")
    for partition, key in enumerate(keys):
        assert dead.count(f"\tpartition\tkey {key!r} belongs into partition {partition}\t") == 3
        assert "666" not in printed("history", key)
    assert "6 dead letters" in printed("verify", "all")


def test_keys_in_the_wrong_partition_on_kafka(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A producer of somebody else chooses partitions of its own."""
    broker = shared_broker()
    name = os.urandom(6).hex()
    log = f"{broker.url}/{name}"
    with kv_system(tmp_path, flags=[f"--log={log}", "--partitions=2"]) as system:
        producer = KafkaProducer(bootstrap_servers=broker.servers)

        def put(partition: int, value: bytes) -> None:
            producer.send(f"{name}.{KV_TOPIC}", value=value, partition=partition).get(20)

        check_strays(system, log, put, capsys)
        producer.close()


def test_keys_in_the_wrong_partition_of_an_embedded_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that uses the log's own library does not have to know which partition a key belongs into."""
    with kv_system(tmp_path, flags=["--partitions=2"]) as system, open_log(tmp_path) as log:
        check_strays(
            system, str(tmp_path), lambda partition, value: log.append([Entry(KV_TOPIC, partition, value)])[0].result(20), capsys
        )


def test_records_of_others_are_counted_and_shown(tmp_path: Path) -> None:
    """Foreign or ill-framed, compressed in every way, too large unpacked, aborted: each is a dead letter in `status`; a
    newer program's halts."""
    broker = shared_broker()
    name = os.urandom(6).hex()
    with kv_system(tmp_path, flags=[f"--log={broker.url}/{name}", "--partitions=1"]) as system, Client(system.address) as client:
        client.set("k", 1)
        sent = 0
        for more in ({}, {"compression_type": "snappy"}, {"compression_type": "gzip"}, {"transactional_id": name}):
            producer = KafkaProducer(bootstrap_servers=broker.servers, **more)
            if "transactional_id" in more:
                producer.init_transactions()
                producer.begin_transaction()
            for value in (b"foreign", None, b"DMNT"):
                producer.send(f"{name}.{KV_TOPIC}", value=value, key=b"k", partition=0, timestamp_ms=253_370_764_800_000)
                sent += 1
            if "transactional_id" in more:
                producer.flush()
                producer.abort_transaction()
            producer.close()

        def replica() -> dict[str, Any]:
            (part,) = client.status()["partitions"]
            (found,) = part["replicas"].values()
            return dict(found)

        # what promises too much is not unpacked
        packed = lz4.block.compress(bytes(EVENTS_MAX_BYTES + 1), store_size=False)
        bomb = _frame(1, [bytes(16), 1, 1, 0, None, [], EVENTS_MAX_BYTES + 1], packed)
        broker.set_topic(f"{name}.{KV_TOPIC}", {"compression.type": "zstd"})  # the broker packs anew
        producer = KafkaProducer(bootstrap_servers=broker.servers)
        for value in (b"foreign", bomb):
            producer.send(f"{name}.{KV_TOPIC}", value=value, partition=0)
            sent += 1
        producer.close()
        wait_until(lambda: replica()["dead_letters"] >= sent, 20, "every record is counted")
        assert not replica()["problem"]
        assert client.incr("after") == 1
        assert client.get("k", consistency="strong") == 1

        producer = KafkaProducer(bootstrap_servers=broker.servers)
        newer = encode(b"w" * 16, 1, 0, [By(None, "h", "p")], [["kv.newer", "k", 0, 0]])
        producer.send(f"{name}.{KV_TOPIC}", value=newer, partition=0)
        producer.close()
        wait_until(lambda: "kv.newer" in (replica()["problem"] or ""), 20, "a kind of a newer program is named")
        assert client.get("k", consistency="weak") == 1
