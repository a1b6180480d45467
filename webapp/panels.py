"""Which charts a host has: what is drawn on the server and what a browser's script draws are the same panels. [S]"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from dimint.webapp.history import History, Series

__all__ = ["Panel", "panels_of"]

_MIB_FROM: Final = 10 << 10
"""KiB/s from which on a network's chart is in MiB/s."""


class Panel(NamedTuple):
    """One chart. Its axis goes from 0 to `top`; `idle` says that minutes under 5 % are told."""

    id: str
    title: str
    unit: str
    series: Sequence[Series]
    top: int
    stacked: bool = False
    idle: bool = False


def panels_of(history: History) -> list[Panel]:
    """The charts that there is something to show in; those of GPUs first."""
    found = []
    if history.util:
        memory = _scaled(history.memory, 1024)
        found += [
            Panel("util", "GPU utilisation", "%", history.util, 100, idle=True),
            Panel("memory", "GPU memory by user", "GiB", memory, max(1, history.memory_total_mib // 1024), stacked=True),
            Panel("power", "GPU power", "W", history.power, _top(history.power, 100)),
            Panel("temperature", "GPU temperature", "°C", history.temperature, _top(history.temperature, 90)),
        ]
        if _any(history.clock):
            found.append(Panel("clock", "GPU clock", "MHz", history.clock, _top(history.clock, 500)))
    found.append(Panel("host", "CPU and memory of the host", "%", history.host, 100))
    if _any(history.network):
        fast = _highest(history.network) >= _MIB_FROM
        series = _scaled(history.network, 1024) if fast else history.network
        found.append(Panel("network", "Network", "MiB/s" if fast else "KiB/s", series, _top(series, 10)))
    return found


def _any(series: Iterable[Series]) -> bool:
    return any(value is not None for one in series for value in one.values)


def _scaled(series: Iterable[Series], by: int) -> list[Series]:
    return [Series(one.name, tuple(None if value is None else value // by for value in one.values)) for one in series]


def _highest(series: Iterable[Series]) -> int:
    return max((value for one in series for value in (one.high or one.values) if value is not None), default=0)


def _top(series: Iterable[Series], least: int) -> int:
    """A round number that nothing is above, with room for its half."""
    highest = max(_highest(series), least)
    step = 10 ** (len(str(highest)) - 1) // 2 or 1
    return -(-highest // step) * step
