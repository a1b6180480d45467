"""The client protocol's frames: keys, tokens, limits and the exact bytes of replies."""

from typing import Any

import msgpack
import msgspec
import pytest

from dimint import wire
from dimint.errors import NotJson, NotMsgpack, ParseError, RequestError, TooLarge, UnknownCommand, WrongLog
from dimint.wire import canonical_key, parse, refused
from dimint.wire_types import JSON, MSGPACK, Get, Mget, Mset, Request, Set


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("1", "1"),
        ("-0", "0"),
        ("1.5", "1.5"),
        ("1e3", "1000.0"),
        ("true", "True"),
        ("null", "None"),
        ('"k"', "k"),
        ("1" + "0" * 400, "1" + "0" * 400),
        ('"' + "é" * 255 + '"', "é" * 255),
    ],
)
def test_keys_are_what_str_makes_of_them(text: str, key: str) -> None:
    """Every key that JSON can write becomes Python's text of it."""
    request = parse(b'{"cmd":"get","key":%b}' % text.encode())
    assert isinstance(request, Get)
    assert request.key == key


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[]", ParseError),
        ("{}", ParseError),
        ('""', ParseError),
        ("NaN", ParseError),
        ("1e999", ParseError),
        ('"\\ud800"', ParseError),
        ("1" + "0" * 600, TooLarge),
        ('"' + "é" * 256 + '"', TooLarge),
        ("1" + "0" * 9000, RequestError),
    ],
)
def test_keys_that_are_none(text: str, error: type[RequestError]) -> None:
    """What is no key is refused by name."""
    with pytest.raises(error):
        parse(b'{"cmd":"get","key":%b}' % text.encode())


def test_msgpack_keys() -> None:
    """msgpack maps may have keys of other types; binary ones are refused."""
    request = parse(msgpack.packb({"cmd": "mset", "values": {1: 2, None: 3, "a": b"x"}}))
    assert isinstance(request, Mset)
    assert list(request.values) == ["1", "None", "a"]
    request = parse(msgpack.packb({"cmd": "mget", "keys": [1, 2.5, True]}))
    assert isinstance(request, Mget)
    assert request.keys == ["1", "2.5", "True"]
    for key in (b"k", float("nan"), float("inf")):
        with pytest.raises(ParseError):
            parse(msgpack.packb({"cmd": "get", "key": key}))
    with pytest.raises(ParseError):
        canonical_key("\ud800")


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"[]", b"1", b'"x"', b"null", b"{", b"{}{}", b"\xff\xfe", b"\x93\x01\x02\x03", b'{"cmd":1}', b'{"cmd":null}', b"{}",
        b'{"cmd":"set","key":"k","value":1,"client":"c","seq":0}', b'{"cmd":"set","key":"k","value":1,"client":"c","seq":-1}',
        b'{"cmd":"set","key":"k","value":1,"client":"c","seq":9007199254740992}', b'{"cmd":"set","key":"k","value":1,"seq":1}',
        b'{"cmd":"set","key":"k","value":1,"client":"c","seq":"1"}', b'{"cmd":"set","key":"k","value":1,"client":""}',
        b'{"cmd":"get","key":"k","id":[1]}', b'{"cmd":"get","key":"k","timeout":0}', b'{"cmd":"result","key":"k","client":"c"}',
        b'{"cmd":"cas","key":"k","value":1,"expected":1,"version":1}', b'{"cmd":"set","key":"k","value":' + b"[" * 100_000,
        b'{"cmd":"get","key":"k","client":"' + b"x" * 65 + b'"}', b'{"cmd":"get","key":"k","id":"' + b"x" * 300 + b'"}',
    ],
)  # fmt: skip
def test_frames_that_are_no_requests(frame: bytes) -> None:
    """Everything unreadable or out of range is a parse error."""
    with pytest.raises(ParseError) as caught:
        parse(frame)
    _, reply = refused(frame, caught.value)
    assert msgspec.json.decode(reply)["error"] == "DIMINT_PARSE_ERROR"


