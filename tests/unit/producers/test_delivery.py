"""From the agent to the publisher: in order, nothing lost, nothing written while all goes well."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.clock import ManualClock
from dimint.errors import LogBroken
from dimint.producers.delivery import MEMORY_PARCELS_MAX, PATIENCE_S, Delivery
from dimint.producers.publish import Event, Outcome
from dimint.producers.spool import Spool

RUN = b"12345678"


class Sink:
    """A publisher in memory: `mode` is ok, hold, fail, refuse or broken, perhaps per lane. What counts is in `got`."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes, self.mode, self.got = lanes, "ok", list[Event]()
        self.modes: dict[int, str] = {}
        self.held: dict[int, list[Event]] = {}
        self.sent: dict[int, list[Event]] = {}
        self.sends = 0
        self.refused: set[int] = set()

    def lane_of(self, host: str) -> int:
        return int(host) % self.lanes

    def send(self, lane: int, events: Sequence[Event]) -> None:
        assert lane not in self.sent, "one parcel a lane"
        assert lane not in self.held
        self.sends += 1
        self.sent[lane] = list(events)

    def outcomes(self) -> list[Outcome]:
        found = []
        for lane, events in list(self.sent.items()):
            mode = self.modes.get(lane, self.mode)
            if mode == "broken":
                raise LogBroken("the disk is gone")
            del self.sent[lane]
            if mode == "hold":
                self.held[lane] = events
                continue
            if mode == "ok":
                self.got += events
            if mode == "refuse" and not any(event[0] == "host.sample" and event[4] in self.refused for event in events):
                self.got += events
                found.append(Outcome(lane, True))
                continue
            found.append(Outcome(lane, mode == "ok", "too large" if mode == "refuse" else None))
        return found

    def release(self, published: bool = True) -> None:
        """Answer what was held."""
        for lane, events in self.held.items():
            self.sent[lane] = events
            self.modes[lane] = "ok" if published else "fail"
        self.held = {}

    def wait(self, timeout_s: float) -> None:
        raise AssertionError("the delivery never waits")

    def wake(self) -> None:
        return

    def reachable(self, timeout_s: float) -> bool:
        return timeout_s > 0

    def close(self) -> None:
        return


class Scene:
    """A delivery, its sink, its spool and the time."""

    def __init__(self, path: Path, lanes: int = 1, **limits: Any) -> None:
        self.clock, self.sink, self.path = ManualClock(), Sink(lanes), path
        self.spool = Spool(path, self.clock, **limits)
        self.delivery = Delivery(self.sink, self.spool, self.clock)
        self.seq = 0

    def tick(self, hosts: int = 1, pause_s: float = 2.0) -> None:
        """One tick of `hosts` hosts, then news of the publisher, then time."""
        self.seq += 1
        now = self.clock.time_ns()
        self.delivery.put([["host.sample", str(host), now, RUN, self.seq, {"q": 1}] for host in range(hosts)])
        self.delivery.pump()
        self.pass_time(pause_s)

    def pass_time(self, seconds: float) -> None:
        """Let time pass as a driver does: looking whenever the delivery says that it has something to do."""
        end = self.clock.monotonic() + seconds
        for _ in range(10_000):
            look = min(self.delivery.next_look(), end)
            if not self.sink.sent:  # an answer wakes a driver at once
                self.clock.advance(max(0.0, look - self.clock.monotonic()) + 1e-6)
            self.delivery.pump()
            if self.clock.monotonic() >= end:
                return
        raise AssertionError("the delivery spins")

    def numbers(self, host: str = "0") -> list[int]:
        """Sample numbers of a host in the order in which they first got there."""
        return list(dict.fromkeys(event[4] for event in self.sink.got if event[0] == "host.sample" and event[1] == host))

    def gaps(self) -> list[int]:
        """Numbers of host 0 declared as lost."""
        ranges = {(event[4], event[5]) for event in self.sink.got if event[0] == "host.gap" and event[1] == "0"}
        return [number for first, last in sorted(ranges) for number in range(first, last + 1)]


def test_the_normal_case_writes_nothing(tmp_path: Path) -> None:
    """While the publisher answers in time the spool is never touched, and each tick is one parcel."""
    scene = Scene(tmp_path / "s.db")
    before = scene.spool._db.changes(), scene.spool._db.total_changes()
    for _ in range(50):
        scene.tick()
    assert (scene.spool._db.changes(), scene.spool._db.total_changes()) == before
    assert scene.numbers() == list(range(1, 51))
    assert (scene.sink.sends, scene.delivery.settled) == (50, True)
    scene.spool.close()


def test_an_outage_goes_through_the_spool_in_order(tmp_path: Path) -> None:
    """What fails or waits too long is on disk within PATIENCE_S; afterwards everything arrives in order, once."""
    scene = Scene(tmp_path / "s.db")
    scene.tick()
    for mode in ("fail", "hold"):
        scene.sink.mode = mode
        scene.sink.modes = {}
        for _ in range(10):
            scene.tick(pause_s=PATIENCE_S + 0.1)
            assert scene.spool.events >= 1
        scene.sink.mode = "ok"
        scene.sink.release()
        scene.pass_time(60)
        assert scene.delivery.settled
        assert scene.numbers() == list(range(1, scene.seq + 1))
    assert not scene.delivery.behind
    assert len(scene.sink.got) == scene.seq, "what landed after all is not sent again"
    late = [event[4] for event in scene.sink.got if event[5].get("late")]
    assert late[:10] == list(range(2, 12)), "samples that waited on the disk say so"
    assert 1 not in late
    scene.spool.close()


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """What an earlier agent left in the spool goes first, with its run and numbers."""
    scene = Scene(tmp_path / "s.db")
    scene.sink.mode = "fail"
    for _ in range(5):
        scene.tick()
    scene.delivery.close()
    scene.spool.close()
    again = Scene(tmp_path / "s.db")
    again.seq = 5
    again.tick()
    again.pass_time(5)
    assert again.numbers() == [1, 2, 3, 4, 5, 6]
    again.spool.close()


