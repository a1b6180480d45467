"""`dimint rebuild node`: which stores, up to where, and what becomes of them."""

from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path

from dimint.errors import SettingsError
from dimint.events import KV_TOPIC
from dimint.log.port import Log
from dimint.node.rebuild import Rebuilt, Snapshots, catch_up, is_unfinished, open_unfinished, rebuild_store
from dimint.node.renewing import BUILDING, hand_over
from dimint.node.replica import META, Meta, read_meta
from dimint.node.store import Store, StoreInUse, rows_of_partitions
from dimint.progress import NO_PROGRESS, Progress

__all__ = ["rebuild_into", "rebuild_live"]


def rebuild_live(directory: Path, log: Log, snapshots: Snapshots, progress: Progress) -> Generator[Rebuilt, None, None]:
    """Build the store in `directory` anew beside the live one, which a node may go on serving, and switch to it.

    All that the live store has is built, and compared with it on the way; in the place of an empty one (of a new node that
    finds nobody to take the partitions from) all that there is. Raises SettingsError if another rebuild is at work.
    """
    live = _live(directory)
    ends = {partition: log.bounds(KV_TOPIC, partition).end for partition in live or range(log.describe().topics[KV_TOPIC])}
    with closing(_opened(directory / BUILDING, log)) as store:
        for partition in set(store.partitions()) - ends.keys():
            store.drop(partition)
        yield from rebuild_store(log, store, ends, live=live, snapshots=snapshots, progress=progress)
        catch_up(log, store)
    hand_over(directory)


def rebuild_into(
    directory: Path, log: Log, ends: Mapping[int, int], snapshots: Snapshots, progress: Progress = NO_PROGRESS
) -> Generator[Rebuilt, None, None]:
    """Build a store in `directory` up to `ends`, to be looked at. One that is there from before is gone on with.

    Raises SettingsError if that one is further already.
    """
    if (directory / "store").exists() and not is_unfinished(directory, log.describe().generation):
        raise SettingsError(
            f"the store in {directory} was not made by a rebuild of this log by this program",
            hint="name another folder, or remove this one",
        )
    with closing(_opened(directory, log)) as store:
        for partition in store.partitions():
            meta = read_meta(store.partition(partition).side.get(META))
            if meta is not None and meta.next_offset > ends.get(partition, 0):
                raise SettingsError(
                    f"the store in {directory} has read partition {partition} to {meta.next_offset} already",
                    hint="name another folder, or remove this one",
                )
        yield from rebuild_store(log, store, ends, snapshots=snapshots, progress=progress)


def _opened(directory: Path, log: Log) -> Store:
    try:
        return open_unfinished(directory, log.describe().generation)
    except StoreInUse as error:
        raise SettingsError(f"another rebuild is at work in {directory}", hint="wait for it, or end it") from error


def _live(directory: Path) -> dict[int, Meta]:
    rows = rows_of_partitions(directory, META)
    return {partition: meta for partition, row in sorted(rows.items()) if (meta := read_meta(row)) is not None}
