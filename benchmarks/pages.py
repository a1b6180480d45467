"""Server time of the pages for a big fleet: every answer over a real socket, from tables as the consumer writes them.

    .venv/bin/python -m benchmarks.pages [--hosts 1000] [--gpus 8] [--rounds 5] [PATH …]

`cold` has every host changed since the last request, in one commit, `warm` one host. Of the past, hours are asked for that lie
between now and 14 days ago, each once, so that nothing is remembered. Times are of the clock, and in brackets of the processor
without who asks: a busy machine lengthens these less. At the end a line for each target, which is for the processor.
"""

import argparse
import http.client
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.fleet_tables import FleetTables
from dimint.consumers.reading import StatusReader
from dimint.system_clock import SystemClock
from tests.support.web import serving

PATHS: Final = (
    "/states/", "/?term=true", "/?term=true&detail=true", "/gpu_table?term=true", "/?term=true&view=auto",
    "/?term=true&view=grid", "/", "/?view=grid", "/?view=rows", "/?filter=gpu.util<5+and+held>30m", "/gpu_table", "/?page=1",
    "/metrics", "/-/ready",
)  # fmt: skip
PAST_PATHS: Final = ("/states/?at={}", "/?at={}", "/?term=true&at={}", "/?view=grid&at={}", "/?term=true&view=grid&at={}")
TARGETS_MS: Final = {
    "/states/": 100.0,
    **dict.fromkeys(("/", "/?term=true", "/?term=true&view=auto"), 300.0),
    **dict.fromkeys(PAST_PATHS, 1000.0),
}
"""What must hold for 1000 hosts with 8 GPUs."""
DAY_S: Final = 86_400
PAST_S: Final = (3 * 3600, 2 * DAY_S, 7 * DAY_S + 5 * 3600, 14 * DAY_S - 3600)
"""How long ago the hours are that are asked for."""


IDLE_S: Final = 1.0


class Took(NamedTuple):
    """Of one request: ms of the clock, ms of the processor in the server, bytes."""

    elapsed: float
    worked: float
    size: int


def main() -> None:
    """Print one line a path and one a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="instead of those measured by default; {} is a past time")
    given = parser.parse_args()
    paths = given.paths or (*PATHS, *PAST_PATHS)
    worst: dict[str, Took] = {}
    with tempfile.TemporaryDirectory() as folder:
        now_ns = time.time_ns()
        fleet = FleetTables(Path(folder), given.hosts, given.gpus, now_ns - 15 * DAY_S * 1_000_000_000)
        back_s = sorted(PAST_S, reverse=True) if any("{}" in path for path in paths) else []
        hours = [now_ns - back * 1_000_000_000 for back in back_s]
        for until_ns in hours:
            fleet.hour(until_ns)
        fleet.report(now_ns, range(given.hosts))
        with serving(StatusReader(Path(folder)), SystemClock(), checked=False) as (host, port):
            connection = http.client.HTTPConnection(host, port, timeout=120)

            def ask(path: str) -> Took:
                began, worked, own = time.perf_counter(), time.process_time(), time.thread_time()
                connection.request("GET", path.replace(">", "%3E").replace("<", "%3C"))
                size = len(connection.getresponse().read())
                served = time.process_time() - worked - (time.thread_time() - own)
                return Took((time.perf_counter() - began) * 1000, served * 1000, size)

            print(f"{given.hosts} hosts × {given.gpus} GPUs, simulated; median of {given.rounds}, the worst of 4 past times")
            ticks = itertools.count(1)
            settle()  # the hour before now of every host is read in the background at first
            for number, path in enumerate(paths):
                if "{}" in path:
                    times = (until_ns / 1e9 - 600 - number for until_ns in hours)
                    worst[path] = max((ask(path.format(f"@{at}")) for at in times), key=lambda took: took.worked)
                    print(f"{path:32} {worst[path].size / 1e6:5.2f} MB   {shown(worst[path])}", flush=True)
                    continue
                cold, warm = [], []
                for _ in range(given.rounds):
                    fleet.report(time.time_ns(), range(given.hosts), next(ticks))
                    cold.append(ask(path))
                    fleet.report(time.time_ns(), [0], next(ticks))
                    warm.append(ask(path))
                worst[path] = median(cold)
                both = f"cold {shown(worst[path])}   warm {shown(median(warm))}"
                print(f"{path:32} {warm[-1].size / 1e6:5.2f} MB   {both}", flush=True)
            connection.close()
        fleet.close()
    for path, target in TARGETS_MS.items():
        if path in worst:
            verdict = "pass" if worst[path].worked <= target else "MISS"
            print(f"{verdict}  {path:32} {shown(worst[path])}, target {target:.0f} ms")


def settle() -> None:
    """Wait until this process has little to do."""
    worked = -1.0
    while time.process_time() - worked > IDLE_S / 10:
        worked = time.process_time()
        time.sleep(IDLE_S)


def shown(took: Took) -> str:
    """The time of the clock, and of the processor."""
    return f"{took.elapsed:7.1f} ms ({took.worked:6.1f})"


def median(times: Sequence[Took]) -> Took:
    """The median time of the clock, and of the processor."""
    elapsed, worked, size = map(statistics.median, zip(*times, strict=True))
    return Took(elapsed, worked, int(size))


if __name__ == "__main__":
    main()
