"""Key-value speed beside Redis and etcd, in the same run on the same machine, interleaved.

    python -m benchmarks.kv [--seconds 2] [--repeats 3] [--only dimint,redis]

Every system acknowledges a write only when it is on disk: DiMint on its embedded log (synchronous=FULL), redis-server with
`--appendonly yes --appendfsync always`, one etcd with its defaults. 10,000 keys, values of 100 bytes, data in a temporary
directory. What is compared:

- outstanding N: DiMint with N requests under way on one connection, Redis on N connections with one each ("redis-p32": on
  N/32 connections with 32 pipelined), etcd with N goroutines of its Go client (gRPC multiplexes them)
- weak get: any replica / Redis GET / etcd serializable range; strong get: linearizable, Redis GET again / etcd range
- mset, mget: 50 keys each; Redis MSET/MGET, etcd transactions
- floor: what DiMint could reach at most, a server in Python that syncs what it is sent and answers (benchmarks/kv_floor.py)

A generator is a process of its own (Python for DiMint and Redis, Go for etcd) and shares the processors with the server.
Of the repeats the median counts. What is not installed is skipped with a line.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from dimint.client import Client
from dimint.errors import DimintError

CASES = [
    *[(op, outstanding) for op in ("set", "weak", "strong") for outstanding in (1, 64, 512)],
    *[(op, outstanding) for op in ("mset", "mget") for outstanding in (1, 64)],
]
READY_S = 30.0
WIDTH = 44
ETCD_CLIENT = "v3.5.21"


class System(NamedTuple):
    """One server that runs. `command` makes the generator's command line for (op, outstanding, seconds); `pids` are its
    processes by role."""

    name: str
    command: Callable[[str, int, float], list[str]]
    pids: Mapping[str, int] = {}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended at the end."""
    with open(output, "ab") as file:
        started = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_for(what: str, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not is_ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} is not ready after {READY_S:.0f} s")
        time.sleep(0.1)


def python_load(kind: str, address: str, depth: int = 1) -> Callable[[str, int, float], list[str]]:
    def command(op: str, outstanding: int, seconds: float) -> list[str]:
        numbers = [f"--outstanding={outstanding}", f"--seconds={seconds}", f"--depth={min(depth, outstanding)}"]
        return [sys.executable, "-m", "benchmarks.kv_load", kind, address, op, *numbers]

    return command


def start_dimint(stack: ExitStack, directory: Path, flags: Sequence[str] = ()) -> list[System]:
    """An overlord and a node, with more flags for both."""
    client, node = free_port(), free_port()
    program = [sys.executable, "-m", "dimint"]
    ports = [f"--port_for_client={client}", f"--port_for_node={node}"]
    pids = {}
    for role, its in (("overlord", [*ports, *flags]), ("node", flags)):
        command = [*program, role, "run", f"--data_dir={directory}", *its]
        pids[role] = stack.enter_context(process(command, directory / f"{role}.out")).pid

    def is_ready() -> bool:
        with suppress(DimintError, KeyError), Client(f"127.0.0.1:{client}", timeout=1) as asker:
            parts = asker.status()["partitions"]
            return bool(parts) and all((part["replicas"].get(part["master"]) or {}).get("caught_up") for part in parts)
        return False

    wait_for("dimint", is_ready)
    return [System("dimint", python_load("dimint", f"127.0.0.1:{client}"), pids)]


def start_floor(stack: ExitStack, directory: Path) -> list[System]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.kv_floor", str(port), str(directory / "synced")]
    stack.enter_context(process(command, directory / "floor.out"))
    wait_for("the floor", lambda: _listens(port))
    # the load for DiMint: same protocol, same requests
    return [System("floor", python_load("dimint", f"127.0.0.1:{port}"))]


def start_redis(stack: ExitStack, directory: Path) -> list[System]:
    if shutil.which("redis-server") is None:
        print("redis: skipped, redis-server is not installed")
        return []
    port = free_port()
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "", "--appendonly", "yes"]
    stack.enter_context(process(["redis-server", *flags, "--appendfsync", "always"], directory / "redis.out"))
    wait_for("redis", lambda: _listens(port))
    address = f"127.0.0.1:{port}"
    return [System("redis", python_load("redis", address)), System("redis-p32", python_load("redis", address, depth=32))]


