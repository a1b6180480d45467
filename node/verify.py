"""Whether a node's store is what the log says: the log is folded again beside it, up to where the store is."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

from dimint.errors import BadSnapshot, LogMismatch, OffsetOutOfRange
from dimint.log.opening import genesis_of
from dimint.log.port import Log
from dimint.node.rebuild import Snapshots, begin, read_to
from dimint.node.replica import META, Replica, read_meta
from dimint.node.rows import HEAD, VALUE_AT
from dimint.node.state import Table
from dimint.node.store import Store, copy_store
from dimint.progress import NO_PROGRESS, Progress
from dimint.snapshot_folder import SnapshotFolder

__all__ = ["PartitionVerdict", "verify_store"]

_VALUE_CHARS: Final = 120
_PAGE: Final = 10_000


class PartitionVerdict(NamedTuple):
    """One partition up to `next_offset`. `problem` is the first difference, by key, or why they cannot be compared."""

    partition: int
    next_offset: int
    key_count: int
    digest: str
    problem: str | None


def verify_store(
    directory: Path,
    log: Log,
    scratch: Path,
    snapshots: Sequence[SnapshotFolder] = (),
    *,
    progress: Progress = NO_PROGRESS,
) -> Iterator[PartitionVerdict]:
    """Compare a copy of the store in `directory` with one folded from the log, partition by partition.

    Both are made in the directory `scratch`; the node goes on. Where the log was trimmed the newest snapshot is gone out
    from that is not past the store.
    """
    genesis = genesis_of(log)
    copy_store(directory, scratch / "live")
    live, fresh = Store(scratch / "live"), Store(scratch / "log")
    done = events = 0
    try:
        total = sum(meta.next_offset for at in live.partitions() if (meta := read_meta(live.partition(at).side.get(META))))
        for partition in live.partitions():
            state = live.partition(partition)
            meta = read_meta(state.side.get(META))
            if meta is None:
                continue
            problem: str | None = None
            if meta.fingerprint.generation != genesis.generation:
                problem = "the store is of another log"
            else:
                try:
                    before = {partition: meta.next_offset}
                    replica = begin(log, fresh, partition, genesis, Snapshots(snapshots, before=before))
                    tell = partial(_tell, progress, replica, done, total, events)
                    read_to(replica, log, fresh, meta.next_offset, tell=tell)
                    events += replica.events
                except (LogMismatch, OffsetOutOfRange, BadSnapshot) as error:
                    problem = f"the log cannot be read up to there: {error}"
                else:
                    # row by row: a damaged row does not change the digest that the store keeps
                    problem = _first_difference(state.data, fresh.partition(partition).data)
                    if problem is None and replica.digest != meta.digest:
                        problem = "the digest of the store does not fit its rows"
            fresh.commit()
            done += meta.next_offset
            yield PartitionVerdict(partition, meta.next_offset, meta.key_count, f"{meta.digest:032x}", problem)
        progress.end(done, total, events)
    finally:
        live.close()
        fresh.close()


def _tell(progress: Progress, replica: Replica, done: int, total: int, events: int) -> None:
    progress.at(done + replica.next_offset, total, events + replica.events)


def _first_difference(live: Table, log: Table) -> str | None:
    for one, other in zip_longest(_rows(live), _rows(log)):
        if one != other:
            key = min(row[0] for row in (one, other) if row is not None)
            shown = [_shown(row) if row is not None and row[0] == key else "no such key" for row in (one, other)]
            return f"key {key.decode()!a}: the store has {shown[0]}, the log says {shown[1]}"
    return None


def _rows(table: Table) -> Iterator[tuple[bytes, bytes]]:
    start = b""
    while page := list(table.scan(start, b"", _PAGE)):
        yield from page
        start = page[-1][0] + b"\0"


def _shown(row: tuple[bytes, bytes]) -> str:
    version, _ = HEAD.unpack_from(row[1])
    return f"{ascii(row[1][VALUE_AT + 1 :].decode('utf-8', 'replace'))[:_VALUE_CHARS]} at version {version}"
