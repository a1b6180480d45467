"""The promises of one machine, on real processes: what was acknowledged is there, whatever was killed."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.kv_system import kv_system
from tests.support.system import OldClient, System, wait_until, writing

pytestmark = pytest.mark.timeout(150)


def _expect_at_least(system: System, acknowledged: dict[str, int]) -> None:
    """Every acknowledged number is there, or a later one of the same key."""
    assert acknowledged
    with system.old_client() as client:
        for key, number in acknowledged.items():
            reply = client("get", key=key, consistency="strong")
            assert reply.get("value", -1) >= number, (key, number, reply)


def _is_replaced(system: System, name: str, pid: int) -> bool:
    child = system.children().get(name)
    return child is not None and child.pid != pid


def _has_grown(acknowledged: dict[str, int], before: dict[str, int]) -> bool:
    return any(acknowledged[key] > number for key, number in before.items())


def _digests(system: System) -> list[set[str]]:
    """Digests of every partition's replicas, once all have caught up."""

    def read() -> list[set[str]] | None:
        with system.old_client() as client:
            partitions: list[dict[str, Any]] = client("status")["partitions"]
        for partition in partitions:
            if not partition["replicas"] or any(replica["lag"] for replica in partition["replicas"].values()):
                return None
        return [{replica["digest"] for replica in partition["replicas"].values()} for partition in partitions]

    found: list[set[str]] = wait_until(read, 20, "all replicas have caught up")
    return found


def test_everything_killed_while_writing(tmp_path: Path) -> None:
    """After kill -9 of all processes at once every acknowledged write is there again."""
    system = System(tmp_path / "data")
    with system, writing(system, "k") as acknowledged:
        wait_until(lambda: len(acknowledged) == 10, 10, "writes go through")
        time.sleep(0.5)
        system.kill_all()
    with system:
        _expect_at_least(system, acknowledged)
        assert system.stop() == 0


def test_each_process_killed_while_writing(tmp_path: Path) -> None:
    """Any one process may be killed in the middle of writes: it comes back, nothing acknowledged is lost, replicas agree.

    Of three nodes in two groups: a master with a slave, the slave, and a master without one.
    """
    system = System(tmp_path / "data", "--nodes", "3", "--max_slave_count", "1")
    with system:
        with writing(system, "k") as acknowledged:
            wait_until(lambda: len(acknowledged) == 10, 10, "writes go through")
            children = sorted(system.children().items())
            for name, child in children:
                before = dict(acknowledged)
                child.kill()
                wait_until(partial(_is_replaced, system, name, child.pid), 10, f"{name} is started again")
                wait_until(partial(_has_grown, acknowledged, before), 60, "writes go on")
        _expect_at_least(system, acknowledged)
        assert all(len(digests) == 1 for digests in _digests(system))
        assert system.stop() == 0
        assert sum("was killed by signal 9; starting it again" in line for line in system.errors) == len(children)


def test_slaves_serve_while_the_master_is_dead(tmp_path: Path) -> None:
    """A master that is paused for ever takes no reads with it: its slave answers, strongly too."""
    with kv_system(tmp_path, nodes=2) as system, OldClient(f"tcp://{system.address}") as client:
        for number in range(50):
            assert client("set", key=f"k{number}", value=number) == {"value": number}
        status = client("status")
        (pid,) = [node["pid"] for node in status["nodes"] if node["node_id"] == status["partitions"][0]["master"]]
        os.kill(pid, signal.SIGSTOP)
        try:
            for number in range(50):
                assert client("get", key=f"k{number}", consistency="strong") == {"value": number}
        finally:
            os.kill(pid, signal.SIGCONT)
