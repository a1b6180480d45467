"""New holders of a partition, as processes: a peer's snapshot under load, then the tail; digests agree; a trimmed log."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from dimint.client import Client
from dimint.errors import DimintError
from dimint.events import KV_TOPIC
from dimint.genesis import DEFAULT_KV_PARTITIONS
from dimint.log.opening import open_log
from dimint.node import peering
from dimint.node.replica import META, read_meta
from dimint.node.store import Store
from dimint.system_clock import SystemClock
from tests.support.kv_system import KvSystem, kv_system
from tests.support.system import OldClient, wait_until


@contextmanager
def load(system: KvSystem) -> Iterator[None]:
    """Writes without a pause, of new keys and old ones."""
    over = threading.Event()

    def write() -> None:
        with Client(system.addresses, timeout=15) as client:
            number = 0
            while not over.is_set():
                number += 1
                client.mset({f"load {number % 500} {index}": number for index in range(50)})
                client.incr(f"n{number % 8}")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def fill(system: KvSystem, records: int) -> None:
    """At least so many records in every partition: one that waits for none of the others is a record each."""
    with OldClient(f"tcp://{system.address}") as client:
        for number in range(records):
            client("mset", values={f"fill {number % 50} {index}": "x" * 100 for index in range(40)})


def replicas(client: Client) -> list[dict[str, Any]]:
    return [part["replicas"] for part in client.status()["partitions"]]


def all_caught_up(client: Client, count: int) -> bool:
    return all(len(found) == count and all(one["caught_up"] for one in found.values()) for found in replicas(client))


def contents(directory: Path, name: str) -> dict[int, tuple[int, int]]:
    """Position and digest of every partition in the store of a node that has ended."""
    with closing(Store(directory / "nodes" / name)) as store:
        found = {partition: read_meta(store.partition(partition).side.get(META)) for partition in store.partitions()}
        return {partition: (meta.next_offset, meta.digest) for partition, meta in found.items() if meta is not None}


def test_a_new_slave_takes_the_masters_snapshot_under_load(tmp_path: Path) -> None:
    """Its replicas come from the peer and the log's tail, and are the same to the digest when writing stops."""
    with kv_system(tmp_path, nodes=1) as system, Client(system.address) as client:
        fill(system, 110)
        (master,) = replicas(client)[0]
        taken: dict[int, str] = {}
        with load(system):
            system.start("node-2")
            deadline = time.monotonic() + 40
            while not all_caught_up(client, 2):
                assert time.monotonic() < deadline, replicas(client)
                for partition, found in enumerate(replicas(client)):
                    taken.update((partition, way["node"]) for one in found.values() if (way := one["building"]) and way["node"])
            time.sleep(0.2)
        assert len(taken) > DEFAULT_KV_PARTITIONS // 2, "most were seen on their way"
        assert set(taken.values()) == {master}
        wait_until(lambda: all(one["lag"] == 0 for found in replicas(client) for one in found.values()), 10, "all is applied")
        assert not [problem for found in replicas(client) for one in found.values() if (problem := one["problem"])]
    there = contents(tmp_path, "1")
    assert len(there) == DEFAULT_KV_PARTITIONS
    assert contents(tmp_path, "2") == there


def test_a_trimmed_log_and_a_giver_that_dies(tmp_path: Path) -> None:
    """What the log lacks comes from a peer; one that is killed is waited for, and its snapshot taken when it is back."""
    with kv_system(tmp_path, nodes=1) as system, Client(system.address) as client:
        fill(system, 110)
        before = dict(client.scan("fill 1 "))
        assert len(before) == 40
        partitions = len(replicas(client))
        system.kill("node-1", signal.SIGTERM)  # what it has applied is on its disk then
        with closing(open_log(tmp_path, clock=SystemClock())) as log:
            for partition in range(partitions):
                log.trim(KV_TOPIC, partition, log.bounds(KV_TOPIC, partition).end - 1)
        system.start("node-2")
        with pytest.raises(DimintError):
            client.get("fill 1 1", consistency="strong", timeout=1)
        wait_until(lambda: "snapshot of a node that has it is needed" in str(_problems(client)), 20, "it says what it lacks")
        system.start("node-1")
        wait_until(lambda: all_caught_up(client, 2), 40, "both are caught up")
        system.kill("node-1")
        assert wait_until(lambda: _scan(client), 10, "it is served") == before


def _scan(client: Client) -> Any:
    try:
        return dict(client.scan("fill 1 "))
    except DimintError:
        return None


def _problems(client: Client) -> list[str]:
    return [str(one["problem"]) for found in replicas(client) for one in found.values()]


def test_strangers_at_the_door_for_snapshots(tmp_path: Path) -> None:
    """Frames that no node sends, of logs and partitions that are not here: refused, and the node serves on."""
    with kv_system(tmp_path, nodes=1) as system, Client(system.address) as client:
        client.set("k", 1)
        status = client.status()
        (node,) = status["nodes"]
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 5000)
        try:
            socket.connect(node["client"])
            for frame in (
                b"\x90",
                b"\x9f" * 1000,
                peering.encode(peering.Take(0, "another log")),
                peering.encode(peering.Take(1 << 40, status["generation"])),
                peering.encode(peering.Want(7, 0, 1 << 60)),
                peering.encode(peering.Offer(0, 1, 1)),
            ):
                socket.send(frame)
                assert isinstance(peering.decode_from_holder(socket.recv()), peering.Refused), frame
            socket.send(b'{"cmd": "get", "key": "k"}')
            assert b'"value":1' in socket.recv()
        finally:
            socket.close()
            context.term()
