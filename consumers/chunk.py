"""The columnar codec: a list of alike values (samples) ↔ one small blob, lossless for everything that msgpack carries. [S]

::

    byte   size  what
    0      1     format version, now 2
    1      8     xxh3_64 of every byte from 9 on, big-endian
    9      4     size of the body, big-endian
    13     …     the body as one lz4 block (high compression), to the end

    body = msgpack [count, shapes, which, columns]        or, for values that are not alike:  msgpack [count, values]

Each value is taken apart into its *shape* and its leaves. A shape is what is left of a value without its leaves: nil for a
leaf, n for a list of n leaves, `[shape, …]` for another list, `{key: shape, …}` for a map in its own order. `shapes` are
the different shapes, `which` says which value has which (a byte each, or a list where there are more than 256). All leaves
that stand at the same path (keys and list indexes) of their values form one column (consumers/columns.py), in the order in
which paths are first met, shape by shape. Deeper than DEPTH_MAX, what is there is one leaf.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, Final, TypeAlias

import lz4.block
import msgpack
from xxhash import xxh3_64_digest

from dimint.consumers.columns import Column, decode_column, encode_column
from dimint.errors import CorruptRecord, UnknownVersion

__all__ = [
    "BODY_MAX_BYTES", "DEPTH_MAX", "Path", "build", "damage_named", "decode", "encode", "flatten", "hashable", "open_body",
    "paths_of",
]  # fmt: skip

VERSION: Final = 2
DEPTH_MAX: Final = 16
BODY_MAX_BYTES: Final = 64 << 20
"""Largest body that is inflated; far above what the tables seal."""
_SIZE_AT, _HEAD = 9, 13
_FEW: Final = 4
"""Fewer values than this are not worth columns."""
_ALIKE: Final = 4
_PATHS_FREE: Final = 2_000
"""Columns pay if the shapes have at most a quarter as many paths as there are leaves, or this many."""
_HARD: Final = 9
"""lz4 level: 12 takes twice the time for 1 % less."""

Shape: TypeAlias = Any
"""While encoding, shapes are hashable: None, n, (False, shape, …) for a list, (True, (key, …), (shape, …)) for a map."""
Path: TypeAlias = tuple[Any, ...]


def encode(values: Sequence[Any]) -> bytes:
    """The blob of these values (msgpack-able; tuples count as lists)."""
    body = _encode_columns(values)
    if body is None:
        body = msgpack.packb([len(values), list(values)])
    if len(body) > BODY_MAX_BYTES:
        raise ValueError(f"a chunk of {len(body)} bytes is over the limit of {BODY_MAX_BYTES}")
    packed: bytes = lz4.block.compress(body, mode="high_compression", compression=_HARD, store_size=False)
    rest = len(body).to_bytes(4, "big") + packed
    return bytes((VERSION,)) + xxh3_64_digest(rest) + rest


def decode(blob: bytes) -> list[Any]:
    """The values. Raises CorruptRecord, or UnknownVersion for a blob of a newer program."""
    with damage_named():
        body = msgpack.unpackb(open_body(blob), strict_map_key=False)
        if len(body) == 2:
            return list(body[1])
        return _decode_columns(*body)


def open_body(blob: bytes) -> bytes:
    """The checked and inflated body. Raises CorruptRecord, UnknownVersion, or what `damage_named` names."""
    if blob[:1] != bytes((VERSION,)):
        raise UnknownVersion(
            f"a chunk of format {blob[:1].hex() or 'nothing'}", hint="upgrade this program or rebuild the tables"
        )
    if blob[1:_SIZE_AT] != xxh3_64_digest(blob[_SIZE_AT:]):
        raise CorruptRecord("a chunk's checksum does not match its bytes", hint="rebuild the status tables")
    size = int.from_bytes(blob[_SIZE_AT:_HEAD], "big")
    body: bytes = lz4.block.decompress(blob[_HEAD:], uncompressed_size=size)
    return body


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """What goes wrong inside a damaged body becomes CorruptRecord."""
    try:
        yield
    except (ValueError, TypeError, LookupError, StopIteration, lz4.block.LZ4BlockError, msgpack.UnpackException) as error:
        raise CorruptRecord(f"a chunk is damaged: {error}", hint="rebuild the status tables") from error


# --- taking apart ---------------------------------------------------------------------------------------------------
_CONTAINERS: Final = frozenset((dict, list, tuple))


def _encode_columns(values: Sequence[Any]) -> bytes | None:
    """The body in columns; None if the values are too few or too different for that to pay."""
    if len(values) < _FEW:
        return None
    indexes: dict[Shape, int] = {}
    which: list[int] = []
    rows: list[list[Any]] = []
    paths, leaves = 0, 0
    for value in values:
        row: list[Any] = []
        shape = flatten(value, row, 0)
        index = indexes.get(shape)
        if index is None:
            index = indexes[shape] = len(indexes)
            paths += len(row)
        which.append(index)
        rows.append(row)
        leaves += len(row)
    if paths > _PATHS_FREE and paths * _ALIKE > leaves:
        return None
    columns: dict[Path, list[Any]] = {}
    of_shape = [[columns.setdefault(path, []) for path in paths_of(shape, ())] for shape in indexes]
    at = 0
    for index, run in groupby(which):
        size = sum(1 for _ in run)
        for column, part in zip(of_shape[index], zip(*rows[at : at + size], strict=True), strict=True):
            column += part
        at += size
    encoded = [encode_column(column) for column in columns.values()]
    packed_which = bytes(which) if len(indexes) <= 256 else which
    body: bytes = msgpack.packb([len(values), list(map(_packable, indexes)), packed_which, encoded])
    return body


def flatten(value: Any, leaves: list[Any], depth: int) -> Shape:
    """Append the value's leaves and return its shape."""
    kind = type(value)
    if kind is dict and depth < DEPTH_MAX:
        if _CONTAINERS.isdisjoint(map(type, value.values())):
            leaves += value.values()
            return True, tuple(value), (None,) * len(value)
        return True, tuple(value), tuple([flatten(part, leaves, depth + 1) for part in value.values()])
    if (kind is list or kind is tuple) and depth < DEPTH_MAX:
        if _CONTAINERS.isdisjoint(map(type, value)):
            leaves += value
            return len(value)
        return False, *[flatten(part, leaves, depth + 1) for part in value]
    leaves.append(value)
    return None


