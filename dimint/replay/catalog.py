"""What stands in stretches of a log: events counted by kind and minute, and the records that no reader could take in.

A catalog remembers what it has looked at, in memory, so that looking at the same stretch again costs only what is new. It
grows from the newest backwards and may be interrupted at any time: what is counted then is exact for the stretch that
`since_ns` tells. Batches that came twice are counted once only where both stand near each other.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from dimint.batch import KEY, KIND, Batch
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Log, Record, TopicPartition
from dimint.log.reading import Counted, Halt, Intake, Quarantine, Taken, open_record
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.found import Unread, unread_of
from dimint.replay.positions import Range, format_position

__all__ = ["Catalog"]

_CHUNK: Final = 1000
"""Offsets that are looked at at once, going backwards."""
_MINUTES_MAX: Final = 200_000
"""Minutes with events that are remembered; with more the catalog begins anew."""
_UNREAD_MAX: Final = 10_000
_kind: Final = itemgetter(KIND)
_MINUTE_NS: Final = 60 * 1_000_000_000


class _Covered:
    """[low, high) of one partition was looked at; `since_ns` is the time of its first record."""

    __slots__ = ("high", "low", "minutes", "since_ns")

    def __init__(self, at: int) -> None:
        self.low = self.high = at
        self.since_ns: int | None = None
        self.minutes: dict[int, Counter[str]] = {}


class Catalog:
    """Of one log, on one thread."""

    def __init__(self, log: Log, genesis: Genesis) -> None:
        self._log, self._genesis = log, genesis
        self._generation = log.describe().generation
        self._covered: dict[TopicPartition, _Covered] = {}
        self._unread: dict[tuple[TopicPartition, int], Unread] = {}
        self._redriven: dict[tuple[TopicPartition, int], str] = {}

    def cover(
        self, ranges: Sequence[Range], stop: Callable[[], bool] = lambda: False, *, progress: Progress = NO_PROGRESS
    ) -> bool:
        """Look at these ranges, which have ends, until `stop()`; whether all of them were looked at.

        Raises OffsetOutOfRange if the log was trimmed meanwhile.
        """
        if sum(len(one.minutes) for one in self._covered.values()) > _MINUTES_MAX:
            self._covered.clear()
        total = sum((each.end or 0) - each.start for each in ranges)
        open_ranges = [(each, self._begin(each)) for each in ranges]
        seen = 0
        while open_ranges:
            left = []
            for each, covered in open_ranges:
                if stop():
                    return False
                if self._step(each, covered):
                    left.append((each, covered))
                seen += _CHUNK
                progress.at(min(seen, total), total, min(seen, total))
            open_ranges = left
        progress.end(total, total, total)
        return True

    def minutes(self, ranges: Iterable[Range]) -> Mapping[str, Mapping[int, int]]:
        """Kind → minute since 1970 → number of events in the partitions of these ranges, as far as they were looked at."""
        found: dict[str, Counter[int]] = {}
        for each in ranges:
            covered = self._covered.get(each.place)
            for minute, kinds in ({} if covered is None else covered.minutes).items():
                for kind, count in kinds.items():
                    found.setdefault(kind, Counter())[minute] += count
        return found

    def since_ns(self, ranges: Iterable[Range]) -> int | None:
        """From when on everything of these ranges was looked at; None if that is all of them, or nothing."""
        partly = [self._covered[each.place] for each in ranges if not self._holds(each)]
        return max((one.since_ns for one in partly if one.since_ns is not None), default=None)

    def unread(self, ranges: Iterable[Range]) -> list[Unread]:
        """The records of these ranges that no reader took in, the newest first."""
        bounds = {each.place: each for each in ranges}
        found = [
            one._replace(redriven=self._redriven.get((one.place, one.offset)))
            for one in self._unread.values()
            if (each := bounds.get(one.place)) is not None and each.start <= one.offset < (each.end or 0)
        ]
        return sorted(found, key=lambda one: (-one.time_ns, one.place, -one.offset))

    # --- inside -----------------------------------------------------------------------------------------------------
    def _begin(self, each: Range) -> _Covered:
        covered, end = self._covered.get(each.place), each.end or 0
        if covered is None or end < covered.low or each.start > covered.high:
            covered = self._covered[each.place] = _Covered(end)
        return covered

    def _holds(self, each: Range) -> bool:
        covered = self._covered[each.place]
        return covered.low <= each.start and covered.high >= (each.end or 0)

    def _step(self, each: Range, covered: _Covered) -> bool:
        """Look at one chunk, new records first; whether there is more."""
        end = each.end or 0
        if covered.high < end:
            covered.high = self._look(each.place, covered, covered.high, min(end, covered.high + _CHUNK))
        elif covered.low > each.start:
            first = max(each.start, covered.low - _CHUNK)
            self._look(each.place, covered, first, covered.low)
            covered.low = first
        return covered.high < end or covered.low > each.start

    def _look(self, place: TopicPartition, covered: _Covered, offset: int, end: int) -> int:
        """Take in [offset, end); where it ended."""
        intake = Intake(*place, self._genesis, position=offset)
        seen: set[bytes] = set()  # keys that belong here
        first = True
        while offset < end:
            records = [record for record in self._log.read(*place, offset) if record.offset < end]
            if not records:
                break
            for record in records:
                opened = open_record(record)
                events = opened.events if isinstance(opened, Batch) and place.topic == KV_TOPIC else ()
                keys = [event[KEY].encode() for event in events if event[KEY] is not None]
                taken = intake.judge(record, opened, strangers=[key for key in keys if key not in seen])
                if isinstance(taken, Counted):
                    seen.update(keys)
                if isinstance(taken, Halt | Quarantine):
                    intake = Intake(*place, self._genesis, position=record.offset + 1, log_time_us=intake.log_time_us)
                time_ns = intake.log_time_us * 1000 if isinstance(taken, Counted) else record.timestamp_ns
                if first and (covered.since_ns is None or time_ns < covered.since_ns):
                    covered.since_ns = time_ns
                first = False
                self._note(record, taken, covered)
            offset = records[-1].offset + 1
        return end

    def _note(self, record: Record, taken: Taken, covered: _Covered) -> None:
        if isinstance(taken, Counted):
            minute = taken.log_time_us * 1000 // _MINUTE_NS
            counter = covered.minutes.get(minute)
            if counter is None:
                counter = covered.minutes[minute] = Counter()
            counter.update(map(_kind, taken.events))
            origin = taken.header.origin
            if origin is not None and origin.generation == self._generation:
                place = TopicPartition(record.topic, origin.partition)
                position = format_position(record.topic, record.partition, record.offset)
                self._redriven[place, origin.offset] = position
            return
        unread = unread_of(record, taken)
        if unread is not None and len(self._unread) < _UNREAD_MAX:
            self._unread[unread.place, unread.offset] = unread
