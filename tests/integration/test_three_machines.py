"""The walk-through of docs/operations.md, run as it stands there: three machines, which are three addresses of this one.

Each machine is a loopback address and a data directory of its own; Kafka and ZooKeeper are real and shared.
"""

import json
import os
import random
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dimint.client import Client
from tests.support.ports import free_ports
from tests.support.services.kafka import shared_broker
from tests.support.services.zookeeper import ZooKeeperEnsemble
from tests.support.system import wait_until

ROOT = Path(__file__).parent.parent.parent
SECTION = (ROOT / "docs" / "operations.md").read_text().split("## Three machines", 1)[1].split("\n## ", 1)[0]
CONFIG = "/etc/dimint/dimint.toml"

pytestmark = pytest.mark.timeout(240)


class Machines:
    """gpu1, gpu2 and gpu3 on 127.x.y.1, .2 and .3, so that the ports can be the usual ones."""

    def __init__(self, folder: Path, log: str, zookeeper: str) -> None:
        self._folder = folder
        draw = random.Random(os.urandom(8))
        self._network = f"127.{draw.randint(1, 254)}.{draw.randint(1, 254)}"
        settings = tomllib.loads(re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)[0])
        assert settings["log"].startswith("kafka://")
        settings |= {"log": log, "zookeeper_hosts": zookeeper, "zookeeper_root": f"/{os.urandom(6).hex()}"}
        for name in ("gpu1", "gpu2", "gpu3"):
            mine = settings | {"data_dir": str(self.directory(name))}
            self._config(name).write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in mine.items()))
        self.started: list[psutil.Process] = []

    def directory(self, machine: str) -> Path:
        return self._folder / machine

    def _config(self, machine: str) -> Path:
        return self._folder / f"{machine}.toml"

    def address(self, number: int) -> str:
        return f"{self._network}.{number}"

    def run(self, machine: str, command: str) -> str:
        """Run one command line of the document on a machine, which succeeds; its output."""
        code, said = self.call(machine, command)
        assert code == 0, (command, said, self.messages())
        return said

    def call(self, machine: str, command: str) -> tuple[int, str]:
        """Exit status and output."""
        words = shlex.split(command.replace("10.0.0.", f"{self._network}.").replace(CONFIG, str(self._config(machine))))
        assert words[0] == "dimint", command
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
        call = [sys.executable, "-m", *words]
        if words[1] == "up":  # a terminal that stays open
            with (self._folder / "up.out").open("w") as out:
                self.started.append(psutil.Popen(call, stdout=out, stderr=out, env=environment))
            wait_until(lambda: "ready:" in (self._folder / "up.out").read_text(), 60, "dimint up on gpu3 is ready")
            return 0, ""
        done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=90, check=False)
        for pid in re.findall(r"^Hello from parent \d+ (\d+)$", done.stdout, re.MULTILINE):
            self.started.append(psutil.Process(int(pid)))
        return done.returncode, done.stdout or done.stderr

    def messages(self) -> str:
        """The last lines of every log file, for failures."""
        return "\n".join(f"{path}: {path.read_text()[-500:]}" for path in sorted(self._folder.glob("*/logs/*.log")))

    def end(self, process: psutil.Process) -> None:
        if process.is_running():
            process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        for process in reversed(self.started):
            self.end(process)
        _, alive = psutil.wait_procs(self.started, timeout=45)
        for process in alive:
            process.kill()
        assert not alive


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Three machines on which nothing runs yet."""
    with ZooKeeperEnsemble() as ensemble:
        found = Machines(tmp_path_factory.mktemp("machines"), f"{shared_broker().url}/{os.urandom(6).hex()}", ensemble.hosts)
        try:
            yield found
        finally:
            found.close()


def steps() -> list[tuple[str, str, str]]:
    """(machine, command, output that must come) of the document's transcripts."""
    found: list[tuple[str, str, str]] = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE):
        for line in block.splitlines() if not language else ():
            prompt = re.fullmatch(r"(gpu\d)\$ (.*)", line)
            if prompt:
                found.append((prompt[1], prompt[2], ""))
            else:
                machine, command, output = found[-1]
                found[-1] = machine, command, f"{output}{line}\n"
    return found


