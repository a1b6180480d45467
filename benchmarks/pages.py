"""Server time of the pages for a big fleet: every answer over a real socket, from tables as the consumer writes them.

    .venv/bin/python -m benchmarks.pages [--hosts 1000] [--gpus 8] [--rounds 5] [PATH …]

The server is a process of its own, set up as `dimint web` is. `at once` has every host changed since the last request, in one
commit, `warm` one host. `as a fleet reports` has a fifth of the hosts report each second, ten commits of them, while pages are
asked for: so it is in a running system. Of the past, hours are asked for that lie between now and 14 days ago, each once, so
that nothing is remembered. Times are of the clock, and in brackets of the server's processor: a busy machine lengthens these
less. At the end a line for each target, which is for the processor.
"""

import argparse
import http.client
import itertools
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from benchmarks.fleet_tables import FleetTables
from dimint.collector import tune_collector
from dimint.consumers.reading import StatusReader
from dimint.system_clock import SystemClock
from dimint.webapp.cli import YOUNG
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
COMMITS_A_S: Final = 10
ROUND_S: Final = 5
"""Each host reports so often."""


class Took(NamedTuple):
    """Of one request: ms of the clock, ms of the processor in the server, bytes."""

    elapsed: float
    worked: float
    size: int


class Server:
    """The web process, seen from outside."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        self._pipe = pipe
        self._process = psutil.Process(pid)
        host, port = pipe.recv()
        self._http = http.client.HTTPConnection(host, port, timeout=120)

    def worked_s(self) -> float:
        """Its processor time so far."""
        self._pipe.send(None)
        return float(self._pipe.recv())

    def resident_mb(self) -> float:
        """Its memory."""
        return float(self._process.memory_info().rss) / 1e6

    def ask(self, path: str) -> Took:
        began, worked = time.perf_counter(), self.worked_s()
        self._http.request("GET", path.replace(">", "%3E").replace("<", "%3C"))
        size = len(self._http.getresponse().read())
        elapsed = time.perf_counter() - began
        return Took(elapsed * 1000, (self.worked_s() - worked) * 1000, size)

    def settle(self) -> None:
        """Wait until it has little to do."""
        worked = -1.0
        while self.worked_s() - worked > IDLE_S / 10:
            worked = self.worked_s()
            time.sleep(IDLE_S)


def main() -> None:
    """Print a line a path and a line a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="instead of those measured by default; {} is a past time")
    given = parser.parse_args()
    paths = given.paths or (*PATHS, *PAST_PATHS)
    live, past = [path for path in paths if "{}" not in path], [path for path in paths if "{}" in path]
    worst: dict[tuple[str, str], Took] = {}
    with tempfile.TemporaryDirectory() as folder:
        now_ns = time.time_ns()
        fleet = FleetTables(Path(folder), given.hosts, given.gpus, now_ns - 15 * DAY_S * 1_000_000_000)
        hours = [now_ns - back * 1_000_000_000 for back in sorted(PAST_S, reverse=True)] if past else []
        for until_ns in hours:
            fleet.hour(until_ns)
        fleet.report(now_ns, range(given.hosts))
        ticks = itertools.count(1)
        with web_process(Path(folder)) as server:
            server.settle()  # the hour before now of every host is read in the background at first
            print(f"{given.hosts} hosts × {given.gpus} GPUs, simulated; median of {given.rounds}, the worst of 4 past times")
            print(f"web process {server.resident_mb():.0f} MB", flush=True)
            for path in live:
                cold, warm = [], []
                for _ in range(given.rounds):
                    fleet.report(time.time_ns(), range(given.hosts), next(ticks))
                    cold.append(server.ask(path))
                    fleet.report(time.time_ns(), [0], next(ticks))
                    warm.append(server.ask(path))
                worst[path, AT_ONCE] = median(cold)
                both = f"at once {shown(median(cold))}   warm {shown(median(warm))}"
                print(f"{path:32} {warm[-1].size / 1e6:5.2f} MB   {both}", flush=True)
            with reporting(fleet, given.hosts, ticks) if live else nullcontext():
                began, worked = time.monotonic(), server.worked_s()
                time.sleep(ROUND_S)
                idle = (server.worked_s() - worked) / (time.monotonic() - began)
                print(f"as a fleet reports: {idle:.2f} of a core while nobody asks")
                for path in live:
                    steady = []
                    for _ in range(given.rounds):
                        time.sleep(IDLE_S / 3)  # not in step with the server's own looks
                        steady.append(server.ask(path))
                    worst[path, STEADY] = median(steady)
                    print(f"{path:32} {steady[-1].size / 1e6:5.2f} MB   {STEADY} {shown(median(steady))}", flush=True)
            print(f"web process {server.resident_mb():.0f} MB", flush=True)
            for number, path in enumerate(past):
                times = (until_ns / 1e9 - 600 - number for until_ns in hours)
                worst[path, ""] = max((server.ask(path.format(f"@{at}")) for at in times), key=lambda took: took.worked)
                print(f"{path:32} {worst[path, ''].size / 1e6:5.2f} MB   {shown(worst[path, ''])}", flush=True)
            print(f"web process {server.resident_mb():.0f} MB")
        fleet.close()
    for (path, how), took in worst.items():
        if (target := TARGETS_MS.get(path)) is not None:
            verdict = "pass" if took.worked <= target else "MISS"
            print(f"{verdict}  {path:32} {how:18} {shown(took)}, target {target:.0f} ms")


AT_ONCE: Final = "at once"
STEADY: Final = "as a fleet reports"


@contextmanager
def web_process(folder: Path) -> Iterator[Server]:
    """The pages of these tables, served by a process of their own."""
    spawning = multiprocessing.get_context("spawn")
    mine, its = spawning.Pipe()
    process = spawning.Process(target=serve, args=(folder, its), name="web")
    process.start()
    try:
        yield Server(mine, process.pid or 0)
    finally:
        mine.close()
        process.join()


def serve(folder: Path, pipe: Connection) -> None:
    """Until the other end of the pipe is closed; each word from there is answered with the processor time so far."""
    with serving(StatusReader(folder), SystemClock(), checked=False) as address:
        tune_collector(YOUNG)
        pipe.send(address)
        try:
            while True:
                pipe.recv()
                pipe.send(time.process_time())
        except EOFError:
            pass


@contextmanager
def reporting(fleet: FleetTables, hosts: int, ticks: Iterator[int]) -> Iterator[None]:
    """All hosts report one after the other, each every ROUND_S, in the background."""
    ended = threading.Event()

    def report() -> None:
        each = max(1, hosts // (ROUND_S * COMMITS_A_S))
        at = 0
        while not ended.wait(1 / COMMITS_A_S):
            fleet.report(time.time_ns(), [(at + more) % hosts for more in range(each)], next(ticks))
            at += each

    thread = threading.Thread(target=report, name="fleet")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def shown(took: Took) -> str:
    """The time of the clock, and of the processor."""
    return f"{took.elapsed:7.1f} ms ({took.worked:6.1f})"


def median(times: Sequence[Took]) -> Took:
    """The median time of the clock, and of the processor."""
    elapsed, worked, size = map(statistics.median, zip(*times, strict=True))
    return Took(elapsed, worked, int(size))


if __name__ == "__main__":
    main()
