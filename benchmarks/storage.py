"""Bytes a number of stored samples: our chunks beside what others do, on one realistic 8-GPU host.

    .venv/bin/python benchmarks/storage.py [samples]

Numbers are the int and float leaves of a sample, text and names are not counted (their bytes are). Each row stores the
same samples completely and can give every one of them back.
"""

import bz2
import json
import lzma
import sys
import time
import zlib
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import lz4.block
import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dimint.consumers.chunk import decode, encode
from dimint.consumers.intervals import processes_of
from dimint.consumers.rows import StoredSample
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, block_of, coarser, pack_block, sum_up
from tests.support.samples import Machine

SEALED = 240
_GPU_NUMBERS = ("util_pct", "mutil_pct", "mem_used", "p_mW", "t_mC", "sm_MHz", "mem_MHz")


def numbers_in(value: Any) -> int:
    """Int and float leaves, booleans left out."""
    if isinstance(value, dict):
        return sum(map(numbers_in, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(numbers_in, value))
    return int(type(value) in (int, float))


def stream(machine: Machine, count: int) -> list[list[Any]]:
    """Samples as a chunk stores them, with time, number, delay, run and seq."""
    rows = []
    for n in range(count):
        sample = machine.step()
        delay = 1_500_000 + machine.random.randrange(3_000) * 1000
        rows.append([machine.time_ns, n, delay, machine.run, machine.seq, sample])
    return rows


def described(row: list[Any]) -> list[Any]:
    """The 129 numbers of a sample that move, with the process list, which is not counted."""
    sample = row[5]
    gpus = [[gpu[name] for name in _GPU_NUMBERS] for gpu in sample["gpu"]]
    nets = [[net["rx"], net["tx"]] for net in sample["net"]]
    memory = [sample["mem"]["used"], sample["mem"]["avail"]]
    numbers = {"cpu": sample["cpu"]["util_pct"], "load": sample["cpu"]["load"], "mem": memory, "net": nets, "gpu": gpus}
    assert numbers_in(numbers) == 129
    return [*row[:5], numbers | {"proc": sample["proc"]}]


def blocks(rows: list[list[Any]], size: int, pack: Callable[[bytes], bytes]) -> int:
    """Bytes of msgpack blocks of `size` samples."""
    return sum(len(pack(b"".join(map(msgpack.packb, rows[at : at + size])))) for at in range(0, len(rows), size))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10 * SEALED
    rows = stream(Machine(1), count)
    numbers = sum(map(numbers_in, rows))
    print(f"{count} samples of 8 GPUs and 64 cores, {numbers / count:.0f} numbers a sample")

    start = time.perf_counter()
    chunks = [encode(rows[at : at + SEALED]) for at in range(0, count, SEALED)]
    encoded = time.perf_counter()
    back = [row for blob in chunks for row in decode(blob)]
    decoded = time.perf_counter()
    assert back == rows

    def hard(block: bytes) -> bytes:
        packed: bytes = lz4.block.compress(block, mode="high_compression", compression=12)
        return packed

    stored = [StoredSample(row[0], row[0] + row[2], *row[3:]) for row in rows]
    minutes = sum_up(stored, MINUTE_NS)
    hours = coarser(minutes, MINUTE_NS, HOUR_NS)
    intervals = processes_of(stored)
    table = [
        (f"dimint, chunks of {SEALED}", sum(map(len, chunks))),
        ("lz4 a sample (tail rows)", blocks(rows, 1, lz4.block.compress)),
        ("zlib a sample", blocks(rows, 1, zlib.compress)),
        ("bz2 a sample", blocks(rows, 1, bz2.compress)),
        ("bz2 of JSON a sample", sum(len(bz2.compress(json.dumps(row[5]).encode())) for row in rows)),
        (f"lz4-HC, rows of {SEALED}", blocks(rows, SEALED, hard)),
        (f"bz2, rows of {SEALED}", blocks(rows, SEALED, bz2.compress)),
        (f"xz, rows of {SEALED}", blocks(rows, SEALED, lzma.compress)),
    ]
    for name, size in table:
        print(f"{name:28}{size / numbers:8.2f} B a number {size / count:9.0f} B a sample")
    moving = sum(len(encode([described(row) for row in rows[at : at + SEALED]])) for at in range(0, count, SEALED))
    print(f"the 129 that move, and who ran{moving / count / 129:6.2f} B a number {moving / count:9.0f} B a sample")
    for name, slots in (("minutes", minutes), ("hours", hours)):
        blocks_of = [{number: slots[number] for number in part} for _, part in groupby(sorted(slots), key=block_of)]
        size = sum(len(pack_block(block)) for block in blocks_of)
        leaves = sum(map(numbers_in, slots.values()))
        print(f"tier of {name:20}{size / leaves:8.2f} B a number {size / len(slots):9.0f} B a slot")
    print(f"{len(intervals)} intervals of processes")
    print(
        f"sealing {(encoded - start) / count * 1e6:.0f} µs a sample, reading {(decoded - encoded) / count * 1e6:.0f} µs a sample"
    )


if __name__ == "__main__":
    main()
