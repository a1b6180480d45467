"""Whether two versions of the code make the same of one log: what this one makes goes into a file, the other one compares.

The file is gzip of JSON lines. The first says of which log and up to where, how often, and which code wrote it:

    {"determinism": 1, "log": generation, "code": …, "every": records, "ends": {topic: {partition: offset}},
     "tables_format": number}
    {"at": "dimint.kv/3@2000", "digest": 32 hex digits, "rows": {key: 16 hex digits or null}}
    {"at": "dimint.status/1@2000", "rows": {host: 16 hex digits}}

A line tells what changed in the records since the line before: of a key the hash of its row as it is then (null: it is
gone), of a host that of everything that was written for it. The last line of a partition of keys also has the hash of its
side table (dedupe, outcomes, expiries), the last line of all one of the status tables' rows,
which is not compared where these have another format.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgpack
from xxhash import xxh3_64, xxh3_64_hexdigest

from dimint.code_version import code_version
from dimint.errors import BadArchive, LogMismatch
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.opening import genesis_of
from dimint.log.port import Log, Record
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.positions import format_position
from dimint.snapshot_folder import SnapshotFolder

__all__ = ["EVERY", "Compared", "compare_determinism", "write_determinism"]

EVERY: Final = 1000
"""Records between two lines of a partition, if nobody says otherwise."""
_VERSION: Final = 1
_TABLES: Final = "the status tables"


class Compared(NamedTuple):
    """`lines` were compared with what `code` had written; `problem` is the first difference, by position and key; `note` says
    what could not be compared."""

    lines: int
    code: str
    problem: str | None
    note: str = ""


def write_determinism(
    log: Log,
    path: Path,
    scratch: Path,
    *,
    every: int = EVERY,
    snapshots: Sequence[SnapshotFolder] = (),
    progress: Progress = NO_PROGRESS,
) -> int:
    """Write what this code makes of the log up to now; the lines. Stores and tables are made in the directory `scratch`.

    Raises LogMismatch or BadSnapshot if the log cannot be read from where its projections begin.
    """
    topics = log.describe().topics
    ends = {
        topic: {str(at): log.bounds(topic, at).end for at in range(topics.get(topic, 0))} for topic in (KV_TOPIC, STATUS_TOPIC)
    }
    head = {
        "determinism": _VERSION, "log": log.describe().generation, "code": code_version(), "every": every, "ends": ends,
        "tables_format": _tables_format(),
    }  # fmt: skip
    part = path.with_name(path.name + ".part")
    count = 0
    with gzip.open(part, "wt", encoding="utf-8") as file:
        file.write(json.dumps(head) + "\n")
        for line in _lines(log, scratch, head, snapshots, progress):
            file.write(json.dumps(line) + "\n")
            count += 1
    part.replace(path)
    return count


def compare_determinism(
    log: Log, path: Path, scratch: Path, *, snapshots: Sequence[SnapshotFolder] = (), progress: Progress = NO_PROGRESS
) -> Compared:
    """Make the same of the log again, and compare with the file. Raises BadArchive, LogMismatch for a file of another log."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            head = _read(file.readline())
            if head.get("determinism") != _VERSION:
                raise BadArchive(f"{path} was not written by dimint verify --determinism of this format")
            if head["log"] != log.describe().generation:
                raise LogMismatch(f"{path} is of log {head['log']}, this is {log.describe().generation}")
            count = 0
            formats = head.get("tables_format"), _tables_format()
            same_format = formats[0] in (None, formats[1])
            note = "" if same_format else f"rows of status tables of format {formats[0]} and {formats[1]} are not compared"
            for theirs, ours in zip_longest(_file_lines(file), _lines(log, scratch, head, snapshots, progress)):
                problem = _difference(theirs, ours)
                if problem is not None and (same_format or not ours or ours["at"] != _TABLES):
                    return Compared(count, str(head["code"]), problem, note)
                count += 1
            return Compared(count, str(head["code"]), None, note)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BadArchive(f"{path} cannot be read: {error}") from error


def _lines(
    log: Log, scratch: Path, head: Mapping[str, Any], snapshots: Sequence[SnapshotFolder], progress: Progress
) -> Iterator[dict[str, Any]]:
    done, total = 0, sum(end for ends in head["ends"].values() for end in ends.values())
    made = (_of_keys(log, scratch / "keys", head, snapshots), _of_status(log, scratch / "status.db", head))
    for lines in made:
        for line, records in lines:
            done += records
            progress.at(done, total, done)
            yield line
    progress.end(done, total, done)


