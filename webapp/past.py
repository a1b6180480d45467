"""All hosts as they were at a time: what the same pages and views show for `?at=` and `?from=&to=`."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from dimint.consumers.past import HostAt, SamplePage
from dimint.consumers.rows import HostRow
from dimint.consumers.wanted import Wanted
from dimint.settings_thresholds import Thresholds
from dimint.webapp.models import Host, Status
from dimint.webapp.trends import CELL_NS, CELLS, STEP_NS, STEPS, Trends
from dimint.webapp.view import SHOWN, host_view, sampled

__all__ = ["PastTables", "hour_before", "past_hosts"]

_TRACED_MAX: Final = 64
"""Hosts whose samples before the time are read too, for lines and grids; with more of them only the time itself is shown."""


class PastTables(Protocol):
    """What is needed of `dimint.consumers.reading.StatusReader`."""

    def fleet_at(self, at_ns: int, wanted: Wanted | None = None) -> list[HostAt]: ...
    def page(
        self, host_id: str, from_ns: int, to_ns: int, *, limit: int, step_ns: int, wanted: Wanted | None = None
    ) -> SamplePage: ...


def past_hosts(
    reader: PastTables,
    names: Callable[[Sequence[HostRow]], dict[str, str]],
    at_ns: int,
    from_ns: int | None,
    down_after_s: float,
    limits: Thresholds,
    *,
    traced: bool,
) -> list[Host]:
    """The hosts that were known at `at_ns`; `from_ns` is where their lines begin (None: ten minutes and an hour before)."""
    found = []
    fleet = reader.fleet_at(at_ns, SHOWN)
    shown = names([one.host for one in fleet])
    traced = traced and len(fleet) <= _TRACED_MAX
    for one in fleet:
        row, stored = one.host, one.sample
        facts = {**row.facts, "simulated": row.simulated}
        if stored is None:
            found.append(host_view(row.id, shown[row.id], row.ip, facts, Status.WAITING, None, ()))
            continue
        status = Status.DOWN if at_ns - stored.time_ns > down_after_s * 1e9 else Status.RUNNING
        sample = sampled(stored.time_ns, stored.sample, limits)
        trends = _trends(reader, row.id, at_ns, from_ns, limits) if traced and status is Status.RUNNING else Trends()
        trends.add(sample)
        lines = trends.lines(len(sample.gpus)) if traced else ()
        hour = trends.hour(len(sample.gpus)) if traced else ()
        found.append(
            host_view(row.id, shown[row.id], row.ip, facts, status, stored.time_ns, (sample,), lines, hour, one.backfilled)
        )
    return found


def hour_before(reader: PastTables, host_id: str, at_ns: int, limits: Thresholds) -> Trends:
    """The hour that ends at `at_ns`, of which the last sample of each step counts."""
    trends = Trends()
    for stored in reader.page(
        host_id, at_ns - CELLS * CELL_NS, at_ns, limit=CELLS * CELL_NS // STEP_NS + 1, step_ns=STEP_NS, wanted=SHOWN
    ).samples:
        trends.add(sampled(stored.time_ns, stored.sample, limits))
    return trends


def _trends(reader: PastTables, host_id: str, at_ns: int, from_ns: int | None, limits: Thresholds) -> Trends:
    if from_ns is None:
        return hour_before(reader, host_id, at_ns, limits)
    step_ns = max(1, (at_ns - from_ns) // STEPS)
    trends = Trends(step_ns, step_ns)
    for stored in reader.page(host_id, from_ns, at_ns, limit=STEPS * 2, step_ns=step_ns, wanted=SHOWN).samples:
        trends.add(sampled(stored.time_ns, stored.sample, limits))
    return trends


assert STEPS == CELLS, "a range has as many steps as cells"
