"""Logs with history to replay: small ones of every backend, and child processes that are killed while they replay."""

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dimint.batch import By, encode
from dimint.clock import Clock
from dimint.consumers.folder import TablesFolder
from dimint.consumers.rebuild import rebuild_tables
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.log.opening import GenesisSettings, genesis, genesis_of, open_log
from dimint.log.port import Entry, Log
from dimint.log.reading import Counted
from dimint.node.replica import Replica
from dimint.node.store import Store
from dimint.replay import TOPICS, Stream, events_of, select
from dimint.replay.event import json_line
from dimint.system_clock import SystemClock
from dimint.testing import memory_log
from dimint.writer import BatchWriter, Outgoing
from tests.support.forked import Forked
from tests.support.samples import Machine, registered
from tests.support.services.kafka import shared_broker

ROOT = Path(__file__).parent.parent.parent
BACKENDS = ("memory", "embedded", "kafka")
REAL = ("embedded", "kafka")
WAIT_S = 20.0
_SAMPLES_A_BATCH = 4


def new_location(backend: str, path: Path) -> str:
    """Where a new log of a real backend may stand."""
    return str(path / "log") if backend == "embedded" else f"kafka://{','.join(shared_broker().servers)}/{os.urandom(6).hex()}"


@contextmanager
def new_log(backend: str, path: Path, *, clock: Clock | None = None, partitions: int = 3) -> Iterator[tuple[Log, Genesis]]:
    """A new log with a genesis."""
    clock = SystemClock() if clock is None else clock
    log = memory_log(clock=clock) if backend == "memory" else open_log(new_location(backend, path), clock=clock)
    try:
        wanted = GenesisSettings(hash_range=100, kv_partitions=partitions, status_partitions=2)
        yield log, genesis(log, wanted=wanted, clock=clock, host="h", process="test")
    finally:
        log.close()


def write_sets(log: Log, found: Genesis, batches: int, *, clock: Clock | None = None, seed: int = 1, keys: int = 40) -> int:
    """Append so many batches of sets, increments and deletes over all partitions; how many events that were."""
    chance = random.Random(seed)
    writer = BatchWriter(log, clock=SystemClock() if clock is None else clock, host="gpu-01", process="overlord")
    people = (By(None, "gpu-01", "overlord"), By("client-7", "gpu-01", "overlord"))
    written = 0
    for _ in range(batches):
        by_partition: dict[int, list[list[Any]]] = {}
        for _ in range(chance.randint(1, 4)):
            key = f"k{chance.randrange(keys)}"
            event: list[Any] = chance.choice(
                [
                    ["kv.set", key, 0, chance.randrange(2), None, b"J" + str(chance.randrange(1000)).encode(), None, 0],
                    ["kv.incr", key, 5, 0, None, chance.randrange(9)],
                    ["kv.delete", key, 0, 0, None],
                ]
            )
            by_partition.setdefault(found.partition_of_key(key.encode()), []).append(event)
        batches_of_turn = [Outgoing(KV_TOPIC, partition, people, events) for partition, events in by_partition.items()]
        for future in writer.append(batches_of_turn):
            future.result(WAIT_S)
        written += sum(map(len, by_partition.values()))
    writer.close()
    return written


def write_beats(log: Log, found: Genesis, beats: int) -> None:
    """Append heartbeats of an overlord to the status topic."""
    writer = BatchWriter(log, clock=SystemClock(), host="gpu-01", process="overlord")
    id = "127.0.0.1:5556"
    for number in range(beats):
        beat = ["overlord.heartbeat", id, 0, 0, {"name": f"n{number}"}]
        writer.append_and_wait(Outgoing(STATUS_TOPIC, found.status_partition(id), (writer.by,), [beat]), WAIT_S)
    writer.close()


