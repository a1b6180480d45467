"""Questions for the past: a key or keys at a time, the history of a key, what differs between two times. [S]

Times are log times. A moment is a text (dimint/when.py: "-2h", "yesterday 14:00", "20181130232947", ISO 8601), a datetime
with a zone, or seconds since 1970, UTC; or positions, "dimint.kv/3@1234" as a change has them, several with commas: after
the record there. Keys of partitions that positions do not name are left out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from dimint.client.content import canonical_key, carried_value
from dimint.client.operations import Key, Kind, Operation
from dimint.errors import BadTime, ParseError
from dimint.limits import SCAN_MAX_ITEMS
from dimint.when import TIME_MAX_NS, parse_time

__all__ = [
    "CURSOR",
    "Difference",
    "Moment",
    "PastChange",
    "PastPage",
    "Then",
    "Writer",
    "diff_page",
    "get_at",
    "history_page",
    "scan_page",
    "then_of",
]

T = TypeVar("T")
Moment: TypeAlias = str | datetime | float
Then: TypeAlias = int | str
"""As the wire has it: a log time in µs, or positions."""
PAGE: Final = 200
CURSOR: Final = re.compile(r"[0-9]{1,18}\.[0-9]{1,9}", re.ASCII)
"""`after` of a history."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Writer(NamedTuple):
    """Who wrote: the client's id if it gave one, and the host and process that appended it to the log."""

    client: str | None
    host: str
    process: str


@dataclass(frozen=True, slots=True)
class PastChange:
    """One change of a key as it counted.

    kind         "set", "cas", "incr", "delete" or "expire"
    value        what the key had from then on; None if it was removed (see `removed`)
    version      the key's version from then on; of a removed one the version that went
    log_time_us  when the log took it, µs since 1970, UTC
    position, index   where it stands: "dimint.kv/3@1234", as `dimint events --from` takes it, and its place in the batch
    """

    kind: str
    key: str
    value: Any
    version: int
    log_time_us: int
    position: str
    index: int
    by: Writer

    @property
    def removed(self) -> bool:
        return self.kind in ("delete", "expire")

    @property
    def time(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.log_time_us)


class Difference(NamedTuple):
    """A key that is another at the later time; None: it was not there."""

    key: str
    before: PastChange | None
    after: PastChange | None


class PastPage(NamedTuple):
    """One page; `next` None on the last one."""

    items: list[Any]
    next: str | None


def then_of(moment: Moment, *, now_ns: int, zone: tzinfo) -> Then:
    """A moment as the wire has it; positions are the overlord's to judge. Raises BadTime."""
    if isinstance(moment, str):
        return moment if "/" in moment else parse_time(moment, now_ns=now_ns, zone=zone) // 1000
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise BadTime("a datetime needs a time zone")
        found = (moment - _EPOCH) // timedelta(microseconds=1)
    else:
        try:
            found = round(moment * 1_000_000)
        except (ValueError, OverflowError):
            found = -1
    if not 0 <= found <= TIME_MAX_NS // 1000:
        raise BadTime(f"{moment} is not between 1970 and 9999")
    return found


def get_at(key: Key, at: Then, pick: Callable[[PastChange | None], T]) -> Operation[T]:
    """What `pick` makes of the change that set the key as it was; of None if it was not there."""

    def finish(reply: dict[str, Any]) -> T:
        return pick(_change(reply.get("change")))

    return _question("get_at", {"key": canonical_key(key), "at": at}, finish)


def scan_page(prefix: str, at: Then, *, after: str | None, limit: int) -> Operation[PastPage]:
    """The keys that start with `prefix` as they were, as PastChange each."""
    return _question("scan_at", {"prefix": prefix, "at": at, **_page(after, limit)}, _changes)


def history_page(
    key: Key, *, start: Then, end: Then | None, newest_first: bool, after: str | None, limit: int
) -> Operation[PastPage]:
    """Changes of a key, as PastChange each."""
    fields = {"key": canonical_key(key), "from": start, "newest_first": newest_first, **_page(after, limit)}
    return _question("history", fields if end is None else {**fields, "to": end}, _changes)


def diff_page(prefix: str, *, start: Then, end: Then | None, after: str | None, limit: int) -> Operation[PastPage]:
    """Keys that differ, as Difference each."""

    def finish(reply: dict[str, Any]) -> PastPage:
        found = [Difference(one["key"], _change(one["before"]), _change(one["after"])) for one in reply["differences"]]
        return PastPage(found, reply.get("next"))

    fields = {"prefix": prefix, "from": start, **_page(after, limit)}
    return _question("diff", fields if end is None else {**fields, "to": end}, finish)


def _question(cmd: str, fields: Mapping[str, Any], finish: Callable[[dict[str, Any]], T]) -> Operation[T]:
    return Operation(cmd, Kind.QUESTION, finish, fields=fields, wants_tokens=True)


def _page(after: str | None, limit: int) -> dict[str, Any]:
    if not 1 <= limit <= SCAN_MAX_ITEMS:
        raise ParseError(f"a page has 1 to {SCAN_MAX_ITEMS} items")
    return {"limit": limit} if after is None else {"limit": limit, "after": after}


def _changes(reply: dict[str, Any]) -> PastPage:
    return PastPage([_change(one) for one in reply["changes"]], reply.get("next"))


def _change(fields: Mapping[str, Any] | None) -> PastChange | None:
    if fields is None:
        return None
    by = fields["by"]
    return PastChange(
        fields["kind"],
        fields["key"],
        carried_value(fields),
        fields["version"],
        fields["log_time_us"],
        fields["position"],
        fields["index"],
        Writer(by["client"], by["host"], by["process"]),
    )
