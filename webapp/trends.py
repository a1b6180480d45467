"""The recent past of every GPU, kept in memory in even steps: ten minutes for little lines, an hour for heat grids. [S]"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, overload

from dimint.webapp.judge import holder, use_of
from dimint.webapp.models import Cell, Gpu, Sampled, Use

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
    """For each GPU, by its place: its mean utilisation in %, None = not known, and how it stood at the minute's end."""

    number: int
    utils: tuple[int | None, ...]
    ends: tuple[tuple[Use, str | None], ...]


class _Open(NamedTuple):
    """A minute of which more samples may come: sum of % and number of samples of each GPU, and how they were seen last."""

    number: int
    sums: tuple[int, ...]
    counts: tuple[int, ...]
    gpus: Sequence[Gpu]

    def minute(self) -> Minute:
        utils = tuple(total // count if count else None for total, count in zip(self.sums, self.counts, strict=True))
        return Minute(self.number, utils, tuple((use_of(gpu), holder(gpu)) for gpu in self.gpus))


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
        return self._all()[at]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._all())

    def _all(self) -> tuple[Row, ...]:
        if self._rows is None:
            self._rows = self._make() if self._known else ()
        return self._rows

    def _make(self) -> tuple[Row, ...]:
        raise NotImplementedError


class Hour(_Looked[tuple[Cell, ...]]):
    """For each GPU its cells."""

    def _make(self) -> tuple[tuple[Cell, ...], ...]:
        minutes = [minute.minute() if isinstance(minute, _Open) else minute for minute in self._known]
        newest = minutes[-1].number
        known = {minute.number: minute for minute in minutes}
        window = [known.get(number) for number in range(newest - CELLS + 1, newest + 1)]
        return tuple(zip(*[_cells(minute, self._gpus) for minute in window], strict=True))


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
        self._open: _Open | None = None
        """The minute of the newest sample; how its GPUs stand is only judged when it is over, or somebody looks."""

    def add(self, sample: Sampled) -> None:
        """Take in a sample: the last one of a step counts, a minute has the mean of its samples."""
        values = sample.utils
        self._add_minute(sample.time_ns // self._cell_ns, values, sample.gpus)
        step = sample.time_ns // self._step_ns
        if self._steps and step <= self._steps[-1][0]:
            if step == self._steps[-1][0]:
                self._steps[-1] = step, values
            return
        self._steps.append((step, values))

    def summed(self, minutes: Iterable[Minute]) -> None:
        """Take in minutes that were summed up before, by their numbers, instead of samples; of those that are known too less."""
        mine = {minute.number: minute for minute in minutes} | {minute.number: minute for minute in self.minutes}
        self._open = None
        self._minutes.extend(mine[number] for number in sorted(mine))

    @property
    def minutes(self) -> tuple[Minute, ...]:
        """The minutes that are kept, oldest first."""
        return (*self._minutes, self._open.minute()) if self._open is not None else tuple(self._minutes)

    def lines(self, gpus: int) -> Lines:
        """For each of `gpus` GPUs STEPS values up to the newest sample; None where nothing is known."""
        return Lines(tuple(self._steps), gpus)

    def hour(self, gpus: int) -> Hour:
        """For each of `gpus` GPUs CELLS minutes up to the newest sample."""
        return Hour((*self._minutes, self._open) if self._open is not None else tuple(self._minutes), gpus)

    def _add_minute(self, number: int, utils: tuple[int | None, ...], gpus: Sequence[Gpu]) -> None:
        before = self._open
        if before is None or number > before.number:
            if before is not None:
                self._close(before.minute())
            if not self._minutes or number > self._minutes[-1].number:
                sums = tuple([0 if util is None else util for util in utils])
                self._open = _Open(number, sums, tuple([int(util is not None) for util in utils]), gpus)
            elif number == self._minutes[-1].number:  # it was summed up before: only how it ends is news
                self._minutes[-1] = self._minutes[-1]._replace(ends=_Open(number, (), (), gpus).minute().ends)
        elif number == before.number:
            more, fewer = len(utils) - len(before.sums), len(before.sums) - len(utils)
            sums, counts, utils = before.sums + (0,) * more, before.counts + (0,) * more, utils + (None,) * fewer
            self._open = _Open(
                number,
                tuple([total if util is None else total + util for total, util in zip(sums, utils, strict=True)]),
                tuple([count if util is None else count + 1 for count, util in zip(counts, utils, strict=True)]),
                gpus,
            )

    def _close(self, minute: Minute) -> None:
        if self._minutes and minute.ends == self._minutes[-1].ends:
            minute = minute._replace(ends=self._minutes[-1].ends)  # as mostly: one of them is kept for all
        self._minutes.append(minute)


def _cells(minute: Minute | None, gpus: int) -> list[Cell]:
    """A minute of so many GPUs."""
    if minute is None:
        return [NO_CELL] * gpus
    utils: Iterable[int | None] = minute.utils
    if len(minute.utils) < len(minute.ends):
        utils = (*minute.utils, *repeat(None, len(minute.ends) - len(minute.utils)))
    # half a million of them for a thousand hosts: made as tuples are
    cells = [tuple.__new__(Cell, (util, use, user)) for util, (use, user) in zip(utils, minute.ends, strict=False)][:gpus]
    return cells if len(cells) == gpus else cells + [NO_CELL] * (gpus - len(cells))


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
