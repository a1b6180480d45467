"""Builds a node's partitions anew from the log, into a store beside the live one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from dimint.errors import LogMismatch
from dimint.events import KV_TOPIC
from dimint.log.port import Log
from dimint.node.replica import META, Replica, read_meta
from dimint.node.store import Store

__all__ = ["Rebuilt", "read_to", "rebuild_store"]

COMMIT_BYTES: Final = 32 << 20


class Rebuilt(NamedTuple):
    """One partition. `same` compares with the live store, None where the two end at different offsets."""

    partition: int
    next_offset: int
    key_count: int
    digest: str
    same: bool | None

    def __str__(self) -> str:
        compared = {True: "same as before", False: "DIFFERENT from before", None: "not comparable"}[self.same]
        return f"partition {self.partition}: {self.next_offset} records, {self.key_count} keys, digest {self.digest}, {compared}"


def rebuild_store(live: Store, log: Log, directory: Path) -> Iterator[Rebuilt]:
    """Rebuild every partition of `live` in a store in `directory`, up to where the live one is and then to the log's end.

    The new store is closed when the iteration ends. Raises LogMismatch if the log cannot be read to its end.
    """
    generation = log.describe().generation
    store = Store(directory)
    try:
        for partition in live.partitions():
            replica = Replica(partition, generation, store.partition(partition))
            before = read_meta(live.partition(partition).side.get(META))
            live.release()
            same: bool | None = None
            if before is not None and before.fingerprint.generation == generation:
                read_to(replica, log, store, before.next_offset)
                if replica.next_offset == before.next_offset:
                    same = replica.digest == before.digest
            read_to(replica, log, store, log.bounds(KV_TOPIC, partition).end)
            store.commit()
            yield Rebuilt(partition, replica.next_offset, replica.key_count, f"{replica.digest:032x}", same)
    finally:
        store.close()


def read_to(replica: Replica, log: Log, store: Store, end: int) -> None:
    """Apply the records below `end`. Raises LogMismatch at one that cannot be applied."""
    while replica.next_offset < end:
        records = log.read(KV_TOPIC, replica.partition, replica.next_offset)
        replica.apply([record for record in records if record.offset < end])
        if replica.problem is not None:
            raise LogMismatch(replica.problem.text)
        if not records or records[-1].offset >= end - 1:
            return
        if store.uncommitted_bytes >= COMMIT_BYTES:
            store.commit()
