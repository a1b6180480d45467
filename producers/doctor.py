"""What stands between this host and good samples, in words: driver, rights, processes, spool, log, cost."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dimint.errors import DimintError
from dimint.log.opening import is_missing
from dimint.producers.cli import once, open_publisher
from dimint.producers.delivery import PATIENCE_S
from dimint.producers.gpu_texts import GPU_TEXTS
from dimint.producers.pci import driver_module_version
from dimint.producers.processes import in_first_pid_namespace
from dimint.producers.spool import SPOOL_MAX_BYTES, Spool
from dimint.settings import AgentSettings
from dimint.system_clock import SystemClock

__all__ = ["Finding", "examine"]

COST_WARN_MS = 50


class Finding(NamedTuple):
    """`verdict` is OK, WARN or FAIL."""

    verdict: str
    subject: str
    text: str


def examine(settings: AgentSettings) -> list[Finding]:
    """Everything that can be found out without publishing anything."""
    started = time.monotonic()
    shown = once(settings)
    took_s = time.monotonic() - started
    facts, state = shown["facts"], shown["gpu_state"]
    findings = [
        Finding("OK", "host", f"{shown['name']} at {shown['ip']}, {facts['os']}, kernel {facts['kernel']}"),
        Finding("OK" if state in ("ok", "no_library", "suspended") else "WARN", "GPU driver", GPU_TEXTS.get(state, state)),
    ]
    module, driver = facts.get("driver_module"), facts.get("driver")
    if module or driver:
        same = not (module and driver) or module == driver
        findings.append(Finding("OK" if same else "WARN", "versions", f"library {driver}, kernel module {module}"))
    for gpu in shown["sample"].get("gpu", []):
        failed = ", ".join(f"{call} {code}" for call, code in gpu.get("err", {}).items())
        text = f"{gpu.get('name')} {gpu['u']}: {gpu['st']}{f' ({failed})' if failed else ''}"
        findings.append(Finding("OK" if gpu["st"] in ("ok", "suspended") else "WARN", f"GPU {gpu['i']}", text))
    cost_ms = shown["sample"]["dur_us"] / 1000
    verdict = "OK" if cost_ms <= COST_WARN_MS else "WARN"
    findings.append(Finding(verdict, "cost", f"one full sample takes {cost_ms:.1f} ms; the start took {took_s:.1f} s"))
    return [*findings, *_rights(), *_ways_out(settings)]


def _rights() -> Iterator[Finding]:
    if not in_first_pid_namespace():
        yield Finding(
            "WARN", "processes", "this is a container with pids of its own: users of GPUs cannot be named; use --pid=host"
        )
    hidden = "hidepid=" in _proc_options() and "hidepid=0" not in _proc_options()
    if hidden and os.geteuid():
        yield Finding("WARN", "processes", "/proc hides other users' processes (hidepid): their users cannot be named")
    if driver_module_version(Path("/proc")) and not Path("/var/run/nvidia-persistenced").exists():
        yield Finding("WARN", "persistence", "nvidia-persistenced does not run: the first reading after a pause is slow")


def _ways_out(settings: AgentSettings) -> Iterator[Finding]:
    path = settings.data_dir / "agent" / "spool.db"
    if path.exists():
        spool = Spool(path, SystemClock())
        waiting, size = spool.events, spool.bytes
        spool.close()
        full = f"{size >> 10} KiB of {SPOOL_MAX_BYTES >> 20} MiB"
        yield Finding("WARN" if waiting else "OK", "spool", f"{waiting} events wait ({full})")
    elif not os.access(_existing(path), os.W_OK):
        yield Finding("FAIL", "spool", f"{path.parent} cannot be made: no right to write in {_existing(path)}")
    where = settings.to or settings.log
    if not settings.to and is_missing(where):
        yield Finding("OK", "log", f"there is none in {where} yet: it will be made")
        return
    try:
        with open_publisher(settings, SystemClock()) as publisher:
            answered = publisher.reachable(PATIENCE_S * 2)
    except DimintError as error:
        yield Finding("FAIL", "log", str(error))
        return
    yield Finding("OK" if answered else "FAIL", "log", f"{where} {'answers' if answered else 'does not answer'}")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _proc_options() -> str:
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((line.split()[3] for line in mounts.splitlines() if line.split()[1:2] == ["/proc"]), "")
