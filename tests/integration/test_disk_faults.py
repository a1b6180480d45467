"""Disks that are full, fail or are slow under a running system: nothing is acknowledged that is not kept, all that was is there,
and who only reads is not kept waiting."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from dimint.client import Client
from dimint.errors import DimintError
from tests.support.disks import small_disk_at
from tests.support.kv_system import KvSystem, kv_system
from tests.support.system import wait_until

pytestmark = pytest.mark.timeout(240)
VALUE_BYTES = 100_000


@contextmanager
def failing(pid: int, calls: str, how: str = "error=EIO") -> Iterator[None]:
    """Every one of these system calls of a running process fails with EIO from now on, or whatever strace is to do to it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    inject = ("-e", f"trace={calls}", "-e", f"inject={calls}:{how}")
    tracer = subprocess.Popen(["strace", "-f", "-o", "/dev/null", *inject, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace may not attach here: {said.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGTERM)
        tracer.communicate(timeout=20)


def check(client: Client, written: dict[str, int]) -> None:
    """Every acknowledged write is there."""
    found = client.mget(list(written), consistency="strong", timeout=20)
    assert {key: str(value)[:9] for key, value in found.items()} == {key: f"{number:09}" for key, number in written.items()}


def write(client: Client, written: dict[str, int], number: int, size: int = 9, *, timeout_s: float = 3.0) -> str:
    """The error that a write ends with; empty if it was acknowledged."""
    try:
        client.set(f"k{number % 50}-{number}", f"{number:09}".ljust(size, "."), timeout=timeout_s)
    except DimintError as error:
        return type(error).__name__
    written[f"k{number % 50}-{number}"] = number
    return ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    with small_disk_at(tmp_path / "small", 64) as place:
        yield place


def test_a_full_disk(small_disk: Path) -> None:
    """Log and store are on it: writes are refused, reads go on, one line says why; with room again the same processes do."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(36 << 20))
    written: dict[str, int] = {}
    refused: set[str] = set()
    with kv_system(small_disk, flags=["--partitions=2"]) as system, Client(system.address, timeout=5) as client:
        before = {name: process.pid for name, process in system.processes.items()}
        number = failures = 0
        while failures < 3:
            number += 1
            if error := write(client, written, number, VALUE_BYTES, timeout_s=1.0):
                failures += 1
                refused.add(error)
            assert number < 1000, "the disk is never full"
        assert len(written) > 5
        assert refused <= {"NotApplied", "OutcomeUnknown", "NodeNotAvailable", "Busy", "TimedOut"}, refused
        first = next(iter(written))
        assert str(client.get(first, consistency="weak", timeout=5)).startswith(f"{written[first]:09}")
        ballast.unlink()
        wait_until(lambda: not write(client, written, 1001 + len(written)), 60, "writes go on")
        check(client, written)
        assert {name: process.pid for name, process in system.processes.items() if process.poll() is None} == before
        said = system.output()
        assert "full" in said or "no room" in said, said
        for name in list(system.processes):
            system.kill(name)
        system.start_all()
        check(client, written)


def ended(system: KvSystem, name: str) -> str:
    """What a process said that must end by itself, with code 1."""
    process = system.processes.pop(name)
    assert process.wait(60) == 1
    return (system.directory / f"{name}.out").read_text()


@pytest.mark.parametrize("calls", ["fdatasync,fsync", "pwrite64"])
def test_the_logs_disk_fails(calls: str, tmp_path: Path) -> None:
    """What failed is not tried again: the overlord acknowledges nothing more and ends; all it did is there."""
    written: dict[str, int] = {}
    with kv_system(tmp_path, flags=["--partitions=2"]) as system, Client(system.address, timeout=5) as client:
        for number in range(50):
            assert not write(client, written, number)
        with failing(system.processes["overlord-1"].pid, calls):
            before = len(written)
            for number in range(50, 53):
                write(client, written, number, timeout_s=0.5)
            assert len(written) == before, "nothing is acknowledged on a disk that fails"
            said = ended(system, "overlord-1")
        assert said.count("dimint: the embedded log is broken: ") == 1, said
        assert "Traceback" not in said
        system.start("overlord-1")
        system.wait_ready()
        wait_until(lambda: not write(client, written, 60 + len(written)), 30, "writes go on")
        check(client, written)


@pytest.mark.parametrize("calls", ["fdatasync,fsync,msync", "pwrite64,pwritev,writev"])
def test_a_stores_disk_fails(calls: str, tmp_path: Path) -> None:
    """The node ends; what was acknowledged meanwhile is in the log, and in its store when it is started again."""
    written: dict[str, int] = {}
    with kv_system(tmp_path, flags=["--partitions=2"]) as system, Client(system.address, timeout=5) as client:
        for number in range(50):
            assert not write(client, written, number)
        with failing(system.processes["node-1"].pid, calls):
            deadline = time.monotonic() + 30
            number = 50
            while system.processes["node-1"].poll() is None and time.monotonic() < deadline:
                write(client, written, number, timeout_s=0.5)
                number += 1
            said = ended(system, "node-1")
        assert "the node's store failed" in said, said
        assert "Traceback" not in said
        for number in range(1000, 1020):
            assert not write(client, written, number), "a set needs no node"
        system.start("node-1")
        system.wait_ready()
        check(client, written)


def test_a_slow_disk_keeps_no_read_waiting(tmp_path: Path) -> None:
    """Once a commit has been slow, the overlord goes on while the next one is under way."""
    slow_s = 1.0
    with kv_system(tmp_path) as system, Client(system.address, timeout=30) as writer:
        writer.set("k", 1)
        with (
            failing(system.processes["overlord-1"].pid, "fdatasync", f"delay_exit={slow_s * 1e6:.0f}"),
            Client(system.address, timeout=30, direct_reads=False) as reader,
            ThreadPoolExecutor(1) as beside,
        ):
            writer.set("slow", 1)
            began = time.monotonic()
            write = beside.submit(writer.set, "slow", 2)
            for _ in range(5):
                assert reader.get("k") == 1
            assert time.monotonic() - began < slow_s / 2
            assert not write.done()
            write.result()
            assert time.monotonic() - began >= slow_s
        assert writer.get("slow", consistency="strong") == 2
