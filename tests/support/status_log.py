"""Histories of the status topic for tests of its projections: records made by hand, and a log in memory with them."""

from collections.abc import Iterable, Sequence
from hashlib import md5
from pathlib import Path
from typing import Any

from dimint.batch import By, encode
from dimint.consumers.feeder import Feeder
from dimint.consumers.reading import CURRENT
from dimint.consumers.tables_sealing import Keep
from dimint.events import STATUS_TOPIC
from dimint.log.memory import MemoryLog
from dimint.log.port import Entry, Record, TopicSpec
from dimint.testing import memory_log
from tests.support.samples import START_NS

__all__ = ["PARTITIONS", "StatusLog", "feed", "partition_of"]

PARTITIONS = 2


def partition_of(host: str) -> int:
    """Where a host's events stand."""
    return int.from_bytes(md5(host.encode()).digest(), "big") % PARTITIONS


class StatusLog:
    """A status topic in memory. One writer a log; `again` appends an earlier batch once more, as a confused producer may."""

    def __init__(self) -> None:
        self.log: MemoryLog = memory_log([TopicSpec(STATUS_TOPIC, PARTITIONS)])
        self._numbers = [0] * PARTITIONS
        self._sent: list[tuple[int, bytes]] = []
        self._by = (By(None, "host", "agent"),)
        self._writer = b"w" * 16

    def put(self, events: Sequence[Sequence[Any]], *, time_ns: int = START_NS, logged_at_ns: int | None = None) -> None:
        """Append one batch of events of one host (by the key of the first)."""
        partition = partition_of(str(events[0][1]))
        self._numbers[partition] += 1
        number = self._numbers[partition]
        self.put_raw(partition, encode(self._writer, number, time_ns, self._by, events, logged_at_ns=logged_at_ns))

    def put_raw(self, partition: int, value: bytes) -> None:
        """Append any bytes."""
        self.log.append([Entry(STATUS_TOPIC, partition, value)])[0].result()
        self._sent.append((partition, value))

    def again(self, at: int) -> None:
        """Append the record that was appended as number `at` (of any partition, from 0) once more."""
        if self._sent:
            self.put_raw(*self._sent[at % len(self._sent)])

    def records(self) -> list[Record]:
        """Everything, partitions one after the other."""
        return [record for partition in range(PARTITIONS) for record in self._all(partition)]

    def _all(self, partition: int) -> Iterable[Record]:
        at, end = self.log.bounds(STATUS_TOPIC, partition)
        while at < end:
            for record in self.log.read(STATUS_TOPIC, partition, at):
                yield record
                at = record.offset + 1


def feed(
    log: StatusLog,
    folder: Path,
    splits: Iterable[int] = (),
    *,
    records: Sequence[Record] | None = None,
    keep: Keep | None = None,
) -> Path:
    """Fill tables in `folder` from where they stand, with a commit and a new start after each count of `splits` records."""
    folder.mkdir(exist_ok=True)
    path = folder / "status-000001.db"
    left = log.records() if records is None else list(records)
    for count in [*splits, len(left)]:
        feeder = Feeder(log.log, path, first_sequence=0, keep=keep)
        positions = {key.partition: at for key, at in feeder.positions().items()}
        now, left = left[:count], left[count:]
        feeder.take(record for record in now if record.offset >= positions[record.partition])
        feeder.commit()
        feeder.close()
    (folder / CURRENT).write_text(path.name)
    return folder
