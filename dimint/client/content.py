"""Keys, values and frames as the client library sends and reads them. [S]

A value is None, bool, int, float, str, bytes, a list (or tuple) or a dict with string keys. The rule of forms:

- a value without bytes travels and is stored as JSON: integers of any size stay exact;
- a value with bytes anywhere in it travels and is stored as msgpack: its integers must fit 64 bits.

Everything that could not come back equal is refused before anything is sent: other types, map keys that are not
strings, NaN and infinities. Tuples come back as lists.
"""

import json
import math
from binascii import a2b_base64
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgpack
import msgspec

from dimint.errors import ParseError, TooLarge
from dimint.limits import REQUEST_MAX_BYTES, VALUE_MAX_BYTES, VALUE_MAX_DEPTH
from dimint.wire import canonical_key

__all__ = ["Form", "Packed", "canonical_key", "carried_value", "decode", "encode", "from_text", "pack", "to_text"]

_encode_json: Final = msgspec.json.Encoder().encode
_decode_json: Final = msgspec.json.Decoder().decode
_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1
_CHUNK_DIGITS = 4000
"""Python converts integers of at most 4300 digits; longer ones go piece by piece."""


class Form(Enum):
    """How a frame is encoded."""

    JSON = "json"
    MSGPACK = "msgpack"


class Packed:
    """A checked value: `inner` is what goes into a request map of this form."""

    __slots__ = ("form", "inner")

    def __init__(self, form: Form, inner: Any) -> None:
        self.form = form
        self.inner = inner


def pack(value: Any, form: Form | None = None) -> Packed:
    """Check a value and choose its form (or force `form`, for a value that shares a request with binary ones).

    Raises ParseError or TooLarge.
    """
    binary = _has_bytes(value, VALUE_MAX_DEPTH)
    if form is None:
        form = Form.MSGPACK if binary else Form.JSON
    if form is Form.JSON:
        text = _to_json(value)
        if len(text) > VALUE_MAX_BYTES:
            raise TooLarge(f"the value takes {len(text)} bytes, the limit is {VALUE_MAX_BYTES}")
        return Packed(form, msgspec.Raw(text))
    plain = _for_msgpack(value)
    size = len(_to_msgpack(plain))
    if size > VALUE_MAX_BYTES:
        raise TooLarge(f"the value takes {size} bytes, the limit is {VALUE_MAX_BYTES}")
    return Packed(form, plain)


def encode(form: Form, fields: dict[str, Any]) -> bytes:
    """The frame of a request. Raises TooLarge."""
    frame = _to_json(fields, checked=True) if form is Form.JSON else _to_msgpack(fields)
    if len(frame) > REQUEST_MAX_BYTES:
        raise TooLarge(f"the request takes {len(frame)} bytes, the limit is {REQUEST_MAX_BYTES}")
    return frame


def decode(frame: bytes) -> dict[str, Any]:
    """The map in a reply. Raises ParseError."""
    try:
        if frame[:1] >= b"\x80":
            fields = msgpack.unpackb(frame, strict_map_key=False)
        else:
            try:
                fields = _decode_json(frame)
            except (msgspec.DecodeError, RecursionError):
                fields = json.loads(frame, parse_int=_long_int)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise ParseError(f"not a reply: {error}") from error
    if type(fields) is not dict:
        raise ParseError("not a reply: no map")
    return fields


def carried_value(fields: Mapping[str, Any]) -> Any:
    """The value of a change in a JSON reply, also one that JSON cannot carry; None without one."""
    if "value_msgpack" in fields:
        return msgpack.unpackb(a2b_base64(fields["value_msgpack"]), strict_map_key=False)
    return fields.get("value")


def from_text(text: str) -> Any:
    """The value that a user typed: what is JSON is taken as JSON, everything else as a string.

    >>> from_text("12"), from_text('{"a": [true]}'), from_text("hello"), from_text('"12"'), from_text("NaN")
    (12, {'a': [True]}, 'hello', '12', 'NaN')
    """
    try:
        return json.loads(text, parse_int=_long_int, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def to_text(value: Any) -> str:
    """JSON of a value for people and programs to read; bytes as base64."""
    return _to_json(value).decode()


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _has_bytes(value: Any, depth: int) -> bool:
    """Whether bytes stand anywhere in the value; raises ParseError for what no form carries."""
    if value is None or isinstance(value, str | int):
        return False
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ParseError("NaN and infinities are refused")
        return False
    if isinstance(value, bytes | bytearray | memoryview):
        return True
    if isinstance(value, list | tuple | dict):
        if not depth:
            raise ParseError(f"the value is nested deeper than {VALUE_MAX_DEPTH}")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ParseError(f"map keys in values are strings, not {type(key).__name__}")
            value = value.values()
        # every item is checked, so no short cut at the first bytes
        return any([_has_bytes(item, depth - 1) for item in value])  # noqa: C419
    raise ParseError(f"a value cannot be a {type(value).__name__}")


def _to_json(value: Any, *, checked: bool = False) -> bytes:
    try:
        return _encode_json(value)
    except UnicodeEncodeError as error:
        raise ParseError("the text is not UTF-8") from error
    except (ValueError, TypeError, OverflowError) as error:
        if checked:
            raise ParseError(f"not JSON: {error}") from error
    return _to_json(_for_json(value), checked=True)


def _for_json(value: Any) -> Any:
    """The same value in exact types, very long integers as their own text: what the quick way refused."""
    if isinstance(value, dict):
        return {_exact_text(key): _for_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(item) for item in value]
    if isinstance(value, str):
        return _exact_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return msgspec.Raw(_digits(int(value)))
    return float(value) if isinstance(value, float) else value


def _for_msgpack(value: Any) -> Any:
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {_exact_text(key): _for_msgpack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_for_msgpack(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not _INT64_MIN <= value <= _UINT64_MAX:
        raise ParseError("a value with bytes in it cannot carry integers beyond 64 bits")
    return value


def _to_msgpack(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except UnicodeEncodeError as error:
        raise ParseError("the text is not UTF-8") from error
    except (ValueError, OverflowError, TypeError) as error:
        raise ParseError(f"not msgpack: {error}") from error
    return packed


def _exact_text(text: str) -> str:
    return str.__str__(text)


def _digits(number: int) -> bytes:
    """Decimal text of an integer of any length."""
    sign, number = (b"-", -number) if number < 0 else (b"", number)
    chunk = 10**_CHUNK_DIGITS
    pieces: list[str] = []
    while number >= chunk:
        number, rest = divmod(number, chunk)
        pieces.append(str(rest).zfill(_CHUNK_DIGITS))
    return sign + "".join([str(number), *reversed(pieces)]).encode()


def _long_int(digits: str) -> int:
    if len(digits) <= _CHUNK_DIGITS:
        return int(digits)
    negative, digits = digits.startswith("-"), digits.lstrip("-")
    first = len(digits) % _CHUNK_DIGITS
    number = int(digits[:first] or "0")
    for at in range(first, len(digits), _CHUNK_DIGITS):
        number = number * 10**_CHUNK_DIGITS + int(digits[at : at + _CHUNK_DIGITS])
    return -number if negative else number
