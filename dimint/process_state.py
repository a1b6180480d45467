"""What psutil knows about processes: this one's state for heartbeats, and the dimint programs of this machine."""

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from dimint.errors import DimintError, SettingsError

__all__ = [
    "PROCESS_NAME",
    "ProcessState",
    "Program",
    "find_program",
    "is_child",
    "is_dimint",
    "own_address",
    "program_command",
    "programs",
    "set_process_name",
    "stop_program",
]

PROCESS_NAME: Final = "dimint"
PROGRAMS: Final = frozenset({"dimint", "dimint_overlord", "dimint_node", "dimint-produce"})


class ProcessState:
    """State of this process as heartbeats carry it. `cpu_percent` is since the call before, 0.0 the first time."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()

    def read(self) -> dict[str, Any]:
        """cwd, name, cmdline, create_time (s since the epoch), cpu_percent, memory_percent, memory_info (rss, vms, … in
        bytes, psutil's tuple as a list), is_running. What the system does not tell is None."""
        process = self._process
        with process.oneshot():
            return {
                "cwd": _told(process.cwd),
                "name": _told(process.name),
                "cmdline": _told(process.cmdline),
                "create_time": _told(process.create_time),
                "cpu_percent": _told(process.cpu_percent),
                "memory_percent": _told(process.memory_percent),
                "memory_info": [*process.memory_info()],
                "is_running": process.is_running(),
            }


def _told(ask: Any) -> Any:
    try:
        return ask()
    except (psutil.Error, OSError):
        return None


def set_process_name(name: str = PROCESS_NAME) -> None:
    """What `ps` and psutil show as the name, at most 15 bytes. Does nothing where the system has no such thing."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


class Program(NamedTuple):
    """A running dimint program. `log_path` is the file that its messages go to, None if that is a terminal or unknown."""

    pid: int
    name: str
    cmdline: list[str]
    log_path: str | None = None

    def __str__(self) -> str:
        return f"psutil.Process(pid={self.pid}, name={self.name!r}), cmdline : {self.cmdline!r}"


def is_dimint(cmdline: Sequence[str]) -> bool:
    """Whether a command line runs one of our programs: as a script under some Python, or with `-m dimint`."""
    if not cmdline:
        return False
    if not os.path.basename(cmdline[0]).startswith(("python", "pypy")):
        return os.path.basename(cmdline[0]) in PROGRAMS
    arguments = list(cmdline[1:])
    while arguments and arguments[0].startswith("-") and arguments[0] not in {"-m", "-c", "-"}:
        takes_value = arguments.pop(0) in {"-W", "-X"}
        if takes_value and arguments:
            arguments.pop(0)
    if arguments[:1] == ["-m"]:
        return arguments[1:2] == ["dimint"]
    return bool(arguments) and os.path.basename(arguments[0]) in PROGRAMS


def programs() -> list[Program]:
    """Every dimint program that runs on this machine and that this user may see, itself included, by pid."""
    found = []
    for process in psutil.process_iter():
        program = _program(process)
        if program is not None:
            found.append(program)
    return sorted(found)


def find_program(pid: int) -> Program | None:
    """The dimint program with this pid; None if there is no such process or it is something else."""
    try:
        return _program(psutil.Process(pid))
    except (psutil.Error, ValueError, OverflowError):
        return None


def _program(process: psutil.Process) -> Program | None:
    try:
        cmdline = process.cmdline()
        if not is_dimint(cmdline) or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Program(process.pid, process.name(), cmdline, _log_path(process.pid))
    except (psutil.Error, OSError):
        return None


def _log_path(pid: int) -> str | None:
    try:
        path = os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return None
    return path if path.startswith("/") and os.path.isfile(path) else None


def is_child(pid: object) -> bool:
    """Whether a living process with this number was started by this very process."""
    try:
        return isinstance(pid, int) and psutil.Process(pid).ppid() == os.getpid()
    except (psutil.Error, ValueError, OverflowError):
        return False


def own_address() -> str:
    """The address that this machine reaches others from; 127.0.0.1 without a route. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def program_command() -> list[str]:
    """How this program was started, without its arguments: what another one of its kind is started with."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) in PROGRAMS and os.path.isfile(script):
        return [sys.executable, script]
    return [sys.executable, "-m", "dimint"]


def stop_program(pid: int, timeout_s: float = 15.0) -> None:
    """Ask a dimint program to end and wait until it is gone.

    Raises SettingsError if `pid` is none (also when the number now belongs to another program) or is somebody else's,
    DimintError if it does not end in time.
    """
    ended = False
    try:
        process = psutil.Process(pid)
        created = process.create_time()
        if _program(process) is None:
            raise SettingsError(f"{pid} is not a dimint process", hint="dimint overlord list shows them")
        if process.create_time() != created or pid == os.getpid():
            raise SettingsError(f"{pid} is not a dimint process any more")
        ended = True
        process.terminate()  # psutil checks that the pid has not been given to another process
        process.wait(timeout_s)
    except psutil.NoSuchProcess:
        if not ended:
            raise SettingsError(f"there is no process {pid}") from None
    except (ValueError, OverflowError):
        raise SettingsError(f"{pid} is not a pid") from None
    except psutil.AccessDenied:
        raise SettingsError(f"process {pid} belongs to another user") from None
    except psutil.TimeoutExpired:
        raise DimintError(f"process {pid} did not end within {timeout_s:g} s", hint=f"kill -9 {pid} ends it at once") from None
