"""Snapshots that a running system takes by itself, and lets go of.

They are taken of the stores of this machine's nodes where those have every partition and are not behind the snapshots that
are there; else from the log, by a store that is built for it, from the newest snapshot on.
"""

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from dimint.clock import Clock
from dimint.events import KV_TOPIC
from dimint.log.opening import genesis_of
from dimint.log.port import Log
from dimint.settings import CommonSettings
from dimint.snapshot_folder import SNAPSHOTS_FOLDER, SNAPSHOTS_NEEDED, SnapshotFolder, folders_in, let_go, name_of

__all__ = ["Kept", "keep_snapshots", "stores_in"]

_BUILDING: Final = "building"
"""In the folder of snapshots: the store that is built for one."""


class Kept(NamedTuple):
    """The snapshot that was taken, if it was time for one, and the folders that were let go of."""

    taken: SnapshotFolder | None
    gone: Sequence[Path] = ()


def stores_in(data_dir: Path) -> list[Path]:
    """Directories of the nodes that have a store there."""
    from dimint.node.cli import NODES_FOLDER

    return sorted(path.parent for path in (data_dir / NODES_FOLDER).glob("*/store") if path.is_dir())


def keep_snapshots(settings: CommonSettings, log: Log, clock: Clock, *, every_s: float, keep: int) -> Kept:
    """Take a snapshot if the newest one is as old as that and something has come since, and keep the newest `keep`.

    Goes on where a call that was killed was. Raises SettingsError, StoreError, LogError or BadSnapshot; then none is let go of.
    """
    folder = settings.data_dir / SNAPSHOTS_FOLDER
    there = folders_in(folder, log.describe().generation)
    now_ns = clock.time_ns()
    ends = {at: log.bounds(KV_TOPIC, at).end for at in range(log.describe().topics.get(KV_TOPIC, 0))}
    if not any(ends.values()) or (there and now_ns - there[0].taken_ns < every_s * 1e9):
        return Kept(None)
    if len(there) >= SNAPSHOTS_NEEDED and all(_reach(one, ends) == ends for one in there[:SNAPSHOTS_NEEDED]):
        return Kept(None)
    taken = _take(settings, log, there, ends, folder, now_ns)
    return Kept(taken, let_go(folder, log, keep))


def _reach(snapshot: SnapshotFolder, ends: dict[int, int]) -> dict[int, int]:
    return {at: snapshot.partitions[at].next_offset if at in snapshot.partitions else 0 for at in ends}


def _take(
    settings: CommonSettings, log: Log, there: Sequence[SnapshotFolder], ends: dict[int, int], folder: Path, now_ns: int
) -> SnapshotFolder:
    from dimint.node.rebuild import Snapshots, is_unfinished
    from dimint.node.rebuilding import rebuild_into
    from dimint.node.snapshots import furthest, take_snapshot

    into = folder / name_of(now_ns)
    genesis = genesis_of(log)
    stores = stores_in(settings.data_dir)
    at_least = {at: log.bounds(KV_TOPIC, at).start for at in ends}
    if there:
        at_least = {at: max(start, _reach(there[0], ends)[at]) for at, start in at_least.items()}
    have = furthest(stores, genesis.generation)
    if all(have.get(at, 0) >= start and (at in have or not ends[at]) for at, start in at_least.items()):
        return take_snapshot(stores, log, genesis, into, now_ns=now_ns)
    building = folder / _BUILDING
    if not is_unfinished(building, genesis.generation):
        shutil.rmtree(building, ignore_errors=True)
    with closing(rebuild_into(building, log, ends, Snapshots(there, always=True))) as partitions:
        for _ in partitions:
            pass
    taken = take_snapshot([building], log, genesis, into, now_ns=now_ns)
    shutil.rmtree(building)
    return taken
