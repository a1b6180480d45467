"""All hosts as they were at a time: the snapshot that the same pages and views show for `?at=` and `?from=&to=`."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from dimint.consumers.rows import HostRow, StoredSample
from dimint.webapp.models import Host, Status
from dimint.webapp.trends import CELL_NS, CELLS, STEP_NS, STEPS, Trends
from dimint.webapp.view import host_view, sampled

__all__ = ["PastTables", "past_hosts"]

_TRACED_MAX: Final = 16
"""Hosts whose samples before the time are read too, for lines and grids; with more of them only the time itself is shown."""
_TRACED_SAMPLES_MAX: Final = 2000


class PastTables(Protocol):
    """What is needed of `dimint.consumers.reading.StatusReader`."""

    def at(self, host_id: str, time_ns: int) -> StoredSample | None: ...
    def between(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]: ...


def past_hosts(
    reader: PastTables,
    rows: Sequence[HostRow],
    name_of: Callable[[HostRow], str],
    at_ns: int,
    from_ns: int | None,
    down_after_s: float,
) -> list[Host]:
    """The hosts that were known at `at_ns`; `from_ns` is where their lines begin (None: ten minutes and an hour before)."""
    found = []
    traced = len(rows) <= _TRACED_MAX
    for row in rows:
        stored = reader.at(row.id, at_ns)
        if stored is None and row.registered_ns > at_ns:
            continue
        name = name_of(row)
        facts = {**row.facts, "simulated": row.simulated}
        if stored is None:
            found.append(host_view(row.id, name, row.ip, facts, Status.WAITING, None, ()))
            continue
        status = Status.DOWN if at_ns - stored.time_ns > down_after_s * 1e9 else Status.RUNNING
        sample = sampled(stored.time_ns, stored.sample)
        trends = _trends(reader, row.id, at_ns, from_ns) if traced and status is Status.RUNNING else Trends()
        trends.add(sample)
        gpus = len(sample.gpus)
        found.append(
            host_view(
                row.id, name, row.ip, facts, status, stored.time_ns, (sample,), trends.lines(gpus), trends.hour(gpus)
            )
        )  # fmt: skip
    return found


def _trends(reader: PastTables, host_id: str, at_ns: int, from_ns: int | None) -> Trends:
    if from_ns is None:
        trends, begin = Trends(), at_ns - CELLS * CELL_NS
    else:
        span = max(at_ns - from_ns, STEPS)
        trends, begin = Trends(max(1, span // STEPS), max(1, span // CELLS)), from_ns
    for stored in reader.between(host_id, begin, at_ns)[-_TRACED_SAMPLES_MAX:]:
        trends.add(sampled(stored.time_ns, stored.sample))
    return trends


assert STEP_NS * STEPS <= CELL_NS * CELLS, "the hour holds the ten minutes"
