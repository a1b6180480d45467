"""What a replica keeps its partition in: two ordered tables of bytes; and the reference in memory. [S]

`data` holds the keys and values, `side` everything else (position, dedupe, outcomes, expiries). dimint/node/store.py
gives the same over LMDB, where the changes of both tables commit together.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

__all__ = ["MemoryState", "MemoryTable", "State", "Table"]


class Table(Protocol):
    """Rows of bytes in the order of their keys. Keys have 1 to 511 bytes."""

    def get(self, key: bytes) -> bytes | None:
        """One row."""

    def load(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The rows of `keys` that are there; fastest if they are sorted."""

    def save(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Store rows, remove those that are None; removing what is not there does nothing."""

    def scan(self, start: bytes, prefix: bytes, limit: int) -> Iterable[tuple[bytes, bytes]]:
        """At most `limit` rows with `prefix` and a key ≥ `start`, in order. Exhaust it before the next `save`."""


class State(Protocol):
    """One partition's tables."""

    @property
    def data(self) -> Table: ...

    @property
    def side(self) -> Table: ...


class MemoryTable:
    """Reference implementation: a dict, sorted when it is scanned."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def load(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: row for key in keys if (row := self.rows.get(key)) is not None}

    def save(self, changes: Mapping[bytes, bytes | None]) -> None:
        for key, row in changes.items():
            assert 0 < len(key) <= 511, "a store takes keys of 1 to 511 bytes"
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def scan(self, start: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        keys = sorted(self.rows)
        at = bisect_left(keys, max(start, prefix))
        found = []
        for key in keys[at : at + limit]:
            if not key.startswith(prefix):
                break
            found.append((key, self.rows[key]))
        return found


class MemoryState:
    """A partition in memory, for tests and for comparing a store with its log."""

    def __init__(self) -> None:
        self.data = MemoryTable()
        self.side = MemoryTable()
