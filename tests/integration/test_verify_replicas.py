"""`dimint verify replicas`: every key as each node has it, on a system that goes on."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from dimint.cli import main
from dimint.client import Client
from dimint.events import KV_TOPIC
from dimint.node.store import Store
from dimint.registry.embedded import EmbeddedRegistry
from tests.support.kv_system import kv_system
from tests.support.system import wait_until

pytestmark = pytest.mark.timeout(240)


def alter(directory: Path, key: str) -> int:
    """What a flipped bit does: another value, the same version, the same digest kept beside; in which partition."""
    store = Store(directory)
    try:
        for partition in store.partitions():
            data = store.partition(partition).data
            for name, row in data.scan(key.encode(), b"", 1):
                if name == key.encode():
                    data.save({name: row.replace(b"right", b"wrong")})
                    store.commit()
                    return partition
        raise AssertionError(f"{key} is not there")
    finally:
        store.close()


def both_hold_all(client: Client) -> bool:
    copies = [copy for part in client.status()["partitions"] for copy in part["replicas"].values()]
    return len(copies) == 4 and all(copy["caught_up"] for copy in copies)


@pytest.mark.parametrize("was_there", [True, False])
def test_nobody_to_ask_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str], *, was_there: bool) -> None:
    """Neither of a directory that nobody works in, nor of one that is none, is anything said to be equal; nothing is made."""
    if was_there:
        EmbeddedRegistry(tmp_path / "registry").close()
    there = sorted(tmp_path.iterdir())
    assert main(["verify", "replicas", f"--data_dir={tmp_path}"]) != 0
    out, err = capfd.readouterr()
    where = f"none is in the registry {tmp_path}/registry"
    assert (out, err) == ("", f"dimint: no overlord is running: {where}; start one, or name it by --host\n")
    assert sorted(tmp_path.iterdir()) == there


def test_the_first_difference_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Equal under load, whatever the values are; then one value of one store is another, which no digest has found yet."""
    with kv_system(tmp_path, nodes=2, flags=["--partitions=2"]) as system:
        with Client(system.address, timeout=20) as client:
            client.mset({f"key{number:04}": f"right {number}" for number in range(1200)})
            client.set("binary", b"\x00\xff")
            client.set("long", 2**200)
            client.set("nothing", None)

            wait_until(lambda: both_hold_all(client), 60, "both hold everything")
        flags = [f"--data_dir={tmp_path}", "--timeout=20", "--json"]  # the overlord is found in the registry

        def verify(code: int) -> list[dict[str, Any]]:
            assert main(["verify", "replicas", *flags]) == code
            return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

        stop = threading.Event()

        def write() -> None:
            with Client(system.address, timeout=20) as writer:
                while not stop.is_set():
                    writer.incr("count")
                    writer.set("key0003", "right now")

        writing = threading.Thread(target=write)
        writing.start()
        try:
            found = verify(0)
        finally:
            stop.set()
            writing.join()
        assert [row["name"] for row in found] == [f"{KV_TOPIC}/0", f"{KV_TOPIC}/1"]
        assert sum(int(row["text"].split()[0]) for row in found) >= 1203
        for name in ("node-1", "node-2"):
            system.kill(name, signal.SIGTERM)
        partition = alter(tmp_path / "nodes" / "1", "key0777")
        for name in ("node-1", "node-2"):
            system.start(name)
        system.wait_ready()
        with Client(system.address, timeout=20) as client:
            wait_until(lambda: both_hold_all(client), 60, "both are back")
        problems = {row["name"]: row["problem"] for row in verify(1)}
        assert problems.pop(f"{KV_TOPIC}/{1 - partition}") is None
        (problem,) = problems.values()
        assert problem.startswith(f"key 'key0777', all up to {KV_TOPIC}/{partition}@")
        assert "has 'right 777' (version" in problem
        assert "has 'wrong 777' (version" in problem
        system.processes["node-2"].send_signal(signal.SIGSTOP)
        try:
            flags[1] = "--timeout=1"
            assert all("did not answer within 1 s" in str(row["problem"]) for row in verify(1))
        finally:
            system.processes["node-2"].send_signal(signal.SIGCONT)
