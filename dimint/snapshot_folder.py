"""Snapshots of all partitions of the store as one folder: a file a partition (dimint/snapshot.py), and what they are of.

::

    FOLDER/dimint.kv-0003.dms   partition 3
    FOLDER/snapshot.json        {"log": generation, "taken_ns": …, "code": …, "partitions":
                                 {"3": {"next_offset": …, "keys": …, "bytes": …, "digest": 32 hex digits}, …}}

A partition that the log has nothing of is left out. snapshot.json is written last: without it the folder is no snapshot.
Nothing in the files is trusted before it was read.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, NamedTuple

from dimint.errors import BadSnapshot
from dimint.events import KV_TOPIC
from dimint.snapshot import End, Header, Rows, SnapshotReader

__all__ = [
    "SNAPSHOTS_FOLDER",
    "PartOf",
    "SnapshotFolder",
    "check_folder",
    "file_of",
    "folders_in",
    "read_folder",
    "rows_of",
    "write_note",
]

SNAPSHOTS_FOLDER: Final = "snapshots"
"""In the data directory: a folder a snapshot, by the time it was taken."""
_NOTE: Final = "snapshot.json"
_READ_BYTES: Final = 1 << 20


class PartOf(NamedTuple):
    """One partition: every record below `next_offset` is in it."""

    next_offset: int
    keys: int
    bytes: int
    digest: str


class SnapshotFolder(NamedTuple):
    """What snapshot.json says."""

    path: Path
    log: str
    taken_ns: int
    code: str
    partitions: dict[int, PartOf]


def file_of(folder: Path, partition: int) -> Path:
    """The file of a partition."""
    return folder / f"{KV_TOPIC}-{partition:04}.dms"


def write_note(snapshot: SnapshotFolder) -> None:
    """Make the folder a snapshot, in one step; the files must be on the disk."""
    note: dict[str, Any] = snapshot._asdict()
    del note["path"]
    note["partitions"] = {str(partition): part._asdict() for partition, part in snapshot.partitions.items()}
    fresh = snapshot.path / f"{_NOTE}.new"
    with fresh.open("w") as file:
        file.write(json.dumps(note, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, snapshot.path / _NOTE)


def read_folder(path: Path) -> SnapshotFolder:
    """What a folder is a snapshot of. Raises BadSnapshot if it is none."""
    try:
        note = json.loads((path / _NOTE).read_text())
        partitions = {int(partition): PartOf(**part) for partition, part in note.pop("partitions").items()}
        return SnapshotFolder(path, partitions=partitions, **note)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadSnapshot(f"{path} is no snapshot: {error}") from error


def folders_in(path: Path, generation: str) -> list[SnapshotFolder]:
    """The snapshots of a log in a folder of snapshots, the newest first; what is none is passed over."""
    found = []
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        try:
            snapshot = read_folder(folder)
        except BadSnapshot:
            continue
        if snapshot.log == generation:
            found.append(snapshot)
    return sorted(found, key=lambda one: one.taken_ns, reverse=True)


def rows_of(snapshot: SnapshotFolder, partition: int) -> Generator[Header | Rows, None, None]:
    """The header and the rows of a partition. Raises BadSnapshot, also after the last row, for what is not whole and sound."""
    part = snapshot.partitions.get(partition)
    if part is None:
        raise BadSnapshot(f"{snapshot.path} does not have partition {partition}")
    path = file_of(snapshot.path, partition)
    reader = SnapshotReader()
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                for found in reader.feed(piece):
                    if isinstance(found, Header) and (found.generation, found.partition, found.next_offset) != (
                        snapshot.log,
                        partition,
                        part.next_offset,
                    ):
                        raise BadSnapshot("it is another snapshot than the folder says")
                    if not isinstance(found, End):
                        yield found
    except (OSError, BadSnapshot) as error:
        raise BadSnapshot(f"{path}: {error}") from error
    if not reader.finished:
        raise BadSnapshot(f"{path} is cut short")


def check_folder(snapshot: SnapshotFolder) -> None:
    """Read every file. Raises BadSnapshot if one is not whole and sound."""
    for partition in snapshot.partitions:
        for _ in rows_of(snapshot, partition):
            pass
