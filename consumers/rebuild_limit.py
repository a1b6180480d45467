"""Up to where a rebuild of the status tables reads, when a part of it stands in archives and not in the log any more."""

from collections.abc import Mapping

from dimint.errors import OffsetOutOfRange
from dimint.events import STATUS_TOPIC
from dimint.log.port import Log, Record
from dimint.replay.positions import Bound
from dimint.replay.ranges import ends_of, own_time_ns

__all__ = ["Limit"]


class Limit:
    """`end` as in dimint/replay/positions.py; None is the log's end, wherever it is when it is asked for."""

    def __init__(self, log: Log, end: Bound | None, *, archived: bool) -> None:
        """`archived`: positions may be lower than the log's start. Raises BadPosition or OffsetOutOfRange."""
        self._log = log
        self._before_ns: int | None = None
        self._ends: dict[int, int] | None = None
        if isinstance(end, Mapping) and archived:
            self._ends = {place.partition: offset for place, offset in end.items() if place.topic == STATUS_TOPIC}
            for partition, offset in self._ends.items():
                bounds = log.bounds(STATUS_TOPIC, partition)
                if offset > bounds.end:
                    raise OffsetOutOfRange(STATUS_TOPIC, partition, offset, *bounds)
        elif end is not None:
            self._ends = ends_of(log, STATUS_TOPIC, end)
            self._before_ns = end if archived and isinstance(end, int) else None

    def end(self, partition: int) -> int:
        """The first offset that is not read; of a partition that is left out 0."""
        return self._log.bounds(STATUS_TOPIC, partition).end if self._ends is None else self._ends.get(partition, 0)

    def cut(self, partition: int, offset: int) -> int:
        """The offset, or the end if that is lower."""
        return offset if self._ends is None else min(offset, self._ends.get(partition, 0))

    def takes(self, record: Record) -> bool:
        """Whether an archived record is read: it lies before the end, by offset and by time."""
        if self._ends is None:
            return True
        if record.offset >= self._ends.get(record.partition, 0):
            return False
        if self._before_ns is not None and (own_time_ns(record) or 0) >= self._before_ns:
            self._ends[record.partition] = record.offset
            return False
        return True
