"""How fast a big log is read again: counted by headers, streamed event by event, exported, rebuilt into a store, and indexed
for the history of keys, of which one with 100 changes is asked for.

    python -m benchmarks.events [--events N] [--batch N] [--keys N]

An embedded log of key-value events, made anew in a temporary directory: sets of random keys with
values of 60 bytes, in batches as group commit makes of many clients. Everything runs in this one process; on a terminal
it shows how far it is. The log of ten million takes a gigabyte, the index as much again.
"""

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dimint.batch import By, encode
from dimint.collector import tune_collector
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.embedded import EmbeddedLog
from dimint.log.opening import GenesisSettings, genesis
from dimint.log.port import Entry, Log
from dimint.node.rebuild import Rebuilt, rebuild_store
from dimint.node.store import Store
from dimint.progress import NO_PROGRESS, Progress, progress_of
from dimint.replay import Stream, select
from dimint.replay.counting import Count, count_events
from dimint.replay.export import export_to_file
from dimint.replay.history import HistoryIndex
from dimint.replay.ranges import ends_of
from dimint.system_clock import SystemClock

CALL_BYTES = 4 << 20
HOT_KEY = "hot"
HOT_CHANGES = 100
ASKED = 20
"""How often the index is asked; the median counts."""


def fill(log: Log, found: Genesis, events: int, batch: int, keys: int, progress: Progress = NO_PROGRESS) -> int:
    """Append so many events; the records' bytes."""
    chance = random.Random(1)
    homes: list[list[str]] = [[] for _ in range(found.kv_partitions)]
    for number in range(keys):
        key = f"user:{number:08d}"
        homes[found.partition_of_key(key.encode())].append(key)
    people = tuple(By(None, f"host-{number}", "overlord") for number in range(4))
    entries: list[Entry] = []
    size = total = 0
    hot_home = found.partition_of_key(HOT_KEY.encode())
    batches = events // batch
    hot_every = max(1, batches // found.kv_partitions // HOT_CHANGES)
    for number in range(batches):
        partition = number % found.kv_partitions
        chosen = chance.choices(homes[partition], k=batch)
        if partition == hot_home and number // found.kv_partitions % hot_every == 0:
            chosen[0] = HOT_KEY
        value = b'J"%060d"' % number
        rows = [["kv.set", key, 0, 0, None, value, None, 0] for key in chosen]
        record = encode(b"w" * 16, 1 + number // found.kv_partitions, SystemClock().time_ns(), people, rows)
        entries.append(Entry(KV_TOPIC, partition, record))
        size += len(record)
        total += len(record)
        if size >= CALL_BYTES:
            for future in log.append(entries):
                future.result()
            entries, size = [], 0
            progress.at(number, batches, number * batch)
    for future in log.append(entries):
        future.result()
    progress.end(batches, batches, events)
    return total


def timed(what: str, events: int, work: Callable[[Progress], object], *, target: int | None = None) -> None:
    """Print the rate of one piece of work, and whether it is the aimed at, in events a second of the clock on the wall."""
    start, start_cpu = time.perf_counter(), time.process_time()
    work(progress_of(what))
    took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    rates = f"{events / took:12,.0f} events/s ({events / took_cpu:12,.0f} a second of CPU), {took:6.1f} s"
    print(
        f"{what:28s} {rates}{judged(target is None or events / took >= target, f'{target:,} events/s' if target else '')}",
        flush=True,
    )


def most_memory() -> str:
    """Of this process so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,d} MiB of memory at most"


def judged(reached: bool, target: str) -> str:
    """What stands behind a figure that something was aimed at."""
    return f"; target {target}: {'reached' if reached else 'MISSED'}" if target else ""


def ask(log: Log, found: Genesis, location: Path) -> None:
    """Print how long one question takes, with opening the index and looking whether the log has more."""

    def asked(what: str, question: Callable[[HistoryIndex], object], *, target_ms: int = 0) -> object:
        took, answer = [], None
        for _ in range(ASKED):
            start = time.perf_counter()
            with HistoryIndex(location, found.generation) as index:
                index.catch_up(log)
                answer = question(index)
            took.append(time.perf_counter() - start)
        median_ms = 1000 * statistics.median(took)
        print(
            f"{what:28s} {median_ms:12.1f} ms{judged(median_ms <= target_ms, f'{target_ms} ms' if target_ms else '')}", flush=True
        )
        return answer

    changes = asked("history of one key", lambda index: index.history(HOT_KEY), target_ms=100)
    assert isinstance(changes, list)
    middle_us = changes[len(changes) // 2].log_time_us
    print(f"{'':28s} {len(changes):12d} changes")
    assert asked("get --at", lambda index: index.at(HOT_KEY, middle_us), target_ms=200) is not None
    asked("scan --at, 1000 keys", lambda index: list(index.scan("user:", middle_us, limit=1000)))


def main() -> None:
    """Print one line a piece of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--keys", type=int, default=200_000)
    arguments = parser.parse_args()
    tune_collector()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        log = EmbeddedLog(directory / "data", clock=SystemClock())
        found = genesis(log, wanted=GenesisSettings(), clock=SystemClock(), host="h", process="bench")
        events = arguments.events // arguments.batch * arguments.batch
        timed("write the log", events, lambda progress: fill(log, found, events, arguments.batch, arguments.keys, progress))
        ranges = select(log, topics=[KV_TOPIC])
        counted: list[Count] = []
        timed(
            "count (events --count)",
            events,
            lambda progress: counted.extend(count_events(log, ranges, progress=progress).values()),
            target=1_000_000,
        )
        assert sum(count.events for count in counted) == events
        timed("stream, merged by log time", events, lambda _: sum(1 for _ in Stream(log, ranges).history()))
        timed("export", events, lambda progress: export_to_file(log, ranges, directory / "archive", progress=progress))
        store = Store(directory / "rebuilt")
        ends = ends_of(log, KV_TOPIC, None)
        built: list[Rebuilt] = []
        timed(
            "rebuild into a new store",
            events,
            lambda progress: built.extend(rebuild_store(log, store, ends, progress=progress)),
            target=150_000,
        )
        print(f"{'':28s} {sum(each.key_count for each in built):12,d} keys, {most_memory()}")
        store.close()
        location = directory / "history"
        with HistoryIndex(location, found.generation) as index:
            timed("index of the history of keys", events, lambda progress: index.catch_up(log, progress=progress))
        print(
            f"{'':28s} {sum(file.stat().st_size for file in location.glob('*.db')) >> 20:12,d} MiB on the disk, {most_memory()}"
        )
        ask(log, found, location)
        log.close()


if __name__ == "__main__":
    main()
