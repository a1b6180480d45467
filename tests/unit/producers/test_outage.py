"""A log that is away for ten minutes: afterwards the tables have a history without a hole, and say what came late."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dimint.consumers.feeder import Feeder
from dimint.consumers.reading import CURRENT, StatusReader
from dimint.consumers.rows import StoredSample
from dimint.events import STATUS_TOPIC
from dimint.log.port import Record
from tests.support.agent_scene import IDS, PARTITIONS, Scene

HOSTS, INTERVAL_S, OUTAGE_S = 3, 5.0, 600.0
SECOND = 10**9


@contextmanager
def scene_in(folder: Path, **more: Any) -> Iterator[Scene]:
    """A scene of a few hosts, taken down at the end."""
    scene = Scene(folder, hosts=HOSTS, interval_s=INTERVAL_S, **more)
    try:
        yield scene
    finally:
        scene.publisher.close()
        scene.spool.close()


def records_of(scene: Scene) -> list[Record]:
    """Everything in the log, partitions one after the other."""
    found = []
    for partition in range(PARTITIONS):
        found += scene.log.read(STATUS_TOPIC, partition, 0, max_records=100_000, max_bytes=1 << 30)
    return found


def tables_of(scene: Scene, folder: Path) -> StatusReader:
    """What the consumer makes of the log."""
    folder.mkdir()
    feeder = Feeder(scene.log, folder / "status-000001.db", first_sequence=0)
    feeder.take(records_of(scene))
    feeder.commit()
    feeder.close()
    (folder / CURRENT).write_text("status-000001.db")
    return StatusReader(folder)


def history(reader: StatusReader, host: str) -> list[StoredSample]:
    """All samples of a host by time."""
    return reader.between(host, 0, 1 << 62)


@pytest.mark.parametrize("killed", [False, True], ids=["one agent", "killed in between"])
def test_ten_minutes_without_a_log(tmp_path: Path, killed: bool) -> None:
    """No sample is lost, each stands at its time, and those that waited say so; also if the agent dies meanwhile."""
    with scene_in(tmp_path) as scene:
        scene.run(30)
        began_ns = scene.clock.time_ns()
        scene.log.fail(10_000)
        scene.run(OUTAGE_S / 2)
        if killed:
            scene.kill()
            scene.start()
        scene.run(OUTAGE_S / 2)
        ended_ns = scene.clock.time_ns()
        scene.log.heal()
        scene.settle()
        scene.run(30)
        scene.settle()
        with tables_of(scene, tmp_path / "tables") as reader:
            assert {row.id for row in reader.hosts()} == set(IDS[:HOSTS])
            for host in IDS[:HOSTS]:
                samples = history(reader, host)
                pauses = [(late.time_ns - early.time_ns) / SECOND for early, late in itertools.pairwise(samples)]
                assert max(pauses) <= INTERVAL_S + 0.1, "no hole"
                runs = {sample.run: [one.seq for one in samples if one.run == sample.run] for sample in samples}
                assert len(runs) == 1 + killed
                assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in runs.values())
                late = {sample.time_ns for sample in samples if sample.sample.get("late")}
                away = {sample.time_ns for sample in samples if began_ns < sample.time_ns < ended_ns - 60 * SECOND}
                assert away <= late, "what came afterwards says so"
                assert all(sample.received_ns > ended_ns for sample in samples if sample.time_ns in away)
                assert not any(time_ns < began_ns - 10 * SECOND for time_ns in late)
                assert not samples[-1].sample.get("late")


@pytest.mark.parametrize("killed", [False, True], ids=["one agent", "killed in between"])
def test_a_spool_too_small_says_what_it_dropped(tmp_path: Path, killed: bool) -> None:
    """Numbers are in the tables or declared as missing, every one; the newest are there. Also if the agent dies with it full."""
    with scene_in(tmp_path, max_bytes=60_000) as scene:
        scene.run(10)
        scene.log.fail(10_000)
        scene.run(OUTAGE_S)
        if killed:
            before = scene.spool.bytes
            scene.kill()
            scene.start()
            assert 50_000 < scene.spool.bytes <= before, "it was full and still is"
            scene.run(OUTAGE_S / 10)
        scene.log.heal()
        scene.settle()
        scene.run(3 * INTERVAL_S)
        scene.settle()
        declared: dict[tuple[str, bytes], set[int]] = {}
        for _, event, _ in scene.events():
            if event[0] == "host.gap":
                declared.setdefault((event[1], event[4]), set()).update(range(event[5], event[6] + 1))
                assert event[7] == "the spool was full"
        with tables_of(scene, tmp_path / "tables") as reader:
            for host in IDS[:HOSTS]:
                samples = history(reader, host)
                runs = list(dict.fromkeys(sample.run for sample in samples))
                assert len(runs) == 1 + killed
                assert declared[host, runs[0]]
                for run in runs:
                    numbers = {sample.seq for sample in samples if sample.run == run}
                    missing = declared.get((host, run), set())
                    assert not numbers & missing
                    assert numbers | missing == set(range(1, max(numbers | missing) + 1))
                assert samples[-1].time_ns > scene.clock.time_ns() - 3 * INTERVAL_S * SECOND
