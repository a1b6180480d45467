"""One column of a chunk: values of any kind in a row ↔ a few bytes, lossless. [S]

A column is a msgpack-able list `[kind, …]`:

    [0, value]                          every value is this one (of one type, equal to the bit)
    [1, transform, width, first…, planes]   integers
    [2, power, [1, …]]                  floats that are integers / 10**power: those integers as a column
    [3, bytes]                          floats, 8 bytes each, little-endian
    [4, uniques, [1, …]]                repeated values: indexes into the uniques as a column
    [5, mask, column]                   None where the mask's bit is clear (bit i of byte i // 8), the rest as a column
    [6, values]                         anything else, as it is

Integers go through a transform that makes them small: 0 = as they are, 1 = differences, 2 = differences of differences;
`first` are the 0, 1 or 2 values that differences leave over, then the centre that is subtracted. If what is left fits one
byte from the smallest value on, the centre is that smallest value and `width` is 1; else it is zigzagged around the
middle value and takes 2, 4 or 8 bytes. `planes` are the lowest bytes of all, then the second lowest …: rare outliers then
leave long runs of zeros, which the chunk's lz4 takes away, instead of widening every value.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate, repeat
from operator import mul, sub
from typing import Any, Final, TypeAlias

__all__ = ["SAME", "Column", "decode_column", "encode_column", "pick"]

Column: TypeAlias = list[Any]

SAME, _INTS, _SCALED, _FLOATS, _REPEATED, _NULLABLE, _PLAIN = range(7)
_WIDTHS: Final = ((2, "H"), (4, "I"), (8, "Q"))
_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_UNIQUES_MAX = 64
_POWERS = (0, 1, 2, 3)
_EXACT_MAX: Final = 1 << 53
"""Up to here every integer is a float, so that scaled floats can come back exactly."""
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
_ODDS: Final = bytes(range(1, 256, 2))
_ODD_ALL: Final = bytes(-(value & 1) & 255 for value in range(256))
"""All bits of what is odd, none of what is even."""
_LITTLE: Final = array("H", [1]).tobytes() == b"\1\0"


def encode_column(values: Sequence[Any]) -> Column:
    """The column of these values, of which there is at least one."""
    types = set(map(type, values))
    if len(types) == 1:
        (kind,) = types
        if kind is int:
            return _encode_ints(values)
        if kind is float:
            return _encode_floats(values)
        if kind is bool or kind is str or kind is bytes:
            return _encode_repeated(values)
        if kind is type(None):
            return [SAME, None]
    elif type(None) in types and len(types) == 2:
        present = [value for value in values if value is not None]
        return [_NULLABLE, _mask([value is not None for value in values]), encode_column(present)]
    return [_PLAIN, list(values)]


def decode_column(column: Column, count: int) -> list[Any]:
    """The `count` values. Damaged columns raise ValueError, TypeError, IndexError or KeyError."""
    kind = column[0]
    if kind == SAME:
        return [column[1]] * count
    if kind == _INTS:
        return _decode_ints(column, count)
    if kind == _SCALED:
        scale = 10 ** column[1]
        return [value / scale for value in decode_column(column[2], count)]
    if kind == _FLOATS:
        return list(_from_little("d", column[1]))
    if kind == _REPEATED:
        return [column[1][index] for index in decode_column(column[2], count)]
    if kind == _NULLABLE:
        bits = int.from_bytes(column[1], "little")
        present = iter(decode_column(column[2], bits.bit_count()))
        return [next(present) if bits >> at & 1 else None for at in range(count)]
    if kind == _PLAIN:
        return list(column[1])
    raise ValueError(f"a column of the unknown kind {kind}")


def pick(column: Column, at: int) -> Any:
    """The value number `at`, without the others as far as that goes. Damaged columns raise as in `decode_column`."""
    kind = column[0]
    if kind == SAME:
        return column[1]
    if kind == _INTS:
        return _pick_int(column, at)
    if kind == _SCALED:
        return pick(column[2], at) / 10 ** column[1]
    if kind == _FLOATS:
        return _from_little("d", column[1][8 * at : 8 * at + 8])[0]
    if kind == _REPEATED:
        return column[1][pick(column[2], at)]
    if kind == _NULLABLE:
        bits = int.from_bytes(column[1], "little")
        return pick(column[2], (bits & ((1 << at) - 1)).bit_count()) if bits >> at & 1 else None
    if kind == _PLAIN:
        return column[1][at]
    raise ValueError(f"a column of the unknown kind {kind}")


# --- integers -------------------------------------------------------------------------------------------------------
def _encode_ints(values: Sequence[int]) -> Column:
    head = values[0]
    if values.count(head) == len(values):
        return [SAME, head]
    low, high = min(values), max(values)
    transform, rest, first = 0, list(values), []
    if high - low > 15:
        once = list(map(sub, values[1:], values))
        spread = _spread(once)
        if 2 * spread < _spread(values):
            transform, rest, first = 1, once, [head]
            if len(once) > 2:
                twice = list(map(sub, once[1:], once))
                if 2 * _spread(twice) < spread:
                    transform, rest, first = 2, twice, [head, once[0]]
            low, high = min(rest), max(rest)
            if low < _LEAST or high > _MOST:  # differences of the largest integers do not fit msgpack
                transform, rest, first, low, high = 0, list(values), [], min(values), max(values)
    if high - low < 256:
        return [_INTS, transform, 1, *first, low, bytes(map(sub, rest, repeat(low)))]
    centre = sorted(rest)[len(rest) // 2]
    folded = [2 * (value - centre) if value >= centre else 2 * (centre - value) - 1 for value in rest]
    high = max(folded)
    for width, code in _WIDTHS:
        if high < 1 << 8 * width:
            raw = _to_little(array(code, folded))
            return [_INTS, transform, width, *first, centre, b"".join(raw[at::width] for at in range(width))]
    return [_PLAIN, list(values)]


def _decode_ints(column: Column, count: int) -> list[int]:
    transform, width, planes = column[1], column[2], column[-1]
    centre: int = column[-2]
    if len(planes) != (count - transform) * width:
        raise ValueError(f"{len(planes)} bytes for {count} integers of {width} bytes")
    if width == 1:
        rest = [value + centre for value in planes]
    else:
        raws = _interleaved(planes, width, count - transform)
        rest = [centre - (value + 1 >> 1) if value & 1 else centre + (value >> 1) for value in raws]
    for first in column[2 + transform : 2 : -1]:
        rest = list(accumulate(rest, initial=first))
    return rest


def _pick_int(column: Column, at: int) -> Any:
    """One integer: as it is stored, or the first one and the sum of the differences up to it."""
    transform, width, planes, centre = column[1], column[2], column[-1], column[-2]
    if transform == 0 and width == 1:  # what most are
        return planes[at] + centre
    size, odd = divmod(len(planes), width)
    if odd or not 0 <= at < size + transform:
        raise ValueError(f"no integer number {at} in {len(planes)} bytes")
    if transform == 0:
        raw = int.from_bytes(planes[at::size], "little")
        return raw + centre if width == 1 else _unfold(raw, centre)
    first: int = column[3]
    if transform == 2:
        if at == 0:
            return first
        # the sum of sums: a difference counts as often as there are values behind it
        steps = planes[: at - 1] if width == 1 else map(_unfold, _interleaved(planes, width, at - 1), repeat(0))
        return first + at * column[4] + sum(map(mul, steps, range(at - 1, 0, -1))) + centre * (at * (at - 1) // 2)
    if width == 1:
        return first + sum(planes[:at]) + at * centre
    # folded differences are summed plane by plane; the odd ones stand for negative numbers. Most bytes of most planes are 0
    lowest = planes[:at]
    odd_ones = at - len(lowest.translate(None, _ODDS))
    mask = int.from_bytes(lowest.translate(_ODD_ALL), "little")
    total = lower = 0
    for plane in range(width):
        part = planes[plane * size : plane * size + at]
        if risen := part.translate(None, b"\0"):
            total += sum(risen) << 8 * plane
            fallen = (int.from_bytes(part, "little") & mask).to_bytes(at, "little")
            lower += sum(fallen.translate(None, b"\0")) << 8 * plane
    return first + at * centre + (total - lower) // 2 - (lower + odd_ones) // 2


def _unfold(value: int, centre: int) -> int:
    return centre - (value + 1 >> 1) if value & 1 else centre + (value >> 1)


def _interleaved(planes: bytes, width: int, count: int) -> "array[Any]":
    """The first `count` values of the planes."""
    size = len(planes) // width
    raw = bytearray(count * width)
    for at in range(width):
        raw[at::width] = planes[at * size : at * size + count]
    return _from_little(_CODES[width], raw)


def _spread(values: Sequence[int]) -> int:
    """How much there is to store, roughly: distance from the middle value, outliers cut off."""
    ordered = sorted(values)
    size = len(ordered)
    return (ordered[-1 - size // 16] - ordered[size // 16]) + 1


# --- the rest -------------------------------------------------------------------------------------------------------
def _encode_floats(values: Sequence[float]) -> Column:
    raw = _to_little(array("d", values))
    if raw == raw[:8] * len(values):
        return [SAME, values[0]]
    for power in _POWERS:
        scale = 10**power
        try:
            scaled = [round(value * scale) for value in values]
        except (ValueError, OverflowError):  # not a number, infinite
            break
        if max(map(abs, scaled)) > _EXACT_MAX:
            break
        if _to_little(array("d", [value / scale for value in scaled])) == raw:
            return [_SCALED, power, _encode_ints(scaled)]
    return [_FLOATS, raw]


def _encode_repeated(values: Sequence[Any]) -> Column:
    head = values[0]
    if values.count(head) == len(values):
        return [SAME, head]
    uniques = list(dict.fromkeys(values))
    if len(uniques) <= _UNIQUES_MAX and 2 * len(uniques) <= len(values):
        index = {value: at for at, value in enumerate(uniques)}
        return [_REPEATED, uniques, _encode_ints([index[value] for value in values])]
    return [_PLAIN, list(values)]


def _mask(flags: Sequence[bool]) -> bytes:
    bits = sum(1 << at for at, flag in enumerate(flags) if flag)
    return bits.to_bytes((len(flags) + 7) // 8, "little")


def _to_little(numbers: "array[Any]") -> bytes:
    if not _LITTLE:
        numbers.byteswap()
    return numbers.tobytes()


def _from_little(code: str, raw: bytes | bytearray) -> "array[Any]":
    numbers = array(code)
    numbers.frombytes(raw)
    if not _LITTLE:
        numbers.byteswap()
    return numbers
