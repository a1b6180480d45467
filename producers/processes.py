"""Who the processes on GPUs are: user, program, age, CPU time, container and job per pid, through psutil and /proc.

Only pids that a GPU names are looked at. What does not change is kept per (pid, create time), so a pid that was given to
another program is never confused with its predecessor. NVML names pids of the host: inside a container that has its own
pid namespace they mean nothing, so nobody is looked up and the rows say `foreign`.

A command line may hold passwords. `cmd` therefore is only the program's base name and its first plain argument (for an
interpreter that is the script): no options, nothing with `=`, `@` or `://`, no path in front.
"""

import pwd
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from dimint.clock import Clock
from dimint.limits import PROCESS_NAME_MAX_CHARS
from dimint.producers.cgroups import placement
from dimint.producers.pods import Pods
from dimint.sample import Process

__all__ = ["Processes", "in_first_pid_namespace", "redacted"]

_Value = TypeVar("_Value")
_CLOCK_SLACK_S = 2.0
"""The kernel gives ages; as a point in time an age moves a little whenever the clock is set."""
_CGROUP_MAX_CHARS = 1 << 14
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # fixed by the kernel (PROC_PID_INIT_INO)


def in_first_pid_namespace(proc: Path = Path("/proc")) -> bool:
    """Whether pids here are the host's pids. Where the kernel does not say (no permission, old), they are taken to be."""
    try:
        return str((proc / "self/ns/pid").readlink()) == _FIRST_PID_NAMESPACE
    except OSError:
        return True


def redacted(arguments: Sequence[str]) -> str | None:
    """What may be shown of a command line.

    >>> redacted(["/usr/bin/python3", "/home/u/train.py", "--token=abc"])
    'python3 train.py'
    >>> redacted(["curl", "https://user:password@host/"]), redacted(["https://user:password@host"])
    ('curl', None)
    """
    if not arguments or not arguments[0]:
        return None
    called = arguments[0].split()[0] if arguments[0].split() else ""
    if not called or _may_be_secret(called):  # programs may call themselves what they like
        return None
    program = called.rpartition("/")[2]
    first = arguments[1] if len(arguments) > 1 else ""
    if not first or first.startswith("-") or _may_be_secret(first):
        return program[:PROCESS_NAME_MAX_CHARS]
    return f"{program} {first.rpartition('/')[2]}"[:PROCESS_NAME_MAX_CHARS]


def _may_be_secret(word: str) -> bool:
    return any(mark in word for mark in ("=", "@", "://")) or any(map(str.isspace, word))


class _Known:
    """One process: what never changes, and the CPU time at the last look."""

    def __init__(self, process: psutil.Process, created: float) -> None:
        self.process, self.created = process, created
        self.fixed: Process | None = None
        self.cpu: tuple[float, float] | None = None


class Processes:
    """Describes pids. Belongs to one thread."""

    def __init__(
        self,
        clock: Clock,
        *,
        namespace_is_hosts: bool,
        command_lines: str = "redacted",
        proc: Path = Path("/proc"),
        pods: Pods | None = None,
    ) -> None:
        self._clock, self._hosts, self._command_lines, self._proc = clock, namespace_is_hosts, command_lines, proc
        self._pods = Pods(clock) if pods is None else pods
        self._known: dict[int, _Known] = {}
        self._first_seen: dict[tuple[int, int], int] = {}
        self._users: dict[int, str | None] = {}

    def describe(self, rows: Iterable[Sequence[Any]]) -> list[Process]:
        """Rows [GPU, pid, memory, type, sm] of NVML with everything that can be told of the pids."""
        rows = list(rows)
        people = {pid: self._look_up(pid) for pid in {row[1] for row in rows}}
        self._known = {pid: known for pid, known in self._known.items() if pid in people}
        now_ms = self._clock.time_ns() // 1_000_000
        self._first_seen = {(row[0], row[1]): self._first_seen.get((row[0], row[1]), now_ms) for row in rows}
        described: list[Process] = []
        for gpu, pid, memory, kind, sm in rows:
            row: Process = {"g": gpu, "pid": pid, "mem": memory, "type": kind, "sm_pct": sm, **people[pid]}
            if row.get("t0_ms") is None:
                row["seen_ms"] = self._first_seen[gpu, pid]
            described.append(row)
        return described

    def _look_up(self, pid: int) -> Process:
        if not self._hosts:
            return {"user": None, "name": None, "cmd": None, "t0_ms": None, "foreign": True}
        try:
            process = psutil.Process(pid)
            created = process.create_time()
        except (psutil.NoSuchProcess, FileNotFoundError):
            return {"user": None, "name": None, "cmd": None, "t0_ms": None, "orphan": True}
        except (psutil.Error, OSError):
            return {"user": None, "name": None, "cmd": None, "t0_ms": None}
        known = self._known.get(pid)
        if known is None or abs(known.created - created) > _CLOCK_SLACK_S:
            known = self._known[pid] = _Known(process, created)
        with known.process.oneshot():
            if known.fixed is None:
                known.fixed = self._fixed(known.process, known.created)
            now = self._clock.monotonic()
            times = _try(known.process.cpu_times)
            before, known.cpu = known.cpu, (times.user + times.system, now) if times else None
            share = None
            if before and known.cpu and now > before[1]:
                share = max(0, round(1000 * (known.cpu[0] - before[0]) / (now - before[1])))
            memory = _try(known.process.memory_info)
        return {**known.fixed, "cpu_pm": share, "rss": memory.rss if memory else None}

    def _fixed(self, process: psutil.Process, created: float) -> Process:
        uids = _try(process.uids)
        uid = uids.real if uids else None
        line = _try(process.cmdline) or []
        called = line[0] if line and line[0].startswith("/") and not _may_be_secret(line[0]) else None
        name = _try(process.exe) or called or _try(process.name)
        return {
            "t0_ms": round(created * 1000),
            "name": name[-PROCESS_NAME_MAX_CHARS:] if name else None,
            "uid": uid,
            "user": self._user(uid) if uid is not None else None,
            "cmd": self._command(line),
            **self._placement(process.pid),
        }

    def _command(self, line: Sequence[str]) -> str | None:
        """What the settings allow to be shown of a command line."""
        if self._command_lines == "whole":
            return " ".join(line)[:PROCESS_NAME_MAX_CHARS] or None
        return redacted(line) if self._command_lines == "redacted" else None

    def _placement(self, pid: int) -> Process:
        """ctr, rt, pod, ns and job, as far as the process is in one."""
        text = _try(lambda: _head(self._proc / str(pid) / "cgroup")) or ""
        found = placement(text)
        row: Process = {}
        if found.container is not None:
            row["ctr"] = found.container
        if found.runtime is not None:
            row["rt"] = found.runtime
        if found.pod_uid is not None:
            named = self._pods.name(found.pod_uid)
            row["pod"] = named.name if named else found.pod_uid
            if named:
                row["ns"] = named.namespace
        if found.job is not None:
            row["job"] = found.job
        return row

    def _user(self, uid: int) -> str | None:
        """Name of the user; a directory service is asked once for each."""
        if uid not in self._users:
            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except (KeyError, OSError):
                self._users[uid] = str(uid)
        return self._users[uid]


def _head(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_CGROUP_MAX_CHARS)


def _try(read: Callable[[], _Value]) -> _Value | None:
    """One field of a process: it may be gone, a zombie, or not ours to see."""
    try:
        return read()
    except (psutil.Error, OSError, UnicodeDecodeError):
        return None
