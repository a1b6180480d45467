"""A chunk of which single values are wanted: they are put together without decoding the rest. [S]

One value of a chunk of 240 samples of an 8-GPU host costs about a twentieth of all of them: the body is inflated, and of
every column (consumers/columns.py) one leaf is picked. Hosts of one make have values of the same shapes, so what follows
from a shape is remembered across chunks.

A thousand hosts at one instant are a thousand chunks, so every 0.1 ms here is 0.1 s of a page. Measured: 0.19 ms to read, inflate
and unpack, 0.02 for the times, 0.10 to pick the half of the leaves that pages show (0.23 for all: each of 64 cores is a leaf
that no page shows). A statement for each host's table would cost 0.1 to 0.25 more, because each is prepared anew; so the blob is
opened by its number (reading_host.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from dimint.consumers.chunk import Path, build, damage_named, flatten, hashable, open_body, paths_of
from dimint.consumers.columns import decode_column, pick
from dimint.consumers.wanted import Keys, Wanted, keys_under

__all__ = ["OpenedChunk"]

_LAYOUTS: Final = 512
_PLANS: Final = 2048
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

    def kind(self, at: int) -> int | None:
        """A number for the shape of the value number `at`; None where values stand as they are."""
        return None if self._values is not None else self._which[at]

    def leaves(self, place: int) -> list[Any]:
        """What stands at the list index `place` of every value; all values are lists with a leaf there."""
        with damage_named():
            if self._values is not None:
                return [value[place] for value in self._values]
            column = self._layouts[0].paths.index((place,))
            return decode_column(self._columns[column], self._count)

    def __getitem__(self, at: int) -> Any:
        """The value number `at`, 0 ≤ at < len."""
        return self.value(at, None)

    def value(self, at: int, wanted: Wanted | None) -> Any:
        """The value number `at` with the wanted keys of its maps only; None = all of them."""
        with damage_named():
            if self._values is not None:
                return self._values[at] if wanted is None else wanted.of(self._values[at])
            shape, picked, groups = self._plan(tuple(self._layouts), self._which[at], wanted)
            # a column has leaves of the values whose layouts have it: so many are before this one
            head = self._which[:at]
            earlier = [head.count(layout) for layout in range(len(self._layouts))]
            before = [sum(map(earlier.__getitem__, group)) for group in groups]
            columns = self._columns
            found = [pick(column, before[group]) if type(column := columns[name]) is list else column for name, group in picked]
            return build(shape, iter(found))

    def numbers(self, chosen: Callable[[Path], bool]) -> dict[Path, list[Any]]:
        """The leaves at the chosen paths, for each path one of every value, None where it has none; no other is decoded.

        `chosen` is remembered with the shapes: a function of a module, not one made for the call.
        """
        with damage_named():
            found: dict[Path, list[Any]] = {}
            if self._values is not None:
                for at, value in enumerate(self._values):
                    leaves: list[Any] = []
                    for path, leaf in zip(paths_of(flatten(value, leaves, 0), ()), leaves, strict=True):
                        if chosen(path):
                            found.setdefault(path, [None] * self._count)[at] = leaf
                return found
            counts = Counter(self._which)
            for path, name, layouts in self._choose(tuple(self._layouts), chosen):
                values = decode_column(self._columns[name], sum(counts[layout] for layout in layouts))
                if len(values) < self._count:
                    stream = iter(values)
                    values = [next(stream) if layout in layouts else None for layout in self._which]
                found[path] = values
            return found

    def steady(self, chosen: Callable[[Path], bool]) -> set[Path]:
        """Those of the chosen paths at which the very same leaf is known to stand in every value. `chosen` is as above."""
        with damage_named():
            if self._values is not None:
                return set()
            every = set(self._which)
            places = self._choose(tuple(self._layouts), chosen)
            return {path for path, name, layouts in places if type(self._columns[name]) is not list and every <= layouts}

    def values(self, wanted: Wanted) -> list[Any]:
        """All of them, with the wanted keys of their maps only: no other column is decoded."""
        with damage_named():
            if self._values is not None:
                return [wanted.of(value) for value in self._values]
            joined, _ = self._join(tuple(self._layouts))
            counts = Counter(self._which)
            sizes = [0] * len(self._columns)
            for index, times in counts.items():
                for name in joined[index]:
                    sizes[name] += times
            streams: dict[int, Iterator[Any]] = {}
            parts: list[tuple[Any, list[Iterator[Any]]]] = []
            for layout, names in zip(self._layouts, joined, strict=True):
                shape, places = self._part(layout, wanted)
                for name in (picked := [names[place] for place in places]):
                    if name not in streams:
                        streams[name] = iter(decode_column(self._columns[name], sizes[name]))
                parts.append((shape, [streams[name] for name in picked]))
            return [build(shape, map(next, mine)) for shape, mine in map(parts.__getitem__, self._which)]

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
        self._join: Callable[[tuple[_Layout, ...]], tuple[list[list[int]], list[_Holders]]] = _joined
        self._choose: Callable[[tuple[_Layout, ...], Callable[[Path], bool]], list[tuple[Path, int, _Holders]]] = _chosen
        self._part: Callable[[_Layout, Wanted], tuple[Any, list[int]]] = _parts
        self._plan: Callable[[tuple[_Layout, ...], int, Wanted | None], _Plan] = _planned
        for _ in range(unpacker.read_array_header()):
            start = unpacker.tell()
            unpacker.skip()
            raw = body[start : unpacker.tell()]
            self._layouts.append(_layout(raw) if len(raw) <= _SHAPE_KEPT_MAX_BYTES else _make_layout(raw))
            if len(raw) > _SHAPE_KEPT_MAX_BYTES:
                self._join, self._part, self._choose, self._plan = _join, _part, _choose, _plan
        self._which: Sequence[int] = unpacker.unpack()
        if len(self._which) != self._count:
            raise ValueError(f"{len(self._which)} shapes of {self._count} values")
        self._columns: list[Any] = unpacker.unpack()


def _make_layout(raw: bytes) -> _Layout:
    shape = msgpack.unpackb(raw, strict_map_key=False)
    return _Layout(shape, tuple(paths_of(hashable(shape), ())))


_layout = lru_cache(_LAYOUTS)(_make_layout)


_Holders: TypeAlias = frozenset[int]
"""The numbers of the layouts that have a path."""


def _join(layouts: tuple[_Layout, ...]) -> tuple[list[list[int]], list[_Holders]]:
    """For each layout the numbers of the columns in which its leaves stand, and for each column the layouts that have it."""
    columns: dict[Path, int] = {}
    names = [[columns.setdefault(path, len(columns)) for path in layout.paths] for layout in layouts]
    holders: list[set[int]] = [set() for _ in columns]
    for number, mine in enumerate(names):
        for name in mine:
            holders[name].add(number)
    return names, list(map(frozenset, holders))


def _choose(layouts: tuple[_Layout, ...], chosen: Callable[[Path], bool]) -> list[tuple[Path, int, _Holders]]:
    """The chosen paths, each with its column and the layouts that have it."""
    names, holders = _join(layouts)
    paths = {
        path: name for layout, mine in zip(layouts, names, strict=True) for path, name in zip(layout.paths, mine, strict=True)
    }
    return [(path, name, holders[name]) for path, name in paths.items() if chosen(path)]


_chosen = lru_cache(_LAYOUTS)(_choose)
_joined = lru_cache(_LAYOUTS)(_join)


def _part(layout: _Layout, wanted: Wanted) -> tuple[Any, list[int]]:
    """The shape of what is wanted, and which of the layout's leaves stand in it."""
    places: list[int] = []
    shape, _ = _pruned(layout.shape, wanted.keys, 0, places)
    return shape, places


