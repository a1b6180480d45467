"""How fast a node's store is rebuilt: events a second through decode, dedupe, fold, digest, LMDB and commit.

    python -m benchmarks.replay [--events N] [--keys N] [--profile]

One process, one partition, records ready in memory (reading them from a log comes on top). Single sets in batches of 100
are what group commit makes of many clients; batches of 5,000 are what `mset` and imports make.
"""

import argparse
import cProfile
import pstats
import random
import tempfile
import time
from pathlib import Path

from dimint.batch import By, encode
from dimint.collector import tune_collector
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Record
from dimint.node.replica import Replica
from dimint.node.store import Store

POLL_BYTES = 4 << 20
COMMIT_S = 0.1
TARGET = 150_000
"""Events a second of the clock on the wall."""
GENESIS = Genesis("generation", 10_000, 1, 1)


def make_records(events: int, keys: int, batch: int, *, numbered: bool, seed: int = 1) -> list[Record]:
    """A log of `events` sets of random keys with values of 60 bytes; `numbered` gives each a client and seq."""
    chance = random.Random(seed)
    people = tuple(By(f"client-{number}" if numbered else None, "host", "overlord") for number in range(50))
    made = []
    seqs = [0] * len(people)
    for number in range(1, events // batch + 1):
        rows = []
        for _ in range(batch):
            who = chance.randrange(len(people))
            seqs[who] += 1
            key = f"user:{chance.randrange(keys):08d}"
            rows.append(["kv.set", key, 0, who, seqs[who] if numbered else None, b'J"%060d"' % number, None, 0])
        record = encode(b"w" * 16, number, number * 1_000_000, people, rows)
        made.append(Record(KV_TOPIC, 0, number - 1, number * 1_000_000, record))
    return made


def replay(records: list[Record], directory: Path) -> Replica:
    """Rebuild a store from records as a node does, chunk by chunk."""
    store = Store(directory)
    try:
        replica = Replica(0, GENESIS, store.partition(0))
        committed = time.monotonic()
        at = 0
        while at < len(records):
            size, end = 0, at
            while end < len(records) and size < POLL_BYTES and end - at < 1000:
                size += len(records[end].value)
                end += 1
            replica.apply(records[at:end])
            at = end
            if time.monotonic() - committed >= COMMIT_S:
                store.commit()
                committed = time.monotonic()
        store.commit()
        assert replica.problem is None
        return replica
    finally:
        store.close()


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    arguments = parser.parse_args()
    tune_collector()
    for batch in (100, 5_000):
        for numbered in (False, True):
            records = make_records(arguments.events, arguments.keys, batch, numbered=numbered)
            with tempfile.TemporaryDirectory() as directory:
                profile = cProfile.Profile() if arguments.profile else None
                start, start_cpu = time.perf_counter(), time.process_time()
                if profile is not None:
                    profile.enable()
                replica = replay(records, Path(directory))
                if profile is not None:
                    profile.disable()
                took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
            what = "with client and seq" if numbered else "plain"
            count = len(records) * batch
            rates = f"{count / took:9,.0f} events/s ({count / took_cpu:9,.0f} a second of CPU)"
            verdict = "reached" if count / took >= TARGET else "MISSED"
            print(f"batches of {batch:5d}, {what:20s}: {rates}, {replica.key_count} keys; target {TARGET:,} events/s: {verdict}")
            if profile is not None:
                pstats.Stats(profile).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    main()
