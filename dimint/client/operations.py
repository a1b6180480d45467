"""What a client can ask for: one function per command, each giving an `Operation` that both drivers run. [S]

An operation knows its request fields for any subset of its keys (so that parts of it can go different ways or be sent
again) and turns the reply's map into what the caller gets.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, TypeVar

from dimint.client.content import Form, Packed, canonical_key, pack
from dimint.errors import OutcomeUnknown, ParseError, TooLarge
from dimint.limits import PUBLISH_MAX_EVENTS, REQUEST_MAX_KEYS, SCAN_MAX_ITEMS

__all__ = [
    "Aged",
    "CasResult",
    "Key",
    "Kind",
    "MISSING",
    "Operation",
    "Outcome",
    "Page",
    "Versioned",
    "ask",
    "cas",
    "contains",
    "delete",
    "get",
    "get_aged",
    "get_versioned",
    "incr",
    "mget",
    "mset",
    "publish",
    "require",
    "result",
    "scan_page",
    "set_if",
    "set_value",
]

T = TypeVar("T")
Key = str | int | float | bool | None
"""Keys are text; numbers, booleans and None become what `str()` makes of them."""
CONSISTENCIES: Final = ("weak", "session", "strong")


class _Missing(Enum):
    MISSING = "missing"


MISSING: Final = _Missing.MISSING
"""“Not given”, where None is a value."""


class Kind(Enum):
    """How an operation may be repeated: reads at will, from replicas; writes once; other questions at will, by overlords."""

    READ = "read"
    WRITE = "write"
    QUESTION = "question"


class Versioned(NamedTuple):
    """A value and its version; version 0 (and value None) for a key that is not there."""

    value: Any
    version: int


class Aged(NamedTuple):
    """A value, its version, and how old that may be: `age_s` seconds ago the replica that answered had all that the log had.
    None if it does not know. A replica that cannot reach the log goes on answering weak reads, and its age grows."""

    value: Any
    version: int
    age_s: float | None


class CasResult(NamedTuple):
    """Whether a `cas` applied, and the key's version now (0 = not there). True exactly if it applied."""

    applied: bool
    version: int

    def __bool__(self) -> bool:
        return self.applied


class Outcome(NamedTuple):
    """What became of a write, for ever: docs/protocol.md, *Once*."""

    name: str
    value: int | None = None
    version: int | None = None

    @property
    def applied(self) -> bool:
        return self.name == "applied"


class Page(NamedTuple):
    """One page of a scan; `next` None on the last one."""

    items: list[tuple[str, Any]]
    next: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[T]):
    """One command with its arguments.

    fields   what stands in every request of it
    keys     what it reads or writes; routing and re-sending go by them
    items    of an mset: key → value as it goes into the request
    wants_tokens   of a question: whether its answer must have what this client has seen
    finish   reply map → result; may raise
    """

    cmd: str
    kind: Kind
    finish: Callable[[dict[str, Any]], T]
    keys: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    items: Mapping[str, Any] | None = None
    form: Form = Form.JSON
    consistency: str | None = None
    wants_tokens: bool = False

    def request(self, keys: Iterable[str]) -> dict[str, Any]:
        """The request map for these keys of the operation."""
        request: dict[str, Any] = {"cmd": self.cmd}
        if self.items is not None:
            request["values"] = {key: self.items[key] for key in keys}
        elif self.cmd == "mget":
            request["keys"] = list(keys)
        elif self.keys:
            request["key"] = self.keys[0]
        request.update(self.fields)
        return request


def get(key: Key, default: Any = None, *, consistency: str | None = None) -> Operation[Any]:
    """The value, or `default`."""
    return _read("get", (key,), lambda fields: fields.get("value", default), consistency)


def require(key: Key) -> Operation[Any]:
    """The value; KeyError without one."""

    def finish(fields: dict[str, Any]) -> Any:
        if "value" not in fields:
            raise KeyError(key)
        return fields["value"]

    return _read("get", (key,), finish, None)


