"""Overlords and nodes as processes on a real Kafka: what holds on the embedded log holds here."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dimint.client import Client
from dimint.errors import DimintError
from tests.support.kv_system import KvSystem, kv_system
from tests.support.services.kafka import KafkaCluster


@pytest.fixture(scope="module")
def system(broker: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvSystem]:
    flags = [f"--log={broker.url}/{os.urandom(6).hex()}"]
    with kv_system(_folder(tmp_path_factory), overlords=2, nodes=2, flags=flags) as running:
        yield running


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kafka")


def test_writes_and_reads_of_every_kind(system: KvSystem) -> None:
    """Writes through one overlord are read through the other, with each consistency."""
    with Client(system.addresses[0]) as one, Client(system.addresses[1]) as two:
        one.set("a", {"n": 1})
        assert two.get("a", consistency="strong") == {"n": 1}
        one.mset({f"m{number}": number for number in range(300)})
        assert two.mget([f"m{number}" for number in range(300)], consistency="strong") == {
            f"m{number}": number for number in range(300)
        }
        assert [one.incr("c"), two.incr("c"), one.incr("c", 5)] == [1, 2, 7]
        assert one.get("c") == 7
        two.delete("a")
        assert one.get("a", consistency="strong") is None
        status = one.status()
        assert status["log"] == "kafka"
        assert status["durability"].startswith("on one broker")


def test_strong_reads_see_every_acknowledged_write(system: KvSystem) -> None:
    """A strong read that begins after an acknowledgement of another client sees at least that write."""
    with Client(system.addresses[0]) as one, Client(system.addresses[1]) as two:
        for number in range(100):
            one.set("seen", number)
            assert two.get("seen", consistency="strong") == number


def test_a_broker_that_stands_still(system: KvSystem, broker: KafkaCluster) -> None:
    """Weak reads go on, strong ones end by their deadline, and afterwards every write has one answer that holds."""
    acknowledged = 0
    with Client(system.address, timeout=1) as client:
        client.set("steady", 1)
        client.incr("still")
        acknowledged += 1
        broker.brokers[0].server.pause()
        try:
            unknown = 0
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(DimintError):
                    client.incr("still")
                assert time.monotonic() - began < 3
                unknown += 1
                assert client.get("steady", consistency="weak") == 1
            with pytest.raises(DimintError):
                client.get("steady", consistency="strong")
            old = client.get_aged("steady", consistency="weak")
            assert old.value == 1
            assert old.age_s is not None
            assert old.age_s > 1.5, "weak reads go on, and say how old they are"
        finally:
            broker.brokers[0].server.resume()
        deadline = time.monotonic() + 20
        while True:
            try:
                client.incr("still")
                acknowledged += 1
                break
            except DimintError:
                unknown += 1
                assert time.monotonic() < deadline
        value = client.get("still", consistency="strong", timeout=10)
        assert acknowledged <= value <= acknowledged + unknown


def _status(system: KvSystem, *flags: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of `dimint status`."""
    command = [sys.executable, "-m", "dimint", "status", "--json", f"--data_dir={system.directory}", *system.flags, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_status_of_a_healthy_system(system: KvSystem, broker: KafkaCluster) -> None:
    """Brokers, topics with their growth, overlords, nodes and partitions, from registry, log and overlords together."""
    with Client(system.address) as client:
        client.mset({f"grow{number}": "x" * 100 for number in range(200)})
    code, found = _status(system)
    assert (code, found["problems"]) == (0, [])
    assert [(one["id"], one["address"], one["up"]) for one in found["brokers"]] == [(1, broker.brokers[0].address, True)]
    topics = {topic["name"]: topic for topic in found["topics"]}
    assert set(topics) == {"dimint.cluster", "dimint.kv", "dimint.status"}
    assert topics["dimint.kv"]["growth"]["events_per_day"] > 200
    assert topics["dimint.kv"]["growth"]["bytes_per_day"] > 20_000
    assert found["durability"].startswith("on one broker: survives process kill, not power loss")
    assert [overlord["answers"] for overlord in found["overlords"]] == [True, True]
    count = topics["dimint.kv"]["partitions"]
    assert len(found["partitions"]) == count
    assert sorted((node["masters"], node["slaves"], node["up"]) for node in found["nodes"]) == [
        (0, count, True),
        (count, 0, True),
    ]
    assert all(one["lag"] == 0 and one["position"] == one["end"] for one in found["partitions"])


def test_status_while_parts_are_down(system: KvSystem, broker: KafkaCluster) -> None:
    """Each is named, the rest is shown, and the exit code says that something is wrong."""
    system.processes["overlord-2"].send_signal(signal.SIGSTOP)
    try:
        code, found = _status(system, "--timeout=2")
    finally:
        system.processes["overlord-2"].send_signal(signal.SIGCONT)
    assert (code, found["problems"]) == (1, [f"the overlord at {system.addresses[1]} does not answer: no answer within 2 s"])
    placed = {partition["partition"]: partition["master"] for partition in found["partitions"]}
    assert all(placed.values())
    broker.brokers[0].server.pause()
    try:
        code, found = _status(system, "--timeout=3")
    finally:
        broker.brokers[0].server.resume()
    assert code == 1
    assert any(problem.startswith("the log does not answer") for problem in found["problems"])
    assert [overlord["answers"] for overlord in found["overlords"]] == [True, True]
    assert {partition["partition"]: partition["master"] for partition in found["partitions"]} == placed


def test_killed_processes_lose_nothing(system: KvSystem) -> None:
    """Under load an overlord and a node are killed and started again: every acknowledged write is there."""
    written: dict[str, int] = {}
    stop = threading.Event()

    def write() -> None:
        with Client(system.addresses, timeout=10) as client:
            number = 0
            while not stop.is_set():
                key = f"load:{number}"
                with suppress(DimintError):  # not acknowledged: it may be there or not
                    client.set(key, number)
                    written[key] = number
                number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        time.sleep(0.5)
        for name in ("overlord-2", "node-1"):
            system.kill(name)
            time.sleep(0.3)
            system.start(name)
            system.wait_ready()
    finally:
        stop.set()
        thread.join()
    with Client(system.address, timeout=10) as client:
        assert client.mget(list(written), consistency="strong") == written
    assert len(written) > 50
