"""The last minutes of every GPU's utilisation in even steps, kept in memory for the little lines on the cards. [S]"""

from collections import deque
from typing import Final, TypeAlias

from dimint.webapp.models import Sampled

__all__ = ["STEPS", "STEP_NS", "Trend", "Trends"]

STEP_NS: Final = 10 * 1_000_000_000
STEPS: Final = 60
"""Ten minutes."""

Trend: TypeAlias = tuple[int | None, ...]


class Trends:
    """One host's recent utilisation. Samples may come late; those older than the window, or than known steps, are let go."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, tuple[int | None, ...]]] = deque(maxlen=STEPS)

    def add(self, sample: Sampled) -> None:
        """Take in a sample: the last one of a step counts."""
        step = sample.time_ns // STEP_NS
        values = tuple(gpu.util_pct for gpu in sample.gpus)
        if self._steps and step <= self._steps[-1][0]:
            if step == self._steps[-1][0]:
                self._steps[-1] = step, values
            return
        self._steps.append((step, values))

    def lines(self, gpus: int) -> tuple[Trend, ...]:
        """For each of `gpus` GPUs STEPS values up to the newest sample; None where nothing is known."""
        if not self._steps:
            return ()
        newest = self._steps[-1][0]
        by_step = dict(self._steps)
        window = [by_step.get(step, ()) for step in range(newest - STEPS + 1, newest + 1)]
        return tuple(tuple(values[gpu] if gpu < len(values) else None for values in window) for gpu in range(gpus))
