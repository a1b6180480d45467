"""An archive file into a log: looked through first, then copied, and gone on with after any end."""

import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from dimint.errors import BadArchive
from dimint.genesis import Genesis
from dimint.log.port import Log, Record, TopicPartition
from dimint.log.reading import Counted, Intake
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.archive import Decoder, Head, Row
from dimint.replay.copying import Copier, Incoming, genesis_in, prepare

__all__ = ["Checked", "Imported", "check_archive", "checked_archive", "import_archive"]

_READ_BYTES = 1 << 20


class Checked(NamedTuple):
    """A sound archive, or its sound beginning: `problem` says why the rest is not."""

    head: Head
    incoming: Incoming
    batches: int
    events: int
    size: int
    problem: str


class Imported(NamedTuple):
    """Batches and events copied, and batches that the log had already."""

    batches: int
    events: int
    there: int


def check_archive(
    file: BinaryIO, *, keep_sound: bool = False, copy: BinaryIO | None = None, progress: Progress = NO_PROGRESS
) -> Checked:
    """Read all of an archive, and write what was read into `copy`. Raises BadArchive if anything in it is not sound.

    With `keep_sound` a damaged or cut archive is one up to its last sound frame, if it has a head.
    """
    judge = _Judge()
    total = _size_of(file)
    size = 0
    try:
        while piece := file.read(_READ_BYTES):
            if copy is not None:
                copy.write(piece)
            for frame in judge.decoder.feed(piece):
                if isinstance(frame, list):
                    judge.take(frame)
                size = judge.decoder.sound
            progress.at(judge.decoder.sound, total, judge.events)
        judge.decoder.close()
        end = judge.decoder.end
        if end is not None and end.events != judge.events:
            raise BadArchive(f"the archive holds {judge.events} events and says {end.events}")
    except BadArchive as error:
        if not keep_sound or judge.decoder.head is None:
            raise
        return Checked(judge.decoder.head, judge.incoming(), judge.batches, judge.events, size, str(error))
    finally:
        progress.end(judge.decoder.sound, total, judge.events)
    assert judge.decoder.head is not None
    return Checked(judge.decoder.head, judge.incoming(), judge.batches, judge.events, size, "")


@contextmanager
def checked_archive(
    file: BinaryIO, *, keep_sound: bool = False, progress: Progress = NO_PROGRESS
) -> Iterator[tuple[BinaryIO, Checked]]:
    """An archive that was looked through, for `import_archive`. What cannot be read twice (a pipe) goes into a temporary file."""
    if file.seekable():
        yield file, check_archive(file, keep_sound=keep_sound, progress=progress)
        return
    with tempfile.TemporaryFile(prefix="dimint-import-") as copy:
        yield copy, check_archive(file, keep_sound=keep_sound, copy=copy, progress=progress)


def import_archive(file: BinaryIO, checked: Checked, target: Log, *, progress: Progress = NO_PROGRESS) -> Imported:
    """Copy an archive that was checked into a log; batches that the log has from an earlier call are left out.

    Of an archive that is sound only at its beginning that is copied, and then BadArchive is raised. Raises LogMismatch if
    the log is not one that this can go into, before anything is written.
    """
    head = checked.head
    start, began = prepare(target, checked.incoming)
    copier = Copier(target, head.log)
    batches = int(began and head.genesis.offset < start.get(head.genesis.place, 0))
    seen = 0
    judge = _Judge()
    file.seek(0)
    try:
        for row in _rows(file, checked.size, judge):
            seen += 1
            if row.offset >= start[row.place]:
                copier.put(row)
                batches += 1
            progress.at(seen, checked.batches, judge.events)
        copier.flush()
    finally:
        progress.end(seen, checked.batches, judge.events)
    if checked.problem:
        raise BadArchive(f"{batches} batches were imported, up to the last sound frame; {checked.problem}")
    return Imported(batches, checked.events, seen - batches)


def _rows(file: BinaryIO, size: int, judge: "_Judge") -> Iterator[Row]:
    """The rows of a file that was checked: it is checked again, because it may have changed since."""
    while piece := file.read(min(_READ_BYTES, size - file.tell())):
        for frame in judge.decoder.feed(piece):
            if isinstance(frame, list):
                judge.take(frame)
                yield from frame
    if judge.decoder.sound != size:
        raise BadArchive("the file has changed while it was read")


class _Judge:
    """Every batch must be one that counts, with the log time that stands beside it."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.batches = self.events = 0
        self._first_ns: dict[TopicPartition, int] = {}
        self._offsets: dict[TopicPartition, array[int]] = {}
        self._intakes: dict[TopicPartition, Intake] = {}

    def incoming(self) -> Incoming:
        """What was read, for a target to judge."""
        head = self.decoder.head
        assert head is not None
        return Incoming(head.log, head.genesis, head.ranges, self._first_ns, self._batches_before)

    def _genesis(self) -> Genesis:
        head = self.decoder.head
        assert head is not None
        return genesis_in(head.genesis, head.log)

    def _batches_before(self, place: TopicPartition, offset: int) -> int:
        return bisect_left(self._offsets.get(place, ()), offset)

    def take(self, rows: list[Row]) -> None:
        """Raises BadArchive; rows before the bad one do not count then."""
        events = 0
        for row in rows:
            place = row.place
            if place not in self._intakes:
                self._intakes[place] = Intake(*place, self._genesis())
                self._first_ns[place] = row.logged_at_ns
                self._offsets[place] = array("Q")
            self._offsets[place].append(row.offset)
            # its log time is the archive's to say, whatever the header says
            taken = self._intakes[place].take(Record(*place, row.offset, row.logged_at_ns, row.record))
            if not isinstance(taken, Counted):
                what = getattr(taken, "detail", "a repeated batch")
                raise BadArchive(f"{place.topic}/{place.partition}@{row.offset} in the archive is no batch that counts: {what}")
            events += len(taken.events)
        self.batches += len(rows)
        self.events += events


def _size_of(file: BinaryIO) -> int:
    if not file.seekable():
        return 0
    size = file.seek(0, 2)
    file.seek(0)
    return size
