"""What the pages of the store show: keys with their values, the changes of a key, differences; and their JSON. [S]"""

import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgpack

from dimint.client.content import Form, pack, to_text
from dimint.client.past import Difference, PastChange
from dimint.webapp.times import iso_us

__all__ = ["DiffView", "KeyView", "KeysView", "body_of", "change_fields", "keys_json", "restore_command", "short", "writer_of"]

SHORT_CHARS: Final = 160
Row: TypeAlias = tuple[str, Any, PastChange | None]
"""A key, its value, and what had set it where that is known."""


@dataclass(frozen=True, slots=True)
class KeysView:
    """One page of the keys with a prefix; `at_us` None is now. `next` is the key behind which the next page begins."""

    prefix: str
    at_us: int | None
    rows: Sequence[Row]
    next: str | None


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key at a time (None: now), what had set it (None: it was not there), and a page of its changes, newest first."""

    key: str
    at_us: int | None
    change: PastChange | None
    changes: Sequence[PastChange]
    next: str | None


@dataclass(frozen=True, slots=True)
class DiffView:
    """One page of the keys that differ between two times."""

    prefix: str
    from_us: int
    to_us: int
    found: Sequence[Difference]
    next: str | None


def value_fields(value: Any) -> dict[str, Any]:
    """A value in JSON: what JSON cannot carry as the base64 of its msgpack, as the client protocol has it."""
    if pack(value).form is Form.JSON:
        return {"value": value}
    return {"value_msgpack": b64encode(msgpack.packb(value)).decode()}


def change_fields(change: PastChange | None) -> dict[str, Any] | None:
    """A change in JSON; a removal has no value."""
    if change is None:
        return None
    return {
        "kind": change.kind, "key": change.key, **({} if change.removed else value_fields(change.value)),
        "version": change.version, "time": iso_us(change.log_time_us), "log_time_us": change.log_time_us,
        "position": change.position, "index": change.index, "by": change.by._asdict(),
    }  # fmt: skip


def keys_json(view: KeysView) -> dict[str, Any]:
    """A page of keys; those of now have no change."""
    return {
        "prefix": view.prefix, "at": None if view.at_us is None else iso_us(view.at_us), "next": view.next,
        "keys": [change_fields(change) or {"key": key, **value_fields(value)} for key, value, change in view.rows],
    }  # fmt: skip


def body_of(fields: Mapping[str, Any]) -> bytes:
    """JSON text, integers of any length exact."""
    return to_text(fields).encode()


def short(value: Any, chars: int = SHORT_CHARS) -> str:
    """The beginning of a value's JSON."""
    text = to_text(value)
    return text if len(text) <= chars else text[: chars - 1] + "…"


def writer_of(change: PastChange) -> str:
    """`client@host`, or `process@host`."""
    return f"{change.by.client or change.by.process}@{change.by.host}"


def restore_command(at_us: int, key: str) -> str:
    """What brings the key back to that time, for a shell."""
    return f"dimint restore --to {iso_us(at_us)} --key {shlex.quote(key)}"
