"""Replies of the command `watch`: changes, and the token from which the next one goes on. [S]"""

from collections.abc import Iterable, Mapping
from typing import Any

from dimint.door import Change
from dimint.errors import PositionGone
from dimint.positions import Position, format_positions, positions_in
from dimint.wire import carried, failed, reply
from dimint.wire_types import Form, Watch

__all__ = ["gone", "watched", "where_to_begin"]


def where_to_begin(request: Watch, generation: str, partitions: Iterable[int], count: int) -> dict[int, Position | None]:
    """Partition → where a watch goes on in it, None to begin now. Raises ParseError or WrongLog."""
    known = {} if request.from_ is None else positions_in(request.from_, generation, count)
    return {partition: known.get(partition) for partition in partitions}


def watched(
    form: Form,
    request: Watch,
    generation: str,
    positions: Mapping[int, Position],
    changes: Iterable[tuple[int, list[Change]]],
) -> bytes:
    """The reply: changes by partition, and the positions that they reach to."""
    fields: dict[str, Any] = {
        "changes": [_fields(form, generation, partition, one) for partition, some in changes for one in some],
        "token": format_positions(generation, positions),
    }
    return reply(form, request, fields)


def gone(form: Form, request: Watch, generation: str, oldest: tuple[int, int] | None) -> bytes:
    """The error reply of a watch that was to begin before what is still known."""
    partition, offset = oldest or (0, 0)
    token = format_positions(generation, {partition: Position(offset)})
    error = PositionGone(f"the changes before {token} are not known any more; read the keys and watch from there")
    return failed(form, request, error, oldest=token)


def _fields(form: Form, generation: str, partition: int, change: Change) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": change.kind, "key": change.key}
    if change.value is not None:
        fields.update(carried(form, change.value))
    fields["version"] = change.version
    fields["log_time_us"] = change.log_time_us
    fields["position"] = format_positions(generation, {partition: Position(change.offset, change.index + 1)})
    return fields
