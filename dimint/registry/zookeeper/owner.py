"""Which process of which machine made a node, so that one that starts again need not wait for its own remains."""

import os
from typing import Final

__all__ = ["is_certainly_dead", "own_mark"]

_START: Final = 19
"""Place of a process's start time in /proc/PID/stat, counted after its name."""


def own_mark() -> str:
    """This process, unlike any other ever: boot, process namespace, pid and start. Empty where /proc does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {os.getpid()} {_stat(os.getpid())[_START]}"
    except (OSError, IndexError):
        return ""


def is_certainly_dead(mark: str) -> bool:
    """Whether that process ran here and is gone. False for one of another machine or container, of which nothing is known."""
    parts, own = mark.split(" "), own_mark().split(" ")
    if len(parts) != 4 or parts[:2] != own[:2] or not parts[2].isdecimal():
        return False
    pid = int(parts[2])
    try:
        os.kill(pid, 0)
        stat = _stat(pid)
        return stat[_START] != parts[3] or stat[0] in "ZX"
    except ProcessLookupError:
        return True
    except (OSError, IndexError, OverflowError):  # it is there, but somebody else's
        return False


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()
