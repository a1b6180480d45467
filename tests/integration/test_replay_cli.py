"""`dimint replay`: into another log of either kind, at any pace, killed at any time."""

import itertools
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from dimint.batch import By, decode_header, encode
from dimint.cli import main
from dimint.events import KV_TOPIC
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.log.port import Entry, Log
from dimint.replay import Stream, select
from dimint.replay.pacing import Pacer
from dimint.system_clock import SystemClock
from tests.support.replay_log import (
    REAL,
    WAIT_S,
    history_lines,
    kill_now_and_then,
    made_log,
    new_location,
    status_digest,
    store_digests,
)

pytestmark = pytest.mark.timeout(150)


def paced_log(location: str | Path, gaps_ms: list[int]) -> Log:
    """A log whose batches have log times with these gaps between them."""
    log = open_log(location, clock=SystemClock())
    found = genesis(log, wanted=GenesisSettings(kv_partitions=3), clock=SystemClock(), host="h", process="t")
    at_ns = time.time_ns() - 10**12
    for number, gap_ms in enumerate(gaps_ms, 1):
        at_ns += gap_ms * 1_000_000
        event = ["kv.set", f"k{number}", 0, 0, None, b"J1", None, 0]
        record = encode(b"w" * 16, number, at_ns, (By(None, "h", "p"),), [event], logged_at_ns=at_ns)
        partition = found.partition_of_key(f"k{number}".encode())
        log.append([Entry(KV_TOPIC, partition, record)])[0].result(WAIT_S)
    return log


@pytest.mark.parametrize("backend", REAL)
def test_killed_at_any_time(backend: str, tmp_path: Path) -> None:
    """SIGKILL again and again, into the other kind of log: the same history, digests and rows, and where each came from."""
    (other,) = set(REAL) - {backend}
    location, target = new_location(backend, tmp_path / "a"), new_location(other, tmp_path / "b")
    log = made_log(location, 250, 60)
    command = [sys.executable, "-m", "dimint", "replay", f"--log={location}", f"--into={target}"]
    copy = None
    try:
        kill_now_and_then(command, chance=random.Random(backend), longest_s=2.0, kills=4)
        copy = open_log(target, clock=SystemClock())
        assert history_lines(copy) == history_lines(log)
        assert store_digests(copy, tmp_path / "n2") == store_digests(log, tmp_path / "n1")
        assert status_digest(copy, tmp_path / "t2") == status_digest(log, tmp_path / "t1")
        generation = log.describe().generation
        for item in Stream(copy, select(copy)).history():
            origin = decode_header(item.record.value).origin
            assert origin is not None
            assert (origin.generation, origin.partition) == (generation, item.place.partition)
            (read,) = log.read(*item.place, origin.offset, max_records=1)
            assert (read.offset, decode_header(read.value)[:2]) == (origin.offset, decode_header(item.record.value)[:2])
    finally:
        log.close()
        if copy is not None:
            copy.close()


@pytest.mark.parametrize("backend", REAL)
def test_original_pace(backend: str, tmp_path: Path) -> None:
    """The gaps between batches are what they were, within 5 ms in the median; log times are kept to the nanosecond.

    Where the machine is busy with others it is tried again.
    """
    chance = random.Random(3)
    gaps_ms = [chance.randrange(5, 60) for _ in range(80)]
    source = new_location(backend, tmp_path)
    paced_log(source, gaps_ms).close()
    medians = []
    for attempt in range(4):
        target = new_location(backend, tmp_path / f"copy-{attempt}")
        assert main(["replay", f"--log={source}", "--topic=dimint.kv", f"--into={target}", "--pace=original"]) == 0
        copy = open_log(target, clock=SystemClock())
        items = sorted(Stream(copy, select(copy, topics=[KV_TOPIC])).history(), key=lambda item: item.logged_at_ns)
        copy.close()
        assert len(items) == 80
        pairs = list(itertools.pairwise(items))
        assert [two.logged_at_ns - one.logged_at_ns for one, two in pairs] == [gap * 10**6 for gap in gaps_ms[1:]]
        took_ms = [(two.record.timestamp_ns - one.record.timestamp_ns) / 1e6 for one, two in pairs]
        medians.append(statistics.median([abs(took - gap) for took, gap in zip(took_ms, gaps_ms[1:], strict=True)]))
        if medians[-1] < 5:
            return
    raise AssertionError(f"the medians were {medians} ms")


@pytest.mark.parametrize("backend", REAL)
def test_a_hundred_times_as_fast_keeps_the_order(backend: str, tmp_path: Path) -> None:
    """Two minutes of history in a second or so, in its order, which partitions of Kafka keep each for itself."""
    source, target = new_location(backend, tmp_path), new_location(backend, tmp_path / "copy")
    log = paced_log(source, [1500] * 80)
    assert main(["replay", f"--log={source}", f"--into={target}", "--pace=x100", "--topic=dimint.kv"]) == 0
    copy = open_log(target, clock=SystemClock())
    kv = [KV_TOPIC]
    assert history_lines(copy, kv) == history_lines(log, kv)
    stamps: dict[int, list[int]] = defaultdict(list)
    for item in Stream(copy, select(copy, topics=kv)).history():
        stamps[item.record.partition].append(item.record.timestamp_ns)
    assert all(times == sorted(times) for times in stamps.values())
    assert max(map(max, stamps.values())) - min(map(min, stamps.values())) >= 0.9 * 79 * 1.5e9 / 100
    log.close()
    copy.close()


def test_dry_run_and_stretches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run counts what would be copied, and makes nothing; --until ends where it says, and a second call goes on."""
    location, target = str(tmp_path / "log"), str(tmp_path / "copy")
    log = made_log(location, 40, 10)
    lines = history_lines(log)
    middle_us = json.loads(lines[len(lines) // 2])["log_time_us"]
    until = f"--until=@{middle_us // 1_000_000}.{middle_us % 1_000_000:06}"
    early = [line for line in lines if json.loads(line)["log_time_us"] < middle_us]

    def planned(*arguments: str) -> int:
        assert main(["replay", f"--log={location}", f"--into={target}", "--dry-run", "--json", *arguments]) == 0
        return sum(json.loads(line)["events"] for line in capsys.readouterr().out.splitlines())

    assert planned() == len(lines)
    assert planned(until) == len(early)
    assert not (tmp_path / "copy").exists()
    assert main(["replay", f"--log={location}", f"--into={target}", until]) == 0
    capsys.readouterr()
    assert planned(until) == 0
    assert planned() == len(lines) - len(early)
    copy = open_log(target, clock=SystemClock())
    assert history_lines(copy) == early
    for _ in range(2):
        assert main(["replay", f"--log={location}", f"--into={target}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["events"] == 0
    assert history_lines(copy) == lines
    log.close()
    copy.close()


@pytest.mark.parametrize("pace", ["fast", "x0", "x", "10", "x-1"])
def test_paces_that_are_none(pace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that shows how it is written."""
    made_log(str(tmp_path / "log"), 1, 1).close()
    assert main(["replay", f"--log={tmp_path / 'log'}", f"--into={tmp_path / 'copy'}", f"--pace={pace}"]) == 2
    assert "is not a pace; write original, x2, x0.5, … or max" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


def test_due_times() -> None:
    """Counted from the first batch; times that go back are due at once; no speed is now."""
    pacer = Pacer(2.0)
    assert [pacer.due_s(at) for at in (10**9, 3 * 10**9, 10**8)] == [0.0, 1.0, 0.0]
    assert Pacer(None).due_s(10**18) == 0.0
