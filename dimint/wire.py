"""The client protocol: frames ↔ typed requests and replies. [S]

docs/protocol.md is the contract. One frame is one JSON or msgpack map; the first byte tells, and the reply has the form
of its request. `parse` gives a struct of the command; the functions below it build replies with exactly the fields that
an old-style or new-style request gets.

Values are never turned into Python objects beyond checking them: a request's `value` is the client's own bytes
(msgspec.Raw), `Form.store` makes the stored value of it (dimint/values.py), and replies are put together from bytes.

How it is fast: msgspec decodes straight into the struct that the `cmd` field names (0.2–0.4 µs). Whatever that refuses
(a number as key, a missing field, an unknown command) goes once through the slow path, which canonicalises the keys and
finds the right error. Old-style replies are joined bytes, not encoded maps.
"""

import math
from binascii import b2a_base64
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec import Raw

from dimint import limits, values
from dimint.errors import NotJson, NotMsgpack, ParseError, RequestError, TooLarge, UnknownCommand
from dimint.positions import is_number, positions_in
from dimint.wire_types import (
    COMMANDS,
    JSON,
    MSGPACK,
    REFUSALS,
    AnyRequest,
    Cas,
    Delete,
    Diff,
    Form,
    Get,
    GetAt,
    History,
    Incr,
    Mget,
    Mset,
    Publish,
    Request,
    Result,
    Scan,
    ScanAt,
    Set,
    Watch,
)

__all__ = [
    "Token",
    "age_of",
    "canonical_key",
    "carried",
    "failed",
    "format_token",
    "form_of",
    "got",
    "is_new_style",
    "min_offsets",
    "parse",
    "parse_token",
    "refused",
    "reply",
    "ttl_ms",
    "was_set",
]

ID_MAX_CHARS = 256
_PACKED_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
"""First bytes of msgpack maps; JSON never starts with one."""
_SHORT_KEY_CHARS = limits.KEY_MAX_BYTES // 4
"""A key of at most so many characters is never too long in UTF-8."""


# --- requests --------------------------------------------------------------------------------------------------------
def form_of(frame: bytes) -> Form:
    """The form of a frame by its first byte: a msgpack map is msgpack, everything else is answered in JSON."""
    return MSGPACK if frame and frame[0] in _PACKED_MAPS else JSON


def parse(frame: bytes) -> AnyRequest:
    """The request in a frame, keys canonical and within their limits; values are checked by `Form.store`.

    Raises ParseError, UnknownCommand or TooLarge; `refused` makes the reply of it.
    """
    form = MSGPACK if frame and frame[0] in _PACKED_MAPS else JSON
    request: AnyRequest
    try:
        request = form.request(frame)
    except REFUSALS as error:
        request = _parse_slowly(form, frame, error)
    if isinstance(request, Get | Set):
        key = request.key
        if not 0 < len(key) <= _SHORT_KEY_CHARS:
            _check_key(key)
        if request.client is not None or request.id is not None or request.seq is not None:
            _check_name(request)
        return request
    _check_name(request)
    _check_rest(request)
    return request


def canonical_key(key: Any) -> str:
    """A key as Python's `str()` makes it of a string, number, boolean or null. Raises ParseError or TooLarge."""
    if type(key) is float and not math.isfinite(key):
        raise ParseError("NaN and infinities are no keys")
    if key is not None and type(key) not in (str, int, float, bool):
        raise ParseError(f"a key is a string or a number, not {type(key).__name__}")
    try:
        text = str(key)
    except ValueError as error:  # an integer of more digits than Python converts
        raise TooLarge(f"the key is over {limits.KEY_MAX_BYTES} bytes") from error
    _check_key(text)
    return text


def _parse_slowly(form: Form, frame: bytes, first: Exception) -> AnyRequest:
    """Make a frame that was refused acceptable by canonicalising its keys, or raise what is wrong with it."""
    fields = _fields(form, frame)
    cls = _command(form, fields)
    if "key" in fields:
        fields["key"] = _canonical(form, fields["key"])
    if cls is Mget and "keys" in fields:
        fields["keys"] = _canonical_list(form, fields["keys"])
    if cls is Mset and "values" in fields:
        fields["values"] = _canonical_map(form, fields["values"])
    for name in ("prefix", "after") if cls in (Scan, ScanAt, Diff) else ():
        if name in fields and _anything(form, fields[name]) is not None:
            fields[name] = _canonical(form, fields[name], may_be_empty=True)
    try:
        request: AnyRequest = form.request(form.encode(fields))
    except REFUSALS as error:
        raise ParseError(f"not a request: {error}") from first
    return request


