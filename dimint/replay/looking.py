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

_LOOK_BACK_S: Final = 60.0
_FIRST_NS: Final = 4_000_000_000
_LEAST_NS: Final = 1_000_000
_GROWTH: Final = 4
_IN_BATCH: Final = 100
"""Events of one batch that are given; of more there is the number."""


def newest_events(
    log: Log, topics: Sequence[str], wanted: Filter, *, from_ns: int, to_ns: int, limit: int, stop: Callable[[], bool]
) -> tuple[list[Found], int | None]:
    """At least `limit` of the newest wanted events with from_ns ≤ log time < to_ns, the newest first, whole batches.

    Also from which time on (ns) these are all that there are; None if that is the whole range. `stop()` ends the search
    early, but not before it has looked at something.
    """
    found: list[Found] = []
    end, width, counted = to_ns, _FIRST_NS, 0
    while end > from_ns and counted < limit:
        start = max(from_ns, end - width)
        some = _window(log, topics, wanted, start, end, limit - counted, stop)
        if some is None:
            if end != to_ns or width <= _LEAST_NS:
                return found, end
            width //= 8  # too much even in the first window
            continue
        found += some[::-1]
        counted = sum(one.total for one in found)
        end, width = start, width * _GROWTH
        if stop():
            break
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


def _window(log: Log, topics: Sequence[str], wanted: Filter, start_ns: int, end_ns: int, limit: int,
            stop: Callable[[], bool]) -> list[Found] | None:  # fmt: skip
    """The newest of one window, oldest first; None if it was too much."""
    kept: deque[Found] = deque()
    counted = 0
    with Stream(log, select(log, topics=topics, start=start_ns, end=end_ns), look_back_s=_LOOK_BACK_S) as stream:
        for number, item in enumerate(stream.history()):
            if number % 64 == 63 and stop():
                return None
            if not isinstance(item.taken, Counted):
                continue
            one = _wanted(item.place, item.taken, wanted)
            if one is None:
                continue
            kept.append(one)
            counted += one.total
            # what has one log time is kept or let go together: the next page begins at a time
            while counted - (oldest := _oldest(kept)) >= limit:
                counted -= oldest
                first_us = kept[0].log_time_us
                while kept[0].log_time_us == first_us:
                    kept.popleft()
    return list(kept)


def _oldest(kept: deque[Found]) -> int:
    """Events of the oldest log time; all there are if they have only one."""
    first_us, total = kept[0].log_time_us, 0
    for one in kept:
        if one.log_time_us != first_us:
            break
        total += one.total
    return total


def _wanted(place: TopicPartition, batch: Counted, wanted: Filter) -> Found | None:
    events = [event for event in events_of(place, batch) if wanted.wants(event)]
    return Found(events[:_IN_BATCH], len(events)) if events else None
