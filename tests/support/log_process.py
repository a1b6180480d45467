"""Child processes that use an embedded log: `python -m tests.support.log_process append|read|genesis DIR …`.

append DIR NAME PARTITIONS COUNT BYTES   appends one record a partition at a time; prints `partition offset value` for each
read DIR PARTITIONS COUNT                follows all partitions; prints `partition offset value` for each record
genesis DIR HASH_RANGE                   prints the genesis, or the error
"""

import subprocess
import sys
import time
from pathlib import Path

from dimint.errors import DimintError
from dimint.log.embedded import EmbeddedLog
from dimint.log.opening import GenesisSettings, genesis
from dimint.log.port import Entry, TopicPartition
from tests.support.topics import TOPIC

ROOT = Path(__file__).parent.parent.parent


def start(*args: object, wrapper: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start a child; the caller ends it."""
    command = [*wrapper, sys.executable, "-m", "tests.support.log_process", *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _append(log: EmbeddedLog, name: str, partitions: int, count: int, size: int) -> None:
    for turn in range(count):
        entries = [Entry(TOPIC, p, f"{name}:{turn}:{p} ".encode().ljust(size, b".")) for p in range(partitions)]
        for entry, future in zip(entries, log.append(entries), strict=True):
            try:
                offset = future.result(30)
            except DimintError as error:
                print("error", type(error).__name__, flush=True)
                return
            print(entry.partition, offset, entry.value.split(b" ")[0].decode(), flush=True)


def _read(log: EmbeddedLog, partitions: int, count: int) -> None:
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, partition): 0 for partition in range(partitions)})
    while count > 0:
        for record in reader.poll(5):
            print(record.partition, record.offset, record.value.split(b" ")[0].decode(), flush=True)
            count -= 1
    reader.close()


def main(what: str, directory: str, *args: str) -> None:
    log = EmbeddedLog(directory, clock=time)
    if what == "append":
        _append(log, args[0], *map(int, args[1:]))
    elif what == "read":
        _read(log, *map(int, args))
    else:
        try:
            print(*genesis(log, wanted=GenesisSettings(hash_range=int(args[0])), clock=time, host="h", process="p"))
        except DimintError as error:
            print("error", error)
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
