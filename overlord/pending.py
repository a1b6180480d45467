"""Requests under way, and the order of their replies. [S]

Replies of one connection leave in the order of its requests; a request with an `id` is free from the order and may even
overtake. Every request ends in exactly one reply: `finish` may be called again, later calls do nothing.

What is made for every single `set` is a struct of msgspec, here and elsewhere: a quarter of what a NamedTuple or a class with
slots costs. The collector of garbage need not look at them: a request's place in its line is given up when it is answered.
"""

from collections import deque
from typing import Any

import msgspec

from dimint import limits
from dimint.errors import Busy, RequestError
from dimint.overlord.effects import Reply
from dimint.wire import failed
from dimint.wire_types import JSON, Form, Request

__all__ = ["Pending", "PendingTable"]

LINES_MAX = 4096
"""Connections whose order is remembered although nothing of theirs is under way; more are forgotten."""
DEFAULT_TIMEOUT_S = 5.0


class Pending(msgspec.Struct, eq=False, gc=False):
    """One request under way.

    `line` is its connection's order, None for a request with an id. `reply` is set when it is done. `handed` says that
    a part of it was handed to the log. `gather` belongs to whoever works on the request (an mset's or scan's parts).
    """

    peer: Any
    form: Form
    request: Any
    size: int
    line: "deque[Pending] | None"
    reply: bytes | None = None
    handed: bool = False
    gather: Any = None
    started: float = 0.0
    deadline: float = 0.0


class PendingTable:
    """All requests under way, bounded in number and bytes, and the replies that may leave.

    `bytes` counts the frames of requests under way and replies that wait for those before them.
    """

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.bytes = 0
        self._all: set[Pending] = set()
        self._lines: dict[Any, deque[Pending]] = {}
        self._next_deadline = float("inf")

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, peer: Any, form: Form, request: Request, size: int, now: float) -> Pending | None:
        """A new request; None if there are too many (it is answered then)."""
        line = None
        if request.id is None:
            line = self._lines.get(peer)
            if line is None:
                line = self._line(peer)
        if len(self._all) >= limits.REQUESTS_IN_FLIGHT_MAX or self.bytes + size > limits.REQUEST_BYTES_IN_FLIGHT_MAX:
            error = Busy(f"{len(self._all)} requests with {self.bytes} bytes are under way")
            self.answer(peer, request, failed(form, request, error))
            return None
        pending = Pending(peer, form, request, size, line)
        if line is not None:
            line.append(pending)
        self._all.add(pending)
        self.bytes += size
        pending.started = now
        pending.deadline = deadline = now + (request.timeout or DEFAULT_TIMEOUT_S)
        if deadline < self._next_deadline:
            self._next_deadline = deadline
        return pending

    def finish(self, pending: Pending, reply: bytes) -> None:
        """Answer a request, at once or as soon as those before it on its connection are answered."""
        if pending.reply is not None:
            return
        self._all.discard(pending)
        line = pending.line
        if line is None:
            pending.reply = reply
            self.bytes -= pending.size
            self.replies.append((pending.peer, reply))
            return
        if line[0] is not pending:
            self._hold(pending, reply)
            return
        line.popleft()
        pending.reply = reply
        self.bytes -= pending.size
        replies = self.replies
        replies.append((pending.peer, reply))
        while line and (done := line[0].reply) is not None:
            self.bytes -= line.popleft().size
            replies.append((pending.peer, done))

    def fail(self, pending: Pending, error: RequestError, **fields: Any) -> None:
        """Answer with a named error."""
        self.finish(pending, failed(pending.form, pending.request, error, **fields))

    def answer(self, peer: Any, request: Request, frame: bytes) -> None:
        """Answer a request that never was under way (unreadable, or one too many), in its place in the order.

        Behind a connection's requests under way only so many of them are kept; more are dropped without a reply.
        """
        line = self._lines.get(peer) if request.id is None else None
        if not line:
            self.replies.append((peer, frame))
        elif len(line) < limits.REQUESTS_IN_FLIGHT_MAX:
            pending = Pending(peer, JSON, request, 0, line)
            line.append(pending)
            self._hold(pending, frame)

    def overdue(self, now: float) -> list[Pending]:
        """Requests whose deadline is over; they are still under way. Cheap as long as none can be."""
        if now < self._next_deadline:
            return []
        over = [pending for pending in self._all if pending.deadline <= now]
        self._next_deadline = min((pending.deadline for pending in self._all if pending.deadline > now), default=float("inf"))
        return over

    def all(self) -> list[Pending]:
        """Every request under way."""
        return list(self._all)

    def take_replies(self) -> list[Reply]:
        """Replies to send now, in this order."""
        replies = self.replies
        self.replies = []
        return replies

    def _hold(self, pending: Pending, reply: bytes) -> None:
        """Keep a reply until those before it are answered; a large one may not stay when memory is short."""
        if self.bytes + len(reply) > limits.REQUEST_BYTES_IN_FLIGHT_MAX:
            reply = failed(pending.form, pending.request, Busy("too many bytes of replies wait for an earlier one"))
        self.bytes += len(reply) - pending.size
        pending.size = len(reply)
        pending.reply = reply

    def _line(self, peer: Any) -> "deque[Pending]":
        if len(self._lines) >= LINES_MAX:
            self._lines = {known: line for known, line in self._lines.items() if line}
        line = self._lines[peer] = deque()
        return line
