"""Looking at a log: counts by kind and minute, records that could not be read, the newest events, all against a plain reading."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.batch import By, Origin, encode
from dimint.clock import ManualClock
from dimint.events import KV_TOPIC, TOPICS
from dimint.log.port import Entry, Log, TopicPartition
from dimint.log.reading import Counted
from dimint.replay import Stream, events_of, select
from dimint.replay.catalog import Catalog
from dimint.replay.event import LoggedEvent
from dimint.replay.filters import EVERYTHING, Filter
from dimint.replay.found import Found
from dimint.replay.looking import events_from, newest_events
from dimint.replay.positions import Positions
from tests.support.replay_log import new_log, write_sets

MINUTE_NS = 60 * 10**9


def plain(log: Log, topics: tuple[str, ...] = TOPICS) -> list[LoggedEvent]:
    return [
        event
        for item in Stream(log, select(log, topics=topics)).history()
        if isinstance(item.taken, Counted)
        for event in events_of(item.place, item.taken)
    ]


def names(found: list[Found]) -> list[str]:
    return [str(event.id) for event in chain.from_iterable(one.events for one in found)]


class Ticking(ManualClock):
    """A clock that goes on by a second whenever it is looked at."""

    def time_ns(self) -> int:
        self.advance(1.0)
        return super().time_ns()


@settings(max_examples=20, deadline=None)
@given(batches=st.integers(0, 60), cuts=st.lists(st.floats(0, 1), max_size=3), steps=st.integers(1, 5))
def test_counts_are_those_of_a_plain_reading(batches: int, cuts: list[float], steps: int) -> None:
    """However it is interrupted, and whatever ranges were looked at before."""
    clock = Ticking()
    with new_log("memory", Path("/nowhere"), clock=clock) as (log, found):
        write_sets(log, found, batches, clock=clock)
        events = plain(log, (KV_TOPIC,))
        begin, end = clock.time_ns() - 10**15, clock.time_ns()
        catalog = Catalog(log, found)
        first = events[0].log_time_us * 1000 if events else begin
        for cut in cuts:
            ranges = select(log, topics=(KV_TOPIC,), start=int(first + cut * (end - first)), end=end)
            calls = iter(range(steps))
            catalog.cover(ranges, lambda calls=calls: next(calls, None) is None)  # type: ignore[misc]
        ranges = select(log, topics=(KV_TOPIC,))
        assert catalog.cover(ranges)
        assert catalog.since_ns(ranges) is None
        expected: dict[str, Counter[int]] = {}
        for event in events:
            expected.setdefault(event.kind, Counter())[event.log_time_us * 1000 // MINUTE_NS] += 1
        assert catalog.minutes(ranges) == expected


@settings(max_examples=20, deadline=None)
@given(batches=st.integers(0, 60), limit=st.integers(1, 30), kind=st.sampled_from(["", "kv.set", "kv.*", "nothing"]))
def test_pages_of_the_newest_have_everything_once(batches: int, limit: int, kind: str) -> None:
    """Page after page backwards, and forwards from positions: what a plain reading has, in its order within a partition."""
    clock = Ticking()
    wanted = Filter.of(kinds=(kind,) if kind else (), key=None, source=None, who=None)
    with new_log("memory", Path("/nowhere"), clock=clock) as (log, found):
        write_sets(log, found, batches, clock=clock)
        expected = [str(event.id) for event in plain(log) if wanted.wants(event)]
        end: int | None = clock.time_ns()
        pages: list[str] = []
        while end is not None:
            some, end = newest_events(log, TOPICS, wanted, from_ns=0, to_ns=end, limit=limit, stop=lambda: False)
            pages += names(some)
        assert sorted(pages) == sorted(expected)
        forward: list[str] = []
        at: Positions | None = {each.place: each.start for each in select(log)}
        while at is not None:
            some, at = events_from(log, TOPICS, wanted, at, None, limit=limit, stop=lambda: False)
            forward += names(some)
        assert forward == expected


def test_a_search_that_is_stopped_goes_on() -> None:
    """However little time it gets, each page looks at something, and all pages together at everything, once."""
    clock = Ticking()
    with new_log("memory", Path("/nowhere"), clock=clock, partitions=1) as (log, found):
        write_sets(log, found, 300, clock=clock)
        end: int | None = clock.time_ns()
        first = plain(log)[0].log_time_us * 1000
        pages: list[str] = []
        looks = 0
        while end is not None:
            some, end = newest_events(log, TOPICS, EVERYTHING, from_ns=first, to_ns=end, limit=10_000, stop=lambda: True)
            pages += names(some)
            looks += 1
        assert looks > 1
        assert sorted(pages) == sorted(str(event.id) for event in plain(log))


@pytest.mark.parametrize("backend", ["memory", "embedded"])
def test_what_could_not_be_read(backend: str, tmp_path: Path) -> None:
    """Each kind of bad record with its reason; one that something was appended for says so."""
    with new_log(backend, tmp_path, partitions=1) as (log, found):
        write_sets(log, found, 3)
        by = (By(None, "h", "p"),)
        sound = encode(b"a" * 16, 1, 0, by, [["kv.set", "k", 0, 0, None, b"J1", None, 0]])
        bad = encode(b"b" * 16, 1, 0, by, [["kv.set", "k", 0, 0, None, 17, None, 0]])
        newer = encode(b"c" * 16, 1, 0, by, [["kv.dance", "k", 0, 0]])
        records = [b'{"cmd":"set"}', bad, newer, sound[:40] + b"\xff" + sound[41:], sound]
        offsets = [log.append([Entry(KV_TOPIC, 0, record)])[0].result() for record in records]
        origin = Origin(log.describe().generation, 0, offsets[0])
        redriven = encode(b"d" * 16, 1, 0, by, [["kv.set", "k", 0, 0, None, b"J2", None, 0]], origin=origin)
        at = log.append([Entry(KV_TOPIC, 0, redriven)])[0].result()
        catalog = Catalog(log, found)
        ranges = select(log, topics=(KV_TOPIC,))
        assert catalog.cover(ranges)
        assert [(one.offset, one.reason, one.redriven) for one in catalog.unread(ranges)] == [
            (offsets[3], "damaged", None), (offsets[2], "newer", None), (offsets[1], "fields", None),
            (offsets[0], "foreign", f"dimint.kv/0@{at}"),
        ]  # fmt: skip
        assert catalog.unread(ranges)[0].place == TopicPartition(KV_TOPIC, 0)
