"""The commands of the past: what is asked of who keeps the history, and the replies. [S]"""

from typing import Any

from dimint.door_past import Ask, PastChange, Place, Told
from dimint.errors import BadPosition, ParseError
from dimint.events import KV_TOPIC
from dimint.replay.positions import format_position, kv_positions
from dimint.wire import carried, format_token, reply
from dimint.wire_types import Diff, Form, GetAt, History, ScanAt

__all__ = ["question", "told_reply"]

_LAST_US = (1 << 63) - 1


def question(
    request: GetAt | ScanAt | History | Diff, id: int, partition: int, offsets: list[tuple[int, int]], wait_ms: int
) -> Ask:
    """What a request asks of a historian. Raises ParseError for positions that are none."""
    rest: dict[str, Any] = {"partition": partition, "min_offsets": offsets, "wait_ms": wait_ms}
    if isinstance(request, GetAt):
        return Ask(id, "get", request.key, 0, _place(request.at), 1, **rest)
    if isinstance(request, ScanAt):
        return Ask(id, "scan", request.prefix, 0, _place(request.at), request.limit, request.after, **rest)
    start, end = _place(request.from_), _LAST_US if request.to is None else _place(request.to)
    if isinstance(request, Diff):
        return Ask(id, "diff", request.prefix, start, end, request.limit, request.after, **rest)
    return Ask(id, "history", request.key, start, end, request.limit, request.after, request.newest_first, **rest)


def _place(given: int | str) -> Place:
    if isinstance(given, int):
        return given
    try:
        return sorted(kv_positions(given).items())
    except BadPosition as error:
        raise ParseError(error.message) from error


def told_reply(form: Form, request: GetAt | ScanAt | History | Diff, generation: str, told: Told) -> bytes:
    """The reply that a historian's answer makes."""
    fields: dict[str, Any]
    if isinstance(request, Diff):
        fields = {"differences": [_difference(form, *row) for row in told.rows], "next": told.next}
    else:
        changes = [_fields(form, change) for _, change in told.rows]
        fields = {"change": changes[0]} if isinstance(request, GetAt) else {"changes": changes, "next": told.next}
    return reply(form, request, fields, positions=[format_token(generation, *place) for place in told.positions])


def _difference(form: Form, before: PastChange | None, after: PastChange | None) -> dict[str, Any]:
    either = before or after
    assert either is not None
    return {"key": either.key, "before": _fields(form, before), "after": _fields(form, after)}


def _fields(form: Form, change: PastChange | None) -> dict[str, Any] | None:
    if change is None:
        return None
    fields: dict[str, Any] = {"kind": change.kind, "key": change.key}
    if change.value is not None:
        fields.update(carried(form, change.value))
    fields["version"] = change.version
    fields["log_time_us"] = change.log_time_us
    fields["position"] = format_position(KV_TOPIC, change.partition, change.offset)
    fields["index"] = change.index
    fields["by"] = {"client": change.client, "host": change.host, "process": change.process}
    return fields
