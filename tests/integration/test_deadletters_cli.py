"""Dead letters from the shell, in the log of a running system: listed, looked at, redriven once, killed at any time."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from dimint.batch import By, encode
from dimint.cli import main
from dimint.client import Client
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.opening import find_genesis, open_log
from dimint.log.port import Entry
from dimint.log.reading import Counted
from dimint.replay import Stream, select
from dimint.system_clock import SystemClock
from tests.support.kv_system import kv_system

BY = (By(None, "h", "p"),)


class Place(NamedTuple):
    directory: Path
    client: Client
    genesis: Genesis

    def put(self, partition: int, value: bytes) -> str:
        """Append a record as somebody else would; its position."""
        with closing(open_log(self.directory, clock=SystemClock())) as log:
            (future,) = log.append([Entry(KV_TOPIC, partition, value)])
            return f"dimint.kv/{partition}@{future.result(10)}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("dead")
    with kv_system(folder) as running, Client(running.address, timeout=20, consistency="strong") as client:
        with closing(open_log(folder, clock=SystemClock())) as log:
            genesis = find_genesis(log)
        assert genesis is not None
        yield Place(folder, client, genesis)


def run(place: Place, capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command prints, and what it says beside that."""
    assert main(["deadletters", *arguments, "--data_dir", str(place.directory)]) == code, capfd.readouterr().err
    found = capfd.readouterr()
    return found.out, found.err


def letter_of(place: Place, keys: list[str], value: bytes = b'J"x"', partition: int = 0) -> bytes:
    """A batch of ours with keys that belong elsewhere."""
    events = [["kv.set", key, 0, 0, None, value, None, 0] for key in keys]
    assert any(place.genesis.partition_of_key(key.encode()) != partition for key in keys)
    return encode(os.urandom(16), 1, time.time_ns(), BY, events)


def test_a_record_in_the_wrong_place(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """Its own events, each into the partition of its key, once; then it is not offered again."""
    keys = [f"stray{number}" for number in range(20)]
    position = place.put(0, letter_of(place, keys))
    assert place.client.get("stray0") is None
    (line,) = [one for one in run(place, capfd, "list", "--json")[0].splitlines() if position in one]
    assert (json.loads(line)["reason"], json.loads(line)["redriven"]) == ("partition", None)
    out, err = run(place, capfd, "redrive", position, "--dry_run")
    assert (out.count("kv.set\tstray"), "would append 20 events" in err) == (20, True)
    assert place.client.get("stray0") is None
    assert "nobody is there to ask" in run(place, capfd, "redrive", position, code=2)[1]
    assert "is redriven at dimint.kv/" in run(place, capfd, "redrive", position, "--yes")[0]
    assert place.client.mget(keys) == dict.fromkeys(keys, "x")
    assert "is redriven already" in run(place, capfd, "redrive", position, "--yes")[1]
    assert f"{position}\tpartition" in (shown := run(place, capfd, "list")[0])
    assert "redriven at dimint.kv/" in shown


def test_a_record_that_somebody_corrects(place: Place, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What it holds is shown as lines; corrected they are appended. What is wrong with them is named, and nothing written."""
    bad = encode(os.urandom(16), 1, time.time_ns(), BY, [["kv.set", "mended", 0, 0, None, 17, None, 0]])
    position = place.put(place.genesis.partition_of_key(b"mended"), bad)
    lines = run(place, capfd, "show", position, "--events")[0]
    fields = {"seq": None, "value": 17, "ttl_ms": None, "mode": 0}
    assert json.loads(lines) == {"kind": "kv.set", "key": "mended", "fields": fields}
    assert "kv.set: value is int" in run(place, capfd, "redrive", position, "--yes", code=1)[1]
    file = tmp_path / "corrected"
    for text, problem in (
        ("nonsense", "line 1: "),
        ('{"kind":"kv.dance"}', "there is no kind of event 'kv.dance'"),
        ('{"kind":"kv.set","key":"k","fields":{"price":1}}', "kv.set has no 'price'"),
        ('{"kind":"kv.incr","key":"k","fields":{"amount":"x"}}', "kv.incr: amount is str"),
        ('{"kind":"overlord.heartbeat","key":"k","fields":{"state":{}}}', "does not belong into dimint.kv"),
        ("", "there are no events"),
    ):
        file.write_text(text)
        assert problem in run(place, capfd, "redrive", position, "--as", str(file), "--yes", code=2)[1]
    file.write_text(
        '{"kind":"kv.set","key":"mended","fields":{"value":{"a":[1]}}}\n{"kind":"kv.incr","key":"n","fields":{"amount":2}}\n'
    )
    run(place, capfd, "redrive", position, "--as", str(file), "--yes")
    assert place.client.get("mended") == {"a": [1]}
    assert place.client.get("n") == 2


def test_text_of_somebody_else(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """JSON lines that another producer wrote are events as they stand; other bytes say that somebody must tell."""
    position = place.put(2, b'{"kind":"kv.set","key":"from elsewhere","fields":{"value":1}}')
    assert "22 6b 69 6e 64" in run(place, capfd, "show", position)[0]
    run(place, capfd, "redrive", position, "--yes")
    assert place.client.get("from elsewhere") == 1
    position = place.put(2, b"\x00\xff\x1b[2J")
    assert "give the events with --as FILE" in run(place, capfd, "redrive", position, "--yes", code=1)[1]
    assert "\x1b" not in run(place, capfd, "show", position)[0]
    assert "is no dead letter" in run(place, capfd, "redrive", "dimint.kv/2@0", "--yes", code=2)[1]
    assert "is not one position" in run(place, capfd, "show", "x", code=2)[1]


def test_killed_at_any_time_it_counts_once(place: Place) -> None:
    """kill -9 again and again, two at once: every event of the letter counts exactly once."""
    keys = [f"killed{number}" for number in range(40)]
    events = [["kv.incr", key, 0, 0, None, 1] for key in keys]
    position = place.put(0, encode(os.urandom(16), 1, time.time_ns(), BY, events))
    command = [sys.executable, "-m", "dimint", "deadletters", "redrive", position, "--yes", "--data_dir", str(place.directory)]
    chance = random.Random(7)
    for _ in range(4):
        started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        time.sleep(0.2 + 0.6 * chance.random())
        for process in started:
            process.kill()
            process.wait(20)
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert place.client.mget(keys) == dict.fromkeys(keys, 1)
    with closing(open_log(place.directory, clock=SystemClock())) as log:
        counted = [
            event
            for item in Stream(log, select(log, topics=(KV_TOPIC,))).history()
            if isinstance(item.taken, Counted)
            for event in item.taken.events
            if event[1] in keys
        ]
    assert len(counted) == len(keys)