def _fields(form: Form, frame: bytes) -> dict[str, Raw]:
    try:
        return form.fields(frame)
    except REFUSALS as error:
        raise ParseError(f"not a {form.name} map: {error}") from error


def _command(form: Form, fields: dict[str, Raw]) -> type[Request]:
    if "cmd" not in fields:
        raise ParseError("`cmd` is missing")
    name = _anything(form, fields["cmd"])
    if type(name) is not str:
        raise ParseError("`cmd` is not a string")
    cls = COMMANDS.get(name)
    if cls is None:
        raise UnknownCommand(f"there is no command {name[:40]!r}")
    return cls


def _anything(form: Form, raw: Raw) -> Any:
    try:
        return form.anything(raw)
    except REFUSALS as error:
        raise ParseError(f"not {form.name}: {error}") from error


def _canonical(form: Form, raw: Raw, *, may_be_empty: bool = False) -> Raw:
    key = _anything(form, raw)
    return Raw(form.encode("" if may_be_empty and key == "" else canonical_key(key)))


def _canonical_list(form: Form, raw: Raw) -> Raw:
    keys = _anything(form, raw)
    if type(keys) is not list:
        raise ParseError("`keys` is not a list")
    return Raw(form.encode([canonical_key(key) for key in keys]))


def _canonical_map(form: Form, raw: Raw) -> Raw:
    try:
        pairs = form.pairs(bytes(raw))
    except REFUSALS as error:
        raise ParseError(f"`values` is not a map: {error}") from error
    return Raw(form.encode({canonical_key(key): value for key, value in pairs.items()}))


def ttl_ms(seconds: float | None) -> int | None:
    """Milliseconds of a request's `ttl`, at least 1. Raises ParseError for what is not above 0 or beyond TTL_MAX_MS."""
    if seconds is None:
        return None
    if not 0 < seconds * 1000 <= limits.TTL_MAX_MS:  # NaN too
        raise ParseError(f"`ttl` is a number of seconds above 0 and up to {limits.TTL_MAX_MS // 1000}")
    return max(1, round(seconds * 1000))


def _check_key(key: str) -> None:
    if not key:
        raise ParseError("the key is empty")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise ParseError("the key is not UTF-8") from error
    if size > limits.KEY_MAX_BYTES:
        raise TooLarge(f"the key takes {size} bytes, the limit is {limits.KEY_MAX_BYTES}")


def _check_name(request: Request) -> None:
    client = request.client
    if client is not None and not 0 < len(client.encode()) <= limits.CLIENT_ID_MAX_BYTES:
        raise ParseError(f"`client` takes 1 to {limits.CLIENT_ID_MAX_BYTES} bytes")
    if request.seq is not None and client is None:
        raise ParseError("`seq` needs `client`")
    if type(request.id) is str and len(request.id) > ID_MAX_CHARS:
        raise ParseError(f"`id` takes at most {ID_MAX_CHARS} characters")


def _check_rest(request: AnyRequest) -> None:
    """What the types cannot say; everything but get and set, which `parse` checks itself."""
    if isinstance(request, Delete | Incr | Cas | Result | GetAt | History):
        _check_key(request.key)
    if isinstance(request, Mget | Mset):
        keys: Iterable[str] = request.keys if isinstance(request, Mget) else request.values
        if len(keys) > limits.REQUEST_MAX_KEYS:  # type: ignore[arg-type]
            raise TooLarge(f"more than {limits.REQUEST_MAX_KEYS} keys")
        for key in keys:
            if not 0 < len(key) <= _SHORT_KEY_CHARS:
                _check_key(key)
    elif isinstance(request, Scan | ScanAt | Diff):
        if len(request.prefix.encode()) > limits.KEY_MAX_BYTES or len((request.after or "").encode()) > limits.KEY_MAX_BYTES:
            raise TooLarge(f"`prefix` and `after` take at most {limits.KEY_MAX_BYTES} bytes")
    elif isinstance(request, Cas):
        if (request.version is None) == (not bytes(request.expected)):
            raise ParseError("cas needs either `expected` or `version`")
    elif isinstance(request, Result):
        if request.client is None or request.seq is None:
            raise ParseError("result needs `client` and `seq`")
    elif isinstance(request, Watch):
        if (request.key is None) == (request.prefix is None):
            raise ParseError("watch needs either `key` or `prefix`")
        if request.key is not None:
            _check_key(request.key)
        elif len((request.prefix or "").encode()) > limits.KEY_MAX_BYTES:
            raise TooLarge(f"`prefix` takes at most {limits.KEY_MAX_BYTES} bytes")
    elif isinstance(request, Publish) and len(request.events) > limits.PUBLISH_MAX_EVENTS:
        raise TooLarge(f"more than {limits.PUBLISH_MAX_EVENTS} events")


