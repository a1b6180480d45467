"""The keeper: what is too old leaves the log, archived, and what needs it stays."""

import json
import logging
import random
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.consumers.cli import rebuild
from dimint.consumers.digest import table_digest
from dimint.consumers.keeper import Keeper
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.opening import find_genesis, open_log
from dimint.log.port import Log
from dimint.registry.memory import MemoryRegistry
from dimint.snapshot_folder import file_of, first_usable, folders_in
from dimint.system_clock import SystemClock
from tests.support.consumer_process import settings_for
from tests.support.replay_log import REAL, made_log, new_location, store_digests, write_big_sets, write_samples, write_sets
from tests.support.system import wait_until

SECOND = 1 / 86400


def bounds(log: Log, topic: str) -> list[tuple[int, int]]:
    return [log.bounds(topic, partition)[:2] for partition in range(log.describe().topics[topic])]


@pytest.mark.parametrize("backend", REAL)
def test_old_status_records_are_archived_and_go(backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not before the tables have read them; then tables rebuilt from archives and log are the same, and verified the same."""
    location = new_location(backend, tmp_path)
    log = made_log(location, 20, 300)
    settings = replace(settings_for(tmp_path / "data"), log=location, keep_status_log=SECOND)
    registry = MemoryRegistry()
    keeper = Keeper(settings, log, registry, SystemClock())
    time.sleep(1.2)  # the brokers' clock cannot be set
    whole = rebuild(settings).digest
    found = find_genesis(log)
    assert found is not None
    write_samples(log, found, 5)
    before = bounds(log, STATUS_TOPIC)
    with caplog.at_level(logging.WARNING):
        keeper.look()
        keeper.look()
    after = bounds(log, STATUS_TOPIC)
    assert [end for _, end in after] == [end for _, end in before]
    assert any(start > 0 for start, _ in after)
    assert any(start < end for start, end in after), "what is new stays"
    (archive,) = settings.archives.iterdir()
    assert archive.name == f"{STATUS_TOPIC}-000001.dma"
    again = rebuild(settings)
    assert again.events > 300
    rebuilt = rebuild(settings, into=tmp_path / "whole")
    assert rebuilt.digest == again.digest == whole
    assert table_digest(settings.data_dir / "tables") == again.digest
    assert main(["verify", "status", f"--data_dir={settings.data_dir}", f"--log={location}"]) == 0
    registry.close()
    log.close()


def test_what_the_tables_have_not_read_stays(tmp_path: Path) -> None:
    """However old it is."""
    location = new_location("embedded", tmp_path)
    with closing(made_log(location, 1, 20)) as log, closing(open_log(location, clock=SystemClock())):
        settings = replace(settings_for(tmp_path / "data"), log=location, keep_status_log=SECOND / 100)
        rebuild(settings)
        read = [end for _, end in bounds(log, STATUS_TOPIC)]
        found = find_genesis(log)
        assert found is not None
        write_samples(log, found, 20)
        time.sleep(0.1)
        registry = MemoryRegistry()
        Keeper(settings, log, registry, SystemClock()).look()
        assert [start for start, _ in bounds(log, STATUS_TOPIC)] == read
        registry.close()


def rebuilt_digests(data: Path, location: str, into: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[int, int]]:
    """Keys and digest of each partition, made of the snapshots and what is left of the log."""
    capsys.readouterr()
    assert main(["rebuild", "node", f"--data_dir={data}", f"--log={location}", f"--into={into}", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [(row["key_count"], int(row["digest"], 16)) for row in found]


@pytest.mark.parametrize("backend", REAL)
def test_snapshots_are_taken_and_old_ones_go(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the log, and of the stores of nodes where they are; the log follows, archived; the newest stay, and named ones."""
    location, data = new_location(backend, tmp_path), tmp_path / "data"
    log = made_log(location, 20, 4)
    found = find_genesis(log)
    assert found is not None
    settings = replace(settings_for(data), log=location, keep_status_log=0, keep_kv_log=SECOND / 10, keep_snapshots=2)
    registry, folder = MemoryRegistry(), data / "snapshots"
    keeper = Keeper(settings, log, registry, SystemClock())

    def turn(batches: int = 10) -> set[str]:
        write_sets(log, found, batches)
        time.sleep(0.15)  # the brokers' clock cannot be set
        keeper.look()
        return {one.name for one in folder.iterdir()}

    first = turn()
    assert len(first) == 1
    assert [start for start, _ in bounds(log, KV_TOPIC)] == [0, 0, 0], "one snapshot is not enough"
    second = turn()
    assert len(second) == 2
    before = [start for start, _ in bounds(log, KV_TOPIC)]
    assert all(before), "the older one of two is what the log may be trimmed to"
    (folder / "kept by somebody").mkdir()
    (folder / "20181130T232947000001Z").mkdir()  # what a kill leaves
    assert main(["snapshot", f"--data_dir={data}", f"--log={location}", f"--out={folder / 'x'}"]) == 2, "no node has a store here"
    assert main(["rebuild", "node", f"--data_dir={data}", f"--log={location}", f"--into={tmp_path / 'store'}"]) == 0
    (tmp_path / "store" / "nodes").rename(data / "nodes")
    ends_before = bounds(log, KV_TOPIC)
    third = turn()
    assert len(third) == 3
    assert first.isdisjoint(third)
    newest = folders_in(folder, found.generation)[0]
    reach = [newest.partitions[at].next_offset for at in range(3)]
    assert reach == [end for _, end in ends_before], "it is of the node's store, which nobody brings up to date"
    expected = rebuilt_digests(data, location, tmp_path / "a", capsys)
    file = file_of(newest.path, 0)
    file.write_bytes(file.read_bytes()[:-9])
    turn(0)
    kept, problem = first_usable(folders_in(folder, found.generation), log, 9)
    assert len(kept) == 2, "a damaged one does not count"
    assert str(newest.path) in problem
    assert rebuilt_digests(data, location, tmp_path / "b", capsys) == expected
    registry.close()
    log.close()


def test_killed_at_any_time_the_store_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A consumer that keeps next to nothing, SIGKILL again and again: what is left of the log and the snapshots is the store."""
    data, location = tmp_path / "data", str(tmp_path / "data")
    log = made_log(location, 60, 4)
    write_big_sets(log, 30_000)
    expected, ends = store_digests(log, tmp_path / "whole"), [end for _, end in bounds(log, KV_TOPIC)]
    command = [
        sys.executable,
        "-m",
        "dimint",
        "consumer",
        "run",
        f"--data_dir={data}",
        "--keep_kv_log=0.00001",
        "--keep_snapshots=2",
    ]
    chance = random.Random(5)

    def is_done() -> bool:
        return [start for start, _ in bounds(log, KV_TOPIC)] == ends

    for kills in range(200):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(AssertionError):
            wait_until(is_done, 1.0 + chance.random() * (2.0 + kills), "all is let go of")
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        if is_done():
            break
    assert is_done()
    kept, problem = first_usable(folders_in(data / "snapshots", log.describe().generation), log, 9)
    assert len(kept) >= 2
    assert problem == ""
    assert rebuilt_digests(data, location, tmp_path / "again", capsys) == expected
    for archive in sorted((data / "archives").glob(f"{KV_TOPIC}-*.dma")):
        assert main(["import", f"--into={tmp_path / 'copy'}", str(archive)]) == 0
    with closing(open_log(tmp_path / "copy", clock=SystemClock())) as copy:
        assert store_digests(copy, tmp_path / "copied") == expected
    log.close()
