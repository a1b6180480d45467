"""The recent past of every GPU, kept in memory in even steps: ten minutes for little lines, an hour for heat grids. [S]"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, overload

from dimint.webapp.judge import holder, use_of
from dimint.webapp.models import Cell, Sampled, Use

__all__ = ["CELLS", "Minute", "CELL_NS", "NO_CELL", "Hour", "Lines", "STEPS", "STEP_NS", "Trend", "Trends"]

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
Row = TypeVar("Row")


class Minute(NamedTuple):
    """For each GPU, by its place: sum of % and number of samples of one minute, and how it stood at the minute's end."""

    number: int
    sums: tuple[int, ...]
    counts: tuple[int, ...]
    ends: tuple[tuple[Use, str | None], ...]


class _Looked(Sequence[Row]):
    """Something for each GPU. Made of what was known when it was asked for, and only when somebody looks: few do."""

    __slots__ = ("_gpus", "_known", "_rows")

    def __init__(self, known: tuple[Any, ...], gpus: int) -> None:
        self._known, self._gpus = known, gpus if known else 0
        self._rows: tuple[Row, ...] | None = None

    def __len__(self) -> int:
        return self._gpus

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, at: int | slice) -> Row | tuple[Row, ...]:
        if self._rows is None:
            self._rows = self._make() if self._known else ()
        return self._rows[at]

    def _make(self) -> tuple[Row, ...]:
        raise NotImplementedError


class Hour(_Looked[tuple[Cell, ...]]):
    """For each GPU its cells."""

    def _make(self) -> tuple[tuple[Cell, ...], ...]:
        newest = self._known[-1].number
        known = {minute.number: minute for minute in self._known}
        window = [known.get(number) for number in range(newest - CELLS + 1, newest + 1)]
        return tuple(tuple(_cell(minute, gpu) for minute in window) for gpu in range(self._gpus))


class Lines(_Looked[Trend]):
    """For each GPU its utilisation step by step."""

    def _make(self) -> tuple[Trend, ...]:
        newest = self._known[-1][0]
        by_step = dict(self._known)
        window: list[tuple[int | None, ...]] = []
        for step in range(newest - STEPS + 1, newest + 1):
            window.append(by_step.get(step, ()))
        _bridge(window)
        return tuple(tuple(values[gpu] if gpu < len(values) else None for values in window) for gpu in range(self._gpus))


class Trends:
    """One host's recent utilisation. Samples may come late; those older than the window, or than known steps, are let go."""

    def __init__(self, step_ns: int = STEP_NS, cell_ns: int = CELL_NS) -> None:
        self._step_ns, self._cell_ns = step_ns, cell_ns
        self._steps: deque[tuple[int, tuple[int | None, ...]]] = deque(maxlen=STEPS)
        self._minutes: deque[Minute] = deque(maxlen=CELLS)

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

    def summed(self, minutes: Iterable[Minute]) -> None:
        """Take in minutes that were summed up before, by their numbers, instead of samples."""
        self._minutes.extend(sorted(minutes, key=lambda minute: minute.number)[-CELLS:])

    @property
    def minutes(self) -> tuple[Minute, ...]:
        """The minutes that are kept, oldest first."""
        return tuple(self._minutes)

    def lines(self, gpus: int) -> Lines:
        """For each of `gpus` GPUs STEPS values up to the newest sample; None where nothing is known."""
        return Lines(tuple(self._steps), gpus)

    def hour(self, gpus: int) -> Hour:
        """For each of `gpus` GPUs CELLS minutes up to the newest sample."""
        return Hour(tuple(self._minutes), gpus)

    def _add_minute(self, sample: Sampled) -> None:
        number = sample.time_ns // self._cell_ns
        ends = tuple((use_of(gpu), holder(gpu)) for gpu in sample.gpus)
        if not self._minutes or number > self._minutes[-1].number:
            self._minutes.append(Minute(number, (), (), ()))
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
        self._minutes[-1] = Minute(number, tuple(sums), tuple(counts), ends)


def _cell(minute: Minute | None, gpu: int) -> Cell:
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
