"""Where an agent's events go: the log itself, or an overlord's `publish` command.

A publisher has lanes, which keep the order of what is sent on them, with at most one parcel in flight on each: the
partitions of the status topic, or one for an overlord. It never waits by itself; `wait` does, until something comes.
"""

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgpack

from dimint.clock import Clock
from dimint.errors import LogBroken, RecordTooLarge
from dimint.events import STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.writer import Appended, BatchWriter, Outgoing

__all__ = ["Event", "LogPublisher", "Outcome", "OverlordPublisher", "Publisher"]

Event = list[Any]
"""`[kind, host id, time_ns, field, …]`."""


class Outcome(NamedTuple):
    """What became of a parcel: published, to be sent again, or refused for ever (`refused` says why)."""

    lane: int
    published: bool
    refused: str | None = None


class Publisher(Protocol):
    """Belongs to one thread, but for `wake`."""

    def lane_of(self, host: str) -> int:
        """The lane of a host's events."""

    def send(self, lane: int, events: Sequence[Event]) -> None:
        """Hand over one parcel. Its Outcome comes with `outcomes`; until then the lane takes nothing else."""

    def outcomes(self) -> list[Outcome]:
        """What is decided by now. Raises LogBroken if nothing can be published any more by this process."""

    def wait(self, timeout_s: float) -> None:
        """Until there may be outcomes, `wake` was called, or the time is over."""

    def wake(self) -> None:
        """Make `wait` return, or the next one. From any thread."""

    def reachable(self, timeout_s: float) -> bool:
        """Whether the other side answers within the time; only while nothing is in flight."""

    def close(self) -> None:
        """Idempotent."""


class LogPublisher:
    """Appends to the status topic. The log stays the caller's to close, after this."""

    def __init__(self, writer: BatchWriter, genesis: Genesis) -> None:
        self._writer, self._genesis = writer, genesis
        self._decided: deque[tuple[int, Future[Appended]]] = deque()
        self._bell = threading.Event()

    @property
    def log_id(self) -> str:
        """The generation of the log."""
        return self._genesis.generation

    def lane_of(self, host: str) -> int:
        return self._genesis.status_partition(host)

    def send(self, lane: int, events: Sequence[Event]) -> None:
        base_ns = min(event[2] for event in events)
        rows = [[event[0], event[1], event[2] - base_ns, 0, *event[3:]] for event in events]
        batch = Outgoing(STATUS_TOPIC, lane, (self._writer.by,), rows, compress=True, time_ns=base_ns)
        (future,) = self._writer.append([batch])
        future.add_done_callback(lambda done: self._decide(lane, done))

    def outcomes(self) -> list[Outcome]:
        found: list[Outcome] = []
        while self._decided:
            lane, future = self._decided.popleft()
            error = future.exception()
            if isinstance(error, LogBroken):
                raise error
            found.append(Outcome(lane, error is None, str(error) if isinstance(error, RecordTooLarge) else None))
        return found

    def wait(self, timeout_s: float) -> None:
        self._bell.wait(timeout_s)
        self._bell.clear()

    def wake(self) -> None:
        self._bell.set()

    def reachable(self, timeout_s: float) -> bool:
        return True  # it was opened

    def close(self) -> None:
        self._writer.close()

    def _decide(self, lane: int, future: Future[Appended]) -> None:
        self._decided.append((lane, future))
        self._bell.set()


class OverlordPublisher:
    """Asks an overlord to publish, for hosts that cannot reach the log. Made and used on one thread.

    An answer that does not come within ANSWER_S counts as lost and the parcel is sent again on a new connection: the log
    may have it then, but samples count once.
    """

    ANSWER_S = 10.0
    _FINAL = frozenset({"DIMINT_PARSE_ERROR", "DIMINT_TOO_LARGE", "DIMINT_NOT_MSGPACK"})

    def __init__(self, address: str, clock: Clock, key_file: Path | None = None) -> None:
        from dimint.curve import read_key  # agents beside the log do without ZeroMQ
        from dimint.transport import Context

        self._address, self._clock = address, clock
        self._context = Context(read_key(key_file))
        self._poller = self._context.poller()
        self._dealer = self._context.dealer(address)
        self._poller.add(self._dealer)
        self._ids = itertools.count(1)
        self._waiting: int | None = None
        self._deadline = 0.0

    def lane_of(self, host: str) -> int:
        return 0

    def send(self, lane: int, events: Sequence[Event]) -> None:
        self._waiting = next(self._ids)
        self._deadline = self._clock.monotonic() + self.ANSWER_S
        self._dealer.send(msgpack.packb({"cmd": "publish", "id": self._waiting, "events": events}))

    def outcomes(self) -> list[Outcome]:
        found: list[Outcome] = []
        for frame in self._dealer.receive():
            outcome = self._read(frame)
            if outcome is not None:
                found.append(outcome)
                self._waiting = None
        if self._waiting is not None and self._clock.monotonic() >= self._deadline:
            self._waiting = None
            self._connect_again()
            found.append(Outcome(0, False))
        return found

    def wait(self, timeout_s: float) -> None:
        if self._waiting is not None:
            timeout_s = min(timeout_s, max(0.0, self._deadline - self._clock.monotonic()))
        self._poller.wait(timeout_s)

    def wake(self) -> None:
        self._poller.wake()

    def reachable(self, timeout_s: float) -> bool:
        self._dealer.send(msgpack.packb({"cmd": "get_overlords", "id": 0}))
        if self._dealer.wait(timeout_s):
            return bool(self._dealer.receive())
        self._connect_again()
        return False

    def close(self) -> None:
        self._poller.remove(self._dealer)
        self._dealer.close()
        self._poller.close()
        self._context.close()

    def _connect_again(self) -> None:
        """Drop what is queued: it is sent again anyway."""
        self._poller.remove(self._dealer)
        self._dealer.close()
        self._dealer = self._context.dealer(self._address)
        self._poller.add(self._dealer)

    def _read(self, frame: bytes) -> Outcome | None:
        """The outcome in an answer; None for one to a request that was given up, or for what is no answer at all."""
        try:
            answer = msgpack.unpackb(frame)
        except (ValueError, msgpack.UnpackException):
            return None
        if not isinstance(answer, dict) or answer.get("id") != self._waiting:
            return None
        error = answer.get("error")
        if error is None:
            return Outcome(0, True)
        return Outcome(0, False, f"{error}: {answer.get('message', '')}" if error in self._FINAL else None)
