"""A few hosts for the pages, the machine's clocks, and a server that shows the one by the other.

A module takes the fixtures by their names: `address, client = web_lab.address, web_lab.client`.
"""

import time
from collections.abc import Iterator

import httpx
import pytest

from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from tests.support.fleet import MemoryTables, busy_sample, host_id
from tests.support.hosts import GTX, gpu, sample
from tests.support.web import serving

__all__ = ["CONTENT", "WallClock", "address", "client", "filled"]

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


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Where the pages of these hosts are served."""
    with serving(filled(), WallClock(), down_threshold=10_000.0, http_names="status.lab, Other.Lab") as found:
        yield found


@pytest.fixture(scope="module")
def client(address: tuple[str, int]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as found:
        yield found
