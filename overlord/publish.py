"""`publish`: events of agents that cannot reach the log, checked and put into the status lanes. [S]"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from dimint.batch import KEY, NewEvent
from dimint.door import Outcome
from dimint.errors import NotApplied, OutcomeUnknown, ParseError, RequestError, TooLarge
from dimint.events import STATUS_TOPIC, problem_of
from dimint.limits import SAMPLE_MAX_BYTES
from dimint.overlord.pending import Pending, PendingTable
from dimint.overlord.writes import Entry, Lane
from dimint.wire import reply
from dimint.wire_types import Publish

__all__ = ["ALLOWED_KINDS", "Publisher", "checked"]

ALLOWED_KINDS = frozenset(
    "host.registered host.sample host.gap gpu.lost gpu.back gpu.xid".split()
    + "driver.changed agent.started agent.stopped clock.stepped".split()
)
_HOST_ID = re.compile("[0-9a-f]{32}")
TIME_MAX_NS = 1 << 63
RUN_BYTES = 8


class Publisher:
    """Events grouped by status partition; answered when every group is acknowledged."""

    def __init__(self, table: PendingTable, lanes: Sequence[Lane], partition_of: Callable[[str], int]) -> None:
        self._table, self._lanes, self._partition_of = table, lanes, partition_of

    def publish(self, pending: Pending) -> None:
        request: Publish = pending.request
        made = [checked(event) for event in request.events]
        if not made:
            self._table.finish(pending, reply(pending.form, request, {"accepted": 0}))
            return
        pending.gather = len(made)
        for event, size in made:
            lane = self._lanes[self._partition_of(event[KEY])]
            lane.add_all(pending, [event], size, self._done, client=request.client, seq=None, wants_outcome=False)

    def overdue(self, pending: Pending) -> None:
        """Its deadline is over."""
        error = OutcomeUnknown("the log did not answer in time") if pending.handed else NotApplied("the log took nothing in time")
        self._table.fail(pending, error)

    def _done(self, entry: Entry, token: str, outcome: Outcome | RequestError | None) -> None:
        pending = entry.pending
        if isinstance(outcome, RequestError):
            self._table.fail(pending, outcome)
            return
        pending.gather -= 1
        if not pending.gather:
            self._table.finish(pending, reply(pending.form, pending.request, {"accepted": len(pending.request.events)}))


def checked(event: Sequence[Any]) -> tuple[NewEvent, int]:
    """`[kind, host id, time_ns, field, …]` as an event with its absolute time, and its size in bytes.

    Raises ParseError or TooLarge.
    """
    if len(event) < 3 or type(event[0]) is not str or event[0] not in ALLOWED_KINDS:
        raise ParseError("an event is [kind, host id, time_ns, field, …] of a kind that may be published")
    kind, host, time_ns, *fields = event
    if type(host) is not str or _HOST_ID.fullmatch(host) is None:
        raise ParseError("a host id is 32 hex digits")
    if type(time_ns) is not int or not 0 <= time_ns < TIME_MAX_NS:
        raise ParseError("an event's time is in ns since the epoch")
    made = [kind, host, time_ns, 0, *fields]
    problem = problem_of(made, STATUS_TOPIC) or _problem_of(kind, fields)
    if problem is not None:
        raise ParseError(problem)
    try:
        size = len(msgpack.packb(made))
    except (ValueError, TypeError, OverflowError) as error:
        raise ParseError(f"the event cannot be stored: {error}") from error
    if size > SAMPLE_MAX_BYTES:
        raise TooLarge(f"an event of {size} bytes is over the limit of {SAMPLE_MAX_BYTES}")
    return made, size


def _problem_of(kind: str, fields: Sequence[Any]) -> str | None:
    """What no agent sends although its types are right; the fields' types have been checked."""
    if kind in ("host.sample", "host.gap"):
        run, first = fields[:2]
        if len(run) != RUN_BYTES or first < 1:
            return f"a run is {RUN_BYTES} bytes, a seq is at least 1"
        if kind == "host.gap" and fields[2] < first:
            return "a gap ends before it begins"
    return None