def paths_of(shape: Shape, path: Path) -> Iterator[Path]:
    """The path of every leaf of a hashable shape, in the order of `flatten`."""
    if shape is None:
        yield path
    elif type(shape) is int:
        for at in range(shape):
            yield (*path, at)
    elif shape[0]:
        for key, part in zip(shape[1], shape[2], strict=True):
            yield from paths_of(part, (*path, key))
    else:
        for at, part in enumerate(shape[1:]):
            yield from paths_of(part, (*path, at))


def _packable(shape: Shape) -> Any:
    """The shape as it is stored."""
    if shape is None or type(shape) is int:
        return shape
    if shape[0]:
        return {key: _packable(part) for key, part in zip(shape[1], shape[2], strict=True)}
    return list(map(_packable, shape[1:]))


# --- putting together -----------------------------------------------------------------------------------------------
def _decode_columns(count: int, shapes: Sequence[Any], which: Sequence[int], encoded: Sequence[Column]) -> list[Any]:
    if len(which) != count:
        raise ValueError(f"{len(which)} shapes of {count} values")
    plain = [hashable(shape) for shape in shapes]
    columns: dict[Path, int] = {}
    of_shape = [[columns.setdefault(path, len(columns)) for path in paths_of(shape, ())] for shape in plain]
    sizes = [0] * len(columns)
    for index, paths in enumerate(of_shape):
        size = which.count(index)
        for at in paths:
            sizes[at] += size
    leaves = [decode_column(column, size) for column, size in zip(encoded, sizes, strict=True)]
    if len(shapes) == 1:
        rows: Iterable[Sequence[Any]] = zip(*leaves, strict=True) if leaves else [()] * count
        return [build(shapes[0], iter(row)) for row in rows]
    streams = [iter(column) for column in leaves]
    streams_of = [[streams[at] for at in paths] for paths in of_shape]
    return [build(shapes[index], map(next, streams_of[index])) for index in which]


def build(shape: Any, leaves: Iterator[Any]) -> Any:
    """The value of a stored shape with these leaves."""
    if shape is None:
        return next(leaves)
    kind = type(shape)
    if kind is int:
        return list(islice(leaves, shape))
    if kind is dict:
        return {key: next(leaves) if part is None else build(part, leaves) for key, part in shape.items()}
    return [build(part, leaves) for part in shape]


def hashable(shape: Any) -> Shape:
    """A stored shape as it is while encoding."""
    if type(shape) is dict:
        return True, tuple(shape), tuple(map(hashable, shape.values()))
    if type(shape) is list:
        return False, *map(hashable, shape)
    return shape
