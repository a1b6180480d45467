"""The agent as a process: on the embedded log, through an overlord, killed, cut off, and on a broken driver."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from dimint.producers.unit import unit_text
from dimint.registry.embedded import EmbeddedRegistry
from dimint.transport import Context
from tests.support.agent_process import agent, numbers, status_events
from tests.support.footprint import cpu_s, family, pss_kib
from tests.support.kv_system import kv_system
from tests.support.nvml import FakeDriver, build_library
from tests.support.system import wait_until


def test_killed_and_started_again(tmp_path: Path) -> None:
    """Hosts keep their ids over kill -9, runs do not; numbers of a run have no hole, and the registry knows who lives."""
    flags = ("--interval=0.2", "--simulate", "--hosts=5")
    registry = EmbeddedRegistry(tmp_path / "registry")
    with agent(tmp_path, *flags) as process:
        wait_until(lambda: len(status_events(tmp_path)) > 40, 15, "samples in the log")
        assert [info["pid"] for info in registry.members("agent").values()] == [process.pid]
        process.kill()
        process.wait(10)
    first = numbers(status_events(tmp_path))
    wait_until(lambda: not registry.members("agent"), 5, "the dead agent leaves the registry")
    registry.close()
    with agent(tmp_path, *flags):
        before = len(status_events(tmp_path))
        wait_until(lambda: len(status_events(tmp_path)) > before + 30, 15, "more samples")
    events = status_events(tmp_path)
    found = numbers(events)
    assert len({host for host, _ in found}) == 6
    assert len(found) == 12
    assert set(first) < set(found)
    for run in found.values():
        assert run == list(range(1, len(run) + 1))
    names = {event[4] for event in events if event[0] == "host.registered"}
    assert {f"sim-{number:03d}" for number in range(1, 6)} < names
    facts = [event[6] for event in events if event[0] == "host.registered" and event[4] == "sim-001"]
    assert facts[0]["simulated"] is True


def test_a_second_agent_is_refused(tmp_path: Path) -> None:
    """One agent a data directory: the second one says so in one line."""
    with agent(tmp_path, "--interval=1"):
        wait_until(lambda: status_events(tmp_path), 15, "the first agent's samples")
        command = [sys.executable, "-m", "dimint", "agent", "run", f"--data_dir={tmp_path}"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert second.returncode == 2
        assert "another agent" in second.stderr
        assert "Traceback" not in second.stderr


class Door:
    """An overlord's client door that only knows `publish`, and may be deaf."""

    def __init__(self) -> None:
        self._context = Context()
        self._door = self._context.door()
        self.address = self._door.bind("127.0.0.1", 0)
        self.deaf = False
        self.got: list[list[Any]] = []

    def serve(self, seconds: float) -> bool:
        """Answer what comes for a while; always False, for `wait_until`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for message in self._door.receive(100):
                assert message.frame is not None
                request = msgpack.unpackb(message.frame)
                if not self.deaf:
                    self.got += request["events"]
                    reply = {"accepted": len(request["events"]), "id": request["id"]}
                    self._door.send(message.peer, msgpack.packb(reply))
            time.sleep(0.01)
        return False

    def close(self) -> None:
        self._door.close()
        self._context.close()


@pytest.fixture
def door() -> Iterator[Door]:
    """An open door, closed at the end."""
    door = Door()
    yield door
    door.close()


def test_an_overlord_that_does_not_answer(tmp_path: Path, door: Door) -> None:
    """Samples of an outage are on disk, survive kill -9 of the agent, and come first, in order, when somebody listens."""
    flags = ("--interval=0.2", f"--to={door.address}")
    with agent(tmp_path, *flags) as process:
        wait_until(lambda: door.serve(0.05) or len(door.got) > 5, 15, "samples at the door")
        answered = numbers(door.got, at=3)
        door.deaf = True
        wait_until(lambda: door.serve(0.05) or "spool" in (tmp_path / "agent.out").read_text(), 10, "the spool in use")
        door.serve(1.5)
        process.kill()
        process.wait(10)
    door.deaf = False
    before = len(door.got)
    with agent(tmp_path, *flags):
        wait_until(lambda: door.serve(0.05) or len(numbers(door.got, at=3)) == 2, 15, "samples of the second run")
    runs = numbers(door.got, at=3)
    (old, first), (_, second) = runs.items()
    assert old in answered
    assert list(dict.fromkeys(first)) == list(range(1, max(first) + 1))
    assert max(first) >= max(answered[old]) + 5
    late = [event[4] for event in door.got if event[0] == "host.sample" and event[5].get("late")]
    assert max(answered[old]) < max(late) <= max(first)
    assert max(event[5]["spool"]["events"] for event in door.got if event[0] == "host.sample") > 0
    assert second[0] == 1
    assert next(event[3] for event in door.got[before:] if event[0] in ("host.sample", "host.gap")) == old[1]


def test_through_a_real_overlord(tmp_path: Path) -> None:
    """`--to` ends in the same log as publishing there directly."""
    home, far = tmp_path / "kv", tmp_path / "far"
    home.mkdir()
    with kv_system(home, nodes=1) as system, agent(far, "--interval=0.2", f"--to=tcp://{system.address}"):
        wait_until(lambda: any(len(run) > 8 for run in numbers(status_events(home)).values()), 20, "samples in the log")
        (((host, _), run),) = numbers(status_events(home)).items()
    assert run == list(range(1, len(run) + 1))
    assert (far / "logs" / "agent.log").read_text().count("GPU driver: ") == 1
    assert (far / "agent" / "host-id").read_text().startswith(host)


def test_a_driver_that_breaks_while_the_agent_runs(tmp_path: Path) -> None:
    """GPU values, then a lost GPU with its event, then a driver that hangs: samples never stop, and nothing becomes 0."""
    driver = FakeDriver(build_library(tmp_path), tmp_path / "script")
    driver.tell("count 2", f"proc 0 Compute {os.getpid()} 1048576")
    home = tmp_path / "home"

    def samples() -> list[dict[str, Any]]:
        return [event[6] for event in status_events(home) if event[0] == "host.sample"]

    def states() -> list[Any]:
        found = samples()
        return [gpu["st"] for gpu in found[-1].get("gpu", [])] if found else []

    with agent(home, "--interval=0.2", environment=driver.environment):
        wait_until(lambda: states() == ["ok", "ok"], 15, "two GPUs")
        wait_until(lambda: samples()[-1].get("proc"), 15, "processes")
        (process,) = samples()[-1]["proc"]
        assert (process["pid"], process["g"], process["mem"]) == (os.getpid(), 0, 1 << 20)
        driver.tell("count 2", "fault 1 nvmlDeviceGetMemoryInfo_v2 15")
        wait_until(lambda: states() == ["ok", "lost"], 5, "a lost GPU")
        lost = [event for event in status_events(home) if event[0] == "gpu.lost"]
        assert [(event[4], event[5]) for event in lost] == [("GPU-1", "lost")]
        driver.tell("count 2", "fault 0 nvmlDeviceGetUtilizationRates hang")
        count = len(samples())
        wait_until(lambda: len(samples()) > count + 8, 10, "samples while the driver hangs")
        last = samples()[-1]
        assert {gpu["st"] for gpu in last["gpu"]} == {"unknown"}, "they are there, and nothing is said of what they do"
        assert "proc" not in last
        assert last["cpu"]["n"] > 0
    assert (home / "logs" / "agent.log").read_text().count("GPU driver: the driver answers") == 1
    kinds = [event[0] for event in status_events(home)]
    assert kinds[:2] == ["host.registered", "agent.started"]
    assert kinds[-1] == "agent.stopped"
    numbered = numbers(status_events(home))
    assert [run == list(range(1, len(run) + 1)) for run in numbered.values()] == [True]


def test_one_sample_and_the_doctor(tmp_path: Path) -> None:
    """`once` and `doctor` show the GPUs and publish nothing; a way out that is not there fails in words."""
    driver = FakeDriver(build_library(tmp_path), tmp_path / "script")
    driver.tell("count 2", "fault 1 nvmlDeviceGetMemoryInfo_v2 15", "set 0 persistence 0")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dimint", "agent", *arguments, f"--data_dir={tmp_path / 'home'}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=driver.environment)

    shown = json.loads(run("once").stdout)
    assert [gpu["st"] for gpu in shown["sample"]["gpu"]] == ["ok", "lost"]
    assert shown["sample"]["cpu"]["tot_pm"] is not None
    assert shown["facts"]["driver"] == "570.86.15"
    examined = run("doctor")
    assert examined.returncode == 0, examined.stderr
    assert "WARN  GPU 1: NVIDIA Fake GPU-1: lost" in examined.stdout
    assert "WARN  persistence: off on GPU 0" in examined.stdout
    assert not (tmp_path / "home" / "log").exists()
    with agent(tmp_path / "home", "--interval=0.2"):
        wait_until(lambda: status_events(tmp_path / "home"), 15, "samples in the log")
    assert re.search(r"^(OK  |WARN)  clock skew: \d+\.\d s behind the log's clock", run("doctor").stdout, re.MULTILINE)
    failed = run("doctor", "--to=tcp://127.0.0.1:9", "--json")
    assert failed.returncode == 1
    (failure,) = [one for one in json.loads(failed.stdout) if one["verdict"] == "FAIL"]
    assert failure["subject"] == "log"
    assert "does not answer: look at the address" in failure["text"]
    assert failure["text"].endswith("the same key_file or none")


def refused_calls() -> list[str]:
    """The system calls that the unit's filter refuses, of all that systemd knows."""

    def group(name: str) -> set[str]:
        told = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, timeout=30, check=True)
        words = {line.strip() for line in told.stdout.splitlines()[1:] if line.strip() and not line.strip().startswith("#")}
        return {call for word in words for call in (group(word) if word.startswith("@") else {word})}

    allowed: set[str] = set()
    unit = unit_text(["x"], user="u", makes_user=False, knows_data_dir=True)
    for line in re.findall("^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        named = {call for name in line.removeprefix("~").split() for call in group(name)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return sorted(group("@known") - allowed)


@pytest.mark.skipif(not (shutil.which("strace") and shutil.which("systemd-analyze")), reason="needs strace and systemd-analyze")
def test_it_works_with_the_system_calls_of_its_unit(tmp_path: Path) -> None:
    """With all others refused: GPUs, processes and the log are as ever, and nothing it does even tries one of them."""
    driver = FakeDriver(build_library(tmp_path), tmp_path / "script")
    driver.tell("count 2", f"proc 0 Compute {os.getpid()} 1048576")
    home, trace = tmp_path / "home", tmp_path / "trace"
    calls = ",".join(f"?{call}" for call in refused_calls())
    strace = ["strace", "-f", "-qqq", "--seccomp-bpf", "-o", str(trace)]
    strace += ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EPERM"]
    command = [*strace, sys.executable, "-m", "dimint", "agent", "run", f"--data_dir={home}", "--interval=0.2"]
    with (tmp_path / "said").open("w") as said:
        tracer = subprocess.Popen(command, stdout=said, stderr=said, env=driver.environment)
    try:
        wait_until(lambda: tracer.poll() is not None or len(status_events(home)) > 8, 30, "samples in the log")
        if tracer.poll() is not None:
            pytest.skip(f"strace may not trace here: {(tmp_path / 'said').read_text()[:200]}")
        os.kill(family(tracer.pid)[1], signal.SIGTERM)
        assert tracer.wait(20) == 0
    finally:
        for pid in family(tracer.pid) if tracer.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        tracer.wait(10)
    samples = [event[6] for event in status_events(home) if event[0] == "host.sample"]
    assert [gpu["st"] for gpu in samples[-1]["gpu"]] == ["ok", "ok"]
    assert any(sample.get("proc") for sample in samples)
    assert samples[-1]["cpu"]["n"] > 0
    tried = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert tried <= {"fchown"}, "as root SQLite gives new files to the directory's owner; the unit's user is not root"


@pytest.mark.slow
def test_it_stays_small(tmp_path: Path) -> None:
    """All processes of an agent together stay under 70 MB, and it takes little time of a core."""
    driver = FakeDriver(build_library(tmp_path), tmp_path / "script")
    driver.tell("count 8")
    home = tmp_path / "home"
    with agent(home, "--interval=2", environment=driver.environment, start=subprocess.Popen) as process:
        wait_until(lambda: len(status_events(home)) > 2, 15, "samples")
        pids = family(process.pid)
        before, started = sum(map(cpu_s, pids)), time.monotonic()
        time.sleep(4)
        share = (sum(map(cpu_s, pids)) - before) / (time.monotonic() - started)
        memory = sum(map(pss_kib, pids))
    assert len(pids) == 2
    assert memory < 70 * 1024
    assert share < 0.05, "a bound for a busy machine: 0.002 of a core was measured on an idle one"
