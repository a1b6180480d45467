"""A partition out of a snapshot, row by row into the store; what node/taking.py decides with.

The rows are committed as they come, but for the one with the position: without it they count as nothing, so a crash in the
middle leaves a partition that is built again.
"""

import logging
from collections.abc import Collection

from dimint.errors import LogUnavailable, StoreFull
from dimint.events import KV_TOPIC
from dimint.log.port import Log
from dimint.node.fitting import mismatch
from dimint.node.holdings import Holdings
from dimint.node.replica import META, Meta, read_meta
from dimint.node.store import Store
from dimint.snapshot import SIDE, Header, Rows

__all__ = ["SnapshotBuilder"]

logger = logging.getLogger("dimint.node")


class SnapshotBuilder:
    """See node/taking.py's Builder."""

    def __init__(self, store: Store, log: Log, holdings: Holdings) -> None:
        self._store, self._log, self._holdings = store, log, holdings
        self._generation = log.describe().generation
        self._loading: int | None = None
        self._aborts = 0
        self._data_rows = 0
        self._meta_row: bytes | None = None

    def awaited(self) -> Collection[int]:
        return self._holdings.awaited()

    def begin(self, partition: int) -> bool:
        if not self._emptied(partition):
            return False
        self._loading, self._aborts = partition, self._holdings.aborts
        self._data_rows, self._meta_row = 0, None
        return True

    def unfit(self, header: Header) -> str | None:
        try:
            start, end = self._log.bounds(KV_TOPIC, header.partition)
        except LogUnavailable as error:
            return str(error)
        if not start <= header.next_offset <= end:
            return f"its snapshot ends at {header.next_offset}, the log has {start} to {end}"
        return None

    def load(self, partition: int, rows: Rows) -> bool:
        if not self._keeps(partition):
            return False
        changes: dict[bytes, bytes | None] = dict(rows.rows)
        state = self._store.partition(partition)
        if rows.table == SIDE:
            self._meta_row = changes.pop(META, self._meta_row)
        else:
            self._data_rows += len(changes)
        try:
            (state.side if rows.table == SIDE else state.data).save(changes)
        except StoreFull as error:
            self._holdings.no_room(error)
            return False
        return True

    def finish(self, header: Header) -> str | None:
        partition, row = header.partition, self._meta_row
        if not self._keeps(partition):
            return "there was no room for its snapshot"
        if row is None:
            return "its snapshot has no position"
        self._loading = self._meta_row = None
        try:
            meta = read_meta(row)
        except (ValueError, TypeError) as error:
            return f"its snapshot's position cannot be read: {error}"
        try:
            reason = self._mismatch(header, meta)
            goal = self._log.bounds(KV_TOPIC, partition).end
            if reason is not None:
                return reason
            self._store.partition(partition).side.save({META: row})
            self._store.commit()
        except LogUnavailable as error:
            return str(error)
        except StoreFull as error:
            self._holdings.no_room(error)
            return str(error)
        logger.info("partition %d was taken over at offset %d", partition, header.next_offset)
        self._holdings.built(partition, goal)
        return None

    def replay(self, partition: int, why: str) -> bool:
        try:
            start, end = self._log.bounds(KV_TOPIC, partition)
        except LogUnavailable:
            return False
        if start > 0:
            self._holdings.trimmed(partition, start, why)
            return False
        if not self._emptied(partition):
            return False
        logger.info("partition %d is read from the start of the log: %s", partition, why)
        self._holdings.built(partition, end)
        return True

    def _mismatch(self, header: Header, meta: Meta | None) -> str | None:
        if meta is None or (meta.next_offset, meta.digest, meta.key_count) != (
            header.next_offset,
            header.digest,
            self._data_rows,
        ):
            return "its snapshot's rows are of another position than it says"
        reason = mismatch(meta, self._generation, self._log, header.partition)
        return None if reason is None else f"its snapshot does not fit the log: {reason}"

    def _keeps(self, partition: int) -> bool:
        """Whether everything loaded so far is still there."""
        return self._loading == partition and self._aborts == self._holdings.aborts

    def _emptied(self, partition: int) -> bool:
        try:
            self._holdings.empty(partition)
        except StoreFull as error:
            self._holdings.no_room(error)
            return False
        return True
