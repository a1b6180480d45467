"""How fast one core turns the status log into tables, and what asking them costs.

    .venv/bin/python benchmarks/consumer.py [hosts] [samples a host]

1000 hosts that report every 5 s are 200 samples a second.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dimint.batch import By, encode
from dimint.consumers.accounting import question
from dimint.consumers.digest import table_digest
from dimint.consumers.feeder import Feeder
from dimint.consumers.reading import CURRENT, StatusReader
from dimint.events import STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Record, TopicSpec
from dimint.testing import memory_log
from tests.support.samples import START_NS, Machine, registered, sample_event

PARTITIONS = 4
COMMIT_EVERY = 200


def history(machines: list[Machine], count: int) -> list[Record]:
    """One batch a sample, as agents publish them."""
    placing = Genesis("", 1, 1, PARTITIONS)
    records: list[Record] = []
    ends = [0] * PARTITIONS

    def put(machine: Machine, number: int, event: list[object], time_ns: int) -> None:
        partition = placing.status_partition(machine.id)
        writer = bytes.fromhex(machine.id)
        value = encode(writer, number, time_ns, (By(None, "host", "agent"),), [event], compress=True)
        records.append(Record(STATUS_TOPIC, partition, ends[partition], time_ns + 2_000_000, value))
        ends[partition] += 1

    for machine in machines:
        put(machine, 1, registered(machine.id, machine.id[:8], facts=machine.facts), START_NS)
    for number in range(2, count + 2):
        for machine in machines:
            sample = machine.step()
            put(machine, number, sample_event(machine.id, machine.run, machine.seq, sample), machine.time_ns)
    return records


def main() -> None:
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    machines = [Machine(seed) for seed in range(hosts)]
    records = history(machines, count)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "status-000001.db"
        feeder = Feeder(memory_log([TopicSpec(STATUS_TOPIC, PARTITIONS)]), path, first_sequence=0)
        start, core = time.perf_counter(), time.process_time()
        for at in range(0, len(records), COMMIT_EVERY):
            feeder.take(records[at : at + COMMIT_EVERY])
            feeder.commit()
        took, core = time.perf_counter() - start, time.process_time() - core
        feeder.close()
        (folder / CURRENT).write_text(path.name)
        size = sum(len(record.value) for record in records)
        print(f"{hosts} hosts with 8 GPUs, {count} samples each")
        print(f"{len(records) / took:.0f} samples/s, {len(records) / core:.0f} a second of one core")
        print(f"{path.stat().st_size / len(records):.0f} B a sample on disk, {size / len(records):.0f} in the log")
        with StatusReader(folder) as reader:
            asked = question(START_NS, 2 * START_NS, "user,host", "full")
            ids = [machine.id for machine in machines]
            for name, ask in (
                ("hosts", reader.hosts),
                (f"latest of {hosts}", lambda: reader.latest(ids)),
                ("last 60 of one", lambda: reader.last(ids[0], 60)),
                ("last 1000 of one", lambda: reader.last(ids[0], 1000)),
                ("version", reader.version),
                (f"{hosts} as they were", lambda: reader.fleet_at(START_NS + count * 2_500_000_000)),
                ("series of one, 100 points", lambda: reader.series(ids[0], START_NS, START_NS + count * 5_000_000_000, 100)),
                ("processes of one", lambda: reader.processes(ids[0], 0, 1 << 62)),
                ("GPU-hours of all", lambda: reader.accounting(asked, START_NS * 2)),
            ):
                start, core = time.perf_counter(), time.process_time()
                ask()
                took, core = time.perf_counter() - start, time.process_time() - core
                print(f"{name:28}{took * 1e3:9.2f} ms, {core * 1e3:.2f} of a core")
        start = time.perf_counter()
        table_digest(folder)
        print(f"digest: {len(records) / (time.perf_counter() - start):.0f} samples/s")


if __name__ == "__main__":
    main()
