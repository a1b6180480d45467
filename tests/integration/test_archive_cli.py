"""`dimint export` and `dimint import`: from one kind of log into the other, damaged files, and kills at any time."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from dimint.cli import main
from dimint.consumers.reading import StatusReader
from dimint.events import KV_TOPIC
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter, Outgoing
from tests.support.replay_log import (
    REAL,
    ROOT,
    WAIT_S,
    history_lines,
    kill_now_and_then,
    made_log,
    new_location,
    status_digest,
    store_digests,
    write_sets,
)
from tests.support.web import serving

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small embedded log, and its archive."""
    folder = tmp_path_factory.mktemp("archive")
    made_log(str(folder / "log"), 20, 5).close()
    assert main(["export", f"--log={folder / 'log'}", f"--out={folder / 'file'}"]) == 0
    return folder / "log", folder / "file"


def pages(tables: Path, instants_us: list[int]) -> list[str]:
    """What `/states/` says of status tables: a host's samples, and all hosts at these instants."""
    paths = ["/states/", "/states/gpu_01/?fetch_num=1000"]
    paths += [f"/states/?at=@{at // 1_000_000}.{at % 1_000_000:06}" for at in instants_us]
    found = []
    with StatusReader(tables) as reader, serving(reader, SystemClock(), down_threshold=10**6) as (host, port):
        for path in paths:
            with urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
                found.append(answer.read().decode())
    assert found[1].count("H100") >= 60
    assert len(set(found)) > 2
    return found


