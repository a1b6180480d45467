"""Whether the live status tables are what the log says: the log is read again beside them, up to where they are."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from dimint.consumers.archived import archives_of
from dimint.consumers.digest import table_rows
from dimint.consumers.feeder import Feeder
from dimint.consumers.folder import TablesFolder
from dimint.consumers.reading_file import copy_tables
from dimint.consumers.rebuild import Filling
from dimint.consumers.rebuild_limit import Limit
from dimint.events import STATUS_TOPIC
from dimint.log.port import Log, TopicPartition
from dimint.progress import NO_PROGRESS, Progress

__all__ = ["TablesVerdict", "verify_tables"]

_ROW_CHARS: Final = 300


class TablesVerdict(NamedTuple):
    """`rows` were compared; `live` and `log` are the first rows that differ, in words, both None if none does."""

    rows: int
    positions: dict[int, int]
    live: str | None
    log: str | None

    @property
    def same(self) -> bool:
        return self.live is None and self.log is None


def verify_tables(
    source: Log,
    folder: TablesFolder,
    scratch: Path,
    *,
    archives: Callable[[], Sequence[Path]] = tuple,
    progress: Callable[[str], Progress] = lambda what: NO_PROGRESS,
) -> TablesVerdict | None:
    """Compare a copy of the live tables with tables filled from archives and log to the same positions; None if there are none.

    Both are made in the directory `scratch`; the consumer goes on. Raises LogMismatch if they are of another log.
    """
    live = folder.live()
    if live is None:
        return None
    copied, filled = scratch / "live.db", scratch / "log.db"
    copy_tables(live, copied)
    old = Feeder(source, copied, first_sequence=0)
    try:
        positions = {place.partition: at for place, at in old.positions().items()}
        keep = old.tables.keep
    finally:
        old.close()
    ends = {TopicPartition(STATUS_TOPIC, partition): position for partition, position in positions.items()}
    Filling(source, filled, Limit(source, ends, archived=True), keep, progress).run(
        archives_of(archives(), source.describe().generation)
    )
    rows = 0
    for one, other in zip_longest(table_rows(copied), table_rows(filled)):
        if one is None or other is None or msgpack.packb(one) != msgpack.packb(other):
            return TablesVerdict(rows, positions, _shown(one), _shown(other))
        rows += 1
    return TablesVerdict(rows, positions, None, None)


def _shown(row: list[Any] | None) -> str:
    return "nothing more" if row is None else ascii(row)[:_ROW_CHARS]
