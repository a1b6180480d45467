"""Write commands: requests → events in lanes, acknowledgements and outcomes → replies. [S]

set, delete and mset are answered at the log's acknowledgement (unless the lane wants their outcome, see writes.py); incr,
cas, conditional set and result when their outcome as applied is known.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dimint import limits
from dimint.batch import NewEvent
from dimint.door import Outcome
from dimint.errors import (
    NotApplied,
    NotInteger,
    OutcomeForgotten,
    OutcomeUnknown,
    ParseError,
    Partial,
    RequestError,
    Superseded,
    TooLarge,
)
from dimint.events import MODE_ABSENT, MODE_ANY, MODE_PRESENT
from dimint.overlord.pending import Pending, PendingTable
from dimint.overlord.writes import Entry, Lane
from dimint.wire import failed, reply, ttl_ms, was_set
from dimint.wire_types import Cas, Delete, Incr, Mset, Result, Set

__all__ = ["KeyValueWrites"]

PART_MAX_BYTES = limits.RECORD_MAX_BYTES - (256 << 10)
"""Most bytes of one mset in one partition: it stays in one record."""

_WRITE_FAILED: Mapping[str, type[RequestError]] = {
    "superseded": Superseded,
    "unused": Superseded,
    "forgotten": OutcomeForgotten,
    "not_integer": NotInteger,
}
_MESSAGES = {
    "superseded": "a later request of this client was applied first",
    "unused": "`result` settled that this request is never applied",
    "forgotten": "what became of this request is not known any more",
    "not_integer": "the value is not an integer",
}


class _Mset:
    """What is left of an mset: parts to come, keys that failed, tokens."""

    __slots__ = ("failed", "left", "tokens")

    def __init__(self, parts: dict[int, list[str]]) -> None:
        self.left = parts
        self.failed: dict[str, RequestError] = {}
        self.tokens: list[str] = []


class KeyValueWrites:
    """The write commands of the key-value store. `partition_of` maps a key to its lane's index."""

    def __init__(self, table: PendingTable, lanes: Sequence[Lane], partition_of: Callable[[str], int]) -> None:
        self._table, self._lanes, self._partition_of = table, lanes, partition_of

    # --- requests ----------------------------------------------------------------------------------------------------
    def set(self, pending: Pending) -> None:
        request: Set = pending.request
        stored = pending.form.store(request.value)
        key = request.key.encode()
        lane = self._lanes[self._partition_of(request.key)]
        size = len(key) + len(stored)
        if request.client is None and not request.if_absent and not request.if_present:
            ttl = None if request.ttl is None else ttl_ms(request.ttl)
            lane.add(pending, ["kv.set", request.key, 0, 0, None, stored, ttl, MODE_ANY], size, self._set_done)
            return
        if request.if_absent and request.if_present:
            raise ParseError("`if_absent` and `if_present` exclude each other")
        mode = MODE_ABSENT if request.if_absent else MODE_PRESENT if request.if_present else MODE_ANY
        event = ["kv.set", request.key, 0, 0, request.seq, stored, ttl_ms(request.ttl), mode]
        self._add(lane, pending, event, size, self._set_done if mode == MODE_ANY else self._condition_done, mode != MODE_ANY)

    def delete(self, pending: Pending) -> None:
        request: Delete = pending.request
        key = request.key.encode()
        lane = self._lanes[self._partition_of(request.key)]
        self._add(lane, pending, ["kv.delete", request.key, 0, 0, request.seq], len(key), self._delete_done, False)

    def incr(self, pending: Pending) -> None:
        request: Incr = pending.request
        key = request.key.encode()
        lane = self._lanes[self._partition_of(request.key)]
        self._add(lane, pending, ["kv.incr", request.key, 0, 0, request.seq, request.by], len(key), self._incr_done, True)

    def cas(self, pending: Pending) -> None:
        request: Cas = pending.request
        stored = pending.form.store(request.value)
        expected = pending.form.store(request.expected) if request.version is None else None
        key = request.key.encode()
        lane = self._lanes[self._partition_of(request.key)]
        event = ["kv.cas", request.key, 0, 0, request.seq, expected, request.version, stored, ttl_ms(request.ttl)]
        self._add(lane, pending, event, len(key) + len(stored) + len(expected or b""), self._condition_done, True)

    def result(self, pending: Pending) -> None:
        request: Result = pending.request
        key = request.key.encode()
        lane = self._lanes[self._partition_of(request.key)]
        # seq is not passed on: settling what became of a request is not that request
        lane.add_all(
            pending,
            [["kv.resolve", request.key, 0, 0, request.seq]],
            len(key),
            self._result_done,
            client=request.client,
            seq=None,
            wants_outcome=True,
        )
        lane.remember(request.client or "", request.seq or 0)

    def mset(self, pending: Pending) -> None:
        request: Mset = pending.request
        store, seq, ttl = pending.form.store, request.seq, ttl_ms(request.ttl)
        partition_of = self._partition_of
        events: dict[int, list[NewEvent]] = {}
        sizes: dict[int, int] = {}
        for key, value in request.values.items():
            stored = store(value)
            raw = key.encode()
            partition = partition_of(key)
            size = len(raw) + len(stored)
            event = ["kv.set", key, 0, 0, seq, stored, ttl, MODE_ANY]
            if partition in events:
                events[partition].append(event)
                sizes[partition] += size
            else:
                events[partition], sizes[partition] = [event], size
        if not events:
            self._table.finish(pending, reply(pending.form, request, {"ok": True, "count": 0}, positions=[]))
            return
        if any(size + 64 * len(events[partition]) > PART_MAX_BYTES for partition, size in sizes.items()):
            raise TooLarge(f"more than {PART_MAX_BYTES} bytes of keys and values in one partition")
        pending.gather = _Mset({partition: [event[1] for event in mine] for partition, mine in events.items()})
        for partition, mine in events.items():
            self._lanes[partition].add_all(
                pending,
                mine,
                sizes[partition],
                self._mset_done,
                client=request.client,
                seq=seq,
                wants_outcome=False,
                tag=partition,
            )

    def overdue(self, pending: Pending) -> None:
        """Its deadline is over: unknown if any of it was handed to the log, else it will not happen."""
        error = self._overdue_error(pending)
        if isinstance(pending.gather, _Mset):
            for partition in list(pending.gather.left):
                self._mset_part(pending, partition, "", error)
        else:
            self._table.fail(pending, error)

    # --- answers -----------------------------------------------------------------------------------------------------
    def _add(self, lane: Lane, pending: Pending, event: NewEvent, size: int, done: Any, wants_outcome: bool) -> None:
        request = pending.request
        lane.add_all(pending, [event], size, done, client=request.client, seq=request.seq, wants_outcome=wants_outcome)

    def _set_done(self, entry: Entry, token: str, outcome: Outcome | RequestError | None) -> None:
        pending = entry.pending
        if outcome is None or (error := _plain_error_of(outcome)) is None:
            self._table.finish(pending, was_set(pending.form, pending.request, token))
        else:
            self._table.fail(pending, error)

    def _delete_done(self, entry: Entry, token: str, outcome: Outcome | RequestError | None) -> None:
        pending = entry.pending
        if outcome is None or (error := _plain_error_of(outcome)) is None:
            self._table.finish(pending, reply(pending.form, pending.request, {"ok": True}, position=token))
        else:
            self._table.fail(pending, error)

    def _incr_done(self, entry: Entry, token: str, outcome: Outcome | RequestError | None) -> None:
        pending = entry.pending
        error = _error_of(outcome)
        if error is None and (not isinstance(outcome, Outcome) or outcome.value is None):
            error = ParseError("this seq was used for another command")
        if error is not None:
            self._table.fail(pending, error)
            return
        assert isinstance(outcome, Outcome)
        fields: dict[str, Any] = {"value": None, "version": outcome.version or 0}
        try:
            fields["value"] = pending.form.load(b"J" + (outcome.value or "").encode())
        except RequestError as refused:  # applied, but too long for msgpack
            self._table.fail(pending, refused)
            return
        self._table.finish(pending, reply(pending.form, pending.request, fields, position=token))

    def _condition_done(self, entry: Entry, token: str, outcome: Outcome | RequestError | None) -> None:
        pending = entry.pending
        error = _error_of(outcome)
        if error is not None:
            self._table.fail(pending, error)
            return
        assert isinstance(outcome, Outcome)
        fields = {"applied": outcome.name == "applied", "version": outcome.version or 0}
        self._table.finish(pending, reply(pending.form, pending.request, fields, position=token))

    def _result_done(self, entry: Entry, token: str, outcome: Outcome | RequestError | None) -> None:
        pending = entry.pending
        if not isinstance(outcome, Outcome):
            self._table.fail(pending, outcome or OutcomeUnknown("the outcome did not come"))
            return
        fields: dict[str, Any] = {"outcome": outcome.name}
        try:
            if outcome.value is not None:
                fields["value"] = pending.form.load(b"J" + outcome.value.encode())
        except RequestError as refused:
            self._table.fail(pending, refused)
            return
        if outcome.version is not None:
            fields["version"] = outcome.version
        self._table.finish(pending, reply(pending.form, pending.request, fields, position=token))

    def _mset_done(self, entry: Entry, token: str, outcome: Outcome | RequestError | None) -> None:
        self._mset_part(entry.pending, entry.tag, token, None if outcome is None else _plain_error_of(outcome))

    def _mset_part(self, pending: Pending, partition: int, token: str, error: RequestError | None) -> None:
        state: _Mset = pending.gather
        keys = state.left.pop(partition, None)
        if keys is None or pending.reply is not None:
            return
        if error is None:
            state.tokens.append(token)
        else:
            state.failed.update(dict.fromkeys(keys, error))
        if state.left:
            return
        request, form = pending.request, pending.form
        if not state.failed:
            fields: dict[str, Any] = {"ok": True, "count": len(request.values)}
            self._table.finish(pending, reply(form, request, fields, positions=state.tokens))
        elif len(state.failed) == len(request.values) and len({error.code for error in state.failed.values()}) == 1:
            self._table.fail(pending, next(iter(state.failed.values())))
        else:
            names = {key: error.code for key, error in state.failed.items()}
            partial = Partial(f"{len(names)} of {len(request.values)} keys failed")
            self._table.finish(pending, failed(form, request, partial, failed=names))

    @staticmethod
    def _overdue_error(pending: Pending) -> RequestError:
        if pending.handed:
            return OutcomeUnknown("the log did not answer in time")
        return NotApplied("the log took nothing in time")


def _error_of(outcome: Outcome | RequestError | None) -> RequestError | None:
    """The error in an outcome; None for what was applied, or was not because of its condition."""
    if outcome is None:
        return OutcomeUnknown("the outcome did not come")
    if not isinstance(outcome, Outcome):
        return outcome
    cls = _WRITE_FAILED.get(outcome.name)
    return None if cls is None else cls(_MESSAGES[outcome.name])


def _plain_error_of(outcome: Outcome | RequestError) -> RequestError | None:
    """The error in the outcome of a write without a condition."""
    if isinstance(outcome, Outcome) and outcome.name == "condition":
        return ParseError("this seq was used for another command")
    return _error_of(outcome)
