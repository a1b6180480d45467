"""The columnar codec gives back what it was given, and nothing else."""

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dimint.consumers.chunk import DEPTH_MAX, Path, decode, encode, flatten, paths_of
from dimint.consumers.opened import OpenedChunk
from dimint.consumers.wanted import Wanted
from dimint.errors import CorruptRecord, FormatError, UnknownVersion
from tests.support.samples import Machine

INTEGERS = st.one_of(st.integers(-300, 300), st.integers(-(1 << 63), (1 << 64) - 1))
ROUNDED = st.floats(-9, 9).map(lambda number: round(number, 2))
LEAVES = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(), ROUNDED, st.text(max_size=5), st.binary(max_size=5))
KEYS = st.text(max_size=2)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)


def exact(value: Any) -> bytes:
    """Bytes that are equal only for values that are equal to the bit, types, signs of zero and order of keys included."""
    packed: bytes = msgpack.packb(value)
    return packed


def one_by_one(blob: bytes) -> list[Any]:
    """The values, each picked alone."""
    chunk = OpenedChunk(blob)
    return [chunk[at] for at in range(len(chunk))]


@given(st.lists(VALUES, max_size=12))
@example([-0.0, 0.0, -0.0, 0.0])
@example([1, True, 1.0, None, 1])
@example([(1 << 64) - 1, -(1 << 63)] * 4)
@example([float("nan")] * 5)
@example([float("inf"), 1e308, -1e308, 1.25, 0.1])
def test_any_values_come_back(values: list[Any]) -> None:
    """Whatever msgpack carries comes back equal to the bit, all at once and one by one."""
    blob = encode(values)
    assert exact(decode(blob)) == exact(values)
    assert exact(one_by_one(blob)) == exact(values)


@given(st.lists(st.tuples(INTEGERS, st.one_of(st.none(), INTEGERS), st.floats(), st.text(max_size=2)), min_size=4, max_size=300))
def test_columns_come_back(rows: list[tuple[Any, ...]]) -> None:
    """Alike values, which do become columns of every kind, come back."""
    values = [{"a": a, "b": [b, {"c": c}], "d": d} for a, b, c, d in rows]
    blob = encode(values)
    assert exact(decode(blob)) == exact(values)
    assert exact(one_by_one(blob)) == exact(values)


@pytest.mark.parametrize("width", [7, 15, 31, 62])
@pytest.mark.parametrize("count", [4, 5, 300])
def test_integers_of_every_width_come_back(width: int, count: int) -> None:
    """Constant, counting, accelerating, jumping and alternating integers come back."""
    step = 1 << width
    for values in (
        [step] * count,
        [at * step % (1 << 63) for at in range(count)],
        [at * at * 1000 + step for at in range(count)],
        [step if at == 3 else at for at in range(count)],
        [(-step if at % 2 else step) + at % 7 for at in range(count)],
    ):
        assert decode(encode(values)) == values == one_by_one(encode(values))


def test_one_place_of_all_values_is_read_alone() -> None:
    """The times of a chunk's samples come without the samples, in whatever shapes these are."""
    rows = [[at * 5, at, {"gpu": [{"u": at}] * (at % 3)}] for at in range(50)]
    for values in (rows, rows[:2]):
        chunk = OpenedChunk(encode(values))
        assert (len(chunk), chunk.leaves(0), chunk.leaves(1)) == (
            len(values),
            [row[0] for row in values],
            [row[1] for row in values],
        )


WANTED = st.recursive(st.none(), lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=8)


@given(st.lists(VALUES, max_size=8), st.dictionaries(KEYS, WANTED, max_size=4))
@example([{"a": [{"b": 1, "c": 2}], "d": 3}] * 5, {"a": {"c": None}})
def test_only_what_is_wanted_is_read(values: list[Any], keys: dict[str, Any]) -> None:
    """The same as taking it out of the whole value."""
    wanted = Wanted(keys)
    chunk = OpenedChunk(encode(values))
    found = [chunk.value(at, wanted) for at in range(len(chunk))]
    assert exact(found) == exact([wanted.of(value) for value in values])


def even_places(path: Path) -> bool:
    """Some of the paths."""
    return sum(map(len, map(str, path))) % 2 == 0


@given(st.lists(VALUES, max_size=8))
@example([[at, {"a": [at, 1]}] for at in range(5)] + [[5, {}]])
def test_numbers_at_some_places_are_read_alone(values: list[Any]) -> None:
    """Each leaf at a chosen path, of every value that has one there."""
    wanted: dict[Path, list[Any]] = {}
    for at, value in enumerate(values):
        leaves: list[Any] = []
        for path, leaf in zip(paths_of(flatten(value, leaves, 0), ()), leaves, strict=True):
            if even_places(path):
                wanted.setdefault(path, [None] * len(values))[at] = leaf
    found = OpenedChunk(encode(values)).numbers(even_places)
    assert {path: exact(of) for path, of in found.items()} == {path: exact(of) for path, of in wanted.items()}


def test_very_deep_values_come_back() -> None:
    """Below the depth at which shapes end there are ordinary leaves."""
    value: Any = 1
    for _ in range(DEPTH_MAX * 3):
        value = {"k": [value, 2]}
    assert decode(encode([value] * 5)) == [value] * 5


def test_values_that_have_nothing_in_common_come_back() -> None:
    """Where columns do not pay, values are stored as they are."""
    values = [{f"{row} {at}": at for at in range(600)} for row in range(8)]
    blob = encode(values)
    assert decode(blob) == values
    assert len(blob) < len(msgpack.packb(values))


def test_realistic_samples_are_small() -> None:
    """A busy 8-GPU host takes well under 1.5 bytes a number, whose last bits are noise."""
    machine = Machine(7)
    samples = [machine.step() for _ in range(240)]
    blob = encode(samples)
    assert decode(blob) == samples
    assert len(blob) < 240 * 250 * 1.0


def test_damage_is_noticed() -> None:
    """Every proper prefix and every flipped byte is a named error."""
    blob = encode([{"a": at, "b": "x"} for at in range(20)])
    for size in range(len(blob)):
        with pytest.raises(FormatError):
            decode(blob[:size])
        with pytest.raises(FormatError):
            decode(blob[:size] + bytes((blob[size] ^ 0x41,)) + blob[size + 1 :])
    with pytest.raises(UnknownVersion):
        decode(b"\x03" + blob[1:])
    with pytest.raises(CorruptRecord):
        decode(blob + b"\0")


def test_format_does_not_move() -> None:
    """A chunk written when the format was fixed is still read."""
    values = [{"t": 100 + at, "u": "x", "l": [at % 2, None], "f": at / 4} for at in range(4)]
    assert decode(bytes.fromhex(GOLDEN)) == values


GOLDEN = (
    "025d61fb19eff3ab090000003ef01594049184a174c0a175c0a16c02a166c0c40400000000959500000164c40400010203a1"
    "780d0010000d00f0020001c0930102960001010019c403000000"
)
