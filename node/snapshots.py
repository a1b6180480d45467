"""Snapshots on the disk: written from this machine's stores, loaded into a store that is being built."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from dimint.code_version import code_version
from dimint.errors import BadSnapshot, SettingsError
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Log
from dimint.node.fitting import mismatch
from dimint.node.replica import META, Meta, read_meta
from dimint.node.store import Frozen, Store, frozen_store, rows_of_partitions
from dimint.progress import NO_PROGRESS, Progress
from dimint.snapshot import SIDE, Header, Rows, encode
from dimint.snapshot_folder import PartOf, SnapshotFolder, check_folder, file_of, rows_of, write_note, writing_lock

__all__ = ["furthest", "load_partition", "snapshot_pieces", "take_snapshot"]


def snapshot_pieces(frozen: Frozen, partition: int, genesis: Genesis) -> tuple[Meta, Iterator[bytes]] | None:
    """Where a partition stands, and the bytes of its snapshot; None if nothing of it is committed."""
    meta = read_meta(frozen.get("side", META))
    if meta is None:
        return None
    generation = meta.fingerprint.generation
    header = Header(
        KV_TOPIC, partition, generation, meta.next_offset, meta.digest, b"1", genesis.kv_partitions, genesis.hash_range
    )
    return meta, encode(header, frozen.rows("data"), frozen.rows("side"))


def take_snapshot(
    stores: Iterable[Path], log: Log, genesis: Genesis, into: Path, *, now_ns: int, progress: Progress = NO_PROGRESS
) -> SnapshotFolder:
    """Write what the stores in these nodes' directories committed last into the new folder `into`, and check it.

    Nodes go on. Of a partition in several stores the furthest counts. Raises SettingsError if a partition that the log has
    something of is in none of them, or `into` is there; BadSnapshot if what is stored is damaged. Cut short it leaves none.
    """
    found: dict[int, PartOf] = {}
    try:
        into.mkdir(parents=True)
    except FileExistsError as error:
        raise SettingsError(f"{into} exists", hint="name another folder") from error
    done = 0
    lock = writing_lock(into)
    try:
        if not lock.acquire():
            raise SettingsError(f"another process is at work in {into}", hint="name another folder")
        for store in stores:
            with frozen_store(store) as partitions:
                for partition, frozen in partitions.items():
                    pieces = snapshot_pieces(frozen, partition, genesis)
                    if pieces is None or pieces[0].fingerprint.generation != genesis.generation:
                        continue
                    meta = pieces[0]
                    if partition in found and found[partition].next_offset >= meta.next_offset:
                        continue
                    size = _write(file_of(into, partition), pieces[1])
                    found[partition] = PartOf(meta.next_offset, meta.key_count, size, f"{meta.digest:032x}")
                    done += meta.key_count
                    progress.at(len(found), genesis.kv_partitions, done)
        missing = [at for at in range(genesis.kv_partitions) if at not in found and log.bounds(KV_TOPIC, at).end > 0]
        if missing:
            raise SettingsError(
                f"no store here has partition {', '.join(map(str, missing[:10]))}{' …' if missing[10:] else ''}",
                hint="build one with dimint rebuild node --into FOLDER, then take the snapshot with --data_dir FOLDER",
            )
        snapshot = SnapshotFolder(into, genesis.generation, now_ns, code_version(), dict(sorted(found.items())))
        check_folder(snapshot)
        write_note(snapshot)
        lock.path.unlink()
        _sync(into)
        _sync(into.parent)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    finally:
        lock.release()
    progress.end(len(found), genesis.kv_partitions, done)
    return snapshot


def furthest(stores: Iterable[Path], generation: str) -> dict[int, int]:
    """Partition → the furthest position that one of the stores in these nodes' directories has of this log."""
    found: dict[int, int] = {}
    for store in stores:
        for partition, row in rows_of_partitions(store, META).items():
            meta = read_meta(row)
            if meta is not None and meta.fingerprint.generation == generation:
                found[partition] = max(meta.next_offset, found.get(partition, 0))
    return found


def load_partition(store: Store, log: Log, snapshot: SnapshotFolder, partition: int) -> None:
    """Load a partition into an emptied place of the store, and commit it. Raises BadSnapshot if it is damaged or does not fit.

    The row with the position comes last, so that half a snapshot counts as nothing.
    """
    state = store.partition(partition)
    meta_row: bytes | None = None
    with contextlib.closing(rows_of(snapshot, partition)) as parts:
        for part in parts:
            if isinstance(part, Rows):
                changes: dict[bytes, bytes | None] = dict(part.rows)
                if part.table == SIDE:
                    meta_row = changes.pop(META, meta_row)
                (state.side if part.table == SIDE else state.data).save(changes)
                store.commit()
    meta = read_meta(meta_row)
    if meta is None or meta.next_offset != snapshot.partitions[partition].next_offset:
        raise BadSnapshot(f"{file_of(snapshot.path, partition)} has no position")
    reason = mismatch(meta, log.describe().generation, log, partition)
    if reason is not None:
        raise BadSnapshot(f"{file_of(snapshot.path, partition)} does not fit the log: {reason}")
    state.side.save({META: meta_row})
    store.commit()


def _write(path: Path, pieces: Iterable[bytes]) -> int:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
