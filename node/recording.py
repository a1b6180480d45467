"""A partition's tables that remember which rows of data were written; for comparing what versions of the code write. [S]"""

from collections.abc import Iterable, Mapping, Sequence

from dimint.node.state import State, Table

__all__ = ["RecordingState"]


class _RecordingTable:
    """See dimint/node/state.py's Table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.written: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._table.get(key)

    def load(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self._table.load(keys)

    def save(self, changes: Mapping[bytes, bytes | None]) -> None:
        self._table.save(changes)
        self.written.update(changes)

    def scan(self, start: bytes, prefix: bytes, limit: int) -> Iterable[tuple[bytes, bytes]]:
        return self._table.scan(start, prefix, limit)


class RecordingState:
    """See dimint/node/state.py's State."""

    def __init__(self, state: State) -> None:
        self._data = _RecordingTable(state.data)
        self.side = state.side

    @property
    def data(self) -> Table:
        return self._data

    def take(self) -> dict[bytes, bytes | None]:
        """Rows written since the last call, as they are now; None: removed."""
        written, self._data.written = self._data.written, {}
        return written