# --- tokens ----------------------------------------------------------------------------------------------------------
class Token(NamedTuple):
    """Everything below `offset` of `partition` of one log."""

    generation: str
    partition: int
    offset: int


def format_token(generation: str, partition: int, offset: int) -> str:
    return f"{generation}:{partition}:{offset}"


def parse_token(text: str) -> Token:
    """Raises ParseError.

    >>> parse_token("4f1c:3:17")
    Token(generation='4f1c', partition=3, offset=17)
    """
    generation, _, rest = text.partition(":")
    partition, _, offset = rest.partition(":")
    if generation and is_number(partition, 9) and is_number(offset, 18):
        return Token(generation, int(partition), int(offset))
    raise ParseError(f"{text[:80]!r} is not a token")


def min_offsets(request: Request, generation: str, partitions: int) -> dict[int, int]:
    """partition → offset that a request's `min_position` asks for; empty without one. Raises ParseError or WrongLog."""
    if request.min_position is None:
        return {}
    asked = positions_in(request.min_position, generation, partitions)
    return {partition: position.end for partition, position in asked.items()}


def carried(form: Form, stored: bytes) -> dict[str, Any]:
    """A stored value in a reply that must not fail for what its form cannot carry: under another name then."""
    try:
        return {"value": form.load(stored)}
    except NotJson:
        return {"value_msgpack": b2a_base64(stored[1:], newline=False).decode()}
    except NotMsgpack:
        return {"value_json": stored[1:].decode()}


# --- replies ---------------------------------------------------------------------------------------------------------
def is_new_style(request: Request) -> bool:
    """Whether the reply may have more than the fields that the original had."""
    return request.id is not None or request.client is not None or request.min_position is not None or request.seq is not None


def age_of(age_ms: int) -> float | None:
    """`age` of a reply, in seconds; None if it is not known (below 0)."""
    return None if age_ms < 0 else age_ms / 1000


def got(form: Form, request: Request, stored: bytes | None, version: int, token: str, age_ms: int = -1) -> bytes:
    """Reply of a get; `stored` None for a missing key. Raises NotJson or NotMsgpack."""
    if form is JSON:
        if stored is None:
            text = b""
        elif stored[0] == 0x4A:
            text = b'"value":' + stored[1:]
        else:
            text = b'"value":' + values.to_json(stored)
        if not is_new_style(request):
            return b"{" + text + b"}"
        age = b"null" if age_ms < 0 else b"%.3f" % (age_ms / 1000)
        mark = (text and text + b",", token.encode(), version, age, _json_id(request))
        return b'{%b"position":"%b","version":%d,"age":%b%b}' % mark
    fields: dict[str, Any] = {} if stored is None else {"value": form.load(stored)}
    return reply(form, request, fields, position=token, version=version, age=age_of(age_ms))


def was_set(form: Form, request: Set, token: str) -> bytes:
    """Reply of a set that is in the log: the client's own bytes back."""
    if form is JSON:
        if not is_new_style(request):
            return b"".join((b'{"value":', request.value, b"}"))
        return b'{"value":%b,"position":"%b"%b}' % (bytes(request.value), token.encode(), _json_id(request))
    return reply(form, request, {"value": request.value}, position=token)


def reply(form: Form, request: Request, fields: dict[str, Any], **more: Any) -> bytes:
    """Any reply: `fields`, and for a new-style request `more` and its `id`."""
    if is_new_style(request):
        fields.update(more)
        if request.id is not None:
            fields["id"] = request.id
    return form.encode(fields)


def failed(form: Form, request: Request, error: RequestError, **fields: Any) -> bytes:
    """The error reply of a request."""
    return reply(form, request, {"error": error.code, **fields}, message=error.message, retriable=error.retriable)


def refused(frame: bytes, error: RequestError) -> tuple[Request, bytes]:
    """What can be known of a frame that `parse` refused, and its error reply.

    The request has `id` and whatever else could be read of what makes a request new-style; nothing else counts.
    """
    form = form_of(frame)
    request = Request()
    try:
        fields = form.fields(frame)
    except REFUSALS:
        fields = {}
    for name in ("id", "client", "seq", "min_position"):
        if name in fields:
            try:
                value = form.anything(fields[name])
            except REFUSALS:
                continue
            if name != "id":
                value = None if value is None else "?"
            elif type(value) not in (str, int) or len(str(value)) > ID_MAX_CHARS:
                continue
            setattr(request, name, value)
    try:
        return request, failed(form, request, error)
    except (ValueError, OverflowError):  # an id beyond 64 bits
        return Request(), failed(form, Request(), error)


def _json_id(request: Request) -> bytes:
    return b"" if request.id is None else b',"id":' + JSON.encode(request.id)