def status(machines: Machines) -> dict[str, Any]:
    """What one call says; its exit status follows from that."""
    words = f"dimint status --config_path {CONFIG} --json"
    code, said = machines.call("gpu1", words)
    report: dict[str, Any] = json.loads(said)
    assert code == (0 if report["healthy"] else 1), said
    return report


def test_the_walk_through(machines: Machines) -> None:
    """Every command of the document does what stands there, and in the end everything is healthy."""
    assert len(steps()) >= 13
    for machine, command, output in steps():
        if command.startswith("dimint status"):
            wait_until(lambda: status(machines)["healthy"], 60, "a healthy system")
        said = machines.run(machine, command)
        assert said == output or not output, command
    found = status(machines)
    assert [one["answers"] for one in found["overlords"]] == [True, True, True]
    assert len(found["nodes"]) == 3
    assert len(found["consumers"]) == 2
    assert len(found["pages"]) == 2
    assert found["agents"] == 2  # the third publishes through an overlord, and knows no registry


def test_tables_of_each_consumer_have_every_host(machines: Machines) -> None:
    """Samples that went straight to Kafka and those that went through an overlord are in both consumers' tables and pages."""

    def hosts(machine: str) -> set[str]:
        files = sorted((machines.directory(machine) / "tables").glob("status-*.db"))
        with sqlite3.connect(f"file:{files[-1]}?mode=ro", uri=True) as db:
            return {row[0] for row in db.execute("select name from machines")}

    for machine, number in (("gpu1", 1), ("gpu3", 3)):
        wait_until(
            lambda machine=machine: hosts(machine) == {"gpu1", "gpu2", "gpu3"}, 30, f"three hosts in the tables of {machine}"
        )
        with urllib.request.urlopen(f"http://{machines.address(number)}:8080/states/", timeout=10) as answer:
            assert {"gpu1", "gpu2", "gpu3"} <= set(json.loads(answer.read()))


def test_two_consumers_and_two_webs_on_one_machine(machines: Machines) -> None:
    """The second consumer of a directory is refused, clearly; the second page server shows the same hosts."""
    command = [sys.executable, "-m", "dimint", "consumer", "run", f"--config_path={machines.directory('gpu1')}.toml"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert "another status consumer already writes" in second.stderr
    assert "Traceback" not in second.stderr
    (port,) = free_ports(1)
    machines.run("gpu1", f"dimint web start --config_path {CONFIG} --http_port {port}")
    shown = []
    for where in (f"127.0.0.1:{port}", f"{machines.address(1)}:8080"):
        with urllib.request.urlopen(f"http://{where}/states/", timeout=10) as answer:
            shown.append(set(json.loads(answer.read())))
    assert shown[0] == shown[1]


def test_a_machine_that_goes(machines: Machines) -> None:
    """With everything on gpu1 killed its nodes' partitions are read elsewhere, and status says what is gone, exit code 1."""
    one, two, three = (f"{machines.address(number)}:5556" for number in (1, 2, 3))
    with Client([two, three], timeout=20) as client:
        client.mset({f"k{number}": number for number in range(100)})
        for process in machines.started:
            if process.is_running() and f"{machines.directory('gpu1')}.toml" in " ".join(process.cmdline()):
                process.kill()
        assert client.mget([f"k{number}" for number in range(100)], consistency="strong") == {
            f"k{number}": number for number in range(100)
        }
        assert client.incr("visits") == 2

    def overlords() -> int:
        report = status(machines)
        assert one not in {overlord["overlord_id"] for overlord in report["overlords"] if overlord["answers"]}
        return len([overlord for overlord in report["overlords"] if overlord["answers"]])

    wait_until(lambda: overlords() == 2 and len(status(machines)["nodes"]) == 2, 40, "the dead machine leaves the registry")
