"""Status records from archive files (dimint/replay/archive.py), for a rebuild of what the log does not have any more."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dimint.errors import BadArchive, LogMismatch
from dimint.events import STATUS_TOPIC
from dimint.log.port import Record
from dimint.replay.archive import Decoder, End, Frame, Head

__all__ = ["Archive", "archives_of"]

_READ_BYTES: Final = 1 << 20


class Archive:
    """One file. `starts` is, for each partition of the status topic that it holds, the first offset."""

    def __init__(self, path: Path, generation: str) -> None:
        """Reads the head. Raises BadArchive; LogMismatch for an archive of another log."""
        self.path = path
        self.read_bytes = 0
        """How much of the file `records` has read."""
        head = next((frame for frame in self._frames() if isinstance(frame, Head)), None)
        if head is None:
            raise BadArchive(f"{path} has no head")
        if head.log != generation:
            raise LogMismatch(f"{path} is an archive of log {head.log}, this is {generation}")
        self.starts = {each.partition: each.start for each in head.ranges if each.topic == STATUS_TOPIC}

    def records(self) -> Iterator[list[Record] | dict[int, int]]:
        """The status records in order, some at a time; last of all, partition → the offset that it was read to.

        Raises BadArchive for a file that is not whole and sound, after what is sound of it.
        """
        for frame in self._frames():
            if isinstance(frame, list):
                yield [Record(*row) for row in frame if row.topic == STATUS_TOPIC]
            elif isinstance(frame, End):
                yield {partition: offset for topic, partition, offset in frame.reached if topic == STATUS_TOPIC}

    def _frames(self) -> Iterator[Frame]:
        decoder = Decoder()
        with self.path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                self.read_bytes = file.tell()
                yield from decoder.feed(piece)
        decoder.close()


def archives_of(paths: Sequence[Path], generation: str) -> list[Archive]:
    """The archives in the order of the log."""
    found = [Archive(path, generation) for path in paths]
    return sorted(found, key=lambda archive: sorted(archive.starts.items()))
