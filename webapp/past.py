"""All hosts as they were at a time: what the same pages and views show for `?at=` and `?from=&to=`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from dimint.consumers.past import HostAt, SamplePage
from dimint.consumers.reading_series import Busy
from dimint.consumers.rows import HostRow, StoredSample
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS
from dimint.consumers.wanted import Wanted
from dimint.settings_thresholds import Thresholds
from dimint.webapp.asked import Layout, layout_for
from dimint.webapp.models import Host, Sampled, Status, Use
from dimint.webapp.sent import SHOWN
from dimint.webapp.trends import CELL_NS, CELLS, STEP_NS, STEPS, Minute, Trends
from dimint.webapp.view import Facts, host_view, sampled

__all__ = ["MANY", "PastTables", "hour_before", "minutes_before", "past_hosts"]

MANY: Final = 64
"""Hosts whose samples before the time are read too, for lines and grids; with more of them a grid is made of the minute tier."""


class PastTables(Protocol):
    """What is needed of `dimint.consumers.reading.StatusReader`."""

    def fleet_at(self, at_ns: int, wanted: Wanted | None = None) -> list[HostAt]: ...
    def page(
        self, host_id: str, from_ns: int, to_ns: int, *, limit: int, step_ns: int, wanted: Wanted | None = None
    ) -> SamplePage: ...
    def busy(self, host_id: str, from_ns: int, to_ns: int, tier_ns: int) -> Busy: ...
    def recent(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]: ...


def past_hosts(
    reader: PastTables,
    names: Callable[[Sequence[HostRow]], dict[str, str]],
    at_ns: int,
    from_ns: int | None,
    down_after_s: float,
    limits: Thresholds,
    *,
    traced: bool,
    layout: Layout | None = None,
    wanted: Wanted = SHOWN,
    live: Mapping[str, Trends] | None = None,
) -> list[Host]:
    """The hosts that were known at `at_ns`; `from_ns` is where their lines begin (None: ten minutes and an hour before).

    Of a sample at least what is wanted is there. Of many hosts minutes are read only if `layout` (None = what their number
    makes of it) shows them; `live` has the last minutes by host, which are in no tier yet.
    """
    found = []
    fleet = reader.fleet_at(at_ns, wanted)
    shown = names([one.host for one in fleet])
    many = len(fleet) > MANY
    gridded = traced and many and (layout or layout_for(len(fleet))) in ("rows", "grid")
    traced = traced and not many
    for one in fleet:
        row, stored = one.host, one.sample
        facts = Facts.of(row.facts, row.simulated)
        if stored is None:
            found.append(host_view(row.id, shown[row.id], row.ip, facts, Status.WAITING, None, ()))
            continue
        status = Status.DOWN if at_ns - stored.time_ns > down_after_s * 1e9 else Status.RUNNING
        sample = sampled(stored.time_ns, stored.sample, limits, received_ns=stored.received_ns)
        trends = _trends(reader, row.id, at_ns, from_ns, limits) if traced and status is Status.RUNNING else Trends()
        if gridded and status is Status.RUNNING:
            recent = (live or {}).get(row.id)
            trends = _of_tier(reader, row.id, sample, at_ns, from_ns, recent.minutes if recent is not None else ())
        trends.add(sample)
        lines = trends.lines(len(sample.gpus)) if traced else ()
        hour = trends.hour(len(sample.gpus)) if traced or gridded else ()
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


def minutes_before(reader: PastTables, host_id: str, newest: Sampled, limits: Thresholds) -> Trends:
    """The same for one of many hosts: minutes that were summed up, and the samples that came since, in a fraction of the time."""
    trends = _of_tier(reader, host_id, newest, newest.time_ns, None, ())
    steps = {
        stored.time_ns // STEP_NS: stored for stored in reader.recent(host_id, newest.time_ns - CELLS * CELL_NS, newest.time_ns)
    }
    for stored in steps.values():
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


def _of_tier(
    reader: PastTables, host_id: str, sample: Sampled, at_ns: int, from_ns: int | None, recent: Iterable[Minute]
) -> Trends:
    """The cells before `at_ns` from samples that were summed up by minute or hour: some 2 ms a host, whatever the range."""
    begin_ns = at_ns - CELLS * CELL_NS if from_ns is None else from_ns
    cell_ns = CELL_NS if from_ns is None else max(1, (at_ns - begin_ns) // STEPS)
    trends = Trends() if from_ns is None else Trends(cell_ns, cell_ns)
    if cell_ns < CELL_NS:
        return trends  # finer than what is summed up
    tier_ns = HOUR_NS if cell_ns >= HOUR_NS else MINUTE_NS
    found = reader.busy(host_id, begin_ns, at_ns, tier_ns)
    minutes = _cells(found, tier_ns, cell_ns, sample)
    if cell_ns == CELL_NS:
        for minute in recent:
            if minute.number not in minutes and begin_ns <= minute.number * CELL_NS <= at_ns:
                minutes[minute.number] = minute
    trends.summed(minutes.values())
    return trends


def _cells(found: Busy, tier_ns: int, cell_ns: int, sample: Sampled) -> dict[int, Minute]:
    """The cells of the sample's GPUs, of which something is known. Who was on one is told from the times of processes."""
    gpus = found.gpus if tier_ns == cell_ns else {uuid: _joined(slots, tier_ns, cell_ns) for uuid, slots in found.gpus.items()}
    numbers = sorted(set[int]().union(*gpus.values()))
    if not numbers:
        return {}
    users: dict[str, dict[int, str]] = {}
    for uuid, holder, start_ns, end_ns in found.holders:
        held = range(max(numbers[0], start_ns // cell_ns), min(numbers[-1], end_ns // cell_ns) + 1)
        users.setdefault(uuid, {}).update(dict.fromkeys(held, holder))
    utils: list[list[int | None]] = []
    ends: list[list[tuple[Use, str | None]]] = []
    for gpu in sample.gpus:
        known, mine, idle_percent = gpus.get(gpu.uuid, {}), users.get(gpu.uuid, {}), gpu.limits.idle_percent
        util: list[int | None] = []
        end: list[tuple[Use, str | None]] = []
        for number in numbers:
            user = mine.get(number)
            total, count = known.get(number, (0, 0))
            if not count:
                util.append(None)
                end.append((Use.UNKNOWN, user))
            else:
                util.append(total // count)
                idle = Use.FREE if user is None else Use.IDLE
                end.append((Use.BUSY if total >= idle_percent * count else idle, user))
        utils.append(util)
        ends.append(end)
    if not utils:
        return {number: Minute(number, (), ()) for number in numbers}
    return {minute[0]: Minute(*minute) for minute in zip(numbers, zip(*utils, strict=True), zip(*ends, strict=True), strict=True)}


def _joined(slots: Mapping[int, tuple[int, int]], tier_ns: int, cell_ns: int) -> dict[int, tuple[int, int]]:
    """Slots of a tier as those of longer cells."""
    cells: dict[int, tuple[int, int]] = {}
    for slot, (total, count) in slots.items():
        before = cells.get(number := slot * tier_ns // cell_ns, (0, 0))
        cells[number] = before[0] + total, before[1] + count
    return cells


assert STEPS == CELLS, "a range has as many steps as cells"
