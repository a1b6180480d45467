"""Values and frames as the client library sends and reads them."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint import values
from dimint.client.content import Form, decode, encode, from_text, pack, to_text
from dimint.errors import ParseError, TooLarge
from dimint.limits import VALUE_MAX_BYTES, VALUE_MAX_DEPTH

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
SMALL = (
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=8
    )


def _stored(value: Any) -> bytes:
    """What a server keeps of the value in a request."""
    packed = pack(value)
    frame = encode(packed.form, {"cmd": "set", "value": packed.inner})
    if packed.form is Form.JSON:
        return values.from_json(bytes(msgspec.json.decode(frame, type=dict[str, msgspec.Raw])["value"]))
    return values.from_msgpack(bytes(msgspec.msgpack.decode(frame, type=dict[str, msgspec.Raw])["value"]))


def _read(stored: bytes) -> Any:
    """What a client reads of it, in the form that can carry it."""
    if stored[:1] == b"J":
        return decode(b'{"value":' + values.to_json(stored) + b"}")["value"]
    return decode(b"\x81\xa5value" + values.to_msgpack(stored))["value"]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


@given(_nested(PLAIN))
def test_values_without_bytes_come_back_equal(value: Any) -> None:
    """JSON keeps every value, and integers of any size, exactly."""
    assert pack(value).form is Form.JSON
    assert _same(_read(_stored(value)), value)


@given(_nested(SMALL | st.binary(max_size=20)))
def test_values_with_bytes_come_back_equal(value: Any) -> None:
    """A value with bytes anywhere travels as msgpack."""
    assert _same(_read(_stored([value, b"\xff\x00"])), [value, b"\xff\x00"])


@pytest.mark.parametrize("digits", [4300, 4301, 8000, 100_000])
def test_very_long_integers_are_exact(digits: int) -> None:
    """Beyond what Python converts at once, too."""
    number = 10 ** (digits - 1) + 7
    for value in (number, -number):
        text = bytes(pack([value]).inner)
        assert len(text) == digits + 2 + (value < 0)
        assert decode(b'{"v":' + text + b"}")["v"] == [value]


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {1: 2}, {b"k": 1}, {"a": object}, {1, 2}, "\ud800", [b"x", 1 << 64], _deep(VALUE_MAX_DEPTH + 1)],
    ids=repr,
)
def test_what_could_not_come_back_equal_is_refused(value: Any) -> None:
    """Refused before anything is sent."""
    with pytest.raises(ParseError):
        pack(value)


def test_the_deepest_and_the_largest_values_pass() -> None:
    """Limits are met exactly."""
    pack(_deep(VALUE_MAX_DEPTH))
    pack("x" * (VALUE_MAX_BYTES - 2))
    for value in ("x" * (VALUE_MAX_BYTES - 1), b"x" * VALUE_MAX_BYTES):
        with pytest.raises(TooLarge):
            pack(value)


def test_tuples_and_byte_arrays_are_taken() -> None:
    """They come back as lists and bytes."""
    assert _read(_stored((1, (2,)))) == [1, [2]]
    assert _read(_stored(bytearray(b"ab"))) == b"ab"


def test_typed_text_is_json_or_a_string() -> None:
    """How the command line reads a value."""
    assert from_text("18446744073709551617") == 1 << 64 | 1
    assert from_text("{broken") == "{broken"
    assert from_text("Infinity") == "Infinity"
    assert from_text("") == ""
    assert from_text(to_text({"ä": [1, None]})) == {"ä": [1, None]}


@pytest.mark.parametrize("frame", [b"", b"[]", b"12", b"{", b"\x90", b"\xc1", b"\x81"])
def test_frames_that_are_no_replies_are_named(frame: bytes) -> None:
    """Whatever arrives, it is a map or a ParseError."""
    with pytest.raises(ParseError):
        decode(frame)
