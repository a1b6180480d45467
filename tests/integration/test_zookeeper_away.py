"""Programs that are started while ZooKeeper is away wait for it; commands that only look end with one line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.client import Client
from tests.support.ports import free_ports
from tests.support.services.zookeeper import ZooKeeperEnsemble, ZooKeeperServer

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def server() -> Iterator[ZooKeeperServer]:
    """One that is not running."""
    with ZooKeeperEnsemble() as ensemble:
        ensemble.servers[0].server.kill()
        yield ensemble.servers[0]


def start(server: ZooKeeperServer, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
    command = [sys.executable, "-m", "dimint", *arguments, f"--data_dir={directory}", f"--zookeeper_hosts={server.address}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def lines_to(process: subprocess.Popen[str], part: str) -> list[str]:
    """What it says up to the next line that has `part`."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if part in line:
            return said
    raise AssertionError(f"it ended without {part!r}: {said}")


def test_programs_wait_for_zookeeper_and_go_on(server: ZooKeeperServer, tmp_path: Path) -> None:
    """One line says what for; SIGTERM and Ctrl-C end one that waits, at once and without a complaint; ready only then."""
    ports = free_ports(6)
    flags = [f"--port_for_client={ports[0]}", f"--port_for_node={ports[1]}", f"--http_port={ports[2]}", "--interval=1"]
    ending = [
        start(server, tmp_path / "others", "overlord", "run", f"--port_for_client={ports[3]}", f"--port_for_node={ports[4]}"),
        start(server, tmp_path / "others", "node", "run"),
        start(server, tmp_path / "others", "web", "run", f"--http_port={ports[5]}"),
        start(server, tmp_path / "others", "consumer", "run"),
    ]
    staying = start(server, tmp_path / "system", "up", *flags)
    try:
        for number, process in enumerate([*ending, staying]):
            said = lines_to(process, f"waiting for ZooKeeper at {server.address} (")
            assert said[-1].rstrip().endswith("; Ctrl-C ends it")
            assert not any("ready" in line for line in said)
            if process is not staying:
                began = time.monotonic()
                process.send_signal(signal.SIGINT if number % 2 else signal.SIGTERM)
                rest, _ = process.communicate(timeout=30)
                assert (process.returncode, rest) == (0, "")
                assert time.monotonic() - began < 8
        assert staying.poll() is None
        server.start()
        said = lines_to(staying, "ready: ")
        assert any("ZooKeeper answers now" in line for line in said)
        with Client(f"127.0.0.1:{ports[0]}") as client:
            assert client.incr("n") == 1
        staying.send_signal(signal.SIGTERM)
        rest, _ = staying.communicate(timeout=40)
        assert staying.returncode == 0, rest
    finally:
        for process in [*ending, staying]:
            if process.poll() is None:
                process.kill()
            process.communicate()


def test_commands_that_look_end_soon(server: ZooKeeperServer, tmp_path: Path) -> None:
    """`registry` fails with one line that says what to check; `status` says what does not answer."""
    commands = [start(server, tmp_path, "registry"), start(server, tmp_path, "status")]
    said = [command.communicate(timeout=40)[0] for command in commands]
    assert [command.returncode for command in commands] == [1, 1], said
    assert said[0].count("\n") == 1
    assert "took this process within 10 s (" in said[0]
    assert "is ZooKeeper running" in said[0]
    assert sum("the registry does not answer" in line for line in said[1].splitlines()) == 1


def test_a_start_in_the_background_says_what_it_waits_for(server: ZooKeeperServer, tmp_path: Path) -> None:
    """And leaves the process waiting, to be stopped or to go on."""
    ports = free_ports(2)
    flags = [f"--port_for_client={ports[0]}", f"--port_for_node={ports[1]}"]
    begun = start(server, tmp_path, "overlord", "start", *flags)
    said, _ = begun.communicate(timeout=40)
    assert begun.returncode == 0, said
    assert f"waiting for ZooKeeper at {server.address}" in said
    _, pid = [word for line in said.splitlines() if line.startswith("Hello") for word in line.split() if word.isdigit()]
    command = [sys.executable, "-m", "dimint", "overlord", "stop", pid]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert stopped.returncode == 0, stopped
