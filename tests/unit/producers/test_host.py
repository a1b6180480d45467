"""This host's readings, its processes, and how samples are put together."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest

from dimint.clock import ManualClock
from dimint.limits import SAMPLE_MAX_BYTES
from dimint.producers.host import Host, address_of_this_host, host_facts
from dimint.producers.pci import driver_module_version
from dimint.producers.processes import Processes, redacted
from dimint.producers.sample import PROCESS_ROWS_MAX, Assembler, Fast
from dimint.sample import Process


def test_shares_of_time_need_two_looks() -> None:
    """The first look at the CPU has no shares, the second has some for every core; nothing is out of range."""
    host = Host()
    first = host.cpu()
    assert (first["tot_pm"], first["util_pct"], first["iowait_pm"]) == (None, None, None)
    time.sleep(0.05)
    second = host.cpu()
    assert len(second["util_pct"] or []) == second["n"] == first["n"]
    assert 0 <= (second["tot_pm"] or 0) <= 1000
    assert all(share is None or 0 <= share <= 100 for share in second["util_pct"] or [])


def test_memory_disks_and_network() -> None:
    """What this machine surely has is there."""
    host = Host()
    memory = host.memory()
    assert memory is not None
    assert 0 < memory["used"] < memory["tot"]
    assert all(disk["used"] <= disk["tot"] for disk in host.disks() or [])
    assert "lo" not in [net["if"] for net in host.network() or []]
    assert host_facts()["ram"] == memory["tot"]
    assert address_of_this_host().count(".") == 3


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build", "550.54.15"),
        ("something else", None),
    ],
)
def test_version_of_the_kernel_module(tmp_path: Path, line: str, version: str | None) -> None:
    """Both spellings of the driver's version line are read."""
    (tmp_path / "driver/nvidia").mkdir(parents=True)
    (tmp_path / "driver/nvidia/version").write_text(f"{line}\nGCC version: 12\n")
    assert driver_module_version(tmp_path) == version


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (["/usr/bin/python3", "/home/u/train.py", "--token=abc"], "python3 train.py"),
        (["python", "--password", "abc"], "python"),
        (["curl", "https://user:secret@host/"], "curl"),
        (["env", "KEY=secret", "prog"], "env"),
        (["mysql: root@db secret"], "mysql:"),
        (["tool:secret@db"], None),
        (["prog", "two words secret"], "prog"),
        ([], None),
        ([""], None),
        (["   "], None),
    ],
)
def test_command_lines_are_redacted(line: list[str], shown: str | None) -> None:
    """Nothing of a command line is shown where a password could stand."""
    assert redacted(line) == shown


def test_processes_are_described() -> None:
    """A live process has user, program and age; one without /proc is an orphan; both keep what the GPU said."""
    clock = ManualClock()
    processes = Processes(clock, namespace_is_hosts=True)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)", "--secret"])
    try:
        rows: list[list[Any]] = [[0, child.pid, 1 << 20, "C", 35], [1, child.pid, None, "G", None], [0, 4_194_000, 5, "C", None]]
        mine, same, orphan = processes.describe(rows)
        clock.advance(2.0)
        later = processes.describe(rows)[0]
    finally:
        child.kill()
        child.wait()
    assert (mine["g"], mine["mem"], mine["type"], mine["sm_pct"], mine["uid"]) == (0, 1 << 20, "C", 35, os.getuid())
    assert (same["g"], same["mem"], same["t0_ms"]) == (1, None, mine["t0_ms"])
    assert "secret" not in (mine["cmd"] or "")
    assert abs((mine["t0_ms"] or 0) / 1000 - time.time()) < 30
    assert (mine["cpu_pm"], later["t0_ms"]) == (None, mine["t0_ms"])
    assert later["cpu_pm"] is not None
    assert (orphan["orphan"], orphan["user"], orphan["mem"]) == (True, None, 5)


def test_pids_of_another_namespace_mean_nothing_here() -> None:
    """In a container nobody is looked up: the pid may be somebody else's."""
    (row,) = Processes(ManualClock(), namespace_is_hosts=False).describe([[0, os.getpid(), 1, "C", None]])
    assert (row["foreign"], row["user"], row.get("orphan")) == (True, None, None)


def test_samples_are_complete() -> None:
    """Rarely read parts are carried with their age; process rows only as long as the driver answers."""
    assembler = Assembler(interval_ms=2000, boot="b")
    assembler.slow(disks=[{"mnt": "/", "tot": 2, "used": 1}], temperatures={"cpu/0": 41_000}, mono_ns=0)
    assembler.processes([{"g": 0, "pid": 1}], {"GPU-1": 4}, [], mono_ns=1_000_000_000)
    fast = Fast(None, None, None, "ok", [])
    sample = assembler.build(fast, mono_ns=3_000_000_000, dur_us=7, skipped=("slow",))
    assert (sample["slow_age_ms"], sample["proc_age_ms"], sample["procs_err"]) == (3000, 2000, {"GPU-1": 4})
    assert (sample["proc"], sample["disk"][0]["used"], sample["skipped"]) == ([{"g": 0, "pid": 1}], 1, ["slow"])
    late = assembler.build(fast._replace(gpus=None, gpu_state="unknown"), mono_ns=4_000_000_000, dur_us=7)
    assert "gpu" not in late
    assert "proc" not in late
    assert "proc" not in assembler.build(fast._replace(gpu_state="hung"), mono_ns=4_000_000_000, dur_us=7)


def test_a_sample_stays_small_whatever_a_driver_reports() -> None:
    """Of too many processes the biggest stay, and the sample says how many it left out."""
    rows: list[Process] = [{"g": 0, "pid": pid, "mem": pid, "name": "n" * 256, "cmd": "c" * 100} for pid in range(4096)]
    assembler = Assembler(interval_ms=2000, boot=None)
    assembler.processes(rows, {}, [], 0)
    sample = assembler.build(Fast(None, None, None, "ok", []), mono_ns=0, dur_us=0)
    assert len(sample["proc"]) == PROCESS_ROWS_MAX
    assert sample["proc_more"] == 4096 - PROCESS_ROWS_MAX
    assert min(row["pid"] for row in sample["proc"]) == sample["proc_more"]
    assert len(msgpack.packb(sample)) < SAMPLE_MAX_BYTES
