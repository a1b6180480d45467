"""A whole system under a thousand simulated hosts: does it keep up, and does its memory stay where it is?

    .venv/bin/python -m benchmarks.fleet [--hosts 1000] [--interval 5] [--minutes 10] [--every 15]

`dimint up --simulate` in a folder of its own, with all that belongs to it: agent, log, consumer, alerts, pages. A line every
few seconds: how many records the status tables are behind the log, samples a second, memory (PSS) of each process, the
processor time all of them use, and how long `/states/` of all hosts takes. Simulated hosts have up to 8 GPUs, 4.7 on average:
1700 of them have 8000. At the end whether the lag grew and whether memory did, by the median of the last third against that
of the middle one: caches fill in the first, SQLite's of the consumer up to 64 MB, the pages' last hour of each GPU, some 40 MB
for a thousand hosts, in the first hour. The cores say how much of this machine it takes; who else runs here shows in the lag
and in the answers' times.
"""

import argparse
import contextlib
import http.client
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.footprint import cpu_s, family, pss_kib
from tests.support.ports import free_ports

READY_S = 120.0
GROWTH_MAX_MB = 30.0
"""More memory than this from the middle third to the last one is growth: pages that SQLite maps come and go."""


class Look(NamedTuple):
    """One look. Lag in records, memory in MB, processor time in cores, the answer's time in ms.

    `late` counts hosts whose newest sample in the tables is older than two intervals.
    """

    second: float
    lag: int
    late: int
    memory: dict[str, float]
    cores: float
    states_ms: float


def main() -> int:
    """0 if it kept up and did not grow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two looks")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        port, client, node = free_ports(3)
        command = [
            sys.executable, "-m", "dimint", "up", f"--data_dir={Path(temporary) / 'data'}", f"--http_port={port}",
            f"--port_for_client={client}", f"--port_for_node={node}", f"--hosts={given.hosts}", "--simulate",
            f"--interval={given.interval}",
        ]  # fmt: skip
        system = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(port, system)
            looks = _watch(system.pid, port, given)
        finally:
            system.terminate()
            system.wait(30)
    return _judge(looks, given.hosts / given.interval)


def _wait(port: int, system: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and system.poll() is None:
        try:
            if _ask(port, "/-/ready")[1] == b"ready\n":
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit("the system did not become ready")


def _ask(port: int, path: str) -> tuple[float, bytes]:
    """Time in ms and body of one answer."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        body = connection.getresponse().read()
    finally:
        connection.close()
    return (time.perf_counter() - began) * 1000, body


def _watch(pid: int, port: int, given: argparse.Namespace) -> list[Look]:
    looks: list[Look] = []
    names: dict[int, str] = {}
    started = time.monotonic()
    before, worked = started, _cpu(pid)
    while time.monotonic() - started < given.minutes * 60:
        time.sleep(given.every)
        asked = time.time()
        metrics = _ask(port, "/metrics")[1].decode()
        lag = sum(int(value) for value in re.findall(r"^dimint_consumer_lag_events\{[^}]*\} (\d+)$", metrics, re.MULTILINE))
        newest = re.findall(r"^dimint_host_last_sample_timestamp_seconds\{[^}]*\} (\S+)$", metrics, re.MULTILINE)
        late = sum(asked - float(stamp) > 2 * given.interval for stamp in newest)
        memory: dict[str, float] = {}
        for one in family(pid):
            try:
                name = names.setdefault(one, _name(one))
                memory[name] = memory.get(name, 0.0) + pss_kib(one) / 1024
            except (OSError, psutil.Error, AssertionError):
                continue  # it has ended meanwhile
        now, used = time.monotonic(), _cpu(pid)
        look = Look(now - started, lag, late, memory, (used - worked) / (now - before), _ask(port, "/states/")[0])
        before, worked = now, used
        if not looks:
            gpus = len(re.findall(r"^dimint_gpu_up\{", metrics, re.MULTILINE))
            print(f"{len(newest)} hosts with {gpus} GPUs, a sample every {given.interval:g} s each; memory in MB PSS")
            print(f"{'s':>6} {'lag':>6} {'late':>6} {'cores':>6} {'/states/':>9}  {'all':>6}  " + "  ".join(sorted(memory)))
        each = "  ".join(f"{memory.get(name, 0):>{len(name)}.0f}" for name in sorted(memory))
        total = sum(memory.values())
        print(
            f"{look.second:6.0f} {lag:6d} {late:6d} {look.cores:6.2f} {look.states_ms:6.0f} ms  {total:6.0f}  {each}",
            flush=True,
        )
        looks.append(look)
    return looks


def _cpu(pid: int) -> float:
    """Processor time of all processes that are there."""
    used = 0.0
    for one in family(pid):
        with contextlib.suppress(OSError):
            used += cpu_s(one)
    return used


def _name(pid: int) -> str:
    """What a process of the system is: the command after `dimint`."""
    words = psutil.Process(pid).cmdline()
    after = words[words.index("dimint") + 1 :] if "dimint" in words else []
    return after[0] if after else "other"


def _judge(looks: list[Look], samples_a_second: float) -> int:
    third = max(1, len(looks) // 3)
    middle, last = looks[-2 * third : -third] or looks[:1], looks[-third:]
    lag, lag_before = (statistics.median(look.lag for look in part) for part in (last, middle))
    memory, memory_before = (statistics.median(sum(look.memory.values()) for look in part) for part in (last, middle))
    behind = lag > max(2 * lag_before, 5 * samples_a_second)
    grown = memory - memory_before > GROWTH_MAX_MB
    print(f"lag {lag_before:.0f} → {lag:.0f} records: {'GROWS' if behind else 'held'}")
    print(f"memory {memory_before:.0f} → {memory:.0f} MB: {'GROWS' if grown else 'held'}")
    print(f"{statistics.mean(look.cores for look in looks):.2f} cores for {samples_a_second:.0f} samples a second")
    return int(behind or grown)


if __name__ == "__main__":
    sys.exit(main())
