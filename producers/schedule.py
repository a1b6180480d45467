"""When to read what: tiers of an agent's readings, and how long to wait before trying again. [S]

::

    tier        every          what
    fast        the interval   CPU, memory, network; GPU utilisation, memory, power, temperature, clocks
    processes   5 s            processes on GPUs (milliseconds a GPU in the driver)
    slow        30 s           disks, temperatures; fans, power limits, MIG layout
    static      1 h            name, address and facts, also whenever they change

A tier whose reading would take more than its share of the time is put off: what watches must not be what is felt.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["FAST", "PROCESSES", "SLOW", "STATIC", "Backoff", "Due", "Schedule"]

FAST: Final = "fast"
PROCESSES: Final = "processes"
SLOW: Final = "slow"
STATIC: Final = "static"

PROCESSES_S: Final = 5.0
SLOW_S: Final = 30.0
STATIC_S: Final = 3600.0
COST_SHARE: Final = 0.05
"""A tier may take at most this share of the time, all in all; a reading of 100 ms is then due every 2 s at most."""
TIERS: Final = (FAST, PROCESSES, SLOW, STATIC)


class Due(NamedTuple):
    """Tiers to read now, and those that were due and are put off because they cost too much."""

    tiers: frozenset[str]
    skipped: tuple[str, ...]


class Schedule:
    """Ticks at multiples of the interval, with the tiers that are due at each. The first one comes at `start`.

    `phase_s` moves the multiples by a part of the interval, so that hosts that were started together do not all read and
    publish in the same moment.

    A tick that comes late moves nothing: the next one is the next multiple, and ticks that passed meanwhile are left out.
    """

    def __init__(self, interval_s: float, start: float, *, phase_s: float = 0.0) -> None:
        self._interval_s = interval_s
        self._next = start
        self._grid = start + phase_s % interval_s
        self._every = {FAST: interval_s, PROCESSES: PROCESSES_S, SLOW: SLOW_S, STATIC: STATIC_S}
        self._last: dict[str, float] = {}
        self._rest_until: dict[str, float] = {}

    @property
    def next_tick(self) -> float:
        return self._next

    def tick(self, now: float) -> Due | None:
        """What is due if a tick is, and the tick is done with; None if none is due yet."""
        if now < self._next:
            return None
        self._next = self._grid + self._interval_s * (1 + (now - self._grid) // self._interval_s)
        # half an interval of grace, or a tier of 5 s under ticks of 2 s would come every 6 s or every 4 s by chance
        grace = self._interval_s / 2
        due = [tier for tier in TIERS if tier not in self._last or now - self._last[tier] >= self._every[tier] - grace]
        skipped = tuple(tier for tier in due if tier in (PROCESSES, SLOW) and now < self._rest_until.get(tier, now))
        taken = frozenset(due) - set(skipped)
        self._last |= dict.fromkeys(taken, now)
        return Due(taken, skipped)

    def cost(self, tier: str, seconds: float, now: float) -> None:
        """Say what reading a tier took; one that is too dear is put off until its share is right again."""
        self._rest_until[tier] = now + seconds / COST_SHARE - self._every[tier] / 2 if seconds > 0 else now

    def ask_again(self, tiers: Iterable[str]) -> None:
        """Make tiers due at the next tick: their reading did not come."""
        for tier in tiers:
            self._last.pop(tier, None)


class Backoff:
    """Waiting times that double from `first_s` to `most_s`.

    >>> backoff = Backoff(30, 300)
    >>> [backoff.next_s() for _ in range(5)]
    [30, 60, 120, 240, 300]
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s, self._now_s = first_s, most_s, first_s

    def next_s(self) -> float:
        """The time to wait now; the next one is longer."""
        wait, self._now_s = self._now_s, min(self._now_s * 2, self._most_s)
        return wait

    def reset(self) -> None:
        """It worked: start again from `first_s`."""
        self._now_s = self._first_s
