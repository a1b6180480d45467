"""Stored values: exact, bounded, and never anything but a value or a named error."""

import json
import math
from contextlib import suppress

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dimint import values
from dimint.errors import NotInteger, NotJson, NotMsgpack, ParseError, RequestError, TooLarge
from dimint.limits import INTEGER_MAX_DIGITS, VALUE_MAX_BYTES, VALUE_MAX_DEPTH

_floats = st.floats(allow_nan=False, allow_infinity=False)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)
_binary = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text | st.integers(0, 9), inner, max_size=3),
    max_leaves=6,
)


def _same(one: object, other: object) -> bool:
    return repr(one) == repr(other)


@given(_json)
def test_json_is_kept_byte_for_byte(value: object) -> None:
    """What goes in as JSON comes out as the same text, and as the same object, with integers of any size."""
    text = json.dumps(value).encode()
    stored = values.from_json(text)
    assert values.to_json(stored) == text
    assert _same(values.to_object(stored), value)
    assert _same(values.to_object(values.from_object(value)), value)
    assert values.equal(stored, values.from_object(value))


@given(_binary)
def test_msgpack_goes_through(value: object) -> None:
    """msgpack clients get back what they stored; JSON clients get it too wherever JSON can carry it."""
    stored = values.from_msgpack(msgpack.packb(value))
    assert _same(msgpack.unpackb(values.to_msgpack(stored), strict_map_key=False), value)
    if stored[:1] == b"J":
        assert _same(json.loads(values.to_json(stored)), value)
    else:
        with pytest.raises(NotJson):
            values.to_json(stored)


@given(st.binary(max_size=200) | _text.map(str.encode) | _json.map(lambda value: json.dumps(value)[:-1].encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'"\xed\xa0\x80"')
@example(b'"\\ud800"')
@example(b"1e999")
@example(b"-" + b"9" * 5000)
@example(b"\xef\xbb\xbf1")
@example(b"nan")
@example(b"")
def test_any_text_is_json_or_a_named_error(text: bytes) -> None:
    """Hostile text gives a value that can be used everywhere, or a RequestError."""
    try:
        stored = values.from_json(text)
    except RequestError:
        return
    values.to_object(stored)
    assert values.equal(stored, stored)
    with suppress(NotMsgpack):
        values.to_msgpack(stored)
    with suppress(NotInteger):
        values.integer(stored)


@given(st.binary(max_size=200))
@example(b"\x91" * 5000 + b"\x90")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc1")
@example(msgpack.packb(msgpack.ExtType(5, b"x")))
@example(msgpack.packb(msgpack.Timestamp(0)))
@example(msgpack.packb(float("nan")))
@example(msgpack.packb({"a": [float("inf"), b"x"]}))
@example(b"\x81\x90\x01")
@example(b"\xa1\xff")
def test_any_bytes_are_msgpack_or_a_named_error(raw: bytes) -> None:
    """Hostile msgpack gives a value that can be used everywhere, or a RequestError."""
    try:
        stored = values.from_msgpack(raw)
    except RequestError:
        return
    values.to_object(stored)
    values.to_msgpack(stored)
    with suppress(NotJson):
        values.to_json(stored)
    with suppress(NotInteger):
        values.integer(stored)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "[1e400]", "", "1 2", "'a'", "{1:2}", "tru", '"\t"', "[1,]"])
def test_what_is_not_json_is_refused(text: str) -> None:
    """RFC 8259, nothing more."""
    with pytest.raises(ParseError):
        values.from_json(text.encode())


def test_limits() -> None:
    """Size and depth: the limit is allowed, one more is not."""
    assert values.from_json(b'"' + b"x" * (VALUE_MAX_BYTES - 2) + b'"')
    with pytest.raises(TooLarge):
        values.from_json(b'"' + b"x" * (VALUE_MAX_BYTES - 1) + b'"')
    with pytest.raises(TooLarge):
        values.from_object("x" * VALUE_MAX_BYTES)
    with pytest.raises(TooLarge):
        values.from_msgpack(msgpack.packb(b"x" * VALUE_MAX_BYTES))
    deepest = b"[" * VALUE_MAX_DEPTH + b"]" * VALUE_MAX_DEPTH
    assert values.from_json(deepest)
    with pytest.raises(ParseError, match="nested"):
        values.from_json(b"[" + deepest + b"]")


@given(st.integers(-(10**60), 10**60))
def test_integers(number: int) -> None:
    """Integers of any size are integers."""
    assert values.integer(values.from_object(number)) == number


@pytest.mark.parametrize("text", [b"1.0", b"true", b'"1"', b"null", b"[1]", b"1e3", b"9" * (INTEGER_MAX_DIGITS + 5)])
def test_what_is_no_integer(text: bytes) -> None:
    """Nothing else is, and neither is what is too long to add to."""
    with pytest.raises(NotInteger):
        values.integer(values.from_json(text))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"1", b"1.0", False),
        (b"1", b"true", False),
        (b"[0]", b"[false]", False),
        (b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True),
        (b'{"a":1}', b'{"a":1,"b":2}', False),
        (b'"\\u00e9"', '"é"'.encode(), True),
        (b"1e2", b"100.0", True),
        (b"[1,2]", b"[2,1]", False),
    ],
)
def test_equality_is_of_values_not_of_spelling(one: bytes, other: bytes, same: bool) -> None:
    """Types count, blanks and order of members do not."""
    assert values.equal(values.from_json(one), values.from_json(other)) is same


def test_not_a_number_never_gets_in() -> None:
    """Not as JSON, not inside msgpack, not as an object."""
    for value in (math.nan, math.inf, [-math.inf]):
        with pytest.raises(ParseError):
            values.from_msgpack(msgpack.packb(value))
