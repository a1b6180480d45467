"""A host's past as series in even steps: what charts, their summaries in words, and their tables are made of. [S]

Of single samples the last one of a step counts; `history_tiers.py` makes the same of samples that are summed up.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from dimint.settings_thresholds import THRESHOLDS
from dimint.webapp.judge import holder, units
from dimint.webapp.models import Gpu, Sampled

__all__ = ["OTHERS", "POINTS", "Come", "History", "Series", "Values", "history_of", "late_stretches", "summary", "top_users"]

POINTS: Final = 180
"""Steps of a chart, about: one for each four pixels."""
_USERS_MAX: Final = 6
_DAY_NAMED_NS: Final = 20 * 3600 * 1_000_000_000
OTHERS: Final = "others"

Values: TypeAlias = tuple[int | None, ...]


class Series(NamedTuple):
    """One line of a chart: a value for each step, None where nothing is known.

    Where a step has several samples `values` are their means, `low` and `high` the least and the most; else both are empty.
    """

    name: str
    values: Values
    low: Values = ()
    high: Values = ()


class Come(NamedTuple):
    """A user came to some GPUs, or left them."""

    time_ns: int
    user: str
    came: bool
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class History:
    """`steps` steps of `step_ns` from `from_ns` on.

    Memory by user is in MiB, power in W, temperatures in °C, clocks in MHz, network in KiB/s, the rest in %.
    `made_of` is the length of what was summed up, 0 for single samples.
    """

    from_ns: int
    step_ns: int
    steps: int
    util: tuple[Series, ...]
    memory: tuple[Series, ...]
    memory_total_mib: int
    power: tuple[Series, ...]
    temperature: tuple[Series, ...]
    clock: tuple[Series, ...]
    host: tuple[Series, ...]
    network: tuple[Series, ...]
    users: tuple[Come, ...]
    made_of: int = 0
    idle_percent: int = THRESHOLDS.idle_percent
    """What is less busy counts as idle."""
    backfilled: tuple[tuple[int, int], ...] = ()
    """(first, last) times of samples that came so late that nobody saw them then, the first one to a step."""

    @property
    def to_ns(self) -> int:
        return self.from_ns + self.steps * self.step_ns

    @property
    def needs_days(self) -> bool:
        """Whether a time of day alone could mean two days."""
        return self.to_ns - self.from_ns > _DAY_NAMED_NS

    @property
    def known(self) -> tuple[bool, ...]:
        """For each step whether there is a sample."""
        return tuple(any(series.values[at] is not None for series in (*self.util, *self.host)) for at in range(self.steps))

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Stretches of steps of which nothing is known: (first, one behind the last)."""
        found: list[tuple[int, int]] = []
        for at, is_known in enumerate(self.known):
            if is_known:
                continue
            if found and found[-1][1] == at:
                found[-1] = found[-1][0], at + 1
            else:
                found.append((at, at + 1))
        return found


