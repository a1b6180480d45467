"""How each write comes to count once, and its caller to know. [S]

Every write carries the client's name and a rising number (`seq`), and goes to the home overlord over one connection, so
the log has the numbers in order. A number is sent once. When its reply is lost (the overlord died, the answer was
“unknown”, patience ran out), the library asks `result`, which settles that number for ever: applied, or never to be.
Once asked, only that answer counts: an acknowledgement of the first copy that arrives later may be of a copy that came
second. A write that is known not to have happened is issued anew under a new number, unless a later write of the same
key took effect meanwhile: then it fails with DIMINT_NOT_APPLIED instead of turning the order.

Nothing new is sent while something is being settled. At most WINDOW numbers per partition are sent beyond the oldest
unanswered one, because the log's readers keep OUTCOME_WINDOW outcomes of a client.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from dimint.client.calls import Call, Todo, backoff_s
from dimint.client.content import Form
from dimint.client.network import Network, Part
from dimint.client.reads import server_timeout_s
from dimint.errors import (
    Busy,
    InternalError,
    NodeNotAvailable,
    NotApplied,
    NotInteger,
    OutcomeForgotten,
    OutcomeUnknown,
    Partial,
    RequestError,
    Superseded,
    TimedOut,
    error_for_code,
)
from dimint.limits import OUTCOME_WINDOW

__all__ = ["Unresolved", "Writes"]

WRITE_PATIENCE_S: Final = 2.0
"""After so long without a reply it counts as lost; doubles with every question that is not answered either."""
WINDOW: Final = OUTCOME_WINDOW - 8
UNRESOLVED_MAX: Final = 1000
_NOT_DONE: Final = (NotApplied, Busy, Superseded)
_PERHAPS_DONE: Final = (OutcomeUnknown, OutcomeForgotten, Partial, InternalError)
_UNKNOWN: Final = (OutcomeUnknown, NodeNotAvailable, TimedOut)


class Unresolved(NamedTuple):
    """A write whose caller was told “unknown”; `client.result(*unresolved)` settles it."""

    key: str
    client: str
    seq: int


class Writes:
    """All writes of one client. `finish(call, error)` ends a call."""

    def __init__(self, network: Network, client: str, finish: Callable[[Call, Exception | None], None]) -> None:
        self.client = client
        self.unresolved: dict[int, Unresolved] = {}
        self._network = network
        self._finish = finish
        self._last_seq = 0
        self._queue: deque[Call] = deque()
        self._anew: list[Call] = []
        self._settling: dict[int, Call] = {}
        self._newest: dict[str, Call] = {}
        self._windows: dict[int, _Window] = {}

    def start(self, call: Call, now: float) -> None:
        self._queue.append(call)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Send what may be sent: questions about earlier writes first, then repetitions, then what is new."""
        if not (self._queue or self._settling or self._anew):
            return
        if self._network.home is None:
            self._network.want_home(now)
            return
        for call in sorted(self._settling.values(), key=lambda call: call.seq or 0):
            self._ask(call, now)
        if self._settling:
            return
        while self._anew and (self._anew[0].done or self._issue_anew(self._anew[0], now)):
            self._anew.pop(0)
        while not self._anew and self._queue and (self._queue[0].done or self._issue(self._queue[0], now)):
            self._queue.popleft()

    def check(self, call: Call, now: float) -> None:
        """Settle what has been under way for too long: its reply may be lost."""
        if not call.parts or now - call.sent_at < call.patience_s:
            return
        call.patience_s *= 2
        for part in list(call.parts.values()):
            self._network.doubt_home(part.address, now)
            self._network.forget(part)
            self.lost(part, now)

    def lost(self, part: Part, now: float) -> None:
        """No reply will come; call `flush` afterwards."""
        call: Call = part.call
        if call.parts.pop(part.id, None) is None:
            return
        if part.asks_result:
            call.todo.append(Todo(now, part.keys, Form.JSON))
        else:
            self._settle(call, part.keys, now)

    def answer(self, part: Part, reply: dict[str, Any], now: float) -> None:
        """Take in a reply; ends the call if its fate is known now."""
        call: Call = part.call
        if call.parts.pop(part.id, None) is None:
            return
        error = error_for_code(str(reply["error"]), str(reply.get("message") or "")) if "error" in reply else None
        if part.asks_result:
            self._take_result(call, part, reply, error, now)
        elif isinstance(error, Partial):
            for key, code in dict(reply.get("failed") or {}).items():
                self._take_error(call, (key,), error_for_code(str(code)), now)
        elif error is not None:
            self._take_error(call, part.keys, error, now)
        else:
            call.reply = reply
        self._progress(call, now)
        self.flush(now)

    def expired(self, call: Call) -> Exception:
        """What a call that ran out of time ends with: certainly not applied, unknown, or for an mset a bit of each."""
        unsure = {key for part in call.parts.values() for key in part.keys} | {key for todo in call.todo for key in todo.keys}
        if call.seq is None or not unsure:
            if call.op.items is not None and call.seq is not None and len(call.again) < len(call.op.keys):
                return self._partial(call, set())
            if isinstance(call.problem, _NOT_DONE):
                return call.problem
            if self._network.home is None:
                return self._network.nobody(NotApplied, more=", nothing was sent")
            return NotApplied("it could not be sent in time")
        key = next(key for key in call.op.keys if key in unsure)
        self._remember(Unresolved(key, self.client, call.seq))
        if len(unsure) < len(call.op.keys):
            return self._partial(call, unsure)
        error = OutcomeUnknown("no answer in time; the write may or may not happen", hint="ask `result` what became of it")
        error.key, error.client, error.seq = key, self.client, call.seq
        return error

    def end(self, call: Call) -> None:
        """The call is done: forget what it still had under way."""
        for part in call.parts.values():
            self._network.forget(part)
        self._settling.pop(call.number, None)
        for key in call.op.keys:
            if self._newest.get(key) is call:
                del self._newest[key]
        for partition in call.partitions:
            self._windows[partition].open.pop(call.number, None)

    # --- sending -----------------------------------------------------------------------------------------------------
    def _issue(self, call: Call, now: float) -> bool:
        """Send under a new number; False if it has to wait."""
        topology, home = self._network.topology, self._network.home
        if home is None or topology is None or (call.todo and call.todo[0].not_before > now):
            return False
        keys = tuple(call.again) or call.op.keys
        if not call.partitions:
            call.partitions = tuple({topology.partition_of(key): None for key in keys})
        windows = [self._windows.setdefault(partition, _Window()) for partition in call.partitions]
        if any(window.is_full(call) for window in windows):
            return False
        part = Part(self._network.next_id(), home, keys, call.op.form, now, call)
        request = call.op.request(keys)
        request["client"], request["seq"] = self.client, self._last_seq + 1
        request["timeout"] = server_timeout_s(call.deadline, now)
        try:
            self._network.send(part, request, now)
        except RequestError as error:
            self._finish(call, error)
            return True
        self._last_seq += 1
        call.seq, call.sent_at, call.patience_s = self._last_seq, now, WRITE_PATIENCE_S
        call.again, call.todo = [], []
        call.parts[part.id] = part
        for window in windows:
            window.take(call)
        for key in call.op.keys:
            earlier = self._newest.get(key)
            if earlier is None or earlier.number < call.number:
                self._newest[key] = call
                if earlier is not None:
                    earlier.successors.append(call)
        return True

    def _issue_anew(self, call: Call, now: float) -> bool:
        """Repeat a write that did not happen, or end it if that would turn the order; False if it has to wait."""
        seen: set[int] = set()
        later = list(call.successors)
        while later:
            one = later.pop()
            if one.number not in seen:
                seen.add(one.number)
                later += one.successors
                if not one.done and not _is_undone(one):
                    return False
                if not _is_undone(one):
                    self._finish(call, NotApplied("it did not happen, and is not repeated after a later write of its key"))
                    return True
        return self._issue(call, now)

    def _settle(self, call: Call, keys: Iterable[str], now: float, pause_s: float = 0.0) -> None:
        """Ask what became of these keys of its last number: one question per partition."""
        groups: dict[int | str, list[str]] = {}
        topology = self._network.topology
        for key in keys:
            groups.setdefault(topology.partition_of(key) if topology else key, []).append(key)
        call.todo += [Todo(now + pause_s, tuple(group), Form.JSON) for group in groups.values()]
        self._settling[call.number] = call

    def _ask(self, call: Call, now: float) -> None:
        home = self._network.home
        assert home is not None
        todo, call.todo = call.todo, []
        for item in todo:
            if item.not_before > now:
                call.todo.append(item)
                continue
            part = Part(self._network.next_id(), home, item.keys, Form.JSON, now, call, asks_result=True)
            request: dict[str, Any] = {"cmd": "result", "key": item.keys[0], "client": self.client, "seq": call.seq}
            request["timeout"] = server_timeout_s(call.deadline, now)
            self._network.send(part, request, now)
            call.parts[part.id] = part
            call.sent_at = now

    # --- taking in ---------------------------------------------------------------------------------------------------
    def _take_result(self, call: Call, part: Part, reply: dict[str, Any], error: RequestError | None, now: float) -> None:
        if error is not None:
            if error.retriable:
                call.problem = error
                call.tries += 1
                call.todo.append(Todo(now + backoff_s(call.tries), part.keys, Form.JSON))
            else:
                call.failed.update(dict.fromkeys(part.keys, error))
            return
        outcome = reply.get("outcome")
        if outcome in ("applied", "condition"):
            call.reply = {**reply, "applied": outcome == "applied"}
        elif outcome in ("unused", "superseded"):
            call.again += part.keys
        elif outcome == "not_integer":
            call.failed.update(dict.fromkeys(part.keys, NotInteger("the value is not an integer")))
        else:
            call.failed.update(dict.fromkeys(part.keys, OutcomeForgotten("what became of the write is not known any more")))

    def _take_error(self, call: Call, keys: tuple[str, ...], error: RequestError, now: float) -> None:
        """An error in place of a write's reply. Only these keys are concerned."""
        if isinstance(error, _NOT_DONE):
            call.problem = error
            call.again += keys
        elif isinstance(error, _UNKNOWN):
            call.problem = error
            call.tries += 1
            self._settle(call, keys, now, backoff_s(call.tries))
        else:
            call.failed.update(dict.fromkeys(keys, error))

    def _progress(self, call: Call, now: float) -> None:
        """End the call, or issue it anew, if nothing of it is uncertain."""
        if call.parts or call.todo:
            return
        self._settling.pop(call.number, None)
        if call.again:
            call.tries += 1
            call.todo = [Todo(now + backoff_s(call.tries), (), Form.JSON)]
            insort(self._anew, call, key=lambda call: call.number)
        elif call.failed:
            alone = call.op.items is None or len(call.failed) == len(call.op.keys) == 1
            self._finish(call, next(iter(call.failed.values())) if alone else self._partial(call, set()))
        else:
            self._finish(call, None)

    def _partial(self, call: Call, unsure: set[str]) -> Partial:
        failed = {key: getattr(error, "code", "DIMINT_INTERNAL") for key, error in call.failed.items()}
        failed.update(dict.fromkeys(call.again, NotApplied.code))
        failed.update(dict.fromkeys(unsure, OutcomeUnknown.code))
        return Partial(f"{len(failed)} of {len(call.op.keys)} keys were not written", failed=failed)

    def _remember(self, unresolved: Unresolved) -> None:
        self.unresolved[unresolved.seq] = unresolved
        if len(self.unresolved) > UNRESOLVED_MAX:
            del self.unresolved[next(iter(self.unresolved))]


def _is_undone(call: Call) -> bool:
    """Whether nothing of a write happened, for sure (so far)."""
    if call.done:
        return isinstance(call.error, RequestError) and not isinstance(call.error, _PERHAPS_DONE)
    return len(call.again) == len(call.op.keys)


class _Window:
    """Writes of one partition: how many were issued, and at which count each unanswered one was (oldest first)."""

    __slots__ = ("count", "open")

    def __init__(self) -> None:
        self.count = 0
        self.open: dict[int, int] = {}

    def is_full(self, call: Call) -> bool:
        if not self.open:
            return False
        oldest = next(iter(self.open))
        return oldest != call.number and self.count - self.open[oldest] >= WINDOW

    def take(self, call: Call) -> None:
        self.open.pop(call.number, None)
        self.open[call.number] = self.count
        self.count += 1
