"""Views of the past: who was there, by what name, with which newest sample, and what is missing."""

from pathlib import Path
from typing import Any

import pytest

from dimint.consumers.past import cursor_text, parse_cursor
from dimint.consumers.reading import StatusReader
from dimint.consumers.wanted import Wanted
from dimint.errors import BadCursor
from tests.support.samples import START_NS, Machine, host_id, registered, sample_event
from tests.support.status_log import StatusLog, feed

ONE, TWO, THREE = host_id(1), host_id(2), host_id(3)
RUN = b"8 bytes."
SECOND = 1_000_000_000


class Past(StatusLog):
    """A log to which things are added by their second."""

    def at(self, second: float, event: list[Any], *, received: float | None = None) -> None:
        time_ns = START_NS + int(second * SECOND)
        logged_ns = time_ns if received is None else START_NS + int(received * SECOND)
        self.put([event], time_ns=time_ns, logged_at_ns=logged_ns)

    def sample(self, second: float, host: str, seq: int, *, received: float | None = None, **content: Any) -> None:
        self.at(second, sample_event(host, RUN, seq, {"int_ms": 10_000, **content}), received=received)


def ns(second: float) -> int:
    return START_NS + int(second * SECOND)


def test_the_fleet_as_it_was(tmp_path: Path) -> None:
    """Hosts have the name, address, facts and newest sample of then; who came later is not there."""
    log = Past()
    log.at(0, registered(ONE, "gpu-01", "10.0.0.1", {"driver": "535"}))
    log.sample(10, ONE, 1, n=1)
    log.at(15, registered(TWO, "gpu.01", "10.0.0.2"))
    log.sample(20, ONE, 2, n=2)
    log.at(30, registered(ONE, "renamed", "10.0.0.9", {"driver": "550"}))
    log.sample(31, TWO, 1, n=9)
    with StatusReader(feed(log, tmp_path)) as reader:
        assert reader.fleet_at(ns(0) - 1) == []
        (early,) = reader.fleet_at(ns(14))
        assert (early.host.name, early.host.ip, early.host.facts) == ("gpu_01", "10.0.0.1", {"driver": "535"})
        assert early.sample is not None
        assert (early.sample.sample["n"], early.age_ns, early.unknown) == (1, 4 * SECOND, False)
        first, second = reader.fleet_at(ns(29))
        assert (first.host.name, second.host.name) == ("gpu_01", f"gpu_01_{TWO[:8]}")
        assert (second.sample, second.age_ns, second.unknown, second.host.last_sample_ns) == (None, None, True, None)
        late = {entry.host.id: entry for entry in reader.fleet_at(ns(60))}
        assert (late[ONE].host.name, late[ONE].host.ip, late[ONE].host.facts) == ("renamed", "10.0.0.9", {"driver": "550"})
        assert late[TWO].host.name == "gpu_01"
        assert (late[ONE].unknown, late[TWO].unknown) == (True, False), "40 s are more than three intervals, 29 s are not"


def test_a_spool_sent_later_is_there_and_marked(tmp_path: Path) -> None:
    """Samples that came after an outage stand at the time they were taken, and say that nobody saw them then."""
    log = Past()
    log.at(0, registered(ONE, "a"))
    log.sample(10, ONE, 1)
    log.sample(15, THREE, 1)
    log.sample(20, ONE, 2, received=300)
    log.at(25, registered(TWO, "b"), received=300)
    log.sample(26, TWO, 1, received=300)
    with StatusReader(feed(log, tmp_path)) as reader:
        (live,) = reader.fleet_at(ns(14))
        assert not live.backfilled
        fleet = {entry.host.id: entry for entry in reader.fleet_at(ns(28))}
        assert fleet.keys() == {ONE, TWO, THREE}, "a host is there from its first sample on, registered or not"
        assert [fleet[host].backfilled for host in (ONE, TWO, THREE)] == [True, True, False]
        assert fleet[THREE].host.name == THREE


def test_pages_of_a_range_say_what_is_missing(tmp_path: Path) -> None:
    """Gaps have the samples around them, how many were lost, and the agent's reason; an open end is one as well."""
    log = Past()
    for seq in (1, 2, 3):
        log.sample(10 * seq, ONE, seq)
    for seq in (10, 11):
        log.sample(10 * seq, ONE, seq)
    log.at(95, ["host.gap", ONE, 0, 0, RUN, 4, 9, "spool full"])
    with StatusReader(feed(log, tmp_path)) as reader:
        page = reader.page(ONE, ns(0), ns(1000), limit=3)
        assert ([stored.seq for stored in page.samples], page.gaps) == ([1, 2, 3], [])
        assert page.cursor is not None
        assert parse_cursor(cursor_text(page.cursor)) == page.cursor
        rest = reader.page(ONE, ns(0), ns(1000), limit=3, after=page.cursor)
        assert ([stored.seq for stored in rest.samples], rest.cursor) == ([10, 11], None)
        assert rest.gaps == [(ns(30), ns(100), 6, "spool full"), (ns(110), None, None, None)]
        inside = reader.page(ONE, ns(50), ns(80))
        assert (inside.samples, inside.gaps) == ([], [(ns(30), ns(100), None, None)])
        steps = reader.page(ONE, ns(0), ns(110), step_ns=20 * SECOND)
        assert [stored.seq for stored in steps.samples] == [1, 3, 11]
        assert steps.gaps == [(ns(30), ns(100), None, None)]
        assert reader.page(ONE, ns(110), ns(120)).gaps == []
        assert reader.page(TWO, 0, ns(99)) == ([], [], None)


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "-1.2", "1.2.3", "1e3.4", "9" * 41 + ".1", "١.٢"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """A cursor made up by hand gets a named error."""
    with pytest.raises(BadCursor):
        parse_cursor(text)


UTIL = Wanted({"gpu": {"util_pct": None}, "cpu": {"tot_pm": None}})


def test_any_instant_is_read_without_decoding_the_rest(tmp_path: Path) -> None:
    """The fleet at any instant is what the samples say, in chunks of many shapes as in single rows."""
    log = Past()
    machine = Machine(1, gpus=2, cores=4)
    taken = []
    log.put([registered(ONE, "a")], logged_at_ns=START_NS)
    for time_ns, event in machine.events(700):
        log.put([["host.sample", ONE, *event[2:]]], time_ns=time_ns, logged_at_ns=time_ns)
        taken.append((time_ns, event[6]))
    with StatusReader(feed(log, tmp_path)) as reader:
        for at in range(0, 700, 7):
            time_ns, sample = taken[at]
            for (entry,), age_ns in ((reader.fleet_at(time_ns), 0), (reader.fleet_at(time_ns + SECOND), SECOND)):
                assert entry.sample is not None
                assert (entry.sample.sample, entry.age_ns) == (sample, age_ns)
            (part,) = reader.fleet_at(time_ns, UTIL)
            assert part.sample is not None
            assert UTIL.of(part.sample.sample) == UTIL.of(sample)
        (chunked,) = reader.fleet_at(taken[0][0], UTIL)
        assert chunked.sample is not None
        assert chunked.sample.sample == UTIL.of(taken[0][1])
