"""The only way batches get into the log: numbered, each counted at most once, with a definite answer for each.

`BatchWriter` is one opened producer with a random incarnation. It keeps at most one batch in flight in a partition; what
arrives meanwhile makes up the next batch (group commit by back-pressure is the caller's loop). The rule of numbers and
fences is dimint/numbering.py; here are the log, the futures and one thread that settles unknown batches.
"""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, NamedTuple

from dimint.batch import By, decode_header, encode
from dimint.clock import Clock
from dimint.errors import (
    AppendFailed,
    AppendUnknown,
    FormatError,
    LogBroken,
    LogError,
    LogUnavailable,
    NotApplied,
    OffsetOutOfRange,
    RecordTooLarge,
)
from dimint.log.port import Entry, Log
from dimint.numbering import Applied, Effect, Fence, Lost, NotThere, Numbering, Scan, Seen

__all__ = ["Appended", "BatchWriter", "Outgoing"]

_FENCE_PAUSE_MIN_S = 0.02
_FENCE_PAUSE_MAX_S = 1.0


class Outgoing(NamedTuple):
    """One batch to append: events as `[kind, key, dt_ns, by, field, …]`, `by` an index into `by`.

    `time_ns` is what the events' dt_ns are relative to, the clock's time by default. `logged_at_ns` is for import and
    replay only.
    """

    topic: str
    partition: int
    by: Sequence[By]
    events: Sequence[Sequence[Any]]
    compress: bool = False
    logged_at_ns: int | None = None
    time_ns: int | None = None


class Appended(NamedTuple):
    """Where a batch stands in the log; the next offset is `offset` + 1. `number` and the event's index make event ids."""

    offset: int
    number: int


class _Slot:
    """One partition of the writer. `future` is the caller's, None when nothing is in flight."""

    __slots__ = ("future", "numbering", "partition", "pause_s", "topic")

    def __init__(self, topic: str, partition: int, scan_from: int) -> None:
        self.topic, self.partition = topic, partition
        self.numbering = Numbering(scan_from=scan_from)
        self.future: Future[Appended] | None = None
        self.pause_s = 0.0