def history_of(
    samples: Iterable[Sampled], from_ns: int, to_ns: int, *, longest_ns: int, network: tuple[Series, ...] = ()
) -> History:
    """Of samples in order, the last one of a step counts; a gap of at most `longest_ns` is bridged."""
    step_ns = max(1, -(-(to_ns - from_ns) // POINTS))
    steps: list[Sampled | None] = [None] * POINTS
    for sample in samples:
        place = (sample.time_ns - from_ns) // step_ns
        if 0 <= place < POINTS:
            steps[place] = sample
    _bridge(steps, longest_ns)
    indices = sorted({gpu.index for sample in steps if sample is not None for gpu in sample.gpus})
    totals = [sum(gpu.total_mib or 0 for gpu in units(sample.gpus)) for sample in steps if sample is not None]

    def by_gpu(read: Callable[[Gpu], int | None]) -> tuple[Series, ...]:
        return tuple(Series(f"GPU {index}", _gpu_values(steps, index, read)) for index in indices)

    return History(
        from_ns=from_ns,
        step_ns=step_ns,
        steps=POINTS,
        util=by_gpu(lambda gpu: gpu.util_pct),
        memory=_memory_by_user(steps),
        memory_total_mib=max(totals, default=0),
        power=by_gpu(lambda gpu: gpu.power_w),
        temperature=by_gpu(lambda gpu: gpu.temperature_c),
        clock=by_gpu(lambda gpu: gpu.clock_mhz),
        host=(Series("CPU", tuple(_cpu(sample) for sample in steps)), Series("RAM", tuple(_ram(sample) for sample in steps))),
        network=network,
        users=_comings(steps),
    )


def summary(series: Series, unit: str, step_ns: int, *, idle: bool = False, below: int = THRESHOLDS.idle_percent) -> str:
    """`GPU 3: median 87 %, max 99 %, 12 min idle`."""
    known = sorted(value for value in series.values if value is not None)
    if not known:
        return f"{series.name}: not known"
    text = f"{series.name}: median {known[len(known) // 2]} {unit}, max {known[-1]} {unit}"
    if idle:
        minutes = sum(value < below for value in known) * step_ns // 60_000_000_000
        text += f", {minutes} min idle" if minutes else ""
    return text


def _gpu_values(steps: Sequence[Sampled | None], index: int, read: Callable[[Gpu], int | None]) -> Values:
    values: list[int | None] = []
    for sample in steps:
        gpu = next((gpu for gpu in sample.gpus if gpu.index == index), None) if sample is not None else None
        values.append(read(gpu) if gpu is not None and gpu.state == "ok" else None)
    return tuple(values)


def _memory_by_user(steps: Sequence[Sampled | None]) -> tuple[Series, ...]:
    held: list[dict[str, int] | None] = []
    for sample in steps:
        now: dict[str, int] | None = None if sample is None else {}
        for process in () if sample is None else (process for gpu in sample.gpus for process in gpu.processes):
            assert now is not None
            user = process.user or "?"
            now[user] = now.get(user, 0) + (process.used_mib or 0)
        held.append(now)
    return top_users(held)


def late_stretches(parts: Iterable[tuple[int, int, bool]], longest_ns: int) -> tuple[tuple[int, int], ...]:
    """(first, last) of neighbours that came late and are at most `longest_ns` apart. Parts are (first, last, late), in order."""
    found: list[tuple[int, int]] = []
    joins = False
    for first, last, late in parts:
        if late and joins and first - found[-1][1] <= longest_ns:
            found[-1] = found[-1][0], last
        elif late:
            found.append((first, last))
        joins = late
    return tuple(found)


def top_users(held: Sequence[Mapping[str, int] | None]) -> tuple[Series, ...]:
    """A series for each of the users with the most memory, MiB, and one for all others; `held` has a map for each step."""
    totals: Counter[str] = Counter()
    for now in held:
        totals.update(now or {})
    most = sorted(totals, key=lambda user: (-totals[user], user))[:_USERS_MAX]
    found = [Series(user, tuple(None if now is None else now.get(user, 0) for now in held)) for user in most]
    if len(totals) > len(most):
        rest = tuple(None if now is None else sum(mib for user, mib in now.items() if user not in most) for now in held)
        found.append(Series(OTHERS, rest))
    return tuple(found)


def _cpu(sample: Sampled | None) -> int | None:
    return None if sample is None or sample.cpu_pm is None else (sample.cpu_pm + 5) // 10


def _ram(sample: Sampled | None) -> int | None:
    if sample is None or sample.memory_used is None or not sample.memory_total:
        return None
    return sample.memory_used * 100 // sample.memory_total


def _comings(steps: Sequence[Sampled | None]) -> tuple[Come, ...]:
    """Who came to which GPUs, and left them, between one known step and the next."""
    found: list[Come] = []
    before: dict[int, str] | None = None
    for sample in steps:
        if sample is None:
            continue
        now = {gpu.index: user for gpu in sample.gpus if (user := holder(gpu)) is not None}
        if before is not None:
            for came, new, old in ((False, before, now), (True, now, before)):
                moved: dict[str, list[int]] = {}
                for index, user in new.items():
                    if old.get(index) != user:
                        moved.setdefault(user, []).append(index)
                found += [Come(sample.time_ns, user, came, tuple(gpus)) for user, gpus in sorted(moved.items())]
        before = now
    return tuple(found)


def _bridge(steps: list[Sampled | None], longest_ns: int) -> None:
    """Fill gaps no longer than what is usual between two samples."""
    last: int | None = None
    for at, sample in enumerate(list(steps)):
        if sample is None:
            continue
        if last is not None and at - last > 1:
            before = steps[last]
            assert before is not None
            if sample.time_ns - before.time_ns <= longest_ns:
                steps[last + 1 : at] = [before] * (at - last - 1)
        last = at
