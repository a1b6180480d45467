"""`dimint rebuild`: the same digests and rows again, from the log alone."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.system import System, wait_until

pytestmark = pytest.mark.timeout(150)


def rebuild(what: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dimint", "rebuild", what, f"--data_dir={directory}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def samples(system: System) -> list[int]:
    with urlopen(f"{system.pages}/states/?fetch_num=100", timeout=10) as answer:
        (host,) = json.loads(answer.read()).values()
    return [entry["timestamp"] for entry in host["data"]]


def test_stores_and_tables_are_rebuilt_the_same(tmp_path: Path) -> None:
    """Stopped: every partition's digest as before, the tables' digest twice the same, and all is there afterwards."""
    directory = tmp_path / "data"
    with System(directory, "--nodes=2") as system:
        with system.old_client() as client:
            for number in range(100):
                client("set", key=f"k{number}", value={"n": number})
            client("delete", key="k7")
        before = samples(system)
        assert system.stop() == 0
    first = rebuild("all", directory)
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert len(lines) == 2 * 8 + 1
    assert all(line.endswith(", same as before") for line in lines[:-1])
    assert sum(int(line.split(" keys,")[0].split()[-1]) for line in lines[:-1]) == 2 * 99
    again = rebuild("status", directory)
    assert re.findall(r"\d+ events, digest \w+", again.stdout) == re.findall(r"\d+ events, digest \w+", lines[-1])
    with System(directory, "--nodes=2") as system:
        with system.old_client() as client:
            assert client("get", key="k99", consistency="strong") == {"value": {"n": 99}}
            assert client("get", key="k7", consistency="strong") == {}
        assert samples(system)[: len(before)] == before


def test_while_all_is_running(tmp_path: Path) -> None:
    """Tables are switched under the running consumer and pages; a node's store is refused, in one line."""
    with System(tmp_path / "data") as system:
        before = samples(system)
        done = rebuild("status", tmp_path / "data")
        assert (done.returncode, done.stderr) == (0, "")
        wait_until(lambda: len(samples(system)) > len(before) + 1, 20, "samples go on")
        assert samples(system)[: len(before)] == before
        done = rebuild("node", tmp_path / "data")
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"dimint: .*/nodes/1 is in use by another node; .*\n", done.stderr)


def test_a_mistyped_directory_becomes_no_log(tmp_path: Path) -> None:
    """There is nothing to rebuild from, and nothing is made."""
    done = rebuild("all", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith(f"dimint: there is no log in {tmp_path}/nothing; ")
    assert not list(tmp_path.iterdir())
