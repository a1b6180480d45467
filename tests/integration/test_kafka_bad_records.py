"""What others put into the topics of a running system on a real Kafka: nothing stops it, and nothing is skipped silently."""

import os
from pathlib import Path
from typing import Any

import lz4.block
import pytest

from dimint.batch import By, _frame, encode
from dimint.client import Client
from dimint.events import KV_TOPIC
from dimint.limits import EVENTS_MAX_BYTES
from dimint.log.kafka.library import KafkaProducer
from tests.support.kv_system import kv_system
from tests.support.services.kafka import shared_broker
from tests.support.system import wait_until

pytestmark = [
    pytest.mark.timeout(180),
    # the client library leaves a socket whose connecting was refused to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


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
