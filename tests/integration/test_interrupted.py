"""Ctrl-C in the middle of what is long: one line that says how it is, and the same command comes to the same end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.events import KV_TOPIC
from dimint.log.opening import open_log
from dimint.system_clock import SystemClock
from tests.support.replay_log import REAL, made_log, new_location, store_digests, write_big_sets

pytestmark = pytest.mark.timeout(240)

TELLS_ALL = """
import dimint.progress
import dimint.replay.history
from dimint.cli import main
dimint.progress._EVERY_S = 0.0
dimint.replay.history._FLUSH_BYTES = 100_000
raise SystemExit(main())
"""
"""The program, with a line and a commit at every step of its work: no log has to be large to be interrupted in the middle."""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[tuple[int, int]]]:
    """A log that takes some tenths of a second, and the digests of its stores."""
    folder = tmp_path_factory.mktemp("big")
    log = made_log(str(folder / "log"), 10, 10)
    write_big_sets(log, 60_000)
    digests = store_digests(log, folder / "store")
    log.close()
    return str(folder / "log"), digests


def interrupted(command: list[str]) -> bool:
    """Ctrl-C when a third of the work is done; whether it came in time. Says what every command has to say then."""
    line = [sys.executable, "-c", TELLS_ALL, *command, "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        told = (json.loads(line) for line in program.stderr if line.startswith("{"))  # libraries say something now and then
        next((now for now in told if now["total"] / 3 <= now["done"] < now["total"]), None)
        program.send_signal(signal.SIGINT)
        out, errors = program.communicate(timeout=60)
    if program.returncode == 0:
        return False  # it was too quick
    *more, said = errors.rstrip().splitlines()
    assert (program.returncode, out) == (130, "")
    assert said.startswith("dimint: stopped; ")
    assert all(json.loads(line)["progress"] for line in more if line.startswith("{"))
    return True


@pytest.mark.parametrize("backend", REAL)
def test_copies_go_on(backend: str, big: tuple[str, list[tuple[int, int]]], tmp_path: Path) -> None:
    """restore --into, replay and import, into either kind of log: what is there in the end is there once."""
    location, digests = big
    where = [f"--log={location}", f"--data_dir={tmp_path}"]
    file = tmp_path / "file"
    assert main(["export", *where, f"--out={file}"]) == 0
    commands = {
        "restore": ["restore", "--to=now", *where],
        "replay": ["replay", *where],
        "import": ["import", str(file), f"--data_dir={tmp_path}"],
    }
    count = 0
    for name, command in commands.items():
        into = new_location(backend, tmp_path / name)
        count += interrupted([*command, f"--into={into}"])
        assert main([*command, f"--into={into}"]) == 0
        copy = open_log(into, clock=SystemClock())
        assert store_digests(copy, tmp_path / f"{name}.store") == digests
        ends = [copy.bounds(KV_TOPIC, at).end for at in range(3)]
        copy.close()
        assert main([*command, f"--into={into}"]) == 0
        copy = open_log(into, clock=SystemClock())
        assert [copy.bounds(KV_TOPIC, at).end for at in range(3)] == ends
        copy.close()
    assert count > 0, "none of them was interrupted"


def test_the_index_of_the_past_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """However often it is stopped, the history is that of an undisturbed one."""
    location = str(tmp_path / "log")
    log = made_log(location, 1, 1)
    write_big_sets(log, 40_000)
    log.close()
    command = ["history", "big-7", f"--log={location}"]
    assert main([*command, f"--data_dir={tmp_path / 'whole'}"]) == 0
    expected = capfd.readouterr().out
    assert expected.count("\n") >= 2
    for _ in range(3):
        if not interrupted([*command, f"--data_dir={tmp_path / 'cut'}"]):
            break
    assert main([*command, f"--data_dir={tmp_path / 'cut'}"]) == 0
    assert capfd.readouterr().out == expected


def test_snapshots_and_trims(big: tuple[str, list[tuple[int, int]]], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A snapshot that was stopped is none; a trim that was stopped has lost nothing, and goes on."""
    location, digests = big
    data = tmp_path / "data"
    where = [f"--log={data}", f"--data_dir={data}"]
    assert main(["replay", f"--log={location}", f"--into={data}"]) == 0
    assert main(["rebuild", "node", *where, f"--into={tmp_path / 'store'}"]) == 0
    os.rename(tmp_path / "store" / "nodes", data / "nodes")
    interrupted(["snapshot", *where, f"--out={data / 'snapshots' / 'cut'}"])
    assert not (data / "snapshots" / "cut").exists() or main(["snapshot", *where, f"--check={data / 'snapshots' / 'cut'}"]) == 0
    for _ in range(2):
        assert main(["snapshot", *where]) == 0
    log = open_log(data, clock=SystemClock())
    ends = [log.bounds(KV_TOPIC, at).end for at in range(3)]
    before = ",".join(f"{KV_TOPIC}/{at}@{end}" for at, end in enumerate(ends))
    trim = ["trim", KV_TOPIC, f"--before={before}", "--archive", "--yes", *where]
    interrupted(trim)
    assert main(trim) == 0
    assert [log.bounds(KV_TOPIC, at).start for at in range(3)] == ends
    log.close()
    assert main(["verify", "node", *where]) == 0
    capfd.readouterr()
    (archive,) = (data / "archives").glob("*.dma")
    assert main(["import", f"--into={tmp_path / 'copy'}", str(archive)]) == 0
    copy = open_log(tmp_path / "copy", clock=SystemClock())
    assert store_digests(copy, tmp_path / "copied") == digests
    copy.close()