def start_etcd(stack: ExitStack, directory: Path) -> list[System]:
    if shutil.which("etcd") is None or shutil.which("go") is None:
        print("etcd: skipped, etcd or go is not installed")
        return []
    load = build_etcd_load(directory / "etcd_load")
    if load is None:
        return []
    client, peer = free_port(), free_port()
    flags = ["--data-dir", str(directory / "etcd"), "--listen-client-urls", f"http://127.0.0.1:{client}"]
    flags += ["--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}"]
    flags += [
        "--initial-advertise-peer-urls",
        f"http://127.0.0.1:{peer}",
        "--initial-cluster",
        f"default=http://127.0.0.1:{peer}",
    ]
    server = stack.enter_context(process(["etcd", *flags], directory / "etcd.out"))
    wait_for("etcd", lambda: _listens(client))

    def command(op: str, outstanding: int, seconds: float) -> list[str]:
        return [str(load), f"-address=127.0.0.1:{client}", f"-op={op}", f"-outstanding={outstanding}", f"-seconds={seconds}"]

    return [System("etcd", command, {"etcd": server.pid})]


def build_etcd_load(directory: Path) -> Path | None:
    """The generator for etcd, built with Go; None, with a line, where that fails."""
    shutil.copytree(Path(__file__).parent / "etcd_load", directory)
    binary = directory / "load"
    environment = {**os.environ, "GOFLAGS": "-mod=mod"}
    steps = [
        ["go", "mod", "init", "load"],
        ["go", "get", f"go.etcd.io/etcd/client/v3@{ETCD_CLIENT}"],
        ["go", "build", "-o", str(binary), "."],
    ]
    for step in steps:
        done = subprocess.run(step, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"etcd: skipped, `{' '.join(step)}` failed: {done.stderr.strip().splitlines()[-1:]}")
            return None
    return binary


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def measure(system: System, op: str, outstanding: int, seconds: float) -> dict[str, float]:
    done = subprocess.run(
        system.command(op, outstanding, seconds), capture_output=True, text=True, timeout=seconds + 120, check=False
    )
    if done.returncode:
        print(f"{system.name} {op} {outstanding}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return {}
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="dimint,floor,redis,etcd", help="systems, with commas")
    parser.add_argument("--json", action="store_true", help="print every measurement as JSON lines too")
    chosen = parser.parse_args()
    starters = {"dimint": start_dimint, "floor": start_floor, "redis": start_redis, "etcd": start_etcd}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dimint-bench-")))
        systems: list[System] = []
        for name in chosen.only.split(","):
            (directory / name).mkdir()
            systems += starters[name](stack, directory / name)
        for system in systems:
            if system.name != "floor":
                measure(system, "fill", 1, 0)
        runs: dict[tuple[str, str, int], list[dict[str, float]]] = {}
        for repeat in range(chosen.repeats):
            for op, outstanding in CASES:
                for system in systems if repeat % 2 == 0 else reversed(systems):
                    if system.name == "redis-p32" and (outstanding < 32 or op in ("mset", "mget")):
                        continue
                    found = measure(system, op, outstanding, chosen.seconds)
                    if found:
                        runs.setdefault((system.name, op, outstanding), []).append(found)
                        if chosen.json:
                            print(json.dumps({"system": system.name, "op": op, "outstanding": outstanding, **found}), flush=True)
        show([system.name for system in systems], runs)


def show(
    names: list[str], runs: dict[tuple[str, str, int], list[dict[str, float]]], cases: Sequence[tuple[str, int]] = CASES
) -> None:
    """The table: operations a second (median, range of the repeats), latency, and DiMint's ratio to each."""
    print("\noperations/s, median (lowest–highest); p50/p99 in ms")
    print(f"{'':<12}" + "".join(f"{name:>{WIDTH}}" for name in names) + "   dimint / other")
    for op, outstanding in cases:
        line = f"{op + ' ' + str(outstanding):<12}"
        medians: dict[str, float] = {}
        for name in names:
            found = runs.get((name, op, outstanding), [])
            if not found:
                line += f"{'-':>{WIDTH}}"
                continue
            rates = [one["per_s"] for one in found]
            medians[name] = median(rates)
            p50, p99 = (median(one[field] for one in found) / 1000 for field in ("p50_us", "p99_us"))
            errors = sum(one["errors"] for one in found)
            spread = f" ({min(rates):,.0f}–{max(rates):,.0f})" if len(rates) > 1 else ""
            shown = f"{median(rates):,.0f}{spread}; {p50:.2f}/{p99:.2f}" + (f" {errors:.0f} errors!" if errors else "")
            line += f"{shown:>{WIDTH}}"
        ours = medians.pop("dimint", None)
        print(line + "   " + "  ".join(f"{name} {ours / other:.2f}" for name, other in medians.items() if ours))


if __name__ == "__main__":
    main()
