"""Stored values: one tag byte, then the client's own JSON text or msgpack bytes. [S]

::

    b"J" + JSON text       what every value is that JSON can carry; kept byte for byte, so integers of any size are exact
    b"M" + msgpack bytes   values with binary parts, which only msgpack clients can write and read

Nothing here makes a Python object of a value unless a command has to look inside (`cas`, `incr`).
"""

import json
import math
from typing import Any

import msgpack
import msgspec

from dimint.errors import NotInteger, NotJson, NotMsgpack, ParseError, TooLarge
from dimint.limits import INTEGER_MAX_DIGITS, VALUE_MAX_BYTES, VALUE_MAX_DEPTH

__all__ = ["equal", "from_json", "from_msgpack", "from_object", "integer", "to_json", "to_msgpack", "to_object"]

JSON, MSGPACK = b"J", b"M"
_J = JSON[0]
_decode_json = msgspec.json.Decoder().decode
_encode_json = msgspec.json.encode


def from_json(text: bytes) -> bytes:
    """Store JSON text as it is. Raises ParseError (not JSON, NaN, infinity, too deep) or TooLarge."""
    if len(text) > VALUE_MAX_BYTES:
        raise TooLarge(f"the value takes {len(text)} bytes, the limit is {VALUE_MAX_BYTES}")
    try:
        _check_depth(_decode_json(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _check_depth(_decode_slowly(text))
    return JSON + text


def from_msgpack(raw: bytes) -> bytes:
    """Store a msgpack value: as JSON where JSON can carry it, else as it is. Raises ParseError or TooLarge."""
    if len(raw) > VALUE_MAX_BYTES:
        raise TooLarge(f"the value takes {len(raw)} bytes, the limit is {VALUE_MAX_BYTES}")
    try:
        value = msgpack.unpackb(raw, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # TypeError: a list or map as a key
        raise ParseError(f"the value is not msgpack: {error}") from error
    _check_depth(value)
    if _fits_json(value):
        return from_object(value)
    return MSGPACK + raw


def from_object(value: Any) -> bytes:
    """Store a Python value made of None, bool, int, float, str, list and dict[str, …]."""
    try:
        text = _encode_json(value)
    except (OverflowError, ValueError):  # integers beyond 64 bits
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, RecursionError, UnicodeEncodeError) as error:
        raise ParseError(f"the value is not JSON: {error}") from error
    if len(text) > VALUE_MAX_BYTES:
        raise TooLarge(f"the value takes {len(text)} bytes, the limit is {VALUE_MAX_BYTES}")
    return JSON + text


def to_json(stored: bytes) -> bytes:
    """The JSON text. Raises NotJson for a binary msgpack value."""
    if stored[0] != _J:
        raise NotJson("the value is binary msgpack; read it with a msgpack client")
    return stored[1:]


def to_msgpack(stored: bytes) -> bytes:
    """The value as msgpack. Raises NotMsgpack for an integer beyond 64 bits."""
    if stored[0] != _J:
        return stored[1:]
    try:
        packed: bytes = msgpack.packb(to_object(stored))
    except (OverflowError, ValueError) as error:
        raise NotMsgpack("the value has an integer beyond 64 bits; read it with a JSON client") from error
    return packed


def to_object(stored: bytes) -> Any:
    """The value as Python objects."""
    if stored[0] != _J:
        return msgpack.unpackb(stored[1:], strict_map_key=False)
    try:
        return _decode_json(stored[1:])
    except (msgspec.DecodeError, RecursionError):
        return _decode_slowly(stored[1:])


def integer(stored: bytes) -> int:
    """The integer in a stored value. Raises NotInteger for anything else (true and 1.0 are not integers)."""
    if stored[0] == _J and len(stored) <= INTEGER_MAX_DIGITS + 2:
        value = to_object(stored)
        if type(value) is int:
            return value
    raise NotInteger("the value is not an integer")


def equal(one: bytes, other: bytes) -> bool:
    """Whether two stored values are the same value, whatever their spelling; 1, 1.0 and true all differ."""
    return one == other or _same(to_object(one), to_object(other))


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if type(one) is list:
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) is dict:
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _check_depth(value: Any, left: int = VALUE_MAX_DEPTH) -> None:
    kind = type(value)
    if kind is not list and kind is not dict:
        return
    if not left:
        raise ParseError(f"the value is nested deeper than {VALUE_MAX_DEPTH}")
    for item in value.values() if kind is dict else value:
        kind = type(item)
        if kind is list or kind is dict:
            _check_depth(item, left - 1)


def _decode_slowly(text: bytes) -> Any:
    """JSON with integers of any length, for what msgspec refuses; the error for what is really wrong."""
    try:
        return json.loads(text.decode(), parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ParseError(f"the value is nested deeper than {VALUE_MAX_DEPTH}") from error
    except ValueError as error:
        raise ParseError(f"the value is not JSON: {error}") from error


def _parse_int(digits: str) -> int | str:
    # Python refuses to convert very long integers; as a string they still compare and count as "not an integer"
    return int(digits) if len(digits) <= INTEGER_MAX_DIGITS + 1 else digits


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ParseError(f"{digits[:40]} is out of range")
    return value


def _refuse_constant(name: str) -> Any:
    raise ParseError(f"{name} is not JSON")


def _fits_json(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _fits_json(item) for key, item in value.items())
    if kind is list:
        return all(map(_fits_json, value))
    if kind is float:
        if not math.isfinite(value):
            raise ParseError("NaN and infinities are refused")
        return True
    return kind in (str, int, bool, type(None))