def contains(key: Key) -> Operation[bool]:
    return _read("get", (key,), lambda fields: "value" in fields, None)


def get_versioned(key: Key, *, consistency: str | None = None) -> Operation[Versioned]:
    return _read("get", (key,), lambda fields: Versioned(fields.get("value"), int(fields.get("version", 0))), consistency)


def get_aged(key: Key, *, consistency: str | None = None) -> Operation[Aged]:
    def finish(fields: dict[str, Any]) -> Aged:
        age = fields.get("age")
        return Aged(fields.get("value"), int(fields.get("version", 0)), None if age is None else float(age))

    return _read("get", (key,), finish, consistency)


def mget(keys: Iterable[Key], *, consistency: str | None = None) -> Operation[dict[str, Any]]:
    """Key → value of those that are there, in the order asked for."""
    wanted = tuple(dict.fromkeys(canonical_key(key) for key in keys))
    if len(wanted) > REQUEST_MAX_KEYS:
        raise TooLarge(f"{len(wanted)} keys, the limit is {REQUEST_MAX_KEYS}")

    def finish(fields: dict[str, Any]) -> dict[str, Any]:
        found = fields["values"]
        return {key: found[key] for key in wanted if key in found}

    return _read("mget", wanted, finish, consistency)


def scan_page(prefix: str, *, after: str | None, limit: int, consistency: str | None = None) -> Operation[Page]:
    """At most `limit` items (1 … SCAN_MAX_ITEMS) whose keys start with `prefix` and come after `after`."""
    if not 1 <= limit <= SCAN_MAX_ITEMS:
        raise ParseError(f"a page has 1 to {SCAN_MAX_ITEMS} items")
    fields: dict[str, Any] = {"prefix": prefix, "limit": limit}
    if after is not None:
        fields["after"] = after
    return Operation(
        "scan",
        Kind.READ,
        lambda reply: Page([(key, value) for key, value in reply["items"]], reply.get("next")),
        fields=fields,
        consistency=_consistency(consistency),
    )


def set_value(key: Key, value: Any, *, ttl: float | None = None) -> Operation[bool]:
    """Always True: the value is set."""
    packed = pack(value)
    return _write("set", (key,), lambda _: True, {"value": packed.inner, **_ttl(ttl)}, packed.form)


def set_if(key: Key, value: Any, *, if_absent: bool, if_present: bool, ttl: float | None = None) -> Operation[bool]:
    """Whether the condition held and the value was set."""
    if if_absent and if_present:
        raise ParseError("if_absent and if_present exclude each other")
    packed = pack(value)
    condition = "if_absent" if if_absent else "if_present"
    fields = {"value": packed.inner, condition: True, **_ttl(ttl)}
    return _write("set", (key,), lambda reply: bool(reply["applied"]), fields, packed.form)


def delete(key: Key) -> Operation[None]:
    return _write("delete", (key,), lambda _: None, {}, Form.JSON)


def mset(values: Mapping[Any, Any], *, ttl: float | None = None) -> Operation[None]:
    """All values in one form: msgpack if any of them has bytes in it."""
    if len(values) > REQUEST_MAX_KEYS:
        raise TooLarge(f"{len(values)} keys, the limit is {REQUEST_MAX_KEYS}")
    packed = {canonical_key(key): pack(value) for key, value in values.items()}
    form = Form.MSGPACK if any(value.form is Form.MSGPACK for value in packed.values()) else Form.JSON
    if form is Form.MSGPACK:
        packed = {canonical_key(key): pack(value, form) for key, value in values.items()}
    items = {key: value.inner for key, value in packed.items()}
    return Operation("mset", Kind.WRITE, lambda _: None, keys=tuple(items), fields=_ttl(ttl), items=items, form=form)


