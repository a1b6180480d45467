"""Tables from archives and what is left of the log: the same as from the whole log, or a clear refusal."""

import threading
from pathlib import Path

import pytest

from dimint.consumers.digest import table_digest
from dimint.consumers.folder import TablesFolder
from dimint.consumers.reading import StatusReader
from dimint.consumers.rebuild import rebuild_tables
from dimint.consumers.runner import StatusConsumer
from dimint.errors import BadArchive, LogMismatch, SettingsError
from dimint.events import STATUS_TOPIC
from dimint.log.port import Record
from dimint.log.reading import Counted, Intake
from dimint.replay.archive import Encoder, Head, Row
from dimint.replay.positions import Range
from dimint.system_clock import SystemClock
from dimint.testing import FaultyLog
from tests.support.samples import Machine, registered, sample_event
from tests.support.status_log import PARTITIONS, StatusLog, feed
from tests.support.system import wait_until

GENESIS = Row("dimint.cluster", 0, 0, 0, b"as it stood")


def lab() -> StatusLog:
    """Three hosts with enough samples for chunks, and batches that are in the log twice."""
    log = StatusLog()
    for machine in (Machine(seed, gpus=2, cores=4) for seed in range(3)):
        log.put([registered(machine.id, machine.id[:6], facts=machine.facts)], time_ns=machine.time_ns)
        for at, (time_ns, event) in enumerate(machine.events(500)):
            log.put([sample_event(machine.id, *event[4:])], time_ns=time_ns, logged_at_ns=time_ns + 1_000_000)
            if at % 50 == 0:
                log.again(at)
    return log


def archive(log: StatusLog, path: Path, start: int, end: int, generation: str | None = None) -> Path:
    """What counts of every partition's offsets in [start, end), as an archive."""
    ends = [log.log.bounds(STATUS_TOPIC, partition).end for partition in range(PARTITIONS)]
    ranges = tuple(Range(STATUS_TOPIC, at, min(start, ends[at]), min(end, ends[at])) for at in range(PARTITIONS))
    encoder = Encoder(Head(generation or log.log.describe().generation, GENESIS, ranges, "test", 0))
    content = encoder.start()
    intakes = [Intake(STATUS_TOPIC, partition) for partition in range(PARTITIONS)]
    for record in log.records():
        taken = intakes[record.partition].take(record)
        if isinstance(taken, Counted) and start <= record.offset < end:
            row = Row(STATUS_TOPIC, record.partition, record.offset, taken.log_time_us * 1000, record.value)
            content += encoder.add(row, len(taken.events))
    path.write_bytes(content + encoder.finish((STATUS_TOPIC, at, min(end, ends[at])) for at in range(PARTITIONS)))
    return path


def trim(log: StatusLog, before: int) -> None:
    for partition in range(PARTITIONS):
        log.log.trim(STATUS_TOPIC, partition, before)


@pytest.mark.parametrize("trimmed", [250, 300, 400])
def test_archives_and_the_rest_of_the_log_give_the_same_tables(tmp_path: Path, trimmed: int) -> None:
    """Two archives in any order and the log behind or across their ends: the same digest as from the whole log."""
    log = lab()
    whole = table_digest(feed(log, tmp_path / "whole"))
    later, earlier = archive(log, tmp_path / "b.dma", 150, 400), archive(log, tmp_path / "a.dma", 0, 200)
    trim(log, trimmed)
    built = rebuild_tables(log.log, TablesFolder(tmp_path / "tables"), archives=[later, earlier])
    assert built.digest == whole
    with StatusReader(tmp_path / "tables") as reader:
        assert "trimmed offsets" not in reader.counts()
    feed(log, tmp_path / "rest")
    assert table_digest(tmp_path / "rest") != whole, "without the archives much is missing"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A damaged or cut archive, one of another log, a hole between two: one clear error, and the live tables stay."""
    log = lab()
    folder = TablesFolder(tmp_path / "tables")
    built = rebuild_tables(log.log, folder)
    good = archive(log, tmp_path / "good.dma", 0, 200)
    behind = archive(log, tmp_path / "behind.dma", 300, 400)
    other = archive(log, tmp_path / "other.dma", 0, 200, "another log")
    content = good.read_bytes()
    cut, damaged = tmp_path / "cut.dma", tmp_path / "damaged.dma"
    cut.write_bytes(content[:-9])
    damaged.write_bytes(content[:5000] + bytes((content[5000] ^ 1,)) + content[5001:])
    for paths, error in (([cut], BadArchive), ([damaged], BadArchive), ([other], LogMismatch), ([good, behind], SettingsError)):
        with pytest.raises(error):
            rebuild_tables(log.log, folder, archives=paths)
        assert folder.live() == built.path
        assert table_digest(folder.path) == built.digest


def test_a_consumer_fills_new_tables_from_archives_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As after an upgrade that puts the old ones aside: nothing is missing. With a damaged archive it says so, and goes on."""
    log = lab()
    whole = table_digest(feed(log, tmp_path / "whole"))
    archives = [archive(log, tmp_path / "a.dma", 0, 300)]
    trim(log, 300)
    for folder in ("sound", "damaged"):
        consumer = StatusConsumer(log.log, TablesFolder(tmp_path / folder), SystemClock(), archives=lambda: archives)
        thread = threading.Thread(target=consumer.run)
        thread.start()
        with StatusReader(tmp_path / folder) as reader:
            ends = {(partition, log.log.bounds(STATUS_TOPIC, partition).end) for partition in range(PARTITIONS)}
            wait_until(lambda reader=reader, ends=ends: ends <= {*reader.positions().items(), (1, 0)}, 30, "filled")
        consumer.stop()
        thread.join(10)
        assert (table_digest(tmp_path / folder) == whole) == (folder == "sound")
        assert ("filled from the log alone" in caplog.text) == (folder == "damaged")
        archives[0].write_bytes(archives[0].read_bytes()[:-1])


class _TrimmedMeanwhile(FaultyLog):
    """A log whose beginning is archived and goes when it has been read from a few times."""

    def __init__(self, log: StatusLog, path: Path) -> None:
        super().__init__(log.log)
        self._status, self._path, self._reads = log, path, 0

    def read(self, topic: str, partition: int, offset: int, *, max_records: int = 1000, max_bytes: int = 4 << 20) -> list[Record]:
        self._reads += 1
        if self._reads == 4:
            archive(self._status, self._path, 0, 400)
            trim(self._status, 400)
        return super().read(topic, partition, offset, max_records=100, max_bytes=max_bytes)


def test_what_is_trimmed_while_tables_are_filled_is_read_from_its_archive(tmp_path: Path) -> None:
    """A keeper at work beside a rebuild leaves no hole in it."""
    log = lab()
    whole = table_digest(feed(log, tmp_path / "whole"))
    path = tmp_path / "late.dma"
    source = _TrimmedMeanwhile(log, path)
    built = rebuild_tables(source, TablesFolder(tmp_path / "tables"), more=lambda: [path] if path.exists() else [])
    assert built.digest == whole
    with StatusReader(tmp_path / "tables") as reader:
        assert "trimmed offsets" not in reader.counts()
