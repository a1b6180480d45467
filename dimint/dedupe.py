"""What makes every batch and every request count once. [S]

`WriterTable` is the rule of batch numbers that every reader of the log applies: nodes, status tables, accounting, watch,
history, export. A batch counts only if its number is higher than the last counted one of its writer's incarnation. A
writer hands over n+1 only when n is resolved, so a late copy of n can never count after n+1 did.

The table is part of the projection: it is committed together with the projection's position.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dimint.limits import WRITER_KEEP_S

__all__ = ["WriterRow", "WriterTable"]


class WriterRow(NamedTuple):
    """Last counted batch of one writer incarnation in one partition."""

    number: int
    log_time_us: int


class WriterTable:
    """Incarnation → last counted batch number, for one partition.

    >>> table = WriterTable()
    >>> table.take(b"w" * 16, 1, log_time_us=0), table.take(b"w" * 16, 1, log_time_us=0)
    (True, False)
    """

    def __init__(self, rows: Iterable[tuple[bytes, WriterRow]] = ()) -> None:
        self._rows: dict[bytes, WriterRow] = dict(rows)
        self._changed: set[bytes] = set()
        self._oldest_us: int | None = None

    def take(self, writer: bytes, number: int, *, log_time_us: int) -> bool:
        """Whether the batch counts; if so it is the writer's last one from now on."""
        row = self._rows.get(writer)
        if row is not None and number <= row.number:
            return False
        self._rows[writer] = WriterRow(number, log_time_us)
        self._changed.add(writer)
        return True

    def forget(self, log_time_us: int) -> None:
        """Drop rows that nothing was counted for in WRITER_KEEP_S of log time. Call it after `take`, at any rate."""
        limit = log_time_us - WRITER_KEEP_S * 1_000_000
        if self._oldest_us is not None and self._oldest_us >= limit:
            return
        for writer in [writer for writer, row in self._rows.items() if row.log_time_us < limit]:
            del self._rows[writer]
            self._changed.add(writer)
        self._oldest_us = min((row.log_time_us for row in self._rows.values()), default=None)

    def take_changes(self) -> list[tuple[bytes, WriterRow | None]]:
        """Rows changed since the last call, None for dropped ones: what the next commit must store."""
        changes = [(writer, self._rows.get(writer)) for writer in sorted(self._changed)]
        self._changed.clear()
        return changes

    def __iter__(self) -> Iterator[tuple[bytes, WriterRow]]:
        return iter(sorted(self._rows.items()))

    def __len__(self) -> int:
        return len(self._rows)
