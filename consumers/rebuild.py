"""Fill new status tables from the log, beside the live ones, and switch to them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dimint.consumers.archived import Archive, archives_of
from dimint.consumers.digest import table_digest
from dimint.consumers.feeder import Feeder
from dimint.consumers.folder import TablesFolder, first_sequence
from dimint.consumers.reading import StatusReader
from dimint.errors import LogMismatch, OffsetOutOfRange, SettingsError
from dimint.events import STATUS_TOPIC
from dimint.log.port import Log

__all__ = ["Rebuilt", "fill_partition", "rebuild_tables"]

_COMMIT_EVENTS: Final = 20_000
_PASSES: Final = 3
"""The log grows meanwhile: the last pass is short."""

log = logging.getLogger("dimint.consumer")


class Rebuilt(NamedTuple):
    """The new tables: their file, its digest, how far it has read, how many events that were."""

    path: Path
    digest: str
    positions: dict[int, int]
    events: int


def rebuild_tables(
    source: Log, folder: TablesFolder, *, archives: Sequence[Path] = (), say: Callable[[str], None] = lambda line: None
) -> Rebuilt:
    """Build from the first record that archives and log have to the log's end, and make the new file the live one.

    What an archive (of this log; else LogMismatch) and the log both have is taken once. Raises BadArchive for a damaged
    archive, and SettingsError if there is a hole between two of them.

    Whoever reads or writes the live tables goes on and follows the switch. Raises LogMismatch, and leaves the live tables
    as they are, if the log cannot be read as far as they had read it. SettingsError if another rebuild is at work.
    """
    lock = folder.lock_rebuild()
    try:
        folder.remove_unfinished()
        reach = _reach(folder, source.describe().generation)
        path = folder.new("building")
        try:
            events, positions = _fill(source, path, archives, say)
            for partition, position in reach.items():
                if positions.get(partition, 0) < position:
                    raise LogMismatch(
                        f"partition {partition} can be read to {positions.get(partition, 0)} only, the live tables have read to "
                        f"{position}: they stay as they are",
                        hint="see the log file for the record that cannot be read",
                    )
            before = folder.live()
            path = folder.switch(path)
            if before is not None:
                folder.remove(before)
        except BaseException:
            folder.remove(path)
            raise
        return Rebuilt(path, table_digest(path), positions, events)
    finally:
        lock.release()


def _reach(folder: TablesFolder, generation: str) -> dict[int, int]:
    """How far the live tables have read, if they are of this log."""
    with StatusReader(folder.path) as live:
        return live.positions() if live.generation() == generation else {}


def _fill(source: Log, path: Path, archives: Sequence[Path], say: Callable[[str], None]) -> tuple[int, dict[int, int]]:
    feeder = Feeder(source, path, first_sequence=first_sequence(path))
    events = 0
    try:
        for archive in archives_of(archives, source.describe().generation):
            events += _fill_from(archive, feeder)
            say(f"{events} events read, of {archive.path.name} the last")
        for _ in range(_PASSES):
            for topic, partition in feeder.positions():
                end = source.bounds(topic, partition).end
                events += fill_partition(source, feeder, partition, end)
            say(f"{events} events read")
        return events, {at: tables.position for at, tables in feeder.tables.partitions().items()}
    finally:
        feeder.close()


def _fill_from(archive: Archive, feeder: Feeder) -> int:
    events = 0
    known = feeder.tables.partitions()
    for partition, start in archive.starts.items():
        if partition not in known:
            feeder.go_to(partition, min(start, _position(feeder, partition) or 0))
        elif start > known[partition].position:
            raise SettingsError(
                f"the archives leave out offsets {known[partition].position} to {start} of partition {partition}",
                hint=f"name the one that goes before {archive.path.name} as well",
            )
    for part in archive.records():
        at = {key.partition: position for key, position in feeder.positions().items()}
        if isinstance(part, dict):
            for partition, reached in part.items():
                if partition in at and at[partition] < reached:
                    feeder.go_to(partition, reached)
        else:
            feeder.take(record for record in part if record.offset >= at.get(record.partition, 0))
        if feeder.events >= _COMMIT_EVENTS:
            events += feeder.events
            feeder.commit()
    events += feeder.events
    feeder.commit()
    return events


def fill_partition(source: Log, feeder: Feeder, partition: int, end: int) -> int:
    """Read a partition up to `end` (not further) and commit; how many events that were."""
    events = 0
    while (position := _position(feeder, partition)) is not None and position < end:
        try:
            records = source.read(STATUS_TOPIC, partition, position)
        except OffsetOutOfRange as error:
            feeder.skip_trimmed(partition, error.start)
            continue
        if not records:
            break
        feeder.take([record for record in records if record.offset < end])
        if feeder.events >= _COMMIT_EVENTS:
            events += feeder.events
            feeder.commit()
    events += feeder.events
    feeder.commit()
    return events


def _position(feeder: Feeder, partition: int) -> int | None:
    """Where to read on; None if the partition has stopped."""
    return next((at for key, at in feeder.positions().items() if key.partition == partition), None)
