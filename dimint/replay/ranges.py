"""Bounds as offsets of a log: which stretch of which partitions is meant."""

from collections.abc import Mapping, Sequence

from dimint.batch import decode_header
from dimint.errors import BadPosition, FormatError, OffsetOutOfRange
from dimint.events import TOPICS
from dimint.log.port import Log, Record, TopicPartition
from dimint.replay.positions import Bound, Range, format_position, places_of

__all__ = ["ends_of", "first_at", "next_time", "own_time_ns", "select"]


def select(
    log: Log,
    *,
    topics: Sequence[str] = TOPICS,
    start: Bound | None = None,
    end: Bound | None = None,
    open_end: bool = False,
) -> list[Range]:
    """The ranges between two bounds; without bounds all that is there now.

    With `open_end` a range that no bound ends has no end, for readers that follow. Topics that the log does not have yet
    are left out. Raises BadPosition for a partition that is not there, OffsetOutOfRange for offsets that are not.
    """
    there = log.describe().topics
    named = places_of((start, end))
    every = [TopicPartition(topic, partition) for topic in topics for partition in range(there.get(topic, 0))]
    for place in sorted(named or ()):
        if place not in every:
            raise BadPosition(f"there is no {place.topic}/{place.partition} among {', '.join(topics)} of this log")
    return [_range(log, place, start, end, open_end) for place in every if named is None or place in named]


def ends_of(log: Log, topic: str, end: Bound | None) -> dict[int, int]:
    """Partition of `topic` → the first offset that `end` leaves out, or the end of now; as `select`.

    Positions leave out the partitions that they do not name: none is left if all of them are of other topics.
    """
    if isinstance(end, Mapping):
        end = {place: offset for place, offset in end.items() if place.topic == topic}
        if not end:
            return {}
    return {each.partition: each.end for each in select(log, topics=[topic], end=end) if each.end is not None}


def first_at(log: Log, place: TopicPartition, time_ns: int) -> int:
    """Offset of the first batch of a partition whose log time is at or after the time; the end offset if there is none.

    Log time is what the header says (`logged_at_ns`) in batches that were copied from another log, else the record's
    timestamp. Copies are older than their records, and they follow each other in the order of their log times, so what
    the log itself finds by timestamps is right or too early, and then the rest can be bisected. One to some twenty reads.
    """
    low = log.offset_at(*place, time_ns)
    end = log.bounds(*place).end
    probe = next_time(log, place, low, end)
    if probe is None or probe[1] >= time_ns:
        return low
    high = end  # everything at or past it is late enough, what is at `low` is not
    low = probe[0]
    while low + 1 < high:
        middle = (low + high) // 2
        probe = next_time(log, place, middle, high)
        if probe is None or probe[1] >= time_ns:
            high = middle
        else:
            low = probe[0]
    return high


def own_time_ns(record: Record) -> int | None:
    """Log time that a record itself claims, in ns; None if it is not one of our batches."""
    try:
        logged_at_ns = decode_header(record.value).logged_at_ns
    except FormatError:
        return None
    return record.timestamp_ns if logged_at_ns is None else logged_at_ns


def next_time(log: Log, place: TopicPartition, offset: int, end: int) -> tuple[int, int] | None:
    """Offset and own time of the first batch at or past `offset`, before `end`."""
    while offset < end:
        records = log.read(*place, offset, max_records=1)
        if not records or records[0].offset >= end:
            return None
        time_ns = own_time_ns(records[0])
        if time_ns is not None:
            return records[0].offset, time_ns
        offset = records[0].offset + 1
    return None


def _range(log: Log, place: TopicPartition, start: Bound | None, end: Bound | None, open_end: bool) -> Range:
    bounds = log.bounds(*place)
    first = bounds.start if start is None else _resolve(log, place, start)
    last = None if end is None and open_end else bounds.end if end is None else _resolve(log, place, end)
    for offset in (first, last):
        if offset is not None and not bounds.start <= offset <= log.bounds(*place).end:
            raise OffsetOutOfRange(*place, offset, *bounds)
    if last is not None and last < first:
        if isinstance(start, Mapping) and isinstance(end, Mapping):
            raise BadPosition(f"{format_position(*place, last)} lies before {format_position(*place, first)}")
        last = first
    return Range(*place, first, last)


def _resolve(log: Log, place: TopicPartition, bound: Bound) -> int:
    return bound[place] if isinstance(bound, Mapping) else first_at(log, place, bound)
