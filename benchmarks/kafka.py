"""The store on Apache Kafka beside etcd, and materialization from Kafka beside quixstreams, in one run.

    python -m benchmarks.kafka [--seconds 2] [--repeats 3] [--events 400000] [--quixstreams PYTHON]

One broker with its defaults (an acknowledged record is in the memory of the broker's machine, not flushed; etcd flushes),
one overlord, one node, the generator: all on the same processors. Ratios count, and processor time per operation, which
another load on the machine changes little.

Materialization: the same sets of 100-byte values are written to a topic, ours in batches of 100 as group commit makes them,
for quixstreams one record each (its unit), then applied from the beginning by a node's own reader, replica and LMDB store
in one process, and by a quixstreams application that puts each value into its RocksDB state. PYTHON is an interpreter that
has quixstreams, if this one has not.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import psutil

from benchmarks.kv import System, measure, show, start_dimint, start_etcd
from dimint.collector import tune_collector
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.kafka import KafkaLog, KafkaOptions
from dimint.log.port import Log, TopicPartition, TopicSpec
from dimint.node.replica import Replica
from dimint.node.store import Store
from dimint.writer import BatchWriter, Outgoing
from tests.support.services.kafka import KafkaCluster

CASES = [*[(op, outstanding) for op in ("set", "strong") for outstanding in (1, 64, 512)], ("mset", 64)]
BATCH = 100
KEYS = 100_000
COMMIT_S = 0.1
GENESIS = Genesis("generation", 10_000, 1, 1)
QUIX = Path(__file__).parent / "quixstreams_load.py"


Runs = dict[tuple[str, str, int], list[dict[str, float]]]


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def measure_with_cpu(system: System, op: str, outstanding: int, seconds: float) -> dict[str, float]:
    """`measure`, and the processor time per operation in µs of each process: "cpu ROLE"."""
    before, generators = {role: cpu_s(pid) for role, pid in system.pids.items()}, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = measure(system, op, outstanding, seconds)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    operations = found.get("per_s", 0) * seconds
    if operations:
        spent = {role: cpu_s(pid) - before[role] for role, pid in system.pids.items()}
        spent["client"] = after.ru_utime + after.ru_stime - generators.ru_utime - generators.ru_stime
        found |= {f"cpu {role}": 1e6 * value / operations for role, value in spent.items()}
    return found


def show_cpu(systems: Sequence[System], runs: Runs) -> None:
    """Processor time per operation by process, and what two processors could do at that cost."""
    print("\nprocessor time per operation in µs, by process; and the rate at which two processors would be full")
    for op, outstanding in CASES:
        shown = []
        for system in systems:
            found = runs.get((system.name, op, outstanding), [])
            parts = {role: median(one[f"cpu {role}"] for one in found) for role in (*system.pids, "client")} if found else {}
            whole = ", ".join(f"{role} {value:.0f}" for role, value in parts.items())
            shown.append(f"{system.name}: {whole}: {2e6 / sum(parts.values()):,.0f}/s" if parts else f"{system.name}: -")
        print(f"{op + ' ' + str(outstanding):<12}" + "   ".join(shown), flush=True)


def compare(url: str, broker_pid: int, seconds: float, repeats: int) -> None:
    """The table of benchmarks/kv.py for the cases that matter on a broker."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dimint-bench-")))
        for name in ("dimint", "etcd"):
            (directory / name).mkdir()
        (ours,) = start_dimint(stack, directory / "dimint", [f"--log={url}/{os.urandom(6).hex()}"])
        systems = [ours._replace(pids={**ours.pids, "broker": broker_pid})]
        systems += start_etcd(stack, directory / "etcd")
        for system in systems:
            measure(system, "fill", 1, 0)
        runs: Runs = {}
        for repeat in range(repeats):
            for op, outstanding in CASES:
                for system in systems if repeat % 2 == 0 else reversed(systems):
                    found = measure_with_cpu(system, op, outstanding, seconds)
                    if found:
                        runs.setdefault((system.name, op, outstanding), []).append(found)
        show([system.name for system in systems], runs, CASES)
        show_cpu(systems, runs)


def fill(log: Log, events: int) -> None:
    """Sets in batches of BATCH, several appends under way."""
    log.create([TopicSpec(KV_TOPIC, 1)])
    writer = BatchWriter(log, clock=time, host="h", process="p")
    value = b'J"' + b"v" * 98 + b'"'
    for start in range(0, events, BATCH):
        rows = [["kv.set", f"key:{(start + n) * 7919 % KEYS:06}", 0, 0, None, value, None, 0] for n in range(BATCH)]
        writer.append_and_wait(Outgoing(KV_TOPIC, 0, (writer.by,), rows), 30)
    writer.close()


def materialize(log: Log, events: int) -> None:
    """What a node does with the log: read, apply, commit."""
    tune_collector()
    with tempfile.TemporaryDirectory() as directory, closing(Store(Path(directory))) as store, closing(log.reader()) as reader:
        replica = Replica(0, GENESIS, store.partition(0))
        end = log.bounds(KV_TOPIC, 0).end
        reader.assign({TopicPartition(KV_TOPIC, 0): 0})
        start, start_cpu = time.perf_counter(), time.process_time()
        committed = start
        while replica.next_offset < end:
            replica.apply(reader.poll(1.0))
            if time.perf_counter() - committed >= COMMIT_S:
                store.commit()
                committed = time.perf_counter()
        store.commit()
        took, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        assert replica.problem is None
    print(f"dimint node      {events / took:10,.0f} events/s  ({events / cpu:10,.0f} a second of processor time)", flush=True)


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--quixstreams", default=sys.executable, metavar="PYTHON", help="interpreter that has quixstreams")
    parser.add_argument("--only", choices=["store", "materialize"])
    chosen = parser.parse_args()
    with KafkaCluster() as broker:
        if chosen.only != "materialize":
            compare(broker.url, broker.brokers[0].server.pid, chosen.seconds, chosen.repeats)
        if chosen.only != "store":
            print(f"\nmaterialization of {chosen.events:,} sets from Kafka")
            with closing(KafkaLog(broker.servers, options=KafkaOptions(prefix="bench."), clock=time)) as log:
                fill(log, chosen.events)
                for _ in range(2):
                    materialize(log, chosen.events)
            command = [chosen.quixstreams, str(QUIX), broker.brokers[0].address, str(chosen.events // 4)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            print(done.stdout.strip() if done.returncode == 0 else f"quixstreams: skipped, {why}", flush=True)


if __name__ == "__main__":
    main()