def _of_keys(
    log: Log, directory: Path, head: Mapping[str, Any], snapshots: Sequence[SnapshotFolder]
) -> Iterator[tuple[dict[str, Any], int]]:
    from dimint.node.rebuild import Snapshots, begin
    from dimint.node.recording import RecordingState
    from dimint.node.replica import Replica
    from dimint.node.store import Store

    genesis = genesis_of(log)
    with closing(Store(directory)) as store:
        for name, end in head["ends"][KV_TOPIC].items():
            partition = int(name)
            begin(log, store, partition, genesis, Snapshots(snapshots, before={partition: end}))
            state = RecordingState(store.partition(partition))
            replica = Replica(partition, genesis, state)
            for records in _chunks(log, KV_TOPIC, partition, replica.next_offset, end, head["every"]):
                replica.apply(records)
                if replica.problem is not None:
                    raise LogMismatch(replica.problem.text)
                at = format_position(KV_TOPIC, partition, replica.next_offset)
                rows = {key.decode(): None if row is None else xxh3_64_hexdigest(row) for key, row in state.take().items()}
                line = {"at": at, "digest": f"{replica.digest:032x}", "rows": dict(sorted(rows.items()))}
                if replica.next_offset >= end:
                    line["side"] = _hash(state.side.scan(b"", b"", 1 << 60))
                store.commit()
                yield line, len(records)


def _of_status(log: Log, path: Path, head: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    from dimint.consumers.digest import table_digest
    from dimint.consumers.feeder import Feeder
    from dimint.consumers.recording import hashes_of

    with closing(Feeder(log, path, first_sequence=0)) as feeder:
        for name, end in head["ends"][STATUS_TOPIC].items():
            partition = int(name)
            start = log.bounds(STATUS_TOPIC, partition).start
            for records in _chunks(log, STATUS_TOPIC, partition, start, end, head["every"]):
                feeder.take(records)
                if feeder.stopped:
                    raise LogMismatch(f"{STATUS_TOPIC}/{partition}: {feeder.stopped[partition]}")
                changes = feeder.commit()
                rows = {} if changes is None else hashes_of(changes)
                yield {"at": format_position(STATUS_TOPIC, partition, records[-1].offset + 1), "rows": rows}, len(records)
    yield {"at": _TABLES, "digest": table_digest(path)}, 0


def _chunks(log: Log, topic: str, partition: int, start: int, end: int, every: int) -> Iterator[list[Record]]:
    """Records up to each multiple of `every`, however the log gives them."""
    chunk: list[Record] = []
    while start < end:
        records = [record for record in log.read(topic, partition, start) if record.offset < end]
        if not records:
            break
        for record in records:
            if chunk and record.offset // every != chunk[-1].offset // every:
                yield chunk
                chunk = []
            chunk.append(record)
        start = records[-1].offset + 1
    if chunk:
        yield chunk


def _tables_format() -> int:
    from dimint.consumers.tables import FORMAT

    return FORMAT


def _hash(rows: Any) -> str:
    digest = xxh3_64()
    for row in rows:
        digest.update(msgpack.packb(row))
    return digest.hexdigest()


# --- the other one's file -------------------------------------------------------------------------------------------
def _file_lines(file: IO[str]) -> Iterator[dict[str, Any]]:
    for text in file:
        yield _read(text)


def _read(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("a line is no map")
    return found


def _difference(theirs: Mapping[str, Any] | None, ours: Mapping[str, Any] | None) -> str | None:
    """What differs in a line, in words; the file is the other version's."""
    if theirs == ours:
        return None
    if theirs is None or ours is None:
        last = theirs or ours or {}
        return f"{last.get('at')}: only {'the file' if theirs else 'this code'} has something up to there"
    if theirs.get("at") != ours["at"]:
        return f"the file goes on with {theirs.get('at')!a}, this code with {ours['at']}"
    rows, mine = theirs.get("rows") or {}, ours.get("rows") or {}
    for key in sorted({*rows, *mine}):
        if rows.get(key, "") != mine.get(key, ""):
            shown = [_shown(one, key) for one in (rows, mine)]
            return f"up to {ours['at']}, key {key!a}: the file has {shown[0]}, this code makes {shown[1]}"
    if ours["at"] == _TABLES:
        return f"{_TABLES}: their rows differ from the file's, though what was written for each host does not"
    what = "what stands beside the keys" if theirs.get("side") != ours.get("side") else "the contents"
    return f"up to {ours['at']}: {what} differs from the file, though no key does"


def _shown(rows: Mapping[str, Any], key: str) -> str:
    if key not in rows:
        return "no change"
    return "no such key" if rows[key] is None else f"row {rows[key]!a:.40}"