@pytest.mark.parametrize("backend", REAL)
def test_round_trip_into_the_other_kind(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Events, ids, log times, digests of stores and tables, and the pages are the same; a second import changes nothing."""
    (other,) = set(REAL) - {backend}
    location, target = new_location(backend, tmp_path / "source"), new_location(other, tmp_path / "target")
    log, copy = made_log(location, 60, 30), None
    try:
        assert main(["export", f"--log={location}", f"--out={tmp_path / 'file'}", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["size"] == (tmp_path / "file").stat().st_size
        assert not (tmp_path / "file.part").exists()
        for _ in range(2):
            assert main(["import", f"--into={target}", str(tmp_path / "file"), "--json"]) == 0
            imported = json.loads(capsys.readouterr().out)
            assert imported["batches"] + imported["there"] == told["batches"]
        assert imported["batches"] == 0
        copy = open_log(target, clock=SystemClock())
        assert history_lines(copy) == history_lines(log)
        assert len(history_lines(log)) == told["events"]
        assert store_digests(copy, tmp_path / "n2") == store_digests(log, tmp_path / "n1")
        assert status_digest(copy, tmp_path / "t2") == status_digest(log, tmp_path / "t1")
        samples = [line for line in map(json.loads, history_lines(log)) if line["kind"] == "host.sample"]
        instants = [line["log_time_us"] for line in samples[::7]] + [
            samples[0]["log_time_us"] - 1,
            samples[-1]["log_time_us"] + 1,
        ]
        assert pages(tmp_path / "t2", instants) == pages(tmp_path / "t1", instants)
    finally:
        log.close()
        if copy is not None:
            copy.close()


def test_a_stretch_through_a_pipe(small: tuple[Path, Path], tmp_path: Path) -> None:
    """Two stretches that tile, one after the other, are the whole; the later one first is refused."""
    log = open_log(small[0], clock=SystemClock())
    expected = history_lines(log)
    cut = json.loads(expected[len(expected) // 2])["log_time_us"]
    log.close()
    middle = f"@{cut // 1_000_000}.{cut % 1_000_000:06}"
    program = f"{sys.executable} -m dimint"

    def copy(bound: str, target: Path) -> subprocess.CompletedProcess[str]:
        pipe = f"{program} export --log={small[0]} {bound} --out - | {program} import --into={target} -"
        return subprocess.run(pipe, shell=True, capture_output=True, text=True, cwd=ROOT, timeout=60)

    for bound in (f"--to={middle}", f"--from={middle}"):
        done = copy(bound, tmp_path / "whole")
        assert (done.returncode, done.stderr) == (0, "")
    target = open_log(tmp_path / "whole", clock=SystemClock())
    assert history_lines(target) == expected
    target.close()
    assert copy(f"--from={middle}", tmp_path / "late").returncode == 0
    refused = copy(f"--to={middle}", tmp_path / "late")
    assert refused.returncode == 1
    assert re.search(
        r"has later batches of the same log, but only 0 of the \d+ that belong before them; copy into", refused.stderr
    )


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "text", "twice", "missing"])
def test_damaged_files_write_nothing(
    small: tuple[Path, Path], damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and an exit code; not even a directory is made."""
    content = small[1].read_bytes()
    middle = len(content) // 2
    damaged = {
        "empty": b"",
        "cut": content[:-1],
        "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "text": content.replace(b"\r\n", b"\n"),
        "twice": content + content,
    }
    file = tmp_path / "file"
    if damage in damaged:
        file.write_bytes(damaged[damage])
    assert main(["import", f"--into={tmp_path / 'target'}", str(file)]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("dimint: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "target").exists()


def test_the_sound_beginning_of_a_damaged_file(
    small: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the flag what is sound is imported, and the rest is still an error."""
    log = open_log(tmp_path / "log", clock=SystemClock())
    made = genesis(log, wanted=GenesisSettings(kv_partitions=3), clock=SystemClock(), host="h", process="t")
    homes: dict[int, list[str]] = {}
    for number in range(200):
        homes.setdefault(made.partition_of_key(f"k{number}".encode()), []).append(f"k{number}")
    chance = random.Random(5)
    writer = BatchWriter(log, clock=SystemClock(), host="h", process="p")
    for number in range(24):  # several frames
        text = b'J"%s"' % chance.randbytes(70_000).hex().encode()
        sets = [Outgoing(KV_TOPIC, at, (writer.by,), [["kv.set", homes[at][number], 0, 0, None, text, None, 0]]) for at in homes]
        for future in writer.append(sets):
            future.result(WAIT_S)
    writer.close()
    whole = history_lines(log)
    log.close()
    file = tmp_path / "file"
    assert main(["export", f"--log={tmp_path / 'log'}", f"--out={file}"]) == 0
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 4])
    assert main(["import", f"--into={tmp_path / 'target'}", str(file), "--keep-sound"]) == 1
    assert "batches were imported, up to the last sound frame; the archive is cut short" in capsys.readouterr().err
    target = open_log(tmp_path / "target", clock=SystemClock())
    part = history_lines(target)
    target.close()
    assert 1 < len(part) < len(whole)
    assert part == whole[: len(part)]
    file.write_bytes(content)  # and with the whole file it is finished
    assert main(["import", f"--into={tmp_path / 'target'}", str(file)]) == 0
    target = open_log(tmp_path / "target", clock=SystemClock())
    assert history_lines(target) == whole
    target.close()


@pytest.mark.parametrize("backend", REAL)
def test_killed_at_any_time(backend: str, tmp_path: Path) -> None:
    """SIGKILL while exporting and while importing, again and again: in the end the same history, nothing twice."""
    (other,) = set(REAL) - {backend}
    location, target, file = new_location(backend, tmp_path / "a"), new_location(other, tmp_path / "b"), tmp_path / "file"
    log = made_log(location, 400, 100)
    chance = random.Random(backend)
    program = [sys.executable, "-m", "dimint"]
    try:
        command = [*program, "export", f"--log={location}", f"--out={file}"]
        kill_now_and_then(command, chance=chance, longest_s=1.5, kills=3, already="exists; remove it")
        kill_now_and_then([*program, "import", f"--into={target}", str(file)], chance=chance, longest_s=1.8, kills=4)
        copy = open_log(target, clock=SystemClock())
        try:
            assert history_lines(copy) == history_lines(log)
            records = sum(copy.bounds(topic, at).end for topic, count in copy.describe().topics.items() for at in range(count))
            assert records <= len(history_lines(log)) + 5 * 20  # what was under way at a kill may be there again, uncounted
            assert store_digests(copy, tmp_path / "n2") == store_digests(log, tmp_path / "n1")
        finally:
            copy.close()
    finally:
        log.close()


def test_interrupted_exports_go_on(tmp_path: Path) -> None:
    """Ctrl-C says what to do; the next call keeps to the first one's end, and other stretches are refused."""
    location, file = tmp_path / "log", tmp_path / "file"
    log = made_log(str(location), 300, 100)
    before = history_lines(log)
    command = [sys.executable, "-m", "dimint", "export", f"--log={location}", f"--out={file}"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    part = tmp_path / "file.part"
    deadline = time.monotonic() + 20
    while not part.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    if child.returncode == 130 and "stopped" in errors:
        assert errors.strip() == f"dimint: stopped; the same command goes on from {part}"
    if part.exists() and part.stat().st_size:
        refused = subprocess.run([*command, "--topic=dimint.kv"], cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert refused.returncode == 2
        assert "is of another stretch" in refused.stderr
    write_sets(log, genesis(log, wanted=GenesisSettings(), clock=SystemClock(), host="h", process="t"), 5, seed=9)
    log.close()
    if not file.exists():
        assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False).returncode == 0
    assert main(["import", f"--into={tmp_path / 'copy'}", str(file)]) == 0
    copy = open_log(tmp_path / "copy", clock=SystemClock())
    assert history_lines(copy)[: len(before)] == before
    copy.close()


def test_logs_that_do_not_fit(small: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into itself, or into one with other partition counts: one line, and nothing is written."""
    other = open_log(tmp_path / "other", clock=SystemClock())
    genesis(other, wanted=GenesisSettings(kv_partitions=5), clock=SystemClock(), host="h", process="t")
    before = history_lines(other)
    assert main(["import", f"--into={small[0]}", str(small[1])]) == 2
    assert "a log cannot be copied into itself" in capsys.readouterr().err
    assert main(["import", f"--into={tmp_path / 'other'}", str(small[1])]) == 1
    assert "the target has hash_range 10000, kv_partitions 5, status_partitions 4; this needs" in capsys.readouterr().err
    assert history_lines(other) == before
    other.close()


def test_files_that_are_there_are_kept(small: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """An export never writes over anything."""
    before = small[1].read_bytes()
    assert main(["export", f"--log={small[0]}", f"--out={small[1]}"]) == 2
    assert "exists; remove it, or name another file" in capsys.readouterr().err
    assert small[1].read_bytes() == before


def test_a_fifo_by_name(small: tuple[Path, Path], tmp_path: Path) -> None:
    """A named pipe is a pipe."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command: list[Any] = [sys.executable, "-m", "dimint", "import", f"--into={tmp_path / 'copy'}", fifo]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    fifo.write_bytes(small[1].read_bytes())
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, "batches imported" in out) == (0, True)
