"""The newest events that are wanted, found without reading what is older: all partitions backwards, a step at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Final

from dimint.errors import LogMismatch
from dimint.genesis import Genesis
from dimint.log.opening import find_genesis
from dimint.log.port import Log, Reader, TopicPartition
from dimint.log.reading import Counted, Halt, Intake, Quarantine
from dimint.replay.event import events_of
from dimint.replay.filters import Filter
from dimint.replay.found import Found
from dimint.replay.positions import Bound, Positions, format_position
from dimint.replay.ranges import own_time_ns, select
from dimint.replay.stream import Item, Stream

__all__ = ["events_from", "newest_events"]

_FIRST_STEP: Final = 64
_STEP_MAX: Final = 2048
"""Records of a partition that are read at once, going back: more with every step."""
_POLL_S: Final = 3.0
_LOOK_BACK_S: Final = 0.0
"""A page is to come at once: a copy that comes later than its batch may be shown as another one."""
_IN_BATCH: Final = 100
"""Events of one batch that are given; of more there is the number."""


def newest_events(
    log: Log, topics: Sequence[str], wanted: Filter, *, from_ns: int, to_ns: int, limit: int, stop: Callable[[], bool]
) -> tuple[list[Found], int | None]:
    """At least `limit` of the newest wanted events with from_ns ≤ log time < to_ns, the newest first, whole batches.

    Also before which time (ns) to go on: every event from there on is among them; None if that is the whole range. `stop()`
    ends the search early, but not before it has come a step further. Raises LogMismatch at a record that no reader may pass
    over, LogUnavailable where nobody answers, OffsetOutOfRange if the log was trimmed meanwhile.
    """
    found_genesis = find_genesis(log)
    if found_genesis is None:
        return [], None  # nothing was ever written
    backs = [_Back(each.place, each.start, each.end or 0) for each in select(log, topics=topics, end=to_ns)]
    found: list[Found] = []
    with closing(log.reader()) as reader:
        while True:
            left = [back for back in backs if not back.is_done(from_ns)]
            certain_us = max((to_ns // 1000 if back.since_us is None else back.since_us for back in left), default=-1)
            sure = sum(one.total for one in found if one.log_time_us > certain_us)
            is_further = (certain_us + 1) * 1000 < to_ns
            if not left or (is_further and (sure >= limit or stop())):
                break
            for item in _read_back(log, reader, left, found_genesis):
                one = _wanted(item.place, item.taken, wanted) if isinstance(item.taken, Counted) else None
                if one is not None and from_ns <= one.log_time_us * 1000 < to_ns:
                    found.append(one)
    kept = sorted((one for one in found if one.log_time_us > certain_us), key=_newest_first)
    total = 0
    for number, one in enumerate(kept):
        if total >= limit and one.log_time_us < kept[number - 1].log_time_us:  # one log time stays on one page
            return kept[:number], kept[number - 1].log_time_us * 1000
        total += one.total
    return kept, (certain_us + 1) * 1000 if left else None


class _Back:
    """A partition that is read backwards: [low, …) was read, `since_us` is the log time of the record at `low`."""

    def __init__(self, place: TopicPartition, start: int, end: int) -> None:
        self.place, self.start, self.low = place, start, end
        self.since_us: int | None = None
        self.step = _FIRST_STEP

    def is_done(self, from_ns: int) -> bool:
        return self.low <= self.start or (self.since_us is not None and self.since_us * 1000 < from_ns)


def _read_back(log: Log, reader: Reader, backs: Sequence[_Back], genesis: Genesis) -> Iterator[Item]:
    """One step back in all of these partitions, read together: over a network each question costs its time."""
    ends = {back.place: back.low for back in backs}
    intakes = {}
    for back in backs:
        back.low = max(back.start, back.low - back.step)
        back.step = min(back.step * 2, _STEP_MAX)
        intakes[back.place] = Intake(*back.place, genesis, position=back.low)
    by_place = {back.place: back for back in backs}
    first = set(by_place)
    reader.assign({back.place: back.low for back in backs})
    waiting = {back.place for back in backs if back.low < ends[back.place]}
    while waiting:
        records = reader.poll(_POLL_S)
        if not records:  # the log answers, and has no more: offsets at the end may be without a record
            for place in waiting:
                log.bounds(*place)
            return
        for record in records:
            place = TopicPartition(record.topic, record.partition)
            if record.offset + 1 >= ends[place]:
                waiting.discard(place)
            if record.offset >= ends[place]:
                continue
            own_ns = own_time_ns(record)
            if place in first:
                first.discard(place)
                by_place[place].since_us = (record.timestamp_ns if own_ns is None else own_ns) // 1000
            taken = intakes[place].take(record)
            if isinstance(taken, Halt | Quarantine):
                where = format_position(*place, record.offset)
                raise LogMismatch(f"{where} cannot be read: {taken.detail}", hint="/log/unread has more")
            yield Item(place, record, taken)


def _newest_first(one: Found) -> tuple[int, TopicPartition, int]:
    event = one.events[0]
    return -one.log_time_us, event.place, -event.offset


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


def _wanted(place: TopicPartition, batch: Counted, wanted: Filter) -> Found | None:
    events = [event for event in events_of(place, batch) if wanted.wants(event)]
    return Found(events[:_IN_BATCH], len(events)) if events else None
