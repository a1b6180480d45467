"""`dimint export` and `dimint import`: from one kind of log into the other, damaged files, and kills at any time."""

import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import lz4.block
import msgpack
import pytest
from xxhash import xxh3_64_intdigest, xxh3_128_digest

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
    """Events, ids, log times, digests of rebuilt stores and tables, and what the pages say of each sampled instant are the
    same; a second import changes nothing."""
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
        rebuilt = {}
        for where, into in ((location, tmp_path / "1"), (target, tmp_path / "2")):
            assert main(["rebuild", "all", f"--log={where}", f"--data_dir={tmp_path}", f"--into={into}", "--json"]) == 0
            rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            rebuilt[into] = [{name: row.get(name) for name in ("what", "partition", "digest", "events")} for row in rows]
            assert main(["verify", "all", f"--log={where}", f"--data_dir={into}"]) == 0
            capsys.readouterr()
        assert rebuilt[tmp_path / "1"] == rebuilt[tmp_path / "2"]
        assert [row["what"] for row in rows] == ["node", "node", "node", "status"]
        samples = [line for line in map(json.loads, history_lines(log)) if line["kind"] == "host.sample"]
        times = [line["log_time_us"] for line in samples]
        instants = [times[0] - 1, *times, times[-1] + 1]
        assert pages(tmp_path / "2" / "tables", instants) == pages(tmp_path / "1" / "tables", instants)
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


def damaged_files(content: bytes) -> dict[str, bytes]:
    """What it is called → an archive that is none any more."""
    frames = frames_of(content)
    starts = [sum(size for _, _, size in frames[:at]) + 8 for at in range(len(frames))]
    found = {"empty": b"", "one byte": content[:1], "text": content.replace(b"\r\n", b"\n"), "twice": content + content}
    found |= {f"cut in frame {at}": content[: start + 30] for at, start in enumerate(starts)}
    found |= {f"cut before frame {at}": content[:start] for at, start in enumerate(starts)}
    for at, start in enumerate(starts):
        for what, place in {"kind": 0, "size": 3, "raw size": 7, "checksum": 12, "content": 40}.items():
            flipped = bytes([content[start + place] ^ 1])
            found[f"{what} of frame {at}"] = content[: start + place] + flipped + content[start + place + 1 :]
        longer = struct.pack(">I", 1 << 31)
        found[f"size over all bounds in frame {at}"] = content[: start + 1] + longer + content[start + 5 :]
    # from here on every checksum is right: somebody has made these, or a program that is wrong
    (_, head, _), *batches, (_, end, _) = frames
    rows = [row for _, part, _ in batches for row in part]
    found["of a newer version"] = sealed(head | {"version": 2}, rows, end)
    found["without a batch that it counts"] = sealed(head, rows[1:], end)
    found["a batch twice"] = sealed(head, [rows[0], *rows], end | {"batches": len(rows) + 1})
    found["batches out of order"] = sealed(head, rows[::-1], end)
    found["a record that was changed"] = sealed(head, [*rows[:-1], [*rows[-1][:4], rows[-1][4][:-1] + b"x"]], end)
    found["a record of somebody else"] = sealed(head, [*rows[:-1], [*rows[-1][:4], b"{}"]], end)
    other = next(row for row in rows if row[1] != rows[-1][1] and row[0] == rows[-1][0])
    found["a record in another partition"] = sealed(head, [*rows[:-1], [*rows[-1][:4], other[4]]], end)
    found["another count of events"] = sealed(head, rows, end | {"events": end["events"] + 1})
    found["without its end"] = sealed(head, rows, None)
    found["without a genesis"] = sealed(head | {"genesis": [0, 0, rows[-1][4]]}, rows, end)
    return found


def frames_of(content: bytes) -> list[tuple[bytes, Any, int]]:
    """Kind, content and size in the file of each frame of a sound archive."""
    found, at = [], 8
    while at < len(content):
        kind, size, raw_size = struct.unpack_from(">cII", content, at)
        payload = content[at + 17 : at + 17 + size]
        raw = payload if size == raw_size else lz4.block.decompress(payload, raw_size)
        found.append((kind, msgpack.unpackb(raw), 17 + size))
        at += 17 + size
    return found


def sealed(head: Any, rows: list[Any], end: Any) -> bytes:
    """A file with right checksums, digest and number of frames."""
    made = content_of = b"\x89DMA\r\n\x1a\n"
    for number, (kind, content) in enumerate([(b"H", head), (b"B", rows), *([] if end is None else [(b"E", end)])]):
        if kind == b"E":
            content = content | {"frames": number, "digest": xxh3_128_digest(content_of)}
        raw = msgpack.packb(content)
        start = struct.pack(">cII", kind, len(raw), len(raw))
        made += start + struct.pack(">Q", xxh3_64_intdigest(start + raw, number)) + raw
        content_of = made
    return made


def test_damaged_files_write_nothing(small: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and an exit code, whatever is wrong and wherever; not even a directory is made."""
    content, file, target = small[1].read_bytes(), tmp_path / "file", tmp_path / "target"
    (_, head, _), *batches, (_, end, _) = frames_of(content)
    file.write_bytes(sealed(head, [row for _, part, _ in batches for row in part], end))
    assert main(["import", f"--into={tmp_path / 'sound'}", str(file)]) == 0, "what seals the files below seals sound ones too"
    capsys.readouterr()
    for what, damaged in damaged_files(content).items():
        file.write_bytes(damaged)
        assert main(["import", f"--into={target}", str(file)]) == 1, what
        error = capsys.readouterr().err
        assert error.startswith("dimint: "), what
        assert error.count("\n") == 1, what
        assert not target.exists(), what


def test_what_is_no_file_writes_nothing(small: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing there, a directory, a file that cannot be read, zeros without an end, a pipe that breaks."""
    target = tmp_path / "target"
    for name in (tmp_path / "missing", tmp_path, small[1] / "x", "/dev/zero", "/dev/null"):
        assert main(["import", f"--into={target}", str(name)]) in (1, 2)
        error = capfd.readouterr().err
        assert (error.count("\n"), error.startswith("dimint: ")) == (1, True), error
    broken = tmp_path / "fifo"
    os.mkfifo(broken)
    command: list[Any] = [sys.executable, "-m", "dimint", "import", f"--into={target}", broken]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    broken.write_bytes(small[1].read_bytes()[:-40])
    _, error = child.communicate(timeout=60)
    assert (child.returncode, "the archive is cut short" in error) == (1, True)
    assert not target.exists()


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
