"""Group commit by back-pressure, one lane a partition. [S]

A lane has at most one batch in flight; what arrives meanwhile makes up the next one. A request's part in a lane is an
`Entry`; it asks for one of three answers: when the log has acknowledged (`None`), the outcome as applied (`wants_outcome`),
or the end of a barrier for strong reads, which every batch handed over after them gives.

Whose outcome is wanted although a plain write does not need one: a request with client and seq that this lane cannot know
to be new (not higher than all before; any at all while there are other overlords, through which the client may have sent
higher ones, or as long as the state did not say that one of the client's numbers was new: an overlord that was here before
may have appended higher ones). Only the state can tell whether it was applied before or is superseded.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from dimint.batch import BY, DT, By, NewEvent
from dimint.door import Outcome
from dimint.errors import RequestError
from dimint.limits import BATCH_MAX_EVENTS, BATCH_TARGET_BYTES
from dimint.overlord.effects import Append
from dimint.overlord.pending import Pending
from dimint.wire import format_token

__all__ = ["CLIENTS_REMEMBERED_MAX", "Batch", "Entry", "Lane", "is_done"]

CLIENTS_REMEMBERED_MAX = 10_000
"""Clients per lane whose highest seq is remembered; forgotten ones wait for their outcome once."""
EVENT_OVERHEAD_BYTES = 64
LOOK_MAX = 64

Done = Callable[["Entry", str, Outcome | RequestError | None], None]
"""Called with (entry, token, outcome); the outcome is None for a plain write that the log has acknowledged, and an error
for one that will not be applied; the token is empty then."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A request's events in one batch: indexes [first, first + length)."""

    pending: Pending
    first: int
    length: int
    wants_outcome: bool
    done: Done
    tag: Any = None
    term: int = 0
    """The lane's, when a numbered request was added."""


class Batch:
    """Events of one lane, open until it is cut. `own` are the overlord's, which no request waits for; `readers` are strong
    reads that its acknowledgement serves."""

    __slots__ = ("by", "bytes", "clients", "entries", "events", "named", "own", "readers")

    def __init__(self, by: By) -> None:
        self.by: list[By] = [by]
        self.clients: dict[str, int] = {}
        self.events: list[NewEvent] = []
        self.entries: list[Entry] = []
        self.named: set[tuple[str, int]] = set()
        self.own: list[NewEvent] = []
        self.readers: list[Callable[[int | RequestError], None]] = []
        self.bytes = 0


def is_done(pending: Pending) -> bool:
    return pending.reply is not None


