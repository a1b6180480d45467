"""The client protocol's requests as types, and the two forms of its frames. [S]

`dimint.wire` gives all of this to the rest of the program, with the functions that read requests and make replies.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw

from dimint import limits, values

__all__ = [
    "AnyRequest",
    "COMMANDS",
    "Cas",
    "Delete",
    "Diff",
    "Form",
    "Get",
    "GetAt",
    "GetOverlords",
    "History",
    "Incr",
    "JSON",
    "MSGPACK",
    "Mget",
    "Mset",
    "OverlordState",
    "Publish",
    "REFUSALS",
    "Request",
    "Result",
    "Scan",
    "ScanAt",
    "Set",
    "State",
    "Status",
    "Topology",
    "Unwatch",
    "Watch",
]

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1

Consistency: TypeAlias = Literal["weak", "week", "session", "strong"]
Micros: TypeAlias = Annotated[int, Meta(ge=0, le=_INT64_MAX)]
Then: TypeAlias = Micros | str
"""A log time, or positions: "dimint.kv/3@1234", several with commas."""
Name: TypeAlias = str | Annotated[int, Meta(ge=_INT64_MIN, le=_INT64_MAX)]


class Request(msgspec.Struct, kw_only=True, gc=False, tag_field="cmd"):
    """What every request may have."""

    id: Name | None = None
    client: str | None = None
    seq: Annotated[int, Meta(ge=1, le=limits.SEQ_MAX)] | None = None
    min_position: str | list[str] | None = None
    timeout: Annotated[float, Meta(gt=0, le=limits.READ_WAIT_MAX_MS / 1000)] | None = None


class Get(Request, tag="get"):
    key: str
    consistency: Consistency | None = None


class Mget(Request, tag="mget"):
    keys: list[str]
    consistency: Consistency | None = None


class Scan(Request, tag="scan"):
    """`partitions` counts only at a node's own door."""

    prefix: str = ""
    limit: Annotated[int, Meta(ge=1, le=limits.SCAN_MAX_ITEMS)] = 100
    after: str | None = None
    consistency: Consistency | None = None
    partitions: list[int] | None = None


class Set(Request, tag="set"):
    key: str
    value: Raw
    ttl: float | None = None
    if_absent: bool = False
    if_present: bool = False


class Delete(Request, tag="delete"):
    key: str


class Mset(Request, tag="mset"):
    values: dict[str, Raw]
    ttl: float | None = None


class Incr(Request, tag="incr"):
    key: str
    by: Annotated[int, Meta(ge=_INT64_MIN, le=_INT64_MAX)] = 1


class Cas(Request, tag="cas"):
    """One of `expected` (empty Raw = not given) and `version` is given."""

    key: str
    value: Raw
    expected: Raw = Raw()
    version: Annotated[int, Meta(ge=0, le=_INT64_MAX)] | None = None
    ttl: float | None = None


class Result(Request, tag="result"):
    key: str


class Publish(Request, tag="publish"):
    events: list[list[Any]]


class Watch(Request, tag="watch"):
    """One of `key` and `prefix` is given."""

    key: str | None = None
    prefix: str | None = None
    from_: str | list[str] | None = msgspec.field(default=None, name="from")
    partitions: list[int] | None = None


class Unwatch(Request, tag="unwatch"):
    watch: Name


class GetAt(Request, tag="get_at"):
    """Times of the past are log times, µs since 1970, UTC."""

    key: str
    at: Then


class ScanAt(Request, tag="scan_at"):
    at: Then
    prefix: str = ""
    limit: Annotated[int, Meta(ge=1, le=limits.SCAN_MAX_ITEMS)] = 100
    after: str | None = None


class History(Request, tag="history"):
    """`after` is the `next` of the page before: "offset.index"."""

    key: str
    from_: Then = msgspec.field(default=0, name="from")
    to: Then | None = None
    limit: Annotated[int, Meta(ge=1, le=limits.SCAN_MAX_ITEMS)] = 100
    after: Annotated[str, Meta(pattern=r"^[0-9]{1,18}\.[0-9]{1,9}$")] | None = None
    newest_first: bool = False


class Diff(Request, tag="diff"):
    from_: Then = msgspec.field(name="from")
    to: Then | None = None
    prefix: str = ""
    limit: Annotated[int, Meta(ge=1, le=limits.SCAN_MAX_ITEMS)] = 100
    after: str | None = None


class GetOverlords(Request, tag="get_overlords"):
    pass


class State(Request, tag="state"):
    pass


class OverlordState(Request, tag="overlord_state"):
    pass


class Topology(Request, tag="topology"):
    pass


class Status(Request, tag="status"):
    pass


AnyRequest: TypeAlias = (
    Get
    | Set
    | Delete
    | Mget
    | Mset
    | Scan
    | Incr
    | Cas
    | Result
    | Watch
    | Unwatch
    | GetAt
    | ScanAt
    | History
    | Diff
    | Publish
    | GetOverlords
    | State
    | OverlordState
    | Topology
    | Status
)

COMMANDS: Final[dict[str, type[Request]]] = {str(cls.__struct_config__.tag): cls for cls in Request.__subclasses__()}
"""Command → its struct: every command that there is."""

REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
"""Whatever msgspec raises for bytes that it cannot decode."""


class Form:
    """JSON or msgpack. `JSON` and `MSGPACK` are the only two."""

    name: ClassVar[str]
    request: Callable[[bytes], AnyRequest]
    fields: Callable[[bytes], dict[Any, Raw]]
    pairs: Callable[[bytes], dict[Any, Raw]]
    anything: Callable[[bytes | Raw], Any]
    encode: Callable[[Any], bytes]

    def store(self, value: Raw) -> bytes:
        """The stored value (tag byte, then the client's bytes). Raises ParseError or TooLarge."""
        raise NotImplementedError

    def load(self, stored: bytes) -> Raw:
        """A stored value as it stands in a reply. Raises NotJson or NotMsgpack."""
        raise NotImplementedError


class _Json(Form):
    name = "json"
    request = staticmethod(msgspec.json.Decoder(AnyRequest).decode)
    fields = staticmethod(msgspec.json.Decoder(dict[str, Raw]).decode)
    pairs = fields
    anything = staticmethod(msgspec.json.Decoder().decode)
    encode = staticmethod(msgspec.json.Encoder().encode)

    def store(self, value: Raw) -> bytes:
        return values.from_json(bytes(value))

    def load(self, stored: bytes) -> Raw:
        return Raw(values.to_json(stored))


class _Msgpack(Form):
    name = "msgpack"
    request = staticmethod(msgspec.msgpack.Decoder(AnyRequest).decode)
    fields = staticmethod(msgspec.msgpack.Decoder(dict[str, Raw]).decode)
    pairs = staticmethod(msgspec.msgpack.Decoder(dict[str | int | float | bool | None, Raw]).decode)
    anything = staticmethod(msgspec.msgpack.Decoder().decode)
    encode = staticmethod(msgspec.msgpack.Encoder().encode)

    def store(self, value: Raw) -> bytes:
        return values.from_msgpack(bytes(value))

    def load(self, stored: bytes) -> Raw:
        return Raw(values.to_msgpack(stored))


JSON: Final = _Json()
MSGPACK: Final = _Msgpack()
