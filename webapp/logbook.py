"""The log as the web app reads it: a thread of its own looks at stretches, and remembers in a catalog what it has seen."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from dimint.batch import KEY
from dimint.events import CLUSTER_TOPIC, TOPICS
from dimint.genesis import Genesis
from dimint.log.port import Log, Record, TopicPartition
from dimint.log.reading import Counted, Intake
from dimint.replay.catalog import Catalog
from dimint.replay.filters import Filter
from dimint.replay.found import Found, Unread, unread_of
from dimint.replay.looking import events_from, newest_events
from dimint.replay.positions import Bound, Positions, Range
from dimint.replay.ranges import select
from dimint.replay.stream import Stream
from dimint.webapp.cluster import ClusterEvent

__all__ = ["Counts", "LogBook", "Looked", "Question", "SystemLogBook"]

BUDGET_S: Final = 2.0
"""How long one page may look at the log; then it says how far it came, and the next one goes on."""


class Question(NamedTuple):
    """Which events: of these topics, that fit `wanted`, between the bounds; positions to start from turn the order round."""

    topics: tuple[str, ...]
    wanted: Filter
    start: Bound
    end_ns: int
    limit: int


class Counts(NamedTuple):
    """Kind → minute since 1970 → events. `since_ns`: only from then on is everything counted; None: all of it is."""

    minutes: Mapping[str, Mapping[int, int]]
    since_ns: int | None


@dataclass(frozen=True, slots=True)
class Looked:
    """`found` in its order; `further` is where to go on: a time in ns to end at, positions to start from, or nowhere."""

    counts: Counts
    found: Sequence[Found]
    further: int | Positions | None


class LogBook(Protocol):
    """What the routes need of the log. Raises LogError or LogMismatch where it cannot be read."""

    async def look(self, question: Question) -> Looked: ...
    async def unread(self) -> tuple[list[Unread], bool]:
        """Records that no reader took in, the newest first; whether the whole log was looked at."""

    async def record(self, place: TopicPartition, offset: int) -> tuple[Record, Unread | None] | None:
        """The record there, and what is wrong with it; None where there is none."""

    async def cluster(self, to_ns: int | None) -> list[ClusterEvent]: ...
    async def close(self) -> None: ...


class SystemLogBook:
    """`open_log` gives the log, which it owns from then on; it is called at the first question, on the book's thread."""

    def __init__(self, open_log: Callable[[], tuple[Log, Genesis]]) -> None:
        self._open_log = open_log
        self._opened: tuple[Log, Genesis, Catalog] | None = None
        self._thread = ThreadPoolExecutor(1, "web-log")

    async def look(self, question: Question) -> Looked:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, question)

    async def unread(self) -> tuple[list[Unread], bool]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._unread)

    async def record(self, place: TopicPartition, offset: int) -> tuple[Record, Unread | None] | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._record, place, offset)

    async def cluster(self, to_ns: int | None) -> list[ClusterEvent]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._cluster, to_ns)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    # --- on the thread ----------------------------------------------------------------------------------------------
    def _log(self) -> tuple[Log, Genesis, Catalog]:
        if self._opened is None:
            source, genesis = self._open_log()
            self._opened = source, genesis, Catalog(source, genesis)
        return self._opened

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _look(self, question: Question) -> Looked:
        source, genesis, catalog = self._log()
        stop = _budget()
        further: int | Positions | None
        if isinstance(question.start, int):
            found, further = newest_events(source, question.topics, question.wanted, from_ns=question.start,
                                           to_ns=question.end_ns, limit=question.limit, stop=stop)  # fmt: skip
        else:
            found, further = events_from(source, question.topics, question.wanted, question.start, question.end_ns,
                                         limit=question.limit, stop=stop)  # fmt: skip
        ranges = question.wanted.narrow(
            select(source, topics=question.topics, start=question.start, end=question.end_ns), genesis
        )
        complete = catalog.cover(ranges, _budget())
        return Looked(Counts(catalog.minutes(ranges), None if complete else catalog.since_ns(ranges)), found, further)

    def _unread(self) -> tuple[list[Unread], bool]:
        source, _, catalog = self._log()
        ranges = select(source, topics=TOPICS)
        complete = catalog.cover(ranges, _budget())
        return catalog.unread(ranges), complete

    def _record(self, place: TopicPartition, offset: int) -> tuple[Record, Unread | None] | None:
        source, genesis, catalog = self._log()
        if not 0 <= place.partition < source.describe().topics.get(place.topic, 0):
            return None
        start, end = source.bounds(*place)
        records = source.read(*place, offset, max_records=1) if start <= offset < end else []
        if not records or records[0].offset != offset:
            return None
        found = unread_of(records[0], Intake(*place, genesis, position=offset).take(records[0]))
        if found is None:
            return records[0], None
        after = [Range(*each.place, max(each.start, offset), each.end) for each in select(source, topics=(place.topic,))]
        catalog.cover(after, _budget())
        return records[0], next((one for one in catalog.unread(after) if (one.place, one.offset) == (place, offset)), found)

    def _cluster(self, to_ns: int | None) -> list[ClusterEvent]:
        source, _, _ = self._log()
        found = []
        with Stream(source, select(source, topics=(CLUSTER_TOPIC,))) as stream:
            for item in stream.history():
                if isinstance(item.taken, Counted):
                    if to_ns is not None and item.logged_at_ns > to_ns:
                        break
                    found += [
                        ClusterEvent(event[0], event[KEY], event[4:], item.taken.log_time_us) for event in item.taken.events
                    ]
        return found


def _budget() -> Callable[[], bool]:
    until = time.monotonic() + BUDGET_S
    return lambda: time.monotonic() >= until
