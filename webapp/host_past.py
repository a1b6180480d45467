"""What a host's page reads of the past: single samples of short ranges, minutes and hours of long ones, and processes."""

from dataclasses import replace
from typing import Final, Protocol

from dimint.consumers.intervals import Interval
from dimint.consumers.past import GAP_INTERVALS, SamplePage, interval_ns, is_backfilled
from dimint.consumers.reading_series import RAW_RANGE_MAX_NS, Series
from dimint.consumers.tiers import sum_up
from dimint.consumers.wanted import Wanted
from dimint.settings_thresholds import THRESHOLDS, Thresholds
from dimint.webapp.happenings import gpu_names
from dimint.webapp.history import POINTS, History, history_of, late_stretches
from dimint.webapp.history_tiers import history_of_slots, network_of
from dimint.webapp.models import Host
from dimint.webapp.sent import SHOWN
from dimint.webapp.view import sampled

__all__ = ["PROCESSES_MAX", "HostTables", "read_history", "read_processes"]

_DRAWN: Final = Wanted({**SHOWN.keys, "net": dict.fromkeys(("if", "rx", "tx"))})
PROCESSES_MAX: Final = 10_000
"""Processes of a range that are looked at."""


class HostTables(Protocol):
    """What is needed of `dimint.consumers.reading.StatusReader`."""

    def page(
        self, host_id: str, from_ns: int, to_ns: int, *, limit: int, step_ns: int, wanted: Wanted | None = None
    ) -> SamplePage: ...
    def series(self, host_id: str, from_ns: int, to_ns: int, points: int) -> Series: ...
    def processes(self, host_id: str, from_ns: int, to_ns: int, *, limit: int = ...) -> list[Interval]: ...


def read_history(reader: HostTables, host: Host, from_ns: int, to_ns: int) -> History:
    """The host's series over a range."""
    return replace(_read(reader, host, from_ns, to_ns), idle_percent=_limits(host).idle_percent)


def _limits(host: Host) -> Thresholds:
    return host.newest.gpus[0].limits if host.newest is not None and host.newest.gpus else THRESHOLDS


def _read(reader: HostTables, host: Host, from_ns: int, to_ns: int) -> History:
    newest = host.newest
    unnamed = newest is None or any(not gpu.uuid for gpu in newest.gpus)
    if to_ns - from_ns <= RAW_RANGE_MAX_NS or unnamed:
        return _of_samples(reader, host, from_ns, to_ns)
    found = reader.series(host.id, from_ns, to_ns, POINTS)
    assert newest is not None
    return history_of_slots(
        found.slots,
        found.length_ns,
        from_ns,
        to_ns,
        names=gpu_names(host),
        memory_total=newest.memory_total,
        gpus_total_mib=sum(gpu.total_mib or 0 for gpu in newest.gpus if gpu.parent is None),
        processes=read_processes(reader, host, from_ns, to_ns),
        made_of=found.tier_ns,
    )


def read_processes(reader: HostTables, host: Host, from_ns: int, to_ns: int) -> list[Interval]:
    """The processes on its GPUs in a range, by their start."""
    return reader.processes(host.id, from_ns, to_ns, limit=PROCESSES_MAX)


def _of_samples(reader: HostTables, host: Host, from_ns: int, to_ns: int) -> History:
    step_ns = max(1, (to_ns - from_ns) // POINTS)
    found = reader.page(host.id, from_ns, to_ns, limit=POINTS * 2, step_ns=step_ns, wanted=_DRAWN).samples
    usual_ns = interval_ns(found[-1].sample) if found else 0
    limits = _limits(host)
    samples = [sampled(stored.time_ns, stored.sample, limits) for stored in found]
    network = network_of(sum_up(found, step_ns), step_ns, from_ns // step_ns, POINTS)
    longest_ns = GAP_INTERVALS * usual_ns + step_ns
    history = history_of(samples, from_ns, to_ns, longest_ns=longest_ns, network=network)
    late = late_stretches(((stored.time_ns, stored.time_ns, is_backfilled(stored)) for stored in found), longest_ns)
    return replace(history, backfilled=late)
