"""A few hosts for the pages, and the machine's clocks."""

import time

from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from tests.support.fleet import MemoryTables, busy_sample, host_id
from tests.support.hosts import GTX, gpu, sample

__all__ = ["CONTENT", "WallClock", "filled"]

CONTENT = sample([gpu(0, GTX, 235, 11169, 0, 36)])


class WallClock:
    """The machine's clocks."""

    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)


def filled() -> MemoryTables:
    """Three hosts: one that runs (in the future's eyes: it reported just now), a simulated one, one that never reported."""
    tables = MemoryTables()
    now = time.time_ns() + 3600 * 1_000_000_000
    tables.register(host_id(1), "gpu-01.lab", "10.0.0.1")
    tables.register(host_id(2), "sim", "10.0.0.2", simulated=True)
    tables.register(host_id(3), "new", "10.0.0.3")
    for second in range(5):
        tables.put(host_id(1), now + second * 1_000_000_000, CONTENT)
    tables.put(host_id(2), now, busy_sample(2, 0, 2))
    tables.opened.append(OpenAlert(host_id(3), "down", "", "critical", 1, 1, "new <is> down", told=False))
    _happen(tables, "gpu.xid", 864_001, xid=79)
    _happen(tables, "gpu.xid", 864_002, xid=48)
    _happen(tables, "driver.changed", 867_601, before="<b>", now="570")
    return tables


def _happen(tables: MemoryTables, kind: str, at_s: int, **fields: object) -> None:
    at_ns = at_s * 1_000_000_000
    tables.happened.append(HostEvent(host_id(3), len(tables.happened), kind, at_ns, at_ns, fields))
