"""The newest events that are wanted, found without reading what is older: a window of log time that grows backwards."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from dimint.log.port import Log, TopicPartition
from dimint.log.reading import Counted
from dimint.replay.event import events_of
from dimint.replay.filters import Filter
from dimint.replay.found import Found
from dimint.replay.positions import Bound, Positions
from dimint.replay.ranges import select
from dimint.replay.stream import Stream

__all__ = ["events_from", "newest_events"]

_LOOK_BACK_S: Final = 0.0
"""A page is to come at once: a copy that comes later than its batch may be shown as another one."""
_FIRST_NS: Final = 1_000_000_000
_LEAST_NS: Final = 1_000_000
_WINDOW_EVENTS: Final = 30_000
"""A window with more is left for a smaller one: what is older than the page would be read for nothing."""
_SHRINKS: Final = 8
_GROWTH: Final = 4
_IN_BATCH: Final = 100
"""Events of one batch that are given; of more there is the number."""


def newest_events(
    log: Log, topics: Sequence[str], wanted: Filter, *, from_ns: int, to_ns: int, limit: int, stop: Callable[[], bool]
) -> tuple[list[Found], int | None]:
    """At least `limit` of the newest wanted events with from_ns ≤ log time < to_ns, the newest first, whole batches.

    Also from which time on (ns) these are all that there are; None if that is the whole range. `stop()` ends the search
    early, but not before it has looked at a moment.
    """
    found: list[Found] = []
    end, width, counted = to_ns, _FIRST_NS, 0
    while end > from_ns and counted < limit and (end == to_ns or not stop()):
        start = max(from_ns, end - width)
        some, looked = _window(log, topics, wanted, start, end, limit - counted, None if width <= _LEAST_NS else _WINDOW_EVENTS)
        if some is None:
            width //= _SHRINKS
            continue
        found += some[::-1]
        counted += sum(one.total for one in some)
        end = start
        if looked < _WINDOW_EVENTS // _GROWTH:
            width *= _GROWTH
    if counted >= limit:
        end = max(end, found[-1].log_time_us * 1000)
    return found, end if end > from_ns else None


def events_from(log: Log, topics: Sequence[str], wanted: Filter, start: Positions, end: Bound | None, *, limit: int,
                stop: Callable[[], bool]) -> tuple[list[Found], Positions | None]:  # fmt: skip
    """At least `limit` wanted events from these positions on, in the order of their log times, and where to go on."""
    found: list[Found] = []
    counted = 0
    with Stream(log, select(log, topics=topics, start=start, end=end), look_back_s=_LOOK_BACK_S) as stream:
        for item in stream.history():
            if isinstance(item.taken, Counted):
                one = _wanted(item.place, item.taken, wanted)
                if one is not None:
                    found.append(one)
                    counted += len(one.events)
            if counted >= limit or stop():
                break
        return found, None if stream.done else stream.positions


def _window(
    log: Log, topics: Sequence[str], wanted: Filter, start_ns: int, end_ns: int, limit: int, most: int | None
) -> tuple[list[Found] | None, int]:
    """The newest of one window, oldest first, and how many events it has; None if these are more than `most`."""
    kept: deque[tuple[int, list[Found]]] = deque()  # by log time: the next page begins at one
    counted = looked = 0
    totals: deque[int] = deque()
    with Stream(log, select(log, topics=topics, start=start_ns, end=end_ns), look_back_s=_LOOK_BACK_S) as stream:
        for item in stream.history():
            if not isinstance(item.taken, Counted):
                continue
            looked += len(item.taken.events)
            if most is not None and looked > most:
                return None, looked
            one = _wanted(item.place, item.taken, wanted)
            if one is None:
                continue
            if not kept or kept[-1][0] != one.log_time_us:
                kept.append((one.log_time_us, []))
                totals.append(0)
            kept[-1][1].append(one)
            totals[-1] += one.total
            counted += one.total
            while counted - totals[0] >= limit:
                counted -= totals.popleft()
                kept.popleft()
    return [one for _, some in kept for one in some], looked


def _wanted(place: TopicPartition, batch: Counted, wanted: Filter) -> Found | None:
    events = [event for event in events_of(place, batch) if wanted.wants(event)]
    return Found(events[:_IN_BATCH], len(events)) if events else None
