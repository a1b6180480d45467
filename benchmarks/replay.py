"""How fast a node's store is made from the log: events a second through decode, dedupe, fold, digest, LMDB and commit.

    python -m benchmarks.replay [--events N] [--keys N] [--profile]

One process, one partition, records ready in memory (reading them from a log comes on top). Single sets in batches of 100
are what group commit makes of many clients; batches of 5,000 are what `mset` and imports make. A node that catches up saves
after every poll, `dimint rebuild` after every 16 MB of the log.
"""

import argparse
import cProfile
import pstats
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dimint.batch import By, encode
from dimint.clock import ManualClock
from dimint.collector import tune_collector
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.memory import MemoryLog
from dimint.log.port import Entry, Log, TopicSpec
from dimint.node.holdings import COMMIT_S
from dimint.node.rebuild import read_to
from dimint.node.replica import Replica
from dimint.node.store import Store
from dimint.testing import memory_log

TARGET: Final = 150_000
"""Events a second of the clock on the wall."""
_GENESIS: Final = Genesis("generation", 10_000, 1, 1)
_TICK_S: Final = 0.001
"""Between the log times of two batches."""


def make_log(events: int, keys: int, batch: int, *, numbered: bool, seed: int = 1) -> MemoryLog:
    """A log of `events` sets of random keys with values of 60 bytes; `numbered` gives each a client and seq."""
    chance = random.Random(seed)
    clock = ManualClock()
    log = memory_log([TopicSpec(KV_TOPIC, 1)], clock=clock)
    people = tuple(By(f"client-{number}" if numbered else None, "host", "overlord") for number in range(50))
    seqs = [0] * len(people)
    for number in range(1, events // batch + 1):
        rows = []
        for _ in range(batch):
            who = chance.randrange(len(people))
            seqs[who] += 1
            key = f"user:{chance.randrange(keys):08d}"
            rows.append(["kv.set", key, 0, who, seqs[who] if numbered else None, b'J"%060d"' % number, None, 0])
        clock.advance(_TICK_S)
        log.append([Entry(KV_TOPIC, 0, encode(b"w" * 16, number, clock.time_ns(), people, rows))])
    return log


def catch_up(replica: Replica, log: Log, store: Store) -> None:
    """As a node that is behind, poll by poll."""
    committed = time.monotonic()
    while records := log.read(KV_TOPIC, 0, replica.next_offset):
        replica.apply(records)
        if time.monotonic() - committed >= COMMIT_S:
            store.commit()
            committed = time.monotonic()


def rebuild(replica: Replica, log: Log, store: Store) -> None:
    """As `dimint rebuild`."""
    read_to(replica, log, store, log.bounds(KV_TOPIC, 0).end)


WAYS: Final[dict[str, Callable[[Replica, Log, Store], None]]] = {"catching up": catch_up, "rebuilding": rebuild}


def replay(log: Log, way: Callable[[Replica, Log, Store], None], directory: Path) -> int:
    """Make a store of the log; how many keys it has."""
    store = Store(directory)
    try:
        replica = Replica(0, _GENESIS, store.partition(0))
        way(replica, log, store)
        store.commit()
        assert replica.problem is None
        assert replica.next_offset == log.bounds(KV_TOPIC, 0).end
        return replica.key_count
    finally:
        store.close()


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    arguments = parser.parse_args()
    tune_collector()
    for batch in (100, 5_000):
        for numbered in (False, True):
            log = make_log(arguments.events, arguments.keys, batch, numbered=numbered)
            for name, way in WAYS.items():
                with tempfile.TemporaryDirectory() as directory:
                    profile = cProfile.Profile() if arguments.profile else None
                    start, start_cpu = time.perf_counter(), time.process_time()
                    if profile is not None:
                        profile.enable()
                    keys = replay(log, way, Path(directory))
                    if profile is not None:
                        profile.disable()
                    took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
                count = arguments.events // batch * batch
                rates = f"{count / took:9,.0f} events/s ({count / took_cpu:9,.0f} a second of CPU)"
                what = "with client and seq" if numbered else "plain"
                verdict = "reached" if count / took >= TARGET else "MISSED"
                print(
                    f"batches of {batch:5d}, {what:19s}, {name:11s}: {rates}, {keys} keys; target {TARGET:,} events/s: {verdict}"
                )
                if profile is not None:
                    pstats.Stats(profile).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    main()