_parts = lru_cache(_LAYOUTS)(_part)


class _Plan(NamedTuple):
    """How a value is picked: its shape, of each leaf its column and the number of the group that this column belongs to.

    A group are the layouts that have the column.
    """

    shape: Any
    picked: list[tuple[int, int]]
    groups: list[tuple[int, ...]]


def _plan(layouts: tuple[_Layout, ...], which: int, wanted: Wanted | None) -> _Plan:
    """For what is wanted of a value that has this one of the layouts."""
    names, holders = _join(layouts)
    shape, mine = layouts[which].shape, names[which]
    if wanted is not None:
        shape, places = _part(layouts[which], wanted)
        mine = [mine[place] for place in places]
    groups: dict[_Holders, int] = {}
    picked = [(name, groups.setdefault(holders[name], len(groups))) for name in mine]
    return _Plan(shape, picked, [tuple(sorted(group)) for group in groups])


_planned = lru_cache(_PLANS)(_plan)


def _pruned(shape: Any, keys: Keys | None, at: int, places: list[int]) -> tuple[Any, int]:
    """The shape without unwanted keys, and the number of the leaf behind it; the leaves in it are added to `places`."""
    if type(shape) is dict:
        left = {}
        for key, part in shape.items():
            if keys is None:
                left[key], at = _pruned(part, None, at, places)
            elif (under := keys_under(keys, key)) is not None:
                left[key], at = _pruned(part, under[0], at, places)
            else:
                _, at = _pruned(part, None, at, [])
        return left, at
    if type(shape) is list:
        parts = []
        for part in shape:
            pruned, at = _pruned(part, keys, at, places)
            parts.append(pruned)
        return parts, at
    count = 1 if shape is None else shape
    places += range(at, at + count)
    return shape, at + count
