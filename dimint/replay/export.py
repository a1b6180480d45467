"""A stretch of a log into an archive file, resumable at any byte."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dimint import __version__
from dimint.batch import decode_header
from dimint.errors import BadArchive, LogMismatch, SettingsError
from dimint.log.port import Log, TopicPartition
from dimint.log.reading import DEAD_REASONS, Counted
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.archive import Decoder, Encoder, Head
from dimint.replay.copying import find_genesis_row, row_of
from dimint.replay.positions import Range, format_positions
from dimint.replay.stream import Stream
from dimint.system_clock import SystemClock

__all__ = ["Exported", "export_to_file", "export_to_stream", "part_of"]

_READ_BYTES = 1 << 20


class Exported(NamedTuple):
    """What an archive holds, and what was passed over."""

    batches: int
    events: int
    repeated: int
    dead_letters: int
    size: int


class _Resumed(NamedTuple):
    """What an unfinished file holds: its head, and where each range goes on."""

    head: Head
    next: dict[TopicPartition, int]
    frames: int
    batches: int
    events: int
    size: int


def part_of(path: Path) -> Path:
    """Where the archive grows until it is whole."""
    return path.with_name(path.name + ".part")


def export_to_file(log: Log, ranges: Sequence[Range], path: Path, *, progress: Progress = NO_PROGRESS) -> Exported:
    """Write the archive beside `path`, and give it that name when it is whole and on the disk.

    What an earlier call left unfinished is gone on with: its ranges end where that one set out to end. Raises
    SettingsError if `path` exists, or if what is unfinished is of another log or stretch.
    """
    if path.exists():
        raise SettingsError(f"{path} exists", hint="remove it, or name another file")
    part = part_of(path)
    with open(part, "r+b" if part.exists() else "x+b") as file:
        resumed = _resume(file, log, ranges, part)
        file.seek(resumed.size if resumed else 0)
        file.truncate()
        exported = _export(log, ranges, file.write, resumed, file, progress)
        file.flush()
        os.fsync(file.fileno())
        exported = exported._replace(size=file.tell())
    os.rename(part, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return exported


def export_to_stream(log: Log, ranges: Sequence[Range], stream: BinaryIO, *, progress: Progress = NO_PROGRESS) -> Exported:
    """Write the archive into a pipe."""
    size = 0

    def write(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        stream.write(piece)

    exported = _export(log, ranges, write, None, None, progress)
    stream.flush()
    return exported._replace(size=size)


def _export(
    log: Log,
    ranges: Sequence[Range],
    write: Callable[[bytes], object],
    resumed: _Resumed | None,
    file: BinaryIO | None,
    progress: Progress,
) -> Exported:
    if resumed is None:
        head = Head(log.describe().generation, find_genesis_row(log), tuple(ranges), __version__, SystemClock().time_ns())
        encoder = Encoder(head)
        write(encoder.start())
    else:
        assert file is not None
        head = resumed.head
        encoder = Encoder(head)
        file.seek(0)
        pieces = iter(lambda: file.read(min(_READ_BYTES, resumed.size - file.tell())), b"")
        encoder.resume(resumed.frames, resumed.batches, resumed.events, pieces)
        ranges = [each._replace(start=resumed.next.get(each.place, each.start)) for each in head.ranges]
    batches, events = (resumed.batches, resumed.events) if resumed else (0, 0)
    with Stream(log, ranges) as stream:
        total = stream.left()
        try:
            for number, item in enumerate(stream.history()):
                if isinstance(item.taken, Counted):
                    piece = encoder.add(row_of(item), len(item.taken.events))
                    if piece:
                        write(piece)
                if number % 256 == 0:
                    progress.at(total - stream.left(), total, stream.counts["events"])
        except KeyboardInterrupt:
            write(encoder.flush())  # the same command goes on from here
            raise
        finally:
            progress.end(total - stream.left(), total, stream.counts["events"])
        positions = stream.positions
        write(encoder.finish([(*each.place, positions[each.place]) for each in head.ranges]))
        counts = stream.counts
    dead = sum(counts[reason] for reason in DEAD_REASONS)
    return Exported(batches + counts["batches"], events + counts["events"], counts["repeated"], dead, 0)


def _resume(file: BinaryIO, log: Log, ranges: Sequence[Range], part: Path) -> _Resumed | None:
    """What is sound in an unfinished file; None if not even its head is."""
    decoder = Decoder()
    reached: dict[TopicPartition, int] = {}
    events = batches = frames = size = 0
    with contextlib.suppress(BadArchive):
        while decoder.end is None and (piece := file.read(_READ_BYTES)):
            for frame in decoder.feed(piece):
                if isinstance(frame, list):
                    batches += len(frame)
                    for row in frame:
                        events += decode_header(row.record).event_count
                        reached[row.place] = row.offset + 1
                if decoder.end is None:
                    frames, size = decoder.frames, decoder.sound
    head = decoder.head
    if head is None:
        return None
    generation = log.describe().generation
    if head.log != generation:
        raise LogMismatch(f"{part} is of log {head.log}, this is {generation}", hint="remove it, or name another file")
    asked = {each.place: each for each in ranges}
    for each in head.ranges:
        now = asked.get(each.place)
        if now is None or now.start != each.start or now.end is None or each.end is None or now.end < each.end:
            starts = format_positions({one.place: one.start for one in head.ranges})
            raise SettingsError(f"{part} is of another stretch", hint=f"remove it, or go on with --from {starts}")
    if len(asked) != len(head.ranges):
        raise SettingsError(f"{part} has other topics", hint="remove it, or name another file")
    return _Resumed(head, reached, frames, batches, events, size)