def write_samples(log: Log, found: Genesis, samples: int) -> None:
    """Append a host with its samples to the status topic."""
    writer = BatchWriter(log, clock=SystemClock(), host="gpu-01", process="agent")
    machine = Machine(seed=3, gpus=2)
    partition = found.status_partition(machine.id)
    events = [registered(machine.id, "gpu-01"), *(event for _, event in machine.events(samples))]
    for at in range(0, len(events), _SAMPLES_A_BATCH):
        batch = Outgoing(STATUS_TOPIC, partition, (writer.by,), events[at : at + _SAMPLES_A_BATCH], compress=True)
        writer.append_and_wait(batch, WAIT_S)
    writer.close()


def made_log(location: str, batches: int, samples: int) -> Log:
    """A new log with events of all kinds."""
    log = open_log(location, clock=SystemClock())
    found = genesis(log, wanted=GenesisSettings(kv_partitions=3), clock=SystemClock(), host="h", process="t")
    write_sets(log, found, batches)
    write_beats(log, found, 3)
    write_samples(log, found, samples)
    return log


def history_lines(log: Log, topics: Sequence[str] = TOPICS) -> list[str]:
    """Every event as JSON with its id, times and fields, but without its position, which is each log's own."""
    found = []
    for item in Stream(log, select(log, topics=topics)).history():
        assert isinstance(item.taken, Counted)
        for event in events_of(item.place, item.taken):
            line = json.loads(json_line(event))
            del line["position"]
            found.append(json.dumps(line))
    return found


def write_big_sets(log: Log, events: int, *, batch: int = 100) -> None:
    """Append so many sets to the three partitions in a few large commits."""
    found = genesis_of(log)
    homes: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for number in range(15_000):
        homes[found.partition_of_key(f"big-{number}".encode())].append(f"big-{number}")
    entries = []
    for number in range(events // batch):
        keys = homes[number % 3]
        chosen = [keys[(number * batch + at) % len(keys)] for at in range(batch)]
        rows = [["kv.set", key, 0, 0, None, b'J"%060d"' % number, None, 0] for key in chosen]
        people = (By(None, "gpu-01", "overlord"),)
        record = encode(b"big-sets".ljust(16), 1 + number // 3, SystemClock().time_ns(), people, rows)
        entries.append(Entry(KV_TOPIC, number % 3, record))
    for at in range(0, len(entries), 300):
        for future in log.append(entries[at : at + 300]):
            future.result(WAIT_S)


def store_digests(log: Log, directory: Path, ends: Mapping[int, int] | None = None) -> list[tuple[int, int]]:
    """Keys and digest of each partition, folded from all that the log has, or up to `ends`."""
    store = Store(directory)
    try:
        found = []
        for partition in range(log.describe().topics[KV_TOPIC]):
            replica = Replica(partition, genesis_of(log), store.partition(partition))
            at, end = log.bounds(KV_TOPIC, partition)
            end = end if ends is None else ends[partition]
            while at < end:
                records = [record for record in log.read(KV_TOPIC, partition, at) if record.offset < end]
                replica.apply(records)
                at = records[-1].offset + 1
            assert replica.problem is None
            found.append((replica.key_count, replica.digest))
        return found
    finally:
        store.close()


def status_digest(log: Log, directory: Path) -> tuple[int, str]:
    """Events and digest of status tables filled from the log."""
    built = rebuild_tables(log, TablesFolder(directory))
    return built.events, built.digest


def kill_now_and_then(command: list[str], *, chance: random.Random, longest_s: float, kills: int, already: str = "") -> int:
    """Run the command again and again, killed with SIGKILL at random moments, until it ends by itself; its kills.

    One that never writes over its result may be killed when that is there: the next run fails and says `already`.
    """
    killed = 0
    while True:
        with tempfile.TemporaryFile() as said:
            child = Forked(command, stderr=said)
            try:
                status = child.wait(chance.uniform(0.02, longest_s) if killed < kills else 60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                assert killed < kills, "does not end"
                killed += 1
                continue
            said.seek(0)
            errors = said.read().decode()
        assert status == 0 or (already and already in errors), errors
        return killed
