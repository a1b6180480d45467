"""The recent past of every GPU, kept in memory in even steps: ten minutes for little lines, an hour for heat grids. [S]"""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias, overload

from dimint.webapp.judge import holder, use_of
from dimint.webapp.models import Cell, Sampled, Use

__all__ = ["CELLS", "CELL_NS", "NO_CELL", "Hour", "STEPS", "STEP_NS", "Trend", "Trends"]

STEP_NS: Final = 10 * 1_000_000_000
STEPS: Final = 60
"""Ten minutes."""
CELL_NS: Final = 60 * 1_000_000_000
CELLS: Final = 60
"""One hour."""
NO_CELL: Final = Cell(None, Use.UNKNOWN, None)
_BRIDGED_STEPS: Final = 12
"""A gap of at most this many steps, two minutes, is how a slow sender reports; a longer one is shown."""

Trend: TypeAlias = tuple[int | None, ...]


class _Minute(NamedTuple):
    number: int
    sums: tuple[int, ...]
    counts: tuple[int, ...]
    ends: tuple[tuple[Use, str | None], ...]


class Hour(Sequence[tuple[Cell, ...]]):
    """For each GPU its cells. Made of what was known when it was asked for, and only when somebody looks: few do."""

    __slots__ = ("_gpus", "_minutes", "_rows")

    def __init__(self, minutes: tuple[_Minute, ...], gpus: int) -> None:
        self._minutes, self._gpus = minutes, gpus if minutes else 0
        self._rows: tuple[tuple[Cell, ...], ...] | None = None

    def __len__(self) -> int:
        return self._gpus

    @overload
    def __getitem__(self, at: int) -> tuple[Cell, ...]: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[tuple[Cell, ...], ...]: ...
    def __getitem__(self, at: int | slice) -> tuple[Cell, ...] | tuple[tuple[Cell, ...], ...]:
        if self._rows is None:
            newest = self._minutes[-1].number if self._minutes else 0
            known = {minute.number: minute for minute in self._minutes}
            window = [known.get(number) for number in range(newest - CELLS + 1, newest + 1)]
            self._rows = tuple(tuple(_cell(minute, gpu) for minute in window) for gpu in range(self._gpus))
        return self._rows[at]


class Trends:
    """One host's recent utilisation. Samples may come late; those older than the window, or than known steps, are let go."""

    def __init__(self, step_ns: int = STEP_NS, cell_ns: int = CELL_NS) -> None:
        self._step_ns, self._cell_ns = step_ns, cell_ns
        self._steps: deque[tuple[int, tuple[int | None, ...]]] = deque(maxlen=STEPS)
        self._minutes: deque[_Minute] = deque(maxlen=CELLS)

    def add(self, sample: Sampled) -> None:
        """Take in a sample: the last one of a step counts, a minute has the mean of its samples."""
        self._add_minute(sample)
        step = sample.time_ns // self._step_ns
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
        window: list[tuple[int | None, ...]] = []
        for step in range(newest - STEPS + 1, newest + 1):
            window.append(by_step.get(step, ()))
        _bridge(window)
        return tuple(tuple(values[gpu] if gpu < len(values) else None for values in window) for gpu in range(gpus))

    def hour(self, gpus: int) -> Hour:
        """For each of `gpus` GPUs CELLS minutes up to the newest sample."""
        return Hour(tuple(self._minutes), gpus)

    def _add_minute(self, sample: Sampled) -> None:
        number = sample.time_ns // self._cell_ns
        ends = tuple((use_of(gpu), holder(gpu)) for gpu in sample.gpus)
        if not self._minutes or number > self._minutes[-1].number:
            self._minutes.append(_Minute(number, (), (), ()))
        minute = self._minutes[-1]
        if number < minute.number:
            return
        sums, counts = list(minute.sums), list(minute.counts)
        missing = len(sample.gpus) - len(sums)
        sums += [0] * missing
        counts += [0] * missing
        for index, gpu in enumerate(sample.gpus):
            if gpu.util_pct is not None:
                sums[index] += gpu.util_pct
                counts[index] += 1
        self._minutes[-1] = _Minute(number, tuple(sums), tuple(counts), ends)


def _cell(minute: _Minute | None, gpu: int) -> Cell:
    if minute is None or gpu >= len(minute.ends):
        return NO_CELL
    count = minute.counts[gpu]
    return Cell(minute.sums[gpu] // count if count else None, *minute.ends[gpu])


def _bridge(window: list[tuple[int | None, ...]]) -> None:
    """Fill short gaps with what was known before them."""
    last: tuple[int | None, ...] = ()
    gap = 0
    for at, values in enumerate(window):
        if values:
            if last and 0 < gap <= _BRIDGED_STEPS:
                window[at - gap : at] = [last] * gap
            last, gap = values, 0
        else:
            gap += 1
