"""The way of HTTP senders' reports into the log: one owned thread, one batch in flight a partition, a bounded queue.

`offer` takes a report from any thread without waiting and gives a future, which is done when the log has acknowledged the
event. What comes while a batch is in flight makes up the next one. Samples of a host are numbered (run, seq) in the order
in which they were offered; run is random for each start, a seq is used only by what the log took.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, NamedTuple, Protocol

from dimint.clock import Clock
from dimint.errors import DimintError, LogBroken, LogError, LogUnavailable
from dimint.events import STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.limits import BATCH_MAX_EVENTS, BATCH_TARGET_BYTES, REPORT_BYTES_QUEUED_MAX, REPORTS_QUEUED_MAX
from dimint.log.port import Log
from dimint.webapp.senders import Report, Reported, event_of
from dimint.writer import Appended, BatchWriter, Outgoing

__all__ = ["Intake", "NotTaken", "Reports"]

_OPEN_PAUSE_S: Final = 2.0
_DRAIN_S: Final = 3.0
"""How long what is queued may take to reach the log when the program ends."""

log = logging.getLogger("dimint.webapp")


class NotTaken(DimintError):
    """The report is not in the log, or it is not known whether it is; trying again can help."""

    retriable = True


class Reports(Protocol):
    """What the routes need of an Intake."""

    def offer(self, report: Report) -> Future[None]: ...
    def ends(self, host: str | None = None) -> Future[dict[int, int]]: ...


class _Waiting(NamedTuple):
    report: Report
    future: Future[None]


class _Lane:
    """One partition: what waits, and whether a batch is in flight."""

    __slots__ = ("busy", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.busy = False


class Intake:
    """A process object (see dimint/service.py). `open_log` gives the log, which it owns from then on, and its genesis.

    While the log cannot be reached nothing is taken and the pages go on; a broken log ends the process.
    """

    def __init__(self, open_log: Callable[[], tuple[Log, Genesis]], clock: Clock, *, run: bytes | None = None) -> None:
        self._open_log, self._clock = open_log, clock
        self._run = os.urandom(8) if run is None else run
        self._changed = threading.Condition()
        self._lanes: dict[int, _Lane] = {}
        self._new: deque[_Waiting] = deque()
        self._asked: deque[tuple[str | None, Future[dict[int, int]]]] = deque()
        self._seqs: dict[str, int] = {}
        self._unreachable = False
        self._queued = self._queued_bytes = 0
        self._broken: BaseException | None = None
        self._stopping = False
        self._drain_until: float | None = None

    # --- any thread's side ------------------------------------------------------------------------------------------
    def offer(self, report: Report) -> Future[None]:
        """Take a report in. Raises NotTaken at once if it cannot be queued; the future fails with NotTaken."""
        future = _uncancellable_none()
        with self._changed:
            self._check()
            if self._queued >= REPORTS_QUEUED_MAX or self._queued_bytes + report.size > REPORT_BYTES_QUEUED_MAX:
                raise NotTaken("too many reports wait for the log")
            self._queued += 1
            self._queued_bytes += report.size
            self._new.append(_Waiting(report, future))
            self._changed.notify()
        return future

    def ends(self, host: str | None = None) -> Future[dict[int, int]]:
        """Partition → next offset where the log of this host, or of all, ends now: tables that read so far know all of it."""
        future: Future[dict[int, int]] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            self._check()
            if len(self._asked) >= REPORTS_QUEUED_MAX:
                raise NotTaken("too many requests wait for the log")
            self._asked.append((host, future))
            self._changed.notify()
        return future

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._drain_until = self._drain_until or time.monotonic() + _DRAIN_S
            self._changed.notify()

    # --- the owned thread -------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Work until `stop`. Raises LogBroken, LogMismatch, SettingsError: what trying again cannot help."""
        try:
            with contextlib.ExitStack() as stack:
                opened = self._open()
                if opened is None:
                    return
                source, genesis = opened
                stack.callback(source.close)
                writer = BatchWriter(source, clock=self._clock, host=socket.gethostname(), process="webapp")
                stack.callback(writer.close)
                while self._step(source, genesis, writer):
                    pass
        finally:
            with self._changed:
                self._stopping = True
            self._refuse_all("the server is ending")
        if self._broken is not None:
            raise self._broken

    def _open(self) -> tuple[Log, Genesis] | None:
        """The log as soon as it can be reached; None if the process is to end before that."""
        while True:
            try:
                opened = self._open_log()
            except LogUnavailable as error:
                if not self._unreachable:
                    log.error("senders' reports cannot be taken yet: %s", error)
            else:
                with self._changed:
                    self._unreachable = False
                return opened
            self._refuse_all("the log cannot be reached yet")
            with self._changed:
                self._unreachable = True
                if self._changed.wait_for(lambda: self._stopping, _OPEN_PAUSE_S):
                    return None

    def _step(self, source: Log, genesis: Genesis, writer: BatchWriter) -> bool:
        """Wait for something to do and do it; False when the work is over."""
        with self._changed:
            while not (ready := self._ready_lanes(genesis)) and not self._asked and not self._over():
                left_s = None if self._drain_until is None else max(0.0, self._drain_until - time.monotonic())
                self._changed.wait(left_s)
            if self._over():
                return False
            asked = list(self._asked)
            self._asked.clear()
            taken = [(partition, lane, self._take(lane)) for partition, lane in ready]
        if taken:
            self._append(writer, taken)
        ends: dict[int, int] = {}
        for host, future in asked:
            wanted = range(genesis.status_partitions) if host is None else (genesis.status_partition(host),)
            try:
                for partition in wanted:
                    if partition not in ends:
                        ends[partition] = source.bounds(STATUS_TOPIC, partition).end
                future.set_result({partition: ends[partition] for partition in wanted})
            except LogError as error:
                future.set_exception(_not_taken(error))
        return True

    def _append(self, writer: BatchWriter, taken: list[tuple[int, _Lane, list[_Waiting]]]) -> None:
        base_ns = self._clock.time_ns()
        batches = []
        for partition, _, waiting in taken:
            seqs: dict[str, int] = {}
            events = []
            for report, _ in waiting:
                if isinstance(report, Reported):
                    seqs[report.host] = seqs.get(report.host, self._seqs.get(report.host, 0)) + 1
                events.append(event_of(report, base_ns, self._run, seqs.get(report.host, 0)))
            batches.append(Outgoing(STATUS_TOPIC, partition, (writer.by,), events, compress=True, time_ns=base_ns))
        for (_, lane, waiting), future in zip(taken, writer.append(batches), strict=True):
            future.add_done_callback(partial(self._answered, lane, waiting))

    def _answered(self, lane: _Lane, waiting: list[_Waiting], appended: Future[Appended]) -> None:
        """On a thread of the log or the writer."""
        error = appended.exception()
        with self._changed:
            lane.busy = False
            self._queued -= len(waiting)
            self._queued_bytes -= sum(entry.report.size for entry in waiting)
            if error is None:
                for report, _ in waiting:
                    if isinstance(report, Reported):
                        self._seqs[report.host] = self._seqs.get(report.host, 0) + 1
            elif isinstance(error, LogBroken):
                self._broken = error
            self._changed.notify()
        for _, future in waiting:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(_not_taken(error))

    # --- inside, under the lock -------------------------------------------------------------------------------------
    def _check(self) -> None:
        if self._stopping or self._broken is not None:
            raise NotTaken("the server is ending")
        if self._unreachable:
            raise NotTaken("the log cannot be reached yet")

    def _ready_lanes(self, genesis: Genesis) -> list[tuple[int, _Lane]]:
        """The partitions that have something to append and may, when what is new has gone to its own."""
        while self._new:
            entry = self._new.popleft()
            self._lanes.setdefault(genesis.status_partition(entry.report.host), _Lane()).waiting.append(entry)
        return [(partition, lane) for partition, lane in self._lanes.items() if lane.waiting and not lane.busy]

    def _over(self) -> bool:
        if self._broken is not None:
            return True
        return self._drain_until is not None and (not self._queued or time.monotonic() >= self._drain_until)

    def _take(self, lane: _Lane) -> list[_Waiting]:
        """The lane's next batch."""
        taken: list[_Waiting] = []
        size = 0
        while lane.waiting and len(taken) < BATCH_MAX_EVENTS and size < BATCH_TARGET_BYTES:
            taken.append(lane.waiting.popleft())
            size += taken[-1].report.size
        lane.busy = True
        return taken

    def _refuse_all(self, why: str) -> None:
        """Whoever waits and is not in flight is told so."""
        with self._changed:
            left = [*self._new, *(entry for lane in self._lanes.values() for entry in lane.waiting)]
            asked = [future for _, future in self._asked]
            self._queued -= len(left)
            self._queued_bytes -= sum(entry.report.size for entry in left)
            self._new.clear()
            self._asked.clear()
            for lane in self._lanes.values():
                lane.waiting.clear()
        for _, future in left:
            future.set_exception(NotTaken(why))
        for question in asked:
            question.set_exception(NotTaken(why))


def _uncancellable_none() -> Future[None]:
    """A future that whoever waits for it cannot cancel: its report is on its way."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def _not_taken(error: BaseException) -> NotTaken:
    refusal = NotTaken("the log did not take it")
    refusal.__cause__ = error
    return refusal
