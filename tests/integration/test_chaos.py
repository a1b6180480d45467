"""Three brokers, three ZooKeeper servers, two overlords, three nodes, sixteen clients; one process after the other falls.

`make chaos MINUTES=10` runs it longer; DIMINT_TEST_SEED repeats the faults of a run.
"""

import os
import random
from pathlib import Path

import pytest

from tests.support.chaos import KINDS, Chaos

MINUTES = float(os.environ.get("DIMINT_CHAOS_MINUTES", "0"))

pytestmark = pytest.mark.timeout(round(600 + 60 * MINUTES))


def test_a_cluster_of_which_one_process_after_the_other_falls(tmp_path: Path) -> None:
    """Acknowledged writes are there, increments count once, strong reads are linearizable, replicas equal, all is answered."""
    seed = int(os.environ.get("DIMINT_TEST_SEED", "0")) or random.SystemRandom().randint(1, 10**9)
    print(f"DIMINT_TEST_SEED={seed}")
    chaos = Chaos(tmp_path, seed=seed)
    if MINUTES:
        chaos.run(seconds=60 * MINUTES, down_s=(5.0, 20.0), windows=120, pause_s=0.03)
    else:  # one fault of each kind, with some processor time left to other tests
        chaos.run(seconds=0, down_s=(5.0, 6.5), windows=48, pause_s=0.1)
    assert {fault.split(" ", 1)[1] for fault in chaos.faults} == set(KINDS)
