"""A node's store that was altered on disk: found, said, and built anew from the log, also where it is the master's."""

import signal
from pathlib import Path
from typing import Any

import pytest

from dimint.batch import By
from dimint.client import Client
from dimint.door import DISPUTED
from dimint.errors import NodeNotAvailable, TimedOut
from dimint.events import KV_TOPIC
from dimint.log.embedded import EmbeddedLog
from dimint.node.replica import DIGEST_EVERY
from dimint.node.store import Store
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter, Outgoing
from tests.support.kv_system import kv_system
from tests.support.system import wait_until


def alter(directory: Path, *keys: str) -> None:
    """What a flipped bit does: another value, the same version, the same digest kept beside."""
    store = Store(directory)
    data = store.partition(0).data
    for key in keys:
        ((name, row), *_) = data.scan(key.encode(), key.encode(), 1)
        data.save({name: row.replace(b"right", b"wrong")})
    store.commit()
    store.close()


def fill(directory: Path, key: str) -> None:
    """Change a key, and write as many records as it takes for replicas to be compared."""
    log = EmbeddedLog(directory, clock=SystemClock())
    writer = BatchWriter(log, clock=SystemClock(), host="h", process="p")
    event: list[Any] = ["kv.set", key, 0, 0, None, b'J"new"', None, 0]
    writer.append_and_wait(Outgoing(KV_TOPIC, 0, (By(None, "h", "p"),), [event]), 30)
    for _ in range(DIGEST_EVERY):
        writer.append_and_wait(Outgoing(KV_TOPIC, 0, (By(None, "h", "p"),), [["barrier", None, 0, 0]]), 30)
    writer.close()
    log.close()


@pytest.mark.timeout(240)
def test_a_master_with_an_altered_store(tmp_path: Path) -> None:
    """Both are in doubt and neither is read until one was built anew from the log: the other one's contents are right."""
    with kv_system(tmp_path, nodes=2, flags=["--partitions=1"]) as system, Client(system.address, timeout=10) as client:
        for key in ("altered", "touched"):
            client.set(key, "right")

        def partition() -> dict[str, Any]:
            return dict(client.status()["partitions"][0])

        wait_until(lambda: len(partition()["replicas"]) == 2, 30, "both hold it")
        (directory,) = (tmp_path / "nodes").glob("1*")
        for name in ("node-1", "node-2"):
            system.kill(name, signal.SIGTERM)
        alter(directory, "altered", "touched")
        system.start("node-1")
        wait_until(lambda: len(partition()["replicas"]) == 1 and _served(partition()), 60, "the altered one is the master")
        system.start("node-2")
        wait_until(lambda: len(partition()["replicas"]) == 2 and _served(partition()), 60, "both are there")
        wrong = partition()["master"]
        fill(tmp_path, "touched")

        def told() -> list[str]:
            """What the wrong one said of the dispute, which may be over before `status` or the other node hears of it."""
            lines = (tmp_path / "node-1.out").read_text().splitlines()
            return [line for line in lines if "serves no reads and is built anew" in line]

        def over() -> bool:
            doubted = told()
            try:
                read = client.get("altered", consistency="weak", timeout=0.3)
            except (NodeNotAvailable, TimedOut):
                return False
            assert not doubted or read == "right", "what is wrong is not served"
            return bool(doubted)

        wait_until(over, 120, "it is built anew")
        assert partition()["master"] == wrong
        assert all(f"{DISPUTED} at offset {DIGEST_EVERY}: " in line for line in told())
        for consistency in ("weak", "session", "strong"):
            assert {client.get("altered", consistency=consistency) for _ in range(6)} == {"right"}
        assert client.get("touched", consistency="strong") == "new"

        def agree() -> bool:
            """What the two report is of two moments: they are equal when both have heard of the last record."""
            replicas = partition()["replicas"].values()
            return all(each["caught_up"] for each in replicas) and len({each["digest"] for each in replicas}) == 1

        wait_until(agree, 60, "both serve, and are equal")
        assert not any(replica["problem"] for replica in partition()["replicas"].values())


def _served(partition: dict[str, Any]) -> bool:
    return bool((partition["replicas"].get(partition["master"]) or {}).get("caught_up"))