def incr(key: Key, by: int = 1) -> Operation[int]:
    """The new value."""
    if isinstance(by, bool) or not isinstance(by, int) or not -(1 << 63) <= by < 1 << 63:
        raise ParseError("`by` is an integer of 64 bits")
    return _write("incr", (key,), lambda reply: int(reply["value"]), {"by": by}, Form.JSON)


def cas(
    key: Key, value: Any, *, expected: Any = MISSING, version: int | None = None, ttl: float | None = None
) -> Operation[CasResult]:
    """Set if the value is `expected` now, or its version `version` (0 = absent). Exactly one of the two is given."""
    if (expected is MISSING) == (version is None):
        raise ParseError("cas needs either `expected` or `version`")
    packed = pack(value)
    fields: dict[str, Any] = {**_ttl(ttl)}
    form = packed.form
    if version is None:
        old: Packed = pack(expected)
        if old.form is not form:  # one of them has bytes in it, and both stand in one request
            form = Form.MSGPACK
            packed, old = pack(value, form), pack(expected, form)
        fields["expected"] = old.inner
    else:
        fields["version"] = version
    fields["value"] = packed.inner
    return _write("cas", (key,), lambda reply: CasResult(bool(reply["applied"]), int(reply["version"] or 0)), fields, form)


def result(key: "Key | OutcomeUnknown", client: str | None = None, seq: int | None = None) -> Operation[Outcome]:
    """What became of a write: of the one that an OutcomeUnknown names, or by key, client and seq."""
    if isinstance(key, OutcomeUnknown):
        unknown = key
        if unknown.key is None:
            raise ParseError("this OutcomeUnknown does not name its request")
        key, client, seq = unknown.key, unknown.client, unknown.seq
    if client is None or seq is None:
        raise ParseError("result needs `client` and `seq`")

    def finish(reply: dict[str, Any]) -> Outcome:
        value = reply.get("value")
        return Outcome(str(reply["outcome"]), None if value is None else int(value), reply.get("version"))

    fields = {"client": client, "seq": seq}
    return Operation("result", Kind.QUESTION, finish, keys=(canonical_key(key),), fields=fields)


def publish(events: list[list[Any]]) -> Operation[int]:
    """How many events were accepted. Samples carry (run, seq), so that repeating the request changes nothing."""
    if len(events) > PUBLISH_MAX_EVENTS:
        raise TooLarge(f"{len(events)} events, the limit is {PUBLISH_MAX_EVENTS}")
    return Operation("publish", Kind.QUESTION, lambda reply: int(reply["accepted"]), fields={"events": events}, form=Form.MSGPACK)


def ask(cmd: str, name: str | None = None) -> Operation[Any]:
    """A command without arguments; the field `name` of its reply, or the whole map without what every reply has."""

    def finish(reply: dict[str, Any]) -> Any:
        if name is not None:
            return reply[name]
        return {key: value for key, value in reply.items() if key not in ("id", "position", "positions")}

    return Operation(cmd, Kind.QUESTION, finish)


def _read(cmd: str, keys: Iterable[Key], finish: Callable[[dict[str, Any]], T], consistency: str | None) -> Operation[T]:
    wanted = tuple(canonical_key(key) for key in keys)
    return Operation(cmd, Kind.READ, finish, keys=wanted, consistency=_consistency(consistency))


def _write(
    cmd: str, keys: Iterable[Key], finish: Callable[[dict[str, Any]], T], fields: Mapping[str, Any], form: Form
) -> Operation[T]:
    return Operation(cmd, Kind.WRITE, finish, keys=tuple(canonical_key(key) for key in keys), fields=fields, form=form)


def _consistency(name: str | None) -> str | None:
    if name is None or name in CONSISTENCIES:
        return name
    raise ParseError(f"`consistency` is one of {', '.join(CONSISTENCIES)}")


def _ttl(seconds: float | None) -> dict[str, Any]:
    return {} if seconds is None else {"ttl": seconds}