class BatchWriter:
    """Appends batches of one incarnation. `append` belongs to one thread at a time; the log stays the caller's to close."""

    def __init__(self, log: Log, *, clock: Clock, host: str, process: str, incarnation: bytes | None = None) -> None:
        self.incarnation = os.urandom(16) if incarnation is None else incarnation
        assert len(self.incarnation) == 16
        self.by = By(None, host, process)
        self._log, self._clock = log, clock
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._settler = _Settler(self)
        self._broken: LogBroken | None = None

    def append(self, batches: Sequence[Outgoing]) -> list[Future[Appended]]:
        """Hand over batches, at most one a partition, none of them to a partition that is not `idle`.

        The futures resolve on a thread of the log or of the writer, or before this returns; callbacks only enqueue. They
        fail with NotApplied (final: it is not in the log and never will count), RecordTooLarge (nothing was sent),
        LogBroken (end the process), or AppendUnknown if the outcome cannot be known: the writer was closed before it was, or
        the log was trimmed where the batch might stand.
        """
        places = [self._slots.get(batch[:2]) or self._open(batch.topic, batch.partition) for batch in batches]
        futures: list[Future[Appended]] = []
        slots: list[_Slot] = []
        entries: list[Entry] = []
        for slot, batch in zip(places, batches, strict=True):
            future: Future[Appended] = Future()
            future.set_running_or_notify_cancel()
            futures.append(future)
            if self._broken is not None:
                future.set_exception(self._broken)
                continue
            if isinstance(slot, LogUnavailable):
                future.set_exception(_not_applied(slot))
                continue
            assert slot.future is None, f"{batch.topic}/{batch.partition} has a batch in flight"
            try:
                record = self._encode(slot.numbering.next_number, batch)
            except RecordTooLarge as error:
                future.set_exception(error)
                continue
            slot.numbering.take()
            slot.future = future
            slots.append(slot)
            entries.append(Entry(batch.topic, batch.partition, record))
        self._send(slots, entries)
        return futures

    def append_and_wait(self, batch: Outgoing, timeout_s: float) -> Appended:
        """For slow writers: append one batch and wait for its outcome.

        Raises what `append`'s futures fail with; AppendFailed if the partition's previous batch was not settled in time
        (this one was not sent), AppendUnknown if this one was sent and is not settled yet.
        """
        deadline = time.monotonic() + timeout_s
        slot = self._slots.get((batch.topic, batch.partition))
        before = slot.future if slot is not None else None
        if before is not None:
            try:
                before.exception(timeout_s)
            except FutureTimeout:
                raise AppendFailed(f"{batch.topic}/{batch.partition} still waits for the batch before") from None
        (future,) = self.append([batch])
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            raise AppendUnknown(f"{batch.topic}/{batch.partition} did not answer in {timeout_s} s") from None

    def open(self, topics: Sequence[tuple[str, int]]) -> None:
        """Ask now where each partition (topic, count) ends, which the first `append` there would do.

        For who must not wait for the log later. Raises LogError.
        """
        for topic, partitions in topics:
            for partition in range(partitions):
                if (topic, partition) not in self._slots:
                    self._slots[topic, partition] = _Slot(topic, partition, self._log.bounds(topic, partition).end)

    def idle(self, topic: str, partition: int) -> bool:
        """Whether nothing of this writer is in flight or unsettled there."""
        slot = self._slots.get((topic, partition))
        return slot is None or slot.future is None

    def close(self) -> None:
        """Settle nothing more. Batches in flight still get their answer while the log is open. Idempotent."""
        self._settler.close()

    def _open(self, topic: str, partition: int) -> _Slot | LogUnavailable:
        try:
            end = self._log.bounds(topic, partition).end
        except LogUnavailable as error:
            return error
        slot = self._slots[topic, partition] = _Slot(topic, partition, end)
        return slot

    def _encode(self, number: int, batch: Outgoing) -> bytes:
        time_ns = self._clock.time_ns() if batch.time_ns is None else batch.time_ns
        return encode(
            self.incarnation,
            number,
            time_ns,
            batch.by,
            batch.events,
            logged_at_ns=batch.logged_at_ns,
            compress=batch.compress,
        )

    def _send(self, slots: Sequence[_Slot], entries: Sequence[Entry]) -> None:
        if not entries:
            return
        numbers = [slot.numbering.next_number - 1 for slot in slots]
        try:
            sent = self._log.append(entries)
        except LogError as error:
            for slot, number in zip(slots, numbers, strict=True):
                self._refused(slot, number, error)
            return
        for slot, number, future in zip(slots, numbers, sent, strict=True):
            future.add_done_callback(partial(self._answered, slot, number))

    def _refused(self, slot: _Slot, number: int, error: LogError) -> None:
        """The log took nothing of the call."""
        if isinstance(error, LogBroken):
            self._fail(slot, error)
        else:
            self._do(slot, slot.numbering.failed(number), error)

    def _answered(self, slot: _Slot, number: int, sent: Future[int]) -> None:
        """On the log's thread."""
        error = sent.exception()
        if error is None:
            self._do(slot, slot.numbering.acknowledged(number, sent.result()))
        elif isinstance(error, AppendFailed):
            self._do(slot, slot.numbering.failed(number), error)
        elif isinstance(error, AppendUnknown):
            self._do(slot, slot.numbering.unknown(number), error)
        else:
            self._fail(slot, error)

    def _do(self, slot: _Slot, effect: Effect, cause: BaseException | None = None) -> None:
        if isinstance(effect, Applied):
            self._resolve(slot).set_result(Appended(effect.offset, effect.number))
        elif isinstance(effect, NotThere):
            self._resolve(slot).set_exception(_not_applied(cause))
        elif isinstance(effect, Lost):
            where = f"{slot.topic}/{slot.partition}"
            self._resolve(slot).set_exception(AppendUnknown(f"{where} was trimmed before batch {effect.number} was looked for"))
        elif isinstance(effect, Fence):
            self._later(slot, effect)
        else:
            self._put(slot, effect, 0.0)

    def _later(self, slot: _Slot, effect: Fence | Scan) -> None:
        """After a pause that grows each time, until the slot is settled."""
        pause_s = slot.pause_s
        slot.pause_s = min(max(pause_s * 2, _FENCE_PAUSE_MIN_S), _FENCE_PAUSE_MAX_S)
        self._put(slot, effect, pause_s)

    def _put(self, slot: _Slot, effect: Fence | Scan, pause_s: float) -> None:
        if not self._settler.put(slot, effect, pause_s):
            self._resolve(slot).set_exception(AppendUnknown("the writer was closed before the outcome was known"))

    def _fail(self, slot: _Slot, error: BaseException) -> None:
        broken = error if isinstance(error, LogBroken) else LogBroken(f"the log failed: {error}")
        self._broken = broken
        self._resolve(slot).set_exception(broken)

    def _resolve(self, slot: _Slot) -> Future[Appended]:
        future, slot.future, slot.pause_s = slot.future, None, 0.0
        assert future is not None
        return future

    def _perform(self, slot: _Slot, effect: Fence | Scan) -> None:
        """On the settler's thread."""
        if isinstance(effect, Fence):
            fence = Outgoing(slot.topic, slot.partition, (self.by,), ())
            self._send([slot], [Entry(slot.topic, slot.partition, self._encode(effect.number, fence))])
            return
        try:
            found = slot.numbering.scanned(list(self._seen(slot, effect)))
        except LogUnavailable:
            self._later(slot, effect)
        except OffsetOutOfRange:
            self._do(slot, slot.numbering.trimmed())
        except LogError as error:
            self._fail(slot, error)
        else:
            self._do(slot, found)

    def _seen(self, slot: _Slot, scan: Scan) -> Iterator[Seen]:
        offset = scan.start
        while offset < scan.end:
            for record in self._log.read(slot.topic, slot.partition, offset):
                offset = record.offset + 1
                if record.offset < scan.end:
                    try:
                        header = decode_header(record.value)
                    except FormatError:
                        continue  # not ours: ours are sound, and what no reader can read counts nowhere
                    if header.writer == self.incarnation:
                        yield Seen(record.offset, header.number)


def _not_applied(cause: BaseException | None) -> NotApplied:
    error = NotApplied(f"the write was not applied: {cause}" if cause else "the write was not applied")
    error.__cause__ = cause
    return error


class _Settler:
    """The thread that appends fences and scans headers; it starts with the first unknown batch."""

    def __init__(self, writer: BatchWriter) -> None:
        self._writer = writer
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, _Slot, Fence | Scan]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, slot: _Slot, effect: Fence | Scan, pause_s: float) -> bool:
        """Do it after the pause; False if closed."""
        with self._changed:
            if self._closed:
                return False
            heapq.heappush(self._due, (time.monotonic() + pause_s, next(self._order), slot, effect))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writer-settle", daemon=True)
                self._thread.start()
            self._changed.notify()
            return True

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    left, self._due = self._due, []
                    break
                _, _, slot, effect = heapq.heappop(self._due)
            self._writer._perform(slot, effect)
        for _, _, slot, _ in left:
            self._writer._resolve(slot).set_exception(AppendUnknown("the writer was closed before the outcome was known"))
