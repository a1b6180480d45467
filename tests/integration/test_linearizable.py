"""Clients of every kind at work while processes are killed and paused: the history must fit the log."""

import os
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support.history_load import Load
from tests.support.judge import all_values, expect_equal_stores, expect_replicas_at_the_end, expect_sound
from tests.support.system import System

pytestmark = pytest.mark.timeout(150)

FAULTS_S = float(os.environ.get("DIMINT_TEST_FAULTS_S", "8"))
ROLES = ("overlord", "node")
KILLS_MAX = 4
"""`dimint up` gives up on a process that dies five times within 30 s."""


def test_every_result_fits_the_log(tmp_path: Path) -> None:
    """Writes count once, strong reads are linearizable, sessions monotonic, every acknowledged write is there."""
    seed = int(os.environ.get("DIMINT_TEST_SEED", "0")) or random.SystemRandom().randint(1, 10**9)
    print(f"DIMINT_TEST_SEED={seed}")
    system = System(tmp_path / "data", "--nodes", "3", "--max_slave_count", "1")
    with system:
        load = Load(system.client_address, seed=seed)
        load.start()
        try:
            _disturb(system, random.Random(seed))
        finally:
            load.stop()
        assert not load.problems, (seed, load.problems[:5])
        expect_replicas_at_the_end(system.client_address)
        values = all_values(system.client_address)
        assert system.stop() == 0
        assert not [line for line in system.errors if "Traceback" in line], system.errors
    verdict = expect_sound(tmp_path / "data", load, values, seed)
    print(dict(verdict.counts))
    assert verdict.counts["ok"] > 1000
    expect_equal_stores(tmp_path / "data", verdict.ends)


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
