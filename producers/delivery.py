"""Gets events to the publisher in order, once accepted never lost: memory while all goes well, the spool when it does not.

In the normal case a tick's events are handed over at once and acknowledged within milliseconds, and nothing is written
here. As soon as something waits longer than PATIENCE_S, or fails, all that waits goes to the spool, and everything new is
written behind it before it counts as accepted, until the spool is empty again: order never changes. The spool is drained
at a limited rate, so that a fleet that comes back does not fall upon the log. Samples that waited say so (`late`).

If the disk is full too, the newest MEMORY_PARCELS_MAX parcels stay in memory; what goes is declared in `host.gap` events.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from dimint.clock import Clock
from dimint.errors import LogBroken
from dimint.limits import PUBLISH_MAX_EVENTS
from dimint.producers.publish import Event, Publisher
from dimint.producers.schedule import Backoff
from dimint.producers.spool import Spool, SpoolFull, Taken

__all__ = ["PATIENCE_S", "Delivery"]

PATIENCE_S = 1.0
"""What was accepted longer ago than this is on disk or in the log."""
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 30.0
CHUNK_EVENTS = 500
DRAIN_EVENTS_PER_S = 5_000
MEMORY_PARCELS_MAX = 120

assert CHUNK_EVENTS <= PUBLISH_MAX_EVENTS

log = logging.getLogger("dimint.agent")


class _Waiting(NamedTuple):
    """The events of one tick, in memory, and since when."""

    events: list[Event]
    since: float


class _Flight:
    """Events on their way: per lane what is in flight and what follows. `taken` if they are in the spool too."""

    def __init__(self, publisher: Publisher, events: Sequence[Event], since: float, taken: Taken | None) -> None:
        self.since, self.taken = since, taken
        self.flying: dict[int, list[Event]] = {}
        self.failed: list[Event] = []
        self._next: dict[int, deque[list[Event]]] = {}
        lanes: dict[int, list[Event]] = {}
        for event in events:
            lanes.setdefault(publisher.lane_of(event[1]), []).append(event)
        for lane, mine in lanes.items():
            self._next[lane] = deque(mine[at : at + CHUNK_EVENTS] for at in range(0, len(mine), CHUNK_EVENTS))
            self.advance(publisher, lane)

    def advance(self, publisher: Publisher, lane: int) -> None:
        """Send the lane's next chunk, if there is one."""
        if self._next[lane]:
            self.flying[lane] = self._next[lane].popleft()
            publisher.send(lane, self.flying[lane])

    def split(self, lane: int) -> bool:
        """Plan to send the lane's chunk again in halves: one event of it was refused. False if there is only one."""
        events = self.flying[lane]
        if len(events) > 1:
            middle = len(events) // 2
            self._next[lane].extendleft((events[middle:], events[:middle]))
        return len(events) > 1

    def give_up(self, lane: int) -> None:
        """Nothing more on this lane: what failed and what follows, in order."""
        self.failed += self.flying.pop(lane)
        for chunk in self._next.pop(lane):
            self.failed += chunk

    def unsettled(self) -> list[Event]:
        """Whatever is not known to be published; only for a flight that is not in the spool."""
        rest = list(self.failed)
        for lane, chunk in self.flying.items():
            rest += chunk
            for later in self._next[lane]:
                rest += later
        return rest


