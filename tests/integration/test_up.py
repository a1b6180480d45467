"""`dimint up`: everything on one machine, as one program."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from dimint.client import Client
from tests.support import forked
from tests.support.system import OldClient, wait_until

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parent.parent.parent
ROLES = {"alerts", "overlord", "node", "consumer", "web", "agent"}


class Up:
    """One running `dimint up`."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
        command = [sys.executable, "-m", "dimint", "up", f"--data_dir={directory}", "--interval=0.2"]
        ports = [] if any("port" in flag for flag in flags) else ["--port_for_client=0", "--port_for_node=0", "--http_port=0"]
        self.process = subprocess.Popen(
            [*command, *ports, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, "PYTHONPATH": str(ROOT)},
        )
        self.client = self.pages = ""

    def wait_ready(self) -> "Up":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"ready: clients tcp://(\S+), pages http://(\S+)/, data ", line)
        assert found is not None, (line, self.process.stderr.read() if not line and self.process.stderr else "")
        self.client, self.pages = found.group(1), found.group(2)
        return self

    def has_begun(self) -> bool:
        """Whether our code runs: the process has its own arguments, and its own name instead of the tests' or Python's."""
        process = Path(f"/proc/{self.process.pid}")
        return b"\0up\0" in (process / "cmdline").read_bytes() and (process / "comm").read_text() == "dimint\n"

    def children(self) -> dict[str, int]:
        """Role → pid."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                arguments = child.cmdline()
            except psutil.Error:
                continue
            if "run" in arguments and child.status() != psutil.STATUS_ZOMBIE:
                found[arguments[arguments.index("run") - 1]] = child.pid
        return found

    def everything(self) -> list[int]:
        return [process.pid for process in psutil.Process(self.process.pid).children(recursive=True)]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit code and what it said; not that a start takes longer than usual."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=50)
        said = [line for line in err.splitlines(keepends=True) if not line.startswith("dimint: still waiting for ")]
        return self.process.returncode, out, "".join(said)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def ups() -> Iterator[list[Up]]:
    """What a test starts; nothing of it outlives the test."""
    started: list[Up] = []
    yield started
    for up in started:
        if up.process.poll() is None:
            up.process.kill()
        up.process.communicate()


def get(address: str, path: str) -> str:
    with closing(http.client.HTTPConnection(address, timeout=5)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def running(up: Up) -> int:
    """Hosts on the pages, which all run."""
    states = json.loads(get(up.pages, "/states/"))
    assert {host["status"] for host in states.values()} == {"running"}
    return len(states)


def expect_old_answers(up: Up) -> None:
    """What a raw socket, curl in a terminal and a browser get."""
    with OldClient(f"tcp://{up.client}") as ask:
        value = {"deep": [1, 2.5, None]}
        assert ask("set", key="k", value=value) == {"value": value}
        assert ask("get", key="k") == {"value": value}
        assert ask("get", key="k", consistency="strong") == {"value": value}
        assert ask("get", key="missing") == {}
        assert ask("get_overlords") == {"overlords": [up.client]}
        (node,) = ask("state")["state"]
        assert node["role"] == "master"
        (overlord,) = ask("overlord_state")["overlord_state"]
        assert (overlord["overlord_id"], overlord["is_running"]) == (up.client, True)
    view = get(up.pages, "/?term=true")
    assert view.splitlines()[1].startswith("| host ")
    assert len({len(line) for line in view.splitlines() if line}) == 1
    assert "<html" in get(up.pages, "/")


def test_it_is_ready_serves_ends_cleanly_and_keeps_everything(ups: list[Up], tmp_path: Path) -> None:
    """Ready means ready; Ctrl-C ends all of it with code 0, no traceback, no orphan; what was written is there next time.

    Hosts may be merged meanwhile. A second one on the directory is refused in one line; kill -9 ends every process within two
    seconds, and then it can be started again.
    """
    up = Up(tmp_path / "data", "--nodes=2")
    ups.append(up)
    up.wait_ready()
    with Client(up.client) as client:
        assert len(client.state()) == 2
        client.set("greeting", "hello")
        assert client.get("greeting", consistency="strong") == "hello"
    assert running(up) == 1
    assert "healthy" in get(up.pages, "/-/healthy")
    assert set(up.children()) == ROLES
    everything = up.everything()
    assert len(everything) >= 6
    assert up.end(signal.SIGINT) == (0, "", "")
    assert not [pid for pid in everything if alive(pid)]
    for log in (tmp_path / "data/logs").iterdir():
        assert "Traceback" not in log.read_text(), log

    up = Up(tmp_path / "data", "--hosts=3", "--simulate")
    ups.append(up)
    up.wait_ready()
    with Client(up.client) as client:
        assert client.get("greeting") == "hello"
    assert running(up) == 4
    expect_old_answers(up)
    merge = [sys.executable, "-m", "dimint", "host", "merge", "sim-002", "sim-001", f"--data_dir={tmp_path / 'data'}"]
    merged = forked.run(merge)
    assert (merged.returncode, merged.stderr) == (0, "")
    wait_until(lambda: running(up) == 3, 20, "two hosts are one")

    second = Up(tmp_path / "data")
    ups.append(second)
    out, err = second.process.communicate(timeout=20)
    assert (second.process.returncode, out) == (2, "")
    assert err == f"dimint: another dimint up runs on {tmp_path / 'data'}; stop it, or give this one another --data_dir\n"
    assert "healthy" in get(up.pages, "/-/healthy")
    everything = up.everything()
    up.process.kill()
    # two seconds, and a margin for a busy machine
    wait_until(lambda: not any(map(alive, everything)), 6, "nothing is left")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "down"\nwhen = "host.down"\n')
    again = Up(tmp_path / "data", "--hosts=3", "--simulate", f"--alert_rules={rules}")
    ups.append(again)
    again.wait_ready()  # it waits for no host that is now part of another one
    assert running(again) == 3
    expect_it_goes_on_without_alerts(again, rules)


def expect_it_goes_on_without_alerts(up: Up, rules: Path) -> None:
    """A rule that is spoilt while everything runs, then the process that reads it dies: `dimint status` says what is off."""
    rules.write_text("[[rule]]\n")
    others = {role: pid for role, pid in up.children().items() if role != "alerts"}
    os.kill(up.children()["alerts"], signal.SIGKILL)

    def status() -> "subprocess.CompletedProcess[str]":
        return forked.run([sys.executable, "-m", "dimint", "status", f"--data_dir={up.directory}", "--json"])

    wait_until(lambda: "is off" in status().stdout, 20, "dimint status says what is off")
    told = status()
    (problem,) = json.loads(told.stdout)["problems"]
    assert told.returncode == 1
    assert re.match(
        r"alerts of dimint up on \S+ is off, tried again every few minutes: alerts \(\d+\) ended with code 2: ", problem
    )
    assert problem.endswith(f"; see {up.directory}/logs/alerts.log")
    assert up.children() == others
    with Client(up.client) as client:
        client.set("still", "there")
    status_code, _, err = up.end()
    assert status_code == 0
    assert "alerts is off and is tried again every few minutes, the rest goes on; see " in err


@pytest.mark.parametrize("name", ["port_for_client", "port_for_node", "http_port"])
def test_a_busy_port_is_one_line(ups: list[Up], tmp_path: Path, name: str) -> None:
    """It names the setting and the address, code 2, and nothing is left running."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        up = Up(tmp_path / "data", f"--{name}={port}")
        ups.append(up)
        out, err = up.process.communicate(timeout=20)
    assert (up.process.returncode, out) == (2, "")
    assert err == f"dimint: {name}: cannot listen on 127.0.0.1:{port}: Address already in use; try another --{name}\n"


def test_an_end_before_it_is_ready_is_clean_too(ups: list[Up], tmp_path: Path) -> None:
    """Ctrl-C at any moment of the start, once Python has come as far as our code: nothing left, nothing said."""
    for pause in (0.0, 0.3, 0.8):
        up = Up(tmp_path / f"data{pause}")
        ups.append(up)
        wait_until(up.has_begun, 20, "Python has started")
        time.sleep(pause)
        everything = up.everything()
        status, _, err = up.end(signal.SIGINT)
        assert "Traceback" not in err
        assert status in (0, 130, -signal.SIGINT)  # the last one while Python imports: the signal's own end
        assert not [pid for pid in everything if alive(pid)]
