"""What the loss of nodes' sessions with ZooKeeper moves: one node's everything it had, all of them at once nothing."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dimint import assignment as assignments
from dimint.assignment import ASSIGNMENT_PATH
from dimint.client import Client
from dimint.registry.zookeeper import ZooKeeperRegistry
from tests.support.kv_system import KvSystem
from tests.support.proxy import Proxy
from tests.support.registry_member import options_at
from tests.support.services.zookeeper import ZooKeeperEnsemble
from tests.support.system import wait_until

SESSION_S = 3


@pytest.fixture(scope="module")
def ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble(tick_ms=200) as running:
        yield running


def place(hosts: str, name: str) -> list[str]:
    return [f"--zookeeper_hosts={hosts}", f"--zookeeper_session={SESSION_S}", f"--zookeeper_root=/{name}"]


def stored(registry: ZooKeeperRegistry) -> assignments.Assignment:
    found = registry.get(ASSIGNMENT_PATH)
    assert found is not None
    return assignments.decode(found.value)


def test_nodes_whose_sessions_end_together_keep_what_they_have(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """While the nodes cannot reach ZooKeeper for longer than a session the overlord, which can, moves nothing; reads and
    writes go on; afterwards everybody is registered again and the assignment is the same, to the epoch."""
    server = ensemble.servers[0]
    with Proxy(server.port) as proxy:
        system = KvSystem(tmp_path, overlords=1, nodes=3, flags=place(ensemble.hosts, "together"), slaves=1)
        system.flags_of = {f"node-{number}": [f"--zookeeper_hosts=127.0.0.1:{proxy.port}"] for number in (1, 2, 3)}
        try:
            system.start_all()
            with (
                closing(ZooKeeperRegistry(options_at(f"zookeeper://{ensemble.hosts}/together"))) as registry,
                Client(system.address) as client,
            ):
                wait_until(lambda: _settled(stored(registry)), 20, "all three have their places, and nothing moves")
                before = stored(registry)
                proxy.cut()
                count = 0
                wait_until(lambda: not registry.members("node"), 4 * SESSION_S, "all sessions have ended")
                until = time.monotonic() + 2
                while time.monotonic() < until:
                    count += 1
                    assert client.incr("n") == count
                    assert client.get("n", consistency="strong") == count
                proxy.mend()
                wait_until(lambda: len(registry.members("node")) == 3, 10, "all are back")
                time.sleep(1.5)
                assert stored(registry) == before
                assert client.incr("n") == count + 1
        finally:
            system.stop()


def test_a_dead_nodes_partitions_have_a_new_master_soon_after_its_session(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """Within a second after its session has ended (three are allowed here), and it is the slave that had everything."""
    system = KvSystem(tmp_path, overlords=1, nodes=2, flags=place(ensemble.hosts, "dead"), slaves=1)
    try:
        system.start_all()
        with (
            closing(ZooKeeperRegistry(options_at(f"zookeeper://{ensemble.hosts}/dead"))) as registry,
            Client(system.address, timeout=10) as client,
        ):
            client.set("k", 1)
            group = wait_until(lambda: next((one for one in stored(registry).groups if one.slaves), None), 10, "it has a slave")
            pid = registry.members("node")[group.master]["pid"]
            wait_until(lambda: all(_caught_up(part, group.slaves[0]) for part in client.status()["partitions"]), 10, "caught up")
            system.kill(next(name for name, process in system.processes.items() if process.pid == pid))
            wait_until(lambda: group.master not in registry.members("node"), 4 * SESSION_S, "its session has ended")
            ended = time.monotonic()
            wait_until(lambda: stored(registry).groups[0].master == group.slaves[0], 3, "its slave is master")
            assert client.get("k", consistency="strong") == 1
            assert client.incr("k") == 2
            assert time.monotonic() - ended < 3
            assert [one.nodes for one in stored(registry).groups] == [group.slaves]
    finally:
        system.stop()


def _settled(assignment: assignments.Assignment) -> bool:
    return len(assignment.holders()) == 3 and all(one.moving_to is None for one in assignment.partitions)


def _caught_up(partition: dict[str, Any], node: str) -> bool:
    return bool(partition["replicas"].get(node, {}).get("caught_up"))
