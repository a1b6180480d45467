"""Clients of every kind at work while processes are killed and paused: the history must fit the log."""

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from dimint.events import KV_TOPIC
from dimint.genesis import GenesisSettings
from dimint.log.opening import genesis, open_log
from dimint.node.replica import META, read_meta
from dimint.node.store import Store
from dimint.system_clock import SystemClock
from tests.support.history import ABSENT, Replay, check
from tests.support.history_load import COUNTERS, REGISTERS, Load
from tests.support.system import System, wait_until

pytestmark = pytest.mark.timeout(150)

FAULTS_S = float(os.environ.get("DIMINT_TEST_FAULTS_S", "12"))
ROLES = ("overlord", "node")
KILLS_MAX = 4
"""`dimint up` gives up on a process that dies five times within 30 s."""


def test_every_result_fits_the_log(tmp_path: Path) -> None:
    """Writes count once, strong reads are linearizable, sessions monotonic, every acknowledged write is there."""
    seed = int(os.environ.get("DIMINT_TEST_SEED", "0")) or random.SystemRandom().randint(1, 10**9)
    print(f"DIMINT_TEST_SEED={seed}")
    system = System(tmp_path / "data", "--nodes", "3", "--max_slave_count", "1")
    with system:
        load = Load(system.client_address, seed)
        load.start()
        try:
            _disturb(system, random.Random(seed))
        finally:
            load.stop()
        assert not load.problems, (seed, load.problems[:5])
        _expect_replicas_at_the_end(system)
        with system.old_client() as client:
            reply = client("mget", keys=[*REGISTERS, *COUNTERS], consistency="strong")
        assert system.stop() == 0
        assert not [line for line in system.errors if "Traceback" in line], system.errors
    _expect_sound(tmp_path / "data", load, reply["values"], seed)


def _disturb(system: System, rng: random.Random) -> None:
    """Kill or pause one process after the other."""
    end = time.monotonic() + FAULTS_S
    killed: Counter[str] = Counter()
    time.sleep(1.0)
    while time.monotonic() < end:
        children = {name: child for name, child in system.children().items() if name.startswith(ROLES)}
        if not children:
            time.sleep(0.1)
            continue
        name = rng.choice(sorted(children))
        try:
            if rng.random() < 0.5 and killed[name] < KILLS_MAX:
                killed[name] += 1
                print("kill", name)
                children[name].kill()
            else:
                pause = rng.uniform(1.0, 3.0)
                print(f"pause {name} for {pause:.1f} s")
                children[name].suspend()
                time.sleep(pause)
                children[name].resume()
        except psutil.NoSuchProcess:
            continue
        time.sleep(rng.uniform(0.2, 1.5))
    time.sleep(1.5)


def _expect_replicas_at_the_end(system: System) -> None:
    def settled() -> bool:
        with system.old_client() as client:
            partitions: list[dict[str, Any]] = client("status").get("partitions", [])
        return bool(partitions) and all(
            part["replicas"]
            and {part["master"], *part["slaves"]} <= part["replicas"].keys()
            and not any(one["lag"] or one["problem"] for one in part["replicas"].values())
            for part in partitions
        )

    wait_until(settled, 20, "all replicas have caught up")


def _expect_sound(directory: Path, load: Load, values: dict[str, Any], seed: int) -> None:
    log = open_log(directory, clock=SystemClock())
    try:
        made = genesis(log, wanted=GenesisSettings(), clock=SystemClock(), host="here", process="test")
        replays = [Replay() for _ in range(made.kv_partitions)]
        ends = []
        for partition, replay in enumerate(replays):
            at, end = log.bounds(KV_TOPIC, partition)
            ends.append(end)
            while at < end:
                for record in log.read(KV_TOPIC, partition, at):
                    replay.take(record)
                    at = record.offset + 1
    finally:
        log.close()

    def partition_of(key: str) -> int:
        return made.partition_of_key(key.encode())

    problems = check(replays, partition_of, load.ops)
    assert not problems, (seed, len(problems), *problems[:5])
    counts = {status: sum(op.status == status for op in load.ops) for status in ("ok", "refused", "unknown")}
    print(counts)
    assert counts["ok"] > 1000
    state = {key: replays[partition_of(key)].items.get(key, (ABSENT, 0))[0] for key in [*REGISTERS, *COUNTERS]}
    assert values == {key: value for key, value in state.items() if value != ABSENT}
    for key in COUNTERS:
        assert load.added[key] <= values[key] <= load.added[key] + load.unknown_by[key]
    _expect_equal_stores(directory, ends)


def _expect_equal_stores(directory: Path, ends: list[int]) -> None:
    """Every node's store of a partition that is at the log's end has the same digest."""
    digests: dict[int, set[int]] = {}
    found = 0
    for home in sorted((directory / "nodes").iterdir()):
        store = Store(home)
        for partition in store.partitions():
            meta = read_meta(store.partition(partition).side.get(META))
            if meta is not None and meta.next_offset == ends[partition]:
                digests.setdefault(partition, set()).add(meta.digest)
                found += 1
        store.close()
    used = {partition for partition, end in enumerate(ends) if end}
    assert digests.keys() >= used
    assert found > len(used), "some partitions have two replicas"
    assert all(len(same) == 1 for same in digests.values()), digests
