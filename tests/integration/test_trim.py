"""`dimint trim`: nothing that anybody needs, nothing of the status topic without an archive, and the disk's space back."""

import json
import os
import random
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.consumers.digest import table_digest
from dimint.errors import LogUnavailable
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.opening import genesis_of, open_log
from dimint.log.port import Log
from dimint.registry.memory import MemoryHub, MemoryRegistry
from dimint.replay.trimming import trim
from dimint.snapshot_folder import folders_in
from dimint.system_clock import SystemClock
from dimint.testing import FaultyLog
from dimint.trim_plan import plan
from tests.support.replay_log import (
    REAL,
    history_lines,
    kill_now_and_then,
    made_log,
    new_location,
    store_digests,
    write_big_sets,
    write_samples,
    write_sets,
)


def starts(location: str, topic: str) -> list[int]:
    with closing(open_log(location, clock=SystemClock())) as log:
        return [log.bounds(topic, partition).start for partition in range(log.describe().topics[topic])]


def positions(topic: str, offsets: list[int]) -> str:
    return ",".join(f"{topic}/{partition}@{offset}" for partition, offset in enumerate(offsets))


@pytest.mark.parametrize("backend", REAL)
def test_keys(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Refused until two snapshots stay behind; a dry run first; an archive if asked; a store is made of what is left."""
    location = new_location(backend, tmp_path)
    log = made_log(location, 40, 1)
    data = tmp_path / "data"
    where = [f"--data_dir={data}", f"--log={location}"]

    def act(*arguments: str, code: int = 0) -> str:
        capfd.readouterr()
        assert main([*arguments, *where]) == code, capfd.readouterr().err
        out, err = capfd.readouterr()
        return out if code == 0 else err

    assert main(["rebuild", "node", f"--log={location}", f"--data_dir={tmp_path / 'x'}", f"--into={data}"]) == 0
    first = [log.bounds(KV_TOPIC, partition).end for partition in range(3)]
    to_first = f"--before={positions(KV_TOPIC, first)}"
    problem = act("trim", KV_TOPIC, to_first, "--yes", code=1)
    assert "cannot be trimmed to: a new node (0 of 2 sound snapshots are in" in problem
    assert len(problem.splitlines()) == 1
    act("snapshot")
    assert "(1 of 2 sound snapshots" in act("trim", KV_TOPIC, to_first, code=1)
    write_sets(log, genesis_of(log), 40, seed=2)
    digests = store_digests(log, tmp_path / "expected")
    second = [log.bounds(KV_TOPIC, partition).end for partition in range(3)]
    to_second = f"--before={positions(KV_TOPIC, second)}"
    act("rebuild", "node")
    act("snapshot")
    problem = act("trim", KV_TOPIC, to_second, "--yes", code=1)
    assert "a new node that begins with" in problem
    assert starts(location, KV_TOPIC) == [0, 0, 0]
    assert act("trim", KV_TOPIC, to_first).endswith(f"{sum(first)} records would go; --yes trims them\n")
    assert starts(location, KV_TOPIC) == [0, 0, 0]
    whole = history_lines(log, [KV_TOPIC])
    told = act("trim", KV_TOPIC, to_second, "--as-far-as-safe", "--archive", "--yes", "--json").splitlines()
    assert [json.loads(line)["before"] for line in told[:-1]] == first
    assert starts(location, KV_TOPIC) == first
    assert "nothing went" in act("trim", KV_TOPIC, to_first, "--yes")

    assert (data / "archives" / "dimint.kv-000001.dma").exists()
    copy = new_location(backend, tmp_path / "copy")
    assert main(["import", str(data / "archives" / "dimint.kv-000001.dma"), f"--into={copy}"]) == 0
    with closing(open_log(copy, clock=SystemClock())) as archived:
        assert sorted(history_lines(archived, [KV_TOPIC]) + history_lines(log, [KV_TOPIC])) == sorted(whole)
    rebuilt = act("rebuild", "node", f"--into={tmp_path / 'again'}")
    assert [line.split("digest ")[1][:32] for line in rebuilt.splitlines()] == [f"{digest:032x}" for _, digest in digests]
    assert '"topic":"dimint.kv"' in act("events", "--topic=dimint.cluster", "--kind=cluster.trimmed", "--json")
    log.close()


@pytest.mark.parametrize("backend", REAL)
def test_status(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Archived before it goes, always; tables are rebuilt and verified from archives and log, the same to the digest."""
    location = new_location(backend, tmp_path)
    log = made_log(location, 1, 300)
    data = tmp_path / "data"
    where = [f"--data_dir={data}", f"--log={location}"]
    assert main(["rebuild", "status", *where]) == 0
    read = [log.bounds(STATUS_TOPIC, partition).end for partition in range(log.describe().topics[STATUS_TOPIC])]
    write_samples(log, genesis_of(log), 300)
    assert main(["rebuild", "status", *where, f"--into={tmp_path / 'whole'}"]) == 0
    (busy,) = [at for at, end in enumerate(read) if log.bounds(STATUS_TOPIC, at).end > end]
    end = log.bounds(STATUS_TOPIC, busy).end
    assert main(["trim", STATUS_TOPIC, f"--before={STATUS_TOPIC}/{busy}@{end}", "--yes", *where]) == 1
    assert f"the tables in {data} needs what stands from {read[busy]} on" in capfd.readouterr().err
    assert starts(location, STATUS_TOPIC) == [0] * len(read)
    for before in (read[busy] // 2, read[busy]):
        assert main(["trim", STATUS_TOPIC, f"--before={STATUS_TOPIC}/{busy}@{before}", "--yes", *where]) == 0
        assert starts(location, STATUS_TOPIC)[busy] == before
    assert sorted(path.name for path in (data / "archives").iterdir()) == [f"{STATUS_TOPIC}-00000{n}.dma" for n in (1, 2)]
    assert main(["rebuild", "status", *where]) == 0
    assert table_digest(data / "tables") == table_digest(tmp_path / "whole" / "tables")
    assert main(["verify", "status", *where]) == 0
    log.close()


class _Breaks(FaultyLog):
    """A log whose trims fail."""

    def trim(self, topic: str, partition: int, before: int) -> None:
        raise LogUnavailable("not now")


def test_what_was_archived_and_not_trimmed_is_not_archived_twice(tmp_path: Path) -> None:
    """A trim that ends in the middle: the next one takes the archive that is there, and trims what that holds."""
    log = made_log(str(tmp_path / "log"), 1, 40)
    registry = MemoryRegistry(MemoryHub())
    partition = next(at for at in range(4) if log.bounds(STATUS_TOPIC, at).end > 8)
    clock = SystemClock()

    def go(log: Log, before: int) -> list[int]:
        cuts = plan({partition: log.bounds(STATUS_TOPIC, partition)}, {partition: before}, [])
        done = trim(log, STATUS_TOPIC, cuts, registry, archives=tmp_path / "archives", clock=clock, host="h")
        return [cut.before for cut in done.cuts]

    with pytest.raises(LogUnavailable):
        go(_Breaks(log), 4)
    assert go(log, 6) == [4]
    assert go(log, 6) == [6]
    assert sorted(path.name for path in (tmp_path / "archives").iterdir()) == [f"{STATUS_TOPIC}-00000{n}.dma" for n in (1, 2)]
    registry.close()
    log.close()


def test_killed_at_any_time_nothing_is_lost_or_archived_twice(tmp_path: Path) -> None:
    """SIGKILL again and again, of snapshots and of trims: what was in the log is in it still, or in an archive, once."""
    made_log(str(tmp_path / "data"), 30, 400).close()
    where = f"--data_dir={tmp_path / 'data'}"
    assert main(["rebuild", "status", where]) == 0
    assert main(["rebuild", "status", where, f"--into={tmp_path / 'whole'}"]) == 0
    assert main(["rebuild", "node", where, f"--into={tmp_path / 'store'}"]) == 0
    os.rename(tmp_path / "store" / "nodes", tmp_path / "data" / "nodes")
    dimint = [sys.executable, "-m", "dimint"]
    chance = random.Random(1)
    for _ in range(2):
        begun = time.monotonic()
        kill_now_and_then([*dimint, "snapshot", where], chance=chance, longest_s=1.0, kills=2)
    longest_s = time.monotonic() - begun
    with closing(open_log(tmp_path / "data", clock=SystemClock())) as log:
        wanted = {topic: [log.bounds(topic, at).end for at in range(count)] for topic, count in log.describe().topics.items()}
        assert len(folders_in(tmp_path / "data" / "snapshots", log.describe().generation)) >= 2
    for topic in (STATUS_TOPIC, KV_TOPIC):
        command = [*dimint, "trim", topic, "--yes", where, f"--before={positions(topic, wanted[topic])}"]
        kill_now_and_then(command, chance=chance, longest_s=longest_s, kills=4)
        assert starts(str(tmp_path / "data"), topic) == wanted[topic]
    assert [path.suffix for path in (tmp_path / "data" / "archives").iterdir()] == [".dma"]
    assert main(["rebuild", "status", where]) == 0
    assert table_digest(tmp_path / "data" / "tables") == table_digest(tmp_path / "whole" / "tables")
    assert main(["verify", "all", where]) == 0


def test_the_embedded_log_gives_the_space_back(tmp_path: Path) -> None:
    """The file is shorter after a trim, and takes appends as before."""
    log = made_log(str(tmp_path / "log"), 1, 1)
    write_big_sets(log, 60_000)
    file = tmp_path / "log" / "log" / "dimint.kv.sqlite"
    log.trim(KV_TOPIC, 0, 0)
    size = file.stat().st_size
    assert size > 5 << 20
    for partition in range(3):
        log.trim(KV_TOPIC, partition, log.bounds(KV_TOPIC, partition).end)
    assert file.stat().st_size < 2 << 20
    ends = [log.bounds(KV_TOPIC, partition) for partition in range(3)]
    assert all(start == end > 100 for start, end in ends)
    assert write_sets(log, genesis_of(log), 5) > 0
    log.close()
