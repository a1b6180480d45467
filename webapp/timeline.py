"""Events of a range counted by kind and hour. [S]"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

__all__ = ["HOUR_NS", "Timeline", "timeline_of", "timeline_of_minutes"]

MINUTE_NS: Final = 60 * 1_000_000_000
_MINUTES: Final = (1, 5, 15, 60, 360, 1440, 10_080)
_BARS_MAX: Final = 120
HOUR_NS: Final = 3600 * 1_000_000_000
_STEPS_MAX: Final = 240
"""Bars of a line: longer ranges have steps of several hours."""


class Timeline(NamedTuple):
    """Counts of each kind, by its name; the first step begins at `from_ns`, a whole step (UTC)."""

    from_ns: int
    step_ns: int
    counts: dict[str, list[int]]

    @property
    def highest(self) -> int:
        return max((max(line) for line in self.counts.values()), default=0)


def timeline_of_minutes(minutes: Mapping[str, Mapping[int, int]], from_ns: int, to_ns: int) -> Timeline:
    """From counts by kind and minute since 1970; those outside from_ns … to_ns are left out. A minute a step, or more."""
    first, last = from_ns // MINUTE_NS, max(from_ns, to_ns - 1) // MINUTE_NS
    step = next((one for one in _MINUTES if (last - first) // one < _BARS_MAX), _MINUTES[-1])
    start = first // step
    steps = last // step - start + 1
    counts: dict[str, list[int]] = {}
    for kind, found in minutes.items():
        for minute, count in found.items():
            if first <= minute <= last:
                counts.setdefault(kind, [0] * steps)[minute // step - start] += count
    return Timeline(start * step * MINUTE_NS, step * MINUTE_NS, dict(sorted(counts.items())))


def timeline_of(happened: Iterable[tuple[str, int]], from_ns: int, to_ns: int) -> Timeline:
    """From kinds and times within from_ns … to_ns."""
    hours = -(-(to_ns - from_ns) // HOUR_NS) + 1
    step_ns = HOUR_NS * max(1, -(-hours // _STEPS_MAX))
    first = from_ns // step_ns
    steps = to_ns // step_ns - first + 1
    counts: dict[str, list[int]] = {}
    for kind, time_ns in happened:
        counts.setdefault(kind, [0] * steps)[time_ns // step_ns - first] += 1
    return Timeline(first * step_ns, step_ns, dict(sorted(counts.items())))
