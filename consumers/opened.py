"""A chunk of which single values are wanted: they are put together without decoding the rest. [S]

One value of a chunk of 240 samples of an 8-GPU host costs about a twentieth of all of them: the body is inflated, and of
every column (consumers/columns.py) one leaf is picked. Hosts of one make have values of the same shapes, so what follows
from a shape is remembered across chunks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgpack

from dimint.consumers.chunk import Path, build, damage_named, hashable, open_body, paths_of
from dimint.consumers.columns import decode_column, pick

__all__ = ["OpenedChunk"]

_LAYOUTS: Final = 512
_SHAPE_KEPT_MAX_BYTES: Final = 16 << 10
"""Larger shapes are worked out anew each time: names in samples are hostile, and memory is not."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A shape as it is stored, and its paths in order; one object for one shape while it is remembered."""

    shape: Any
    paths: tuple[Path, ...]


class OpenedChunk:
    """The values of one blob of `chunk.encode`. Everything raises CorruptRecord for a damaged one."""

    def __init__(self, blob: bytes) -> None:
        """Raises UnknownVersion for a blob of a newer program."""
        with damage_named():
            self._open(open_body(blob))

    def __len__(self) -> int:
        return self._count

    def leaves(self, place: int) -> list[Any]:
        """What stands at the list index `place` of every value; all values are lists with a leaf there."""
        with damage_named():
            if self._values is not None:
                return [value[place] for value in self._values]
            column = self._layouts[0].paths.index((place,))
            return decode_column(self._columns[column], self._count)

    def __getitem__(self, at: int) -> Any:
        """The value number `at`, 0 ≤ at < len."""
        with damage_named():
            if self._values is not None:
                return self._values[at]
            which = self._which[at]
            earlier = Counter(self._which[:at])
            joined = self._join(tuple(self._layouts))
            before = [0] * len(self._columns)
            for index, times in earlier.items():
                for column in joined[index]:
                    before[column] += times
            leaves = iter([pick(self._columns[column], before[column]) for column in joined[which]])
            return build(self._layouts[which].shape, leaves)

    def _open(self, body: bytes) -> None:
        unpacker = msgpack.Unpacker(None, strict_map_key=False, max_buffer_size=max(1, len(body)))
        unpacker.feed(body)
        parts = unpacker.read_array_header()
        self._count: int = unpacker.unpack()
        self._values: Sequence[Any] | None = None
        if parts == 2:
            self._values = unpacker.unpack()
            return
        self._layouts: list[_Layout] = []
        self._join: Callable[[tuple[_Layout, ...]], list[list[int]]] = _joined
        for _ in range(unpacker.read_array_header()):
            start = unpacker.tell()
            unpacker.skip()
            raw = body[start : unpacker.tell()]
            self._layouts.append(_layout(raw) if len(raw) <= _SHAPE_KEPT_MAX_BYTES else _make_layout(raw))
            if len(raw) > _SHAPE_KEPT_MAX_BYTES:
                self._join = _join
        self._which: list[int] = decode_column(unpacker.unpack(), self._count)
        self._columns: list[Any] = unpacker.unpack()


def _make_layout(raw: bytes) -> _Layout:
    shape = msgpack.unpackb(raw, strict_map_key=False)
    return _Layout(shape, tuple(paths_of(hashable(shape), ())))


_layout = lru_cache(_LAYOUTS)(_make_layout)


def _join(layouts: tuple[_Layout, ...]) -> list[list[int]]:
    """For each shape the numbers of the columns in which its leaves stand."""
    columns: dict[Path, int] = {}
    return [[columns.setdefault(path, len(columns)) for path in layout.paths] for layout in layouts]


_joined = lru_cache(_LAYOUTS)(_join)
