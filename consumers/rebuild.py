"""Fill new status tables from the log, beside the live ones, and switch to them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from dimint.code_version import code_version
from dimint.consumers.archived import Archive, archives_of
from dimint.consumers.digest import table_digest
from dimint.consumers.feeder import Feeder
from dimint.consumers.folder import TablesFolder, first_sequence
from dimint.consumers.reading import StatusReader
from dimint.consumers.rebuild_limit import Limit
from dimint.consumers.tables_sealing import FOR_EVER, Keep
from dimint.errors import DimintError, LogMismatch, OffsetOutOfRange, SettingsError
from dimint.events import STATUS_TOPIC
from dimint.log.port import Log
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.positions import Bound

__all__ = ["Filling", "Rebuilt", "rebuild_tables"]

_COMMIT_EVENTS: Final = 20_000
_PASSES: Final = 3
"""The log grows meanwhile: the last pass is short."""


class Rebuilt(NamedTuple):
    """The new tables: their file, its digest, how far it has read, how many events that were."""

    path: Path
    digest: str
    positions: dict[int, int]
    events: int


def rebuild_tables(
    source: Log,
    folder: TablesFolder,
    *,
    archives: Sequence[Path] = (),
    end: Bound | None = None,
    keep: Keep | None = None,
    more: Callable[[], Sequence[Path]] = tuple,
    progress: Callable[[str], Progress] = lambda what: NO_PROGRESS,
) -> Rebuilt:
    """Build from the first record that archives and log have to `end` or the log's end, and make the new file the live one.

    What an archive (of this log; else LogMismatch) and the log both have is taken once. `more` is asked for archives again
    where the log turns out to have been trimmed meanwhile. A rebuild of the same that was cut
    short is gone on with. Raises BadArchive for a damaged archive, and SettingsError if there is a hole between two of them.

    Whoever reads or writes the live tables goes on and follows the switch. Raises LogMismatch, and leaves the live tables
    as they are, if the log cannot be read as far as they had read it. SettingsError if another rebuild is at work.
    """
    lock = folder.lock_rebuild()
    try:
        generation = source.describe().generation
        reach = _reach(folder, generation)
        kept = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in archives]
        path = folder.unfinished({"log": generation, "code": code_version(), "archives": kept, "keep": list(keep or FOR_EVER)})
        try:
            filling = Filling(source, path, Limit(source, end, archived=bool(archives)), keep, progress, more)
            events, positions = filling.run(archives_of(archives, generation))
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
        except DimintError:
            folder.remove(path)
            raise
        return Rebuilt(path, table_digest(path), positions, events)
    finally:
        lock.release()


def _reach(folder: TablesFolder, generation: str) -> dict[int, int]:
    """How far the live tables have read, if they are of this log."""
    with StatusReader(folder.path) as live:
        return live.positions() if live.generation() == generation else {}


class Filling:
    """Archives and a log at work on one table file."""

    def __init__(
        self,
        source: Log,
        path: Path,
        limit: Limit,
        keep: Keep | None,
        progress: Callable[[str], Progress] = lambda what: NO_PROGRESS,
        more: Callable[[], Sequence[Path]] = tuple,
    ) -> None:
        self._source, self._path, self._limit, self._keep, self._progress = source, path, limit, keep, progress
        self._more = more
        self._read: set[Path] = set()
        self._events = 0

    def run(self, archives: Sequence[Archive]) -> tuple[int, dict[int, int]]:
        """Read archives, then the log; how many events that were, and how far each partition was read."""
        sequence = first_sequence(self._path)
        with closing(Feeder(self._source, self._path, first_sequence=sequence, keep=self._keep)) as feeder:
            for archive in archives:
                self._read_archive(archive, feeder)
            for number in range(_PASSES):
                self._read_log(feeder, "status" if number == 0 else "")
            return self._events, {at: tables.position for at, tables in feeder.tables.partitions().items()}

    def _read_log(self, feeder: Feeder, what: str) -> None:
        ends = {place.partition: self._limit.end(place.partition) for place in feeder.positions()}
        first = {place.partition: position for place, position in feeder.positions().items()}
        total = sum(max(0, end - first[partition]) for partition, end in ends.items())
        progress = self._progress(what) if what else NO_PROGRESS
        before, done = self._events, 0
        try:
            for partition, end in ends.items():
                for count, position in self._fill_partition(feeder, partition, end):
                    self._events += count
                    progress.at(done + position - first[partition], total, self._events - before)
                done += max(0, end - first[partition])
        finally:
            progress.end(done, total, self._events - before)

    def _fill_partition(self, feeder: Feeder, partition: int, end: int) -> Iterator[tuple[int, int]]:
        """Read a partition up to `end` (not further) and commit: how many events each commit had, and how far it came."""
        while (position := _position(feeder, partition)) is not None and position < end:
            try:
                records = self._source.read(STATUS_TOPIC, partition, position)
            except OffsetOutOfRange as error:
                if not self._read_new_archives(feeder):
                    if error.start >= end:
                        break
                    feeder.skip_trimmed(partition, error.start)
                continue
            if not records:
                break
            feeder.take([record for record in records if record.offset < end])
            if feeder.events >= _COMMIT_EVENTS:
                events = feeder.events
                feeder.commit()
                yield events, _position(feeder, partition) or position
        events = feeder.events
        feeder.commit()
        yield events, _position(feeder, partition) or 0

    def _read_new_archives(self, feeder: Feeder) -> bool:
        """Whether somebody trimmed the log meanwhile, and left archives of what went: they are read."""
        self._commit(feeder)
        found = archives_of([path for path in self._more() if path not in self._read], self._source.describe().generation)
        for archive in found:
            self._read_archive(archive, feeder)
        return bool(found)

    def _read_archive(self, archive: Archive, feeder: Feeder) -> None:
        self._read.add(archive.path)
        self._begin_at(archive, feeder)
        progress = self._progress(f"status, {archive.path.name}")
        size, before = archive.path.stat().st_size, self._events
        for part in archive.records():
            at = {key.partition: position for key, position in feeder.positions().items()}
            if isinstance(part, dict):
                for partition, reached in part.items():
                    reached = self._limit.cut(partition, reached)
                    if partition in at and at[partition] < reached:
                        feeder.go_to(partition, reached)
            else:
                feeder.take(
                    record for record in part if record.offset >= at.get(record.partition, 0) and self._limit.takes(record)
                )
            if feeder.events >= _COMMIT_EVENTS:
                self._commit(feeder)
            progress.at(archive.read_bytes, size, self._events - before + feeder.events)
        self._commit(feeder)
        progress.end(archive.read_bytes, size, self._events - before)

    def _begin_at(self, archive: Archive, feeder: Feeder) -> None:
        known = feeder.tables.partitions()
        for partition, start in archive.starts.items():
            if partition not in known:
                feeder.go_to(partition, min(start, _position(feeder, partition) or 0))
            elif start > known[partition].position and self._limit.cut(partition, start) > known[partition].position:
                raise SettingsError(
                    f"the archives leave out offsets {known[partition].position} to {start} of partition {partition}",
                    hint=f"name the one that goes before {archive.path.name} as well",
                )

    def _commit(self, feeder: Feeder) -> None:
        self._events += feeder.events
        feeder.commit()


def _position(feeder: Feeder, partition: int) -> int | None:
    """Where to read on; None if the partition has stopped."""
    return next((at for key, at in feeder.positions().items() if key.partition == partition), None)
