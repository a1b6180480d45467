"""Snapshots of all partitions of the store as one folder: a file a partition (dimint/snapshot.py), and what they are of.

::

    FOLDER/dimint.kv-0003.dms   partition 3
    FOLDER/snapshot.json        {"log": generation, "taken_ns": …, "code": …, "partitions":
                                 {"3": {"next_offset": …, "keys": …, "bytes": …, "digest": 32 hex digits}, …}}

A partition that the log has nothing of is left out. snapshot.json is written last and removed first: without it the folder
is no snapshot. Who writes one holds the lock in it. Nothing in the files is trusted before it was read.
"""

import json
import os
import re
import shutil
from collections.abc import Generator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from dimint.errors import BadSnapshot
from dimint.events import KV_TOPIC
from dimint.locks import FileLock
from dimint.log.port import Log
from dimint.snapshot import End, Header, Rows, SnapshotReader

__all__ = [
    "SNAPSHOTS_FOLDER",
    "SNAPSHOTS_NEEDED",
    "PartOf",
    "SnapshotFolder",
    "check_folder",
    "file_of",
    "first_usable",
    "folders_in",
    "let_go",
    "name_of",
    "read_folder",
    "rows_of",
    "write_note",
    "writing_lock",
]

SNAPSHOTS_FOLDER: Final = "snapshots"
"""In the data directory: a folder a snapshot, by the time it was taken."""
SNAPSHOTS_NEEDED: Final = 2
"""So many usable snapshots have to stay: one may turn out damaged on the day that it is needed."""
_NOTE: Final = "snapshot.json"
_LOCK: Final = "writing.lock"
_NAME: Final = re.compile(r"\d{8}T\d{12}Z", re.ASCII)
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


def name_of(taken_ns: int) -> str:
    """What a folder in the folder of snapshots is called that nobody gave a name.

    >>> name_of(1543620587_000_001_000)
    '20181130T232947000001Z'
    """
    return f"{datetime.fromtimestamp(taken_ns // 10**9, UTC):%Y%m%dT%H%M%S}{taken_ns // 1000 % 10**6:06}Z"


def writing_lock(folder: Path) -> FileLock:
    """Held while the folder is written or removed."""
    return FileLock(folder / _LOCK)


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


def first_usable(snapshots: Iterable[SnapshotFolder], log: Log, count: int) -> tuple[list[SnapshotFolder], str]:
    """The first so many of them that a store can begin with: every file is sound, and the log still has what comes after.

    Also what is wrong with the first one that is passed over, if one is. Reads all of those that it gives.
    """
    found: list[SnapshotFolder] = []
    problem = ""
    for snapshot in snapshots:
        if len(found) == count:
            break
        try:
            check_folder(snapshot)
            _check_reach(snapshot, log)
        except BadSnapshot as error:
            problem = problem or str(error)
        else:
            found.append(snapshot)
    return found, problem


def _check_reach(snapshot: SnapshotFolder, log: Log) -> None:
    for partition in range(log.describe().topics.get(KV_TOPIC, 0)):
        part = snapshot.partitions.get(partition)
        start = log.bounds(KV_TOPIC, partition).start
        if start > (0 if part is None else part.next_offset):
            raise BadSnapshot(f"{snapshot.path} ends before partition {partition} of the log begins")


def let_go(path: Path, log: Log, keep: int) -> list[Path]:
    """Remove what is older than the newest `keep` usable snapshots of a log (SNAPSHOTS_NEEDED at least), and what was left
    unfinished; which folders that were. What somebody gave a name of his own stays.

    Everything is read first: a damaged snapshot, or one that begins before the log does, is not counted.
    """
    keep = max(keep, SNAPSHOTS_NEEDED)
    folders = folders_in(path, log.describe().generation)
    kept, _ = first_usable(folders, log, keep)
    old = [one.path for one in folders if len(kept) == keep and one.taken_ns < kept[-1].taken_ns]
    unfinished = [one for one in sorted(path.glob("*")) if one.is_dir() and not (one / _NOTE).exists()]
    return [folder for folder in [*old, *unfinished] if _NAME.fullmatch(folder.name) and _remove(folder)]


def _remove(folder: Path) -> bool:
    """Whether it could be: nobody writes in it."""
    lock = writing_lock(folder)
    if not lock.acquire():
        return False
    try:
        (folder / _NOTE).unlink(missing_ok=True)
        shutil.rmtree(folder)
    finally:
        lock.release()
    return True