def test_ending_puts_what_is_in_flight_into_the_spool(tmp_path: Path) -> None:
    """Without an answer at the end nothing is lost."""
    scene = Scene(tmp_path / "s.db")
    scene.sink.mode = "hold"
    scene.tick(pause_s=0.1)
    scene.tick(pause_s=0.1)
    scene.delivery.close()
    assert scene.spool.events == 2
    scene.spool.close()


def test_a_broken_log_leaves_everything_in_the_spool(tmp_path: Path) -> None:
    """When the process must end, what it has accepted is on disk first."""
    scene = Scene(tmp_path / "s.db")
    scene.sink.mode = "broken"
    with pytest.raises(LogBroken):
        scene.tick()
    assert scene.spool.events == 1
    scene.spool.close()


def test_a_lane_that_fails_does_not_lose_the_others(tmp_path: Path) -> None:
    """With several partitions only one of which fails, all arrive in the end, each host in order."""
    scene = Scene(tmp_path / "s.db", lanes=3)
    for step in range(12):
        scene.sink.modes = {1: "fail"} if step in (3, 4, 5) else {}
        scene.tick(hosts=6)
    scene.pass_time(60)
    for host in range(6):
        assert scene.numbers(str(host)) == list(range(1, 13))
    scene.spool.close()


def test_refused_samples_are_declared(tmp_path: Path) -> None:
    """What the other side will never take is dropped with a gap; what came with it in one parcel and what follows goes on."""
    scene = Scene(tmp_path / "s.db")
    scene.sink.mode, scene.sink.refused = "fail", {2, 3}
    for _ in range(6):
        scene.tick()
    scene.sink.mode = "refuse"
    scene.pass_time(60)
    assert (scene.numbers(), scene.gaps()) == ([1, 4, 5, 6], [2, 3])
    assert scene.delivery.settled
    scene.spool.close()


def test_a_full_disk_keeps_the_newest_in_memory(tmp_path: Path) -> None:
    """Neither log nor disk: memory is bounded, and what had to go is declared when somebody listens again."""
    scene = Scene(tmp_path / "s.db")
    scene.spool._db.pragma("max_page_count", scene.spool._db.pragma("page_count"))
    scene.sink.mode = "fail"
    for _ in range(60):  # what page slack the file has
        scene.spool.put([[["gpu.back", "0", 1, "u"]] * 50]) if not scene.delivery.behind else None
        scene.tick()
    for _ in range(MEMORY_PARCELS_MAX + 40):
        scene.tick()
    scene.sink.mode = "ok"
    scene.pass_time(300)
    assert sorted(scene.numbers() + scene.gaps()) == list(range(1, scene.seq + 1))
    assert scene.delivery.settled
    scene.spool.close()


def test_draining_is_limited_in_rate(tmp_path: Path) -> None:
    """A long outage of a big fleet comes back over seconds, not at once."""
    scene = Scene(tmp_path / "s.db")
    scene.sink.mode = "fail"
    for _ in range(40):
        scene.tick(hosts=500)
    scene.sink.mode = "ok"
    scene.pass_time(30.0)  # the retry is due by now
    arrived = len(scene.sink.got)
    scene.pass_time(1.0)
    assert len(scene.sink.got) - arrived <= 8_000
    scene.pass_time(30.0)
    assert scene.delivery.settled
    scene.spool.close()


@settings(max_examples=60)
@given(st.integers(0, 1 << 32))
def test_whatever_happens_every_number_is_accounted_for(seed: int) -> None:
    """Random outages, slow answers and restarts: each number arrives or is declared; first arrivals are in order."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder) / "s.db", lanes=2, max_bytes=4_000)
        got: list[Event] = []
        for _ in range(30):
            scene.sink.mode = dice.choice(["ok", "ok", "fail", "hold"])
            scene.sink.modes = {}
            if dice.random() < 0.4:
                scene.sink.release(published=dice.random() < 0.5)
            scene.tick(hosts=2, pause_s=dice.choice([0.2, 2.0, 10.0]))
            if dice.random() < 0.1:
                scene.delivery.close()
                scene.spool.close()
                got += scene.sink.got
                seq, scene = scene.seq, Scene(Path(folder) / "s.db", lanes=2, max_bytes=4_000)
                scene.seq = seq
        scene.sink.mode, scene.sink.modes = "ok", {}
        scene.sink.release()
        scene.pass_time(200)
        scene.sink.got = got + scene.sink.got
        assert scene.delivery.settled
        assert sorted(set(scene.numbers() + scene.gaps())) == list(range(1, scene.seq + 1))
        assert scene.numbers() == sorted(scene.numbers())
        scene.spool.close()
