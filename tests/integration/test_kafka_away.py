"""Programs that are started while Kafka is away, and a node that is given partitions then: they wait and go on.

So does a running system whose broker is away for longer than appends are tried.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dimint.client import Client
from dimint.errors import DimintError, NodeNotAvailable, NotApplied, OutcomeUnknown, TimedOut
from dimint.slots import partition_of
from tests.support.impatient import DELIVERY_TIMEOUT_S, STUCK_S
from tests.support.kv_system import KvSystem
from tests.support.ports import free_ports
from tests.support.services.kafka import KafkaCluster
from tests.support.system import wait_until


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaCluster]:
    with KafkaCluster() as cluster:
        yield cluster


def start(directory: Path, broker: KafkaCluster, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
    command = [sys.executable, "-m", "dimint", *arguments, f"--data_dir={directory}", f"--log={broker.url}/{directory.name}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def line_with(process: subprocess.Popen[str], part: str) -> str:
    """The next line that has `part`."""
    assert process.stdout is not None
    for line in process.stdout:
        if part in line:
            return line
    raise AssertionError(f"it ended without {part!r}")


def end(process: subprocess.Popen[str]) -> str:
    """What it said until it ended, after SIGTERM, with code 0."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return said


@pytest.mark.timeout(180)
def test_up_waits_for_kafka_and_goes_on(broker: KafkaCluster, tmp_path: Path) -> None:
    """One line says what it waits for; once Kafka is there it is ready, on the 16 partitions that a cluster gets. Stopped
    while it waits it ends at once, without a complaint."""
    ports = free_ports(3)
    flags = [f"--port_for_client={ports[0]}", f"--port_for_node={ports[1]}", f"--http_port={ports[2]}", "--interval=1"]
    server = broker.brokers[0]
    server.server.kill()
    started = [
        start(tmp_path / "other", broker, "node", "run"),
        start(tmp_path / "other", broker, "consumer", "run"),
        start(tmp_path / "system", broker, "up", *flags),
    ]
    try:
        for process in started:
            assert "no broker answers" in line_with(process, "waiting for the log")
        assert "waiting" not in end(started[0]) + end(started[1])
        assert started[2].poll() is None
        server.start()
        server.wait()
        line_with(started[2], "ready: ")
        with Client(f"127.0.0.1:{ports[0]}") as client:
            assert client.incr("n") == 1
            assert len(client.status()["partitions"]) == 16
        end(started[2])
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.mark.timeout(180)
def test_a_node_that_is_given_partitions_during_an_outage_waits(broker: KafkaCluster, tmp_path: Path) -> None:
    """The other node dies while Kafka is away: what it had is taken up when Kafka is back, by the same process; what the
    node had before is read all the while."""
    flags = [f"--log={broker.url}/outage", "--partitions=4"]
    system = KvSystem(tmp_path, overlords=1, nodes=2, flags=flags, slaves=0)
    server = broker.brokers[0]
    try:
        system.start_all()
        with Client(system.address, timeout=20) as client:
            keys = {f"k{number}": number for number in range(40)}
            client.mset(keys)
            wait_until(lambda: len(set(_masters(client))) == 2, 20, "both have some")
            staying = next(node["node_id"] for node in client.status()["nodes"] if node["pid"] == system.processes["node-2"].pid)
            kept = {
                key: value for key, value in keys.items() if _masters(client)[partition_of(key.encode(), 10_000, 4)] == staying
            }
            assert 0 < len(kept) < len(keys)
            server.server.kill()
            system.kill("node-1")
            until = time.monotonic() + 4
            while time.monotonic() < until:
                assert client.mget(list(kept), consistency="weak", timeout=3) == kept
                time.sleep(0.1)
            server.start()
            server.wait()
            wait_until(lambda: _values(client, list(keys)) == keys, 60, "everything is served")
            assert system.processes["node-2"].poll() is None
    finally:
        system.stop()


@pytest.mark.timeout(180)
def test_an_outage_longer_than_the_delivery_time_out(broker: KafkaCluster, tmp_path: Path) -> None:
    """A broker that stands still, then one that is killed: writes end as named errors that are true, weak reads go on and
    say their age, and the same processes go on afterwards."""
    system = KvSystem(tmp_path, overlords=1, nodes=1, flags=[f"--log={broker.url}/longer", "--partitions=2"])
    system.program = "tests.support.impatient"
    server = broker.brokers[0].server
    written: dict[str, int] = {}
    refused: set[str] = set()
    unknown: dict[str, int] = {}

    def write(client: Client) -> bool:
        """Whether one more is acknowledged."""
        number = len(written) + len(refused) + len(unknown)
        key = f"w{number}"
        try:
            client.set(key, number)
        except NotApplied:
            refused.add(key)
        except (OutcomeUnknown, TimedOut):
            unknown[key] = number
        else:
            written[key] = number
        return key in written

    def away(client: Client) -> None:
        """Write and read until every append that was under way has been given up, twice over."""
        began = time.monotonic()
        while (lasted := time.monotonic() - began) < 2 * (DELIVERY_TIMEOUT_S + STUCK_S):
            assert not write(client)
            read = client.get_aged("steady", consistency="weak")
            assert read.value == 1
            assert lasted < 2 or (read.age_s or 0) > lasted - 1.5, "weak reads say how old they are"
            time.sleep(0.1)
        with pytest.raises((TimedOut, NodeNotAvailable)):
            client.get("steady", consistency="strong")

    try:
        system.start_all()
        before = {name: process.pid for name, process in system.processes.items()}
        with Client(system.address, timeout=1) as client:
            client.set("steady", 1)
            for _ in range(10):
                assert write(client)
            wait_until(lambda: client.get_aged("steady", consistency="weak").age_s is not None, 20, "ages are known")
            server.pause()
            try:
                away(client)
            finally:
                server.resume()
            wait_until(lambda: write(client), 40, "it goes on after the broker stood still")
            server.kill()
            try:
                away(client)
            finally:
                broker.brokers[0].start()
            broker.brokers[0].wait()
            wait_until(lambda: write(client), 40, "it goes on after the broker was killed")
            assert unknown or refused
            found = client.mget([*written, *refused, *unknown], consistency="strong", timeout=20)
            assert {key: found.get(key) for key in written} == written
            assert refused.isdisjoint(found), "what was refused never takes effect"
            assert all(found.get(key, number) == number for key, number in unknown.items())
            assert {name: process.pid for name, process in system.processes.items() if process.poll() is None} == before
    finally:
        system.stop()


def _masters(client: Client) -> list[str]:
    return [part["master"] for part in client.status()["partitions"]]


def _values(client: Client, keys: list[str]) -> object:
    with suppress(DimintError):
        return client.mget(keys, consistency="strong", timeout=3)
    return None