def test_unknown_commands_keep_their_id() -> None:
    """A refused request's reply has its id if that could be read."""
    frame = b'{"cmd":"nope","id":[1],"client":"c"}'
    with pytest.raises(UnknownCommand) as caught:
        parse(frame)
    request, reply = refused(frame, caught.value)
    assert (request.id, set(msgspec.json.decode(reply))) == (None, {"error", "message", "retriable"})
    _, reply = refused(msgpack.packb({"cmd": "nope", "id": 4}), caught.value)
    assert msgpack.unpackb(reply)["id"] == 4
    request, reply = refused(b'{"cmd":"nope","id":3}', caught.value)
    assert (request.id, msgspec.json.decode(reply)["id"]) == (3, 3)


def test_replies_byte_by_byte() -> None:
    """Old-style replies have the original's bytes, values come back as they were written."""
    put = parse(b'{"cmd":"set","key":"k","value":  [1 ,2.50]}')
    assert isinstance(put, Set)
    assert wire.was_set(JSON, put, "") == b'{"value":[1 ,2.50]}'
    get = Get(key="k")
    assert wire.got(JSON, get, b"J1.50", 1, "g:0:1") == b'{"value":1.50}'
    assert wire.got(JSON, get, None, 0, "g:0:1") == b"{}"
    assert wire.got(MSGPACK, get, b"J1", 1, "") == msgpack.packb({"value": 1})
    new = Get(key="k", id="é")
    assert wire.got(JSON, new, b"J1", 7, "g:0:1") == '{"value":1,"position":"g:0:1","version":7,"age":null,"id":"é"}'.encode()
    assert wire.got(JSON, new, None, 0, "g:0:1", 1234) == '{"position":"g:0:1","version":0,"age":1.234,"id":"é"}'.encode()
    with pytest.raises(NotJson):
        wire.got(JSON, get, b"M\xc4\x00", 1, "")
    with pytest.raises(NotMsgpack):
        wire.got(MSGPACK, get, b"J" + b"9" * 30, 1, "")


def test_tokens() -> None:
    """Tokens read back; what is not one, or of another log, is refused."""
    assert wire.parse_token(wire.format_token("ab", 3, 17)) == ("ab", 3, 17)
    for text in ("", "a", "a:1", ":1:1", "a:1:", "a:-1:1", "a:1:1:1", "a:1:" + "9" * 30, "a:١:1"):
        with pytest.raises(ParseError):
            wire.parse_token(text)
    assert wire.min_offsets(Request(min_position=["g:0:1", "g:1:5", "g:0:3"]), "g", 2) == {0: 3, 1: 5}
    assert wire.min_offsets(Request(), "g", 2) == {}
    with pytest.raises(WrongLog):
        wire.min_offsets(Request(min_position="h:0:1"), "g", 2)
    with pytest.raises(ParseError):
        wire.min_offsets(Request(min_position="g:2:1"), "g", 2)


def test_times_to_live() -> None:
    """A ttl is above zero and within its limit; a fraction of a millisecond still counts as one."""
    assert [wire.ttl_ms(seconds) for seconds in (None, 1, 0.5, 0.0001)] == [None, 1000, 500, 1]
    for bad in (0, -1, float("nan"), float("inf"), 1e12):
        with pytest.raises(ParseError):
            wire.ttl_ms(bad)


def test_values_are_not_looked_into() -> None:
    """A request's value is the client's own bytes, and both forms store the same JSON."""
    for value in ("text", 1, [1, {"a": None}], 2**63 - 1):
        one, other = parse(msgspec.json.encode(_put(value))), parse(msgpack.packb(_put(value)))
        assert isinstance(one, Set)
        assert isinstance(other, Set)
        assert JSON.store(one.value) == MSGPACK.store(other.value)


def _put(value: Any) -> dict[str, Any]:
    return {"cmd": "set", "key": "k", "value": value}