class Lane:
    """One partition of one topic as this overlord writes it.

    `acknowledged_end` is the next offset after this overlord's last acknowledged batch, 0 before any. With
    `absolute_times` an event's dt is given in ns since the epoch and made relative when its batch is handed over.
    """

    def __init__(self, topic: str, partition: int, by: By, *, generation: str = "", absolute_times: bool = False) -> None:
        self.topic, self.partition = topic, partition
        self._token = format_token(generation, partition, 0)[:-1]
        self._absolute_times = absolute_times
        self.acknowledged_end = 0
        self.flight: Batch | None = None
        self.open = Batch(by)
        self._by = by
        self._closed: deque[Batch] = deque()
        self._highest: dict[str, int] = {}  # never goes down, whatever became of the batch
        self._met: set[str] = set()  # whose highest is sure to be the state's
        self._alone = False
        self._term = 0

    def set_alone(self, alone: bool) -> None:
        """Whether this is the only overlord. What it knew of clients' numbers counts only for as long as it is."""
        if not alone:
            self._highest.clear()
            self._met.clear()
            self._term += 1
        self._alone = alone

    # --- adding ------------------------------------------------------------------------------------------------------
    def add(self, pending: Pending, event: NewEvent, size: int, done: Done) -> None:
        """The hot way: one event of an anonymous request, answered when acknowledged. `event` says by 0."""
        batch = self.open
        if batch.bytes + size > BATCH_TARGET_BYTES or len(batch.events) >= BATCH_MAX_EVENTS:
            batch = self._next()
        batch.entries.append(Entry(pending, len(batch.events), 1, False, done))
        batch.events.append(event)
        batch.bytes += size + EVENT_OVERHEAD_BYTES

    def add_all(
        self,
        pending: Pending,
        events: list[NewEvent],
        size: int,
        done: Done,
        *,
        client: str | None,
        seq: int | None,
        wants_outcome: bool,
        tag: Any = None,
    ) -> None:
        """Events that stay together in one batch. Their `by` is set here; `size` is of keys and values, in bytes."""
        batch = self.open
        size += EVENT_OVERHEAD_BYTES * len(events)
        full = batch.bytes + size > BATCH_TARGET_BYTES or len(batch.events) + len(events) > BATCH_MAX_EVENTS
        name = (client, seq) if client is not None and seq is not None else None
        # the same request twice in a row would read as one request of twice the events
        if (batch.events and full) or name in batch.named:
            batch = self._next()
        if name is not None:
            batch.named.add(name)
            wants_outcome |= not self._is_new(*name)
        index = 0 if client is None else self._index(batch, client)
        if index:
            for event in events:
                event[BY] = index
        batch.entries.append(Entry(pending, len(batch.events), len(events), wants_outcome, done, tag, self._term))
        batch.events.extend(events)
        batch.bytes += size

    def add_own(self, event: NewEvent) -> None:
        """An event of the overlord itself; nobody is told what became of it."""
        batch = self.open
        if len(batch.events) >= BATCH_MAX_EVENTS:
            batch = self._next()
        batch.events.append(event)
        batch.own.append(event)
        batch.bytes += EVENT_OVERHEAD_BYTES

    @property
    def own_waiting(self) -> int:
        """Events of the overlord itself that were not handed over yet."""
        return len(self.open.own) + sum(len(batch.own) for batch in self._closed)

    def remember(self, client: str, seq: int) -> None:
        """A `result` takes the seq: a copy of that request that comes later is not new."""
        if seq > self._highest.get(client, seq):
            self._highest[client] = seq

    def was_new(self, entry: Entry) -> None:
        """The state says that this numbered request was applied, and for the first time: it was the client's highest there."""
        request = entry.pending.request
        if request.client in self._highest and request.seq is not None and entry.term == self._term and self._alone:
            self._met.add(request.client)

    def read_after(self, reader: Callable[[int | RequestError], None]) -> None:
        """Call `reader` with the next offset once anything handed over from now on is acknowledged."""
        batch = self._closed[0] if self._closed else self.open
        batch.readers.append(reader)

    def read_behind(self, line: object, reader: Callable[[int | RequestError], None]) -> bool:
        """Call `reader` once the newest write of a connection that is under way here is settled; False if there is none.

        A batch of more than LOOK_MAX writes is not searched but waited for, as if it had one of them.
        """
        for batch in (self.open, *reversed(self._closed), self.flight):
            if batch is not None and batch.entries:
                entries = batch.entries
                if len(entries) > LOOK_MAX or any(entry.pending.line is line for entry in entries):
                    batch.readers.append(reader)
                    return True
        return False

    # --- handing over ------------------------------------------------------------------------------------------------
    def cut(self) -> Append | None:
        """The batch to hand over now; None while one is in flight or there is nothing."""
        while self.flight is None:
            batch = self._closed.popleft() if self._closed else self.open
            if batch is self.open:
                if not batch.events and not batch.readers:
                    return None
                self.open = Batch(self._by)
            self._leave_out_done(batch)
            if not batch.events:
                if not batch.readers:
                    continue
                batch.events.append(["barrier", None, 0, 0])
            for entry in batch.entries:
                entry.pending.handed = True
            self.flight = batch
            time_ns = None
            if self._absolute_times:
                time_ns = batch.events[0][DT]
                for event in batch.events:
                    event[DT] -= time_ns
            return Append(self.topic, self.partition, tuple(batch.by), batch.events, time_ns)
        return None

    def landed(self, offset: int) -> tuple[str, list[Entry]]:
        """The batch in flight is in the log: answers what needs no outcome; the token, and who waits for an outcome."""
        batch = self._land()
        end = self.acknowledged_end = offset + 1
        token = self._token + str(end)
        for reader in batch.readers:
            reader(end)
        waiting = []
        for entry in batch.entries:
            if entry.wants_outcome:
                waiting.append(entry)
            else:
                entry.done(entry, token, None)
        return token, waiting

    def failed(self, error: RequestError) -> None:
        """The batch in flight is not in the log and never will be (or nobody knows)."""
        batch = self._land()
        for reader in batch.readers:
            reader(error)
        for entry in batch.entries:
            entry.done(entry, "", error)

    @property
    def entries_in_flight(self) -> int:
        """Requests that wait for the batch in flight."""
        return len(self.flight.entries) if self.flight is not None else 0

    # --- inside ------------------------------------------------------------------------------------------------------
    def _land(self) -> Batch:
        batch, self.flight = self.flight, None
        assert batch is not None, "an answer of the log for a batch that was not handed over"
        return batch

    def _next(self) -> Batch:
        if self.open.events:
            self._closed.append(self.open)
            self.open = Batch(self._by)
        return self.open

    def _index(self, batch: Batch, client: str) -> int:
        index = batch.clients.get(client)
        if index is None:
            index = batch.clients[client] = len(batch.by)
            batch.by.append(By(client, self._by.host, self._by.process))
        return index

    def _is_new(self, client: str, seq: int) -> bool:
        """Whether the request certainly is the client's newest here; it is remembered as that if it is."""
        highest = self._highest.get(client)
        if not self._alone or (highest is not None and seq <= highest):
            return False
        if highest is None and len(self._highest) >= CLIENTS_REMEMBERED_MAX:
            oldest = next(iter(self._highest))
            del self._highest[oldest]
            self._met.discard(oldest)
        self._highest[client] = seq
        return client in self._met

    def _leave_out_done(self, batch: Batch) -> None:
        """Drop what was answered before it was handed over (its deadline was over): it must not happen any more."""
        if not any(map(is_done, (entry.pending for entry in batch.entries))):
            return
        events, entries = batch.events, batch.entries
        batch.events, batch.entries = list(batch.own), []
        for entry in entries:
            if not is_done(entry.pending):
                batch.entries.append(msgspec.structs.replace(entry, first=len(batch.events)))
                batch.events.extend(events[entry.first : entry.first + entry.length])