class Delivery:
    """Belongs to one thread. Call `put` with new events and `pump` whenever the publisher may have news."""

    def __init__(self, publisher: Publisher, spool: Spool, clock: Clock) -> None:
        self._publisher, self._spool, self._clock = publisher, spool, clock
        self._memory: deque[_Waiting] = deque()
        self._flight: _Flight | None = None
        self._retry = Backoff(RETRY_FIRST_S, RETRY_MOST_S)
        self._not_before = 0.0
        self._spool_full = False
        self._dropped: deque[Event] = deque()

    @property
    def settled(self) -> bool:
        """Whether everything accepted is in the log."""
        return self._flight is None and not self._memory and not self._spool and not self._dropped

    @property
    def behind(self) -> bool:
        """Whether events go to the spool now."""
        return bool(self._spool) or self._spool_full

    def put(self, events: Sequence[Event]) -> None:
        """Accept the events of one tick."""
        if events:
            self._memory.append(_Waiting(list(events), self._clock.monotonic()))
        if self.behind:
            self._spill()
        self.pump()

    def pump(self) -> None:
        """Do what can be done now. Raises LogBroken, with everything that waits in the spool."""
        now = self._clock.monotonic()
        try:
            self._settle(now)
            oldest = self._flight.since if self._flight and self._flight.taken is None else None
            if oldest is None and self._memory:
                oldest = self._memory[0].since
            if oldest is not None and now - oldest >= PATIENCE_S:
                self._spill()
            if self._flight is None and now >= self._not_before:
                self._take_off(now)
        except LogBroken:
            self._spill()
            raise

    def next_look(self) -> float:
        """When `pump` has something to do at the latest, on the monotonic clock; infinity if nothing waits."""
        times = [waiting.since + PATIENCE_S for waiting in list(self._memory)[:1] if not self._spool_full]
        if self._flight is not None:
            return min([*times, self._flight.since + PATIENCE_S] if self._flight.taken is None else times, default=float("inf"))
        if self._spool or self._dropped or self._memory:
            times.append(self._not_before)
        return min(times, default=float("inf"))

    def close(self) -> None:
        """Put what is not published into the spool. The spool and the publisher stay the caller's to close."""
        self._spill()

    def _settle(self, now: float) -> None:
        for outcome in self._publisher.outcomes():
            flight = self._flight
            if flight is None or outcome.lane not in flight.flying:
                continue
            if outcome.refused is not None and not flight.split(outcome.lane):
                self._refused(flight.flying[outcome.lane], outcome.refused)
            if outcome.published or outcome.refused is not None:
                del flight.flying[outcome.lane]
                flight.advance(self._publisher, outcome.lane)
            else:
                flight.give_up(outcome.lane)
        flight = self._flight
        if flight is None or flight.flying:
            return
        self._flight = None
        if flight.failed:
            self._not_before = now + self._retry.next_s()
            if flight.taken is not None:
                self._spool.release()
            else:
                self._memory.appendleft(_Waiting(flight.failed, flight.since))
                self._spill()
            return
        self._retry.reset()
        if flight.taken is not None:
            self._not_before = now + len(flight.taken.events) / DRAIN_EVENTS_PER_S
            self._forget(flight.taken)

    def _take_off(self, now: float) -> None:
        if self._dropped:
            gaps, self._dropped = list(self._dropped), deque()
            self._memory.appendleft(_Waiting(gaps, now))
        taken = self._spool.take(CHUNK_EVENTS * 4) if self._spool else None
        if taken is not None and not taken.events:
            self._forget(taken)  # nothing but damaged rows
            taken = None
        if taken is not None:
            self._flight = _Flight(self._publisher, taken.events, now, taken)
        elif self._memory and not self._spool:
            waiting, self._memory = list(self._memory), deque()
            late = now - waiting[0].since >= PATIENCE_S  # neither log nor disk took anything for a while
            events = [event for parcel in waiting for event in (_marked_late(parcel.events) if late else parcel.events)]
            self._flight = _Flight(self._publisher, events, waiting[0].since, None)

    def _spill(self) -> None:
        """Write everything that is in memory alone to the spool, what is in flight included."""
        parcels = [_marked_late(parcel.events) for parcel in self._memory]
        flight = self._flight if self._flight is not None and self._flight.taken is None else None
        if flight is not None:
            parcels.insert(0, _marked_late(flight.unsettled()))
        if not parcels:
            return
        try:
            row = self._spool.put(parcels)
        except SpoolFull as error:
            self._complain(error)
            while len(self._memory) > MEMORY_PARCELS_MAX:
                self._lose(self._memory.popleft().events, "neither the log nor the disk took it")
            return
        self._spool_full = False
        self._memory.clear()
        if flight is not None:
            # nothing was in the spool before it, so its own row is the first; what was published of it counts once
            flight.taken = Taken([], row, 0)

    def _refused(self, events: Sequence[Event], reason: str) -> None:
        log.error("%d events were refused for ever: %s", len(events), reason)
        self._lose(events, f"refused: {reason}"[:200])

    def _lose(self, events: Sequence[Event], reason: str) -> None:
        """Declare samples as lost."""
        now_ns = self._clock.time_ns()
        for event in events:
            if event[0] == "host.gap":  # what it declares stays lost
                self._dropped.append(event)
            if event[0] != "host.sample":
                continue
            host, run, seq = event[1], event[3], event[4]
            last = self._dropped[-1] if self._dropped else None
            if last is not None and last[1] == host and last[3] == run and last[5] == seq - 1 and last[6] == reason:
                last[5] = seq
            else:
                self._dropped.append(["host.gap", host, now_ns, run, seq, seq, reason])

    def _forget(self, taken: Taken) -> None:
        try:
            self._spool.done(taken)
        except SpoolFull as error:
            self._complain(error)

    def _complain(self, error: SpoolFull) -> None:
        if not self._spool_full:
            log.error("the spool takes nothing: %s; samples wait in memory", error)
        self._spool_full = True


def _marked_late(events: Sequence[Event]) -> list[Event]:
    """The events with `late` in their samples; copies, because the writer may be packing the originals just now."""
    return [[*event[:5], {**event[5], "late": True}] if event[0] == "host.sample" else event for event in events]
