"""Ticks and tiers."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.producers.schedule import FAST, PROCESSES, SLOW, STATIC, Schedule


def run(interval_s: float, seconds: float) -> dict[str, list[float]]:
    """Times at which each tier was read when every tick comes in time."""
    schedule, now = Schedule(interval_s, 0.0), 0.0
    times: dict[str, list[float]] = {}
    while now <= seconds:
        due = schedule.tick(now)
        assert due is not None
        for tier in due.tiers:
            times.setdefault(tier, []).append(round(now, 3))
        now = schedule.next_tick
    return times


def test_tiers_come_at_their_own_pace() -> None:
    """Everything at the start, then each tier about as often as it should."""
    times = run(2.0, 62.0)
    assert times[FAST] == [2.0 * step for step in range(32)]
    assert times[PROCESSES] == [4.0 * step for step in range(16)], "5 s is nearest to two ticks of 2 s"
    assert times[SLOW] == [0.0, 30.0, 60.0]
    assert times[STATIC] == [0.0]
    assert run(60.0, 600.0)[SLOW] == [60.0 * step for step in range(11)]


def test_hosts_that_start_together_tick_apart() -> None:
    """The first tick comes at once, the others at this host's own place in the interval."""
    schedule, ticks = Schedule(5.0, 100.0, phase_s=2.0), []
    for _ in range(4):
        ticks.append(schedule.next_tick)
        assert schedule.tick(schedule.next_tick) is not None
    assert ticks == [100.0, 102.0, 107.0, 112.0]


def test_a_late_tick_leaves_the_others_where_they_were() -> None:
    """Ticks that passed while the agent was busy are left out; the grid stays."""
    schedule = Schedule(2.0, 0.0)
    schedule.tick(0.0)
    assert schedule.tick(1.9) is None
    assert schedule.tick(9.1) is not None
    assert schedule.next_tick == 10.0


def test_a_tier_that_is_too_dear_is_put_off() -> None:
    """A reading of process lists that takes a second is made every 20 s at most, and samples say that it was left out."""
    schedule, read, skipped = Schedule(5.0, 0.0), 0, 0
    for step in range(120):
        due = schedule.tick(step * 5.0)
        assert due is not None
        assert FAST in due.tiers
        skipped += PROCESSES in due.skipped
        if PROCESSES in due.tiers:
            read += 1
            schedule.cost(PROCESSES, 1.0, step * 5.0)
    assert 25 <= read <= 40
    assert read + skipped == 120


@given(st.lists(st.floats(0.0, 20.0), max_size=50), st.floats(0.1, 60.0), st.floats(0.0, 60.0))
def test_the_next_tick_is_always_ahead(pauses: list[float], interval_s: float, phase_s: float) -> None:
    """However late ticks are taken, the next one is in the future and at most an interval away."""
    schedule, now = Schedule(interval_s, 0.0, phase_s=phase_s), 0.0
    for pause in pauses:
        now += pause
        if schedule.tick(now) is not None:
            assert now < schedule.next_tick + 1e-6
            assert schedule.next_tick <= now + interval_s + 1e-6
