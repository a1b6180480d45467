"""One column of a chunk: values of any kind in a row ↔ a few bytes, lossless. [S]

A column is msgpack-able. Where every value is the same text, number, boolean or nil (of one type, equal to the bit) it is this
value. Else it is a list `[kind, …]`:

    [0, transform, width, first…, centre, planes]   integers
    [1, power, column]                  floats that are integers / 10**power: those integers as a column
    [2, bytes]                          floats, 8 bytes each, little-endian
    [3, uniques, column]                repeated values: indexes into the uniques as a column
    [4, mask, column]                   None where the mask's bit is clear (bit i of byte i // 8), the rest as a column
    [5, values]                         anything else, as it is

Integers go through a transform that makes them small: 0 = as they are, 1 = differences, 2 = differences of differences;
`first` are the 0, 1 or 2 values that differences leave over. What is left takes `width` bytes, 1 to 8. If one is enough from
the smallest value on, that is the centre, and it is subtracted. Else the middle value is, and 128 in each byte is added
(offset binary): small values of either sign then differ in their lowest bytes only. `planes` are the lowest bytes of all,
then the second lowest …: rare outliers leave long runs of one byte, which the chunk's lz4 takes away, instead of widening
every value. One value of differences is the sum of the bytes before it, plane by plane, which C adds up.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate, repeat
from operator import add, sub
from typing import Any, Final, TypeAlias
from zlib import adler32

__all__ = ["Column", "decode_column", "encode_column", "pick"]

Column: TypeAlias = Any

_INTS, _SCALED, _FLOATS, _REPEATED, _NULLABLE, _PLAIN = range(6)
_WIDTHS: Final = range(2, 9)
_CODES: Final = (("B", 1), ("B", 1), ("H", 2), ("I", 4), ("I", 4), *(("Q", 8),) * 4)
"""By width the array that takes such integers, and its width."""
_OFFSETS: Final = (0, 0, *(int.from_bytes(b"\x80" * width, "little") for width in _WIDTHS))
"""By width what is added to what is left when the centre is subtracted."""
_ADDED_MAX: Final = 256
"""As many bytes add up to less than 2**16 however large they are."""
_UNIQUES_MAX = 64
_POWERS = (0, 1, 2, 3)
_EXACT_MAX: Final = 1 << 53
"""Up to here every integer is a float, so that scaled floats can come back exactly."""
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
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
            return None
    elif type(None) in types and len(types) == 2:
        present = [value for value in values if value is not None]
        return [_NULLABLE, _mask([value is not None for value in values]), encode_column(present)]
    return [_PLAIN, list(values)]


def decode_column(column: Column, count: int) -> list[Any]:
    """The `count` values. Damaged columns raise ValueError, TypeError, IndexError or KeyError."""
    if type(column) is not list:
        return [column] * count
    kind = column[0]
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
    if type(column) is not list:
        return column
    kind = column[0]
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
        return head
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
    for width in _WIDTHS:
        base = centre - _OFFSETS[width]
        if base <= low and high - base < 1 << 8 * width:
            return [_INTS, transform, width, *first, centre, _planes(list(map(sub, rest, repeat(base))), width)]
    return [_PLAIN, list(values)]


def _planes(values: list[int], width: int) -> bytes:
    code, stored = _CODES[width]
    raw = _to_little(array(code, values))
    return b"".join(raw[at::stored] for at in range(width))


def _decode_ints(column: Column, count: int) -> list[int]:
    transform, width, planes = column[1], column[2], column[-1]
    base: int = column[-2] - _OFFSETS[width]
    if len(planes) != (count - transform) * width:
        raise ValueError(f"{len(planes)} bytes for {count} integers of {width} bytes")
    raws: Sequence[int] = planes if width == 1 else _interleaved(planes, width)
    rest = list(map(add, raws, repeat(base))) if base else list(raws)
    for first in column[2 + transform : 2 : -1]:
        rest = list(accumulate(rest, initial=first))
    return rest


def _pick_int(column: Column, at: int) -> Any:
    """One integer: as it is stored, or the first one and the sum of the differences up to it."""
    transform, width, planes, centre = column[1], column[2], column[-1], column[-2]
    if transform == 0 and width == 1:  # what most are
        return planes[at] + centre
    size = len(planes) // width
    if not 0 <= at < size + transform:
        raise ValueError(f"no integer number {at} in {len(planes)} bytes")
    base: int = centre - _OFFSETS[width]
    if transform == 0:
        return int.from_bytes(planes[at::size], "little") + base
    value: int = column[3] + at * base
    if transform == 1:
        for shift in range(width):
            value += _sum(planes[shift * size : shift * size + at]) << 8 * shift
        return value
    if at == 0:
        return column[3]
    # the sum of sums, of which the first ones are the second value's difference
    value = column[3] + at * column[4] + base * (at * (at - 1) // 2)
    for shift in range(width):
        value += sum(accumulate(planes[shift * size : shift * size + at - 1])) << 8 * shift
    return value


def _sum(part: bytes) -> int:
    """The bytes added up: with 0 to begin with, the lower half of this checksum is their sum, in a tenth of the time."""
    return adler32(part, 0) & 0xFFFF if len(part) <= _ADDED_MAX else sum(part)


def _interleaved(planes: bytes, width: int) -> "array[Any]":
    """The values of the planes."""
    code, stored = _CODES[width]
    size = len(planes) // width
    raw = bytearray(size * stored)
    for at in range(width):
        raw[at::stored] = planes[at * size : (at + 1) * size]
    return _from_little(code, raw)


def _spread(values: Sequence[int]) -> int:
    """How much there is to store, roughly: distance from the middle value, outliers cut off."""
    ordered = sorted(values)
    size = len(ordered)
    return (ordered[-1 - size // 16] - ordered[size // 16]) + 1


# --- the rest -------------------------------------------------------------------------------------------------------
def _encode_floats(values: Sequence[float]) -> Column:
    raw = _to_little(array("d", values))
    if raw == raw[:8] * len(values):
        return values[0]
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
        return head
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
