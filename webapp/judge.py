"""What samples mean for people: is a GPU free, who holds it and since when, and what is wrong. [S]"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from dimint.sample import NOTHING_WRONG
from dimint.webapp.models import Cell, Gpu, Host, Status, Use

__all__ = [
    "GONE",
    "SKEW_MS",
    "Problem",
    "Severity",
    "about",
    "held_since",
    "holder",
    "orphan_mib",
    "problems",
    "slow_reasons",
    "units",
    "use_of",
    "users_of",
]

_SLOWED: Final = {0x08: "hardware slow-down", 0x40: "thermal slow-down", 0x80: "power brake", 0x20: "thermal limit"}
"""NVML's reasons that say something is wrong; the power cap (0x04) is normal under load."""
_ORPHAN_LEAST_MIB: Final = 1024
_LATE_LEAST_MS: Final = 10_000
SKEW_MS: Final = 5_000
"""A clock that is this far from the log's is wrong; less may be the way that samples take."""
GONE: Final = frozenset({"lost", "hung", "missing"})
"""States of a GPU that somebody has to do something about; one that sleeps, or of which nothing is known, is none."""


class Severity(IntEnum):
    """How bad a problem is; the higher the worse."""

    STALE = 1
    WARN = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of what is wrong. `gpus` are the indices of the GPUs that it is about; none if it is about the host."""

    severity: Severity
    host: Host
    gpus: tuple[int, ...]
    text: str

    @property
    def where(self) -> str:
        """`GPU 3`, `GPU 0–7`, `GPU 1, 4`; empty if it is about the host."""
        if not self.gpus:
            return ""
        first, last = self.gpus[0], self.gpus[-1]
        if len(self.gpus) > 2 and self.gpus == tuple(range(first, last + 1)):
            return f"GPU {first}–{last}"
        return f"GPU {', '.join(map(str, self.gpus))}"


def use_of(gpu: Gpu) -> Use:
    """What the GPU is doing, as far as its sample says."""
    if gpu.state in GONE:
        return Use.LOST
    if gpu.split:
        return Use.SPLIT
    if gpu.state != "ok" or not gpu.processes_known:
        return Use.UNKNOWN
    if gpu.util_pct is not None and gpu.util_pct >= gpu.limits.idle_percent:
        return Use.BUSY
    if not gpu.processes:
        return Use.FREE
    return Use.IDLE if gpu.util_pct is not None else Use.UNKNOWN


def units(gpus: Iterable[Gpu]) -> list[Gpu]:
    """What can be held and counted: GPUs, and instead of one that is split its MIG instances."""
    return [gpu for gpu in gpus if not gpu.split]


def holder(gpu: Gpu) -> str | None:
    """The user with the most memory on it."""
    if len(gpu.processes) < 2:
        return (gpu.processes[0].user or None) if gpu.processes else None
    most: dict[str, int] = {}
    for process in gpu.processes:
        if process.user:
            most[process.user] = most.get(process.user, 0) + (process.used_mib or 0) + 1
    return max(most, key=lambda user: (most[user], user)) if most else None


def users_of(gpus: Iterable[Gpu]) -> list[str]:
    """Who has processes on these GPUs, by name."""
    return sorted({process.user for gpu in gpus for process in gpu.processes if process.user})


def held_since(gpu: Gpu) -> int | None:
    """When the oldest process on it began, ns UTC; None if it is free or nobody says."""
    return min((process.started_ns for process in gpu.processes if process.started_ns is not None), default=None)


def orphan_mib(gpu: Gpu) -> int:
    """Memory in use that belongs to no process, where that is known and more than what drivers need for themselves; else 0."""
    return gpu.other_mib if gpu.other_mib is not None and gpu.other_mib >= _ORPHAN_LEAST_MIB else 0


def slow_reasons(gpu: Gpu) -> list[str]:
    """Why the driver runs it slower than it could, where that is a fault; the power cap is not."""
    return [word for bit, word in _SLOWED.items() if gpu.slowed & bit]


_Found: TypeAlias = tuple[Severity, int | None, str]


def problems(hosts: Iterable[Host], now_ns: int) -> list[Problem]:
    """What is wrong, the worst first, then by host; what several GPUs of a host have in common is one."""
    found: list[Problem] = []
    for host in hosts:
        alike: dict[tuple[Severity, str], tuple[int, ...]] = {}
        for severity, gpu, text in _problems(host, now_ns):
            alike[severity, text] = alike.get((severity, text), ()) + (() if gpu is None else (gpu,))
        found += [Problem(severity, host, gpus, text) for (severity, text), gpus in alike.items()]
    return sorted(found, key=lambda problem: (-problem.severity, problem.host.name, problem.gpus))


def _problems(host: Host, now_ns: int) -> Iterator[_Found]:
    if host.status is Status.DOWN:
        yield (Severity.CRITICAL, None, "down")
        return
    if host.status is Status.WAITING:
        yield (Severity.STALE, None, "not heard yet")
        return
    sample = host.newest
    if sample is None:
        return
    if sample.gpu_support not in NOTHING_WRONG:
        yield (Severity.CRITICAL, None, f"GPUs cannot be read: {sample.gpu_support.replace('_', ' ')}")
    if (
        sample.interval_ms
        and host.heard_ns is not None
        and now_ns - host.heard_ns > max(3 * sample.interval_ms, _LATE_LEAST_MS) * 1_000_000
    ):
        yield (Severity.STALE, None, "reports late")
    if sample.skew_ms is not None and abs(sample.skew_ms) >= SKEW_MS:
        way = "ahead of" if sample.skew_ms > 0 else "behind"
        yield (Severity.WARN, None, f"its clock is {abs(sample.skew_ms) / 1000:.0f} s {way} the log's")
    for gpu in sample.gpus:
        yield from _gpu_problems(host, gpu, now_ns)


def _gpu_problems(host: Host, gpu: Gpu, now_ns: int) -> Iterator[_Found]:
    if gpu.state in GONE:
        yield (Severity.CRITICAL, gpu.index, gpu.state)
        return
    if reasons := slow_reasons(gpu):
        yield (Severity.WARN, gpu.index, ", ".join(reasons))
    if gpu.temperature_c is not None and gpu.temperature_c >= gpu.limits.hot_temperature:
        yield (Severity.WARN, gpu.index, f"{gpu.temperature_c} °C")
    for fault in gpu.faults:
        yield (Severity.CRITICAL, gpu.index, fault)
    if not gpu.processes_known:
        yield (Severity.WARN, gpu.index, "processes cannot be read")
    for process in gpu.processes:
        if process.orphan:
            yield (Severity.WARN, gpu.index, f"process {process.pid} is gone and holds {process.used_mib or 0} MiB")
    if rest := orphan_mib(gpu):
        yield (Severity.WARN, gpu.index, f"{rest} MiB belong to no process")
    since = held_since(gpu)
    if use_of(gpu) is Use.IDLE and since is not None and now_ns - since > gpu.limits.idle_held * 1e9:
        minutes = max(1, round(gpu.limits.idle_held / 60))
        line = _line(host, gpu)[-minutes:]
        known = [cell.util for cell in line if cell.util is not None]
        # a host that was heard for a minute only has not been idle for thirty, as far as anybody knows
        if 2 * len(known) >= len(line) and all(util < gpu.limits.idle_percent for util in known):
            yield (Severity.WARN, gpu.index, f"held for {about(now_ns - since)} and idle, by {holder(gpu) or 'somebody'}")


def about(time_ns: int) -> str:
    """A length of time in one number: `34 min`, `5 h`, `12 days`."""
    minutes = max(0, time_ns) // 60_000_000_000
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"


def _line(host: Host, gpu: Gpu) -> tuple[Cell, ...]:
    gpus = host.newest.gpus if host.newest is not None else ()
    place = next((at for at, one in enumerate(gpus) if one is gpu), len(host.hour))
    return host.hour[place] if place < len(host.hour) else ()
