"""Server time of the pages for a big fleet: every answer over a real socket, hosts changing between the requests.

    .venv/bin/python -m benchmarks.pages [--hosts 1000] [--gpus 8] [--rounds 7] [PATH …]

Tables are in memory, so this is the web app's own time; `cold` has every host changed since the last request, `warm` one.
Times are of the clock, and in brackets of the processor, which a busy machine does not lengthen; who asks is in both.
"""

import argparse
import http.client
import statistics
import time
from collections.abc import Sequence

from dimint.system_clock import SystemClock
from tests.support.fleet import MemoryTables, busy_sample, host_id
from tests.support.web import serving

PATHS = (
    "/states/", "/?term=true", "/?term=true&detail=true", "/gpu_table?term=true", "/?term=true&view=auto",
    "/?term=true&view=grid", "/", "/?view=grid", "/?view=rows", "/?filter=gpu.util<5+and+held>30m", "/gpu_table", "/?page=1",
    "/?at=-1s", "/changes",
    "/-/ready",
)  # fmt: skip


def main() -> None:
    """Print one line a path: size, and median time in ms, cold and warm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="instead of those that are measured by default")
    given = parser.parse_args()
    tables = MemoryTables()
    samples = [busy_sample(number, 0, given.gpus) for number in range(given.hosts)]
    for number in range(given.hosts):
        tables.register(host_id(number), f"gpu-{number:04d}", f"10.0.{number >> 8}.{number & 255}", simulated=True)

    def report(count: int) -> None:
        for number in range(count):
            tables.put(host_id(number), time.time_ns(), samples[number])

    with serving(tables, SystemClock(), checked=False) as (host, port):
        connection = http.client.HTTPConnection(host, port, timeout=60)

        def ask(path: str) -> tuple[float, float, int]:
            began, worked = time.perf_counter(), time.process_time()
            connection.request("GET", path.replace(">", "%3E").replace("<", "%3C"))
            size = len(connection.getresponse().read())
            return (time.perf_counter() - began) * 1000, (time.process_time() - worked) * 1000, size

        print(f"{given.hosts} hosts × {given.gpus} GPUs, simulated; median of {given.rounds}")
        for path in given.paths or PATHS:
            cold, warm, size = [], [], 0
            for _ in range(given.rounds):
                report(given.hosts)
                cold.append(ask(path)[:2])
                report(1)
                *elapsed, size = ask(path)
                warm.append(tuple(elapsed))
            print(f"{path:26} {size / 1e6:7.2f} MB   cold {median(cold)}   warm {median(warm)}", flush=True)
        connection.close()


def median(times: Sequence[tuple[float, ...]]) -> str:
    """The median time of the clock, and of the processor."""
    elapsed, worked = map(statistics.median, zip(*times, strict=True))
    return f"{elapsed:7.1f} ms ({worked:6.1f})"


if __name__ == "__main__":
    main()
