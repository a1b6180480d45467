"""What stands between this host and good samples, in words: driver, rights, processes, clock, spool, log, cost."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dimint.errors import DimintError
from dimint.log.opening import find_genesis, is_missing, open_settings_log
from dimint.producers.cli import once, open_publisher
from dimint.producers.clock_check import is_synchronised, log_skew
from dimint.producers.delivery import PATIENCE_S
from dimint.producers.gpu_texts import GPU_TEXTS
from dimint.producers.kernel_log import KernelLog
from dimint.producers.pci import driver_module_version
from dimint.producers.processes import in_first_pid_namespace
from dimint.producers.spool import SPOOL_MAX_BYTES, Spool
from dimint.producers.state import known_host_id
from dimint.settings import AgentSettings
from dimint.system_clock import SystemClock

__all__ = ["Finding", "examine"]

COST_WARN_MS = 50
SKEW_WARN_S = 2.0


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
    tiers = ", ".join(f"{tier} {time_us / 1000:.1f}" for tier, time_us in shown["sample"].get("tier_us", {}).items())
    text = f"one full sample takes {cost_ms:.1f} ms ({tiers}); the start took {took_s:.1f} s"
    findings.append(Finding(verdict, "cost", text))
    return [*findings, *_persistence(facts.get("gpus", [])), *_rights(), *_clock(), *_spool(settings), *_log(settings)]


def _persistence(gpus: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    off = [str(gpu["i"]) for gpu in gpus if gpu.get("persistence") is False]
    if off:
        text = f"off on GPU {', '.join(off)}: the first reading after a pause is slow, and volatile counters begin anew"
        yield Finding("WARN", "persistence", f"{text}; run nvidia-persistenced")
    elif any(gpu.get("persistence") for gpu in gpus):
        yield Finding("OK", "persistence", "on")


def _rights() -> Iterator[Finding]:
    if not in_first_pid_namespace():
        yield Finding(
            "WARN", "processes", "this is a container with pids of its own: users of GPUs cannot be named; use --pid=host"
        )
    hidden = "hidepid=" in _proc_options() and "hidepid=0" not in _proc_options()
    if hidden and os.geteuid():
        yield Finding("WARN", "processes", "/proc hides other users' processes (hidepid): their users cannot be named")
    if driver_module_version(Path("/proc")):
        kernel_log = KernelLog()
        told = "read" if kernel_log.readable else "not readable (needs root or CAP_SYSLOG): only NVML tells of XIDs"
        yield Finding("OK" if kernel_log.readable else "WARN", "kernel log", told)
        kernel_log.close()


def _clock() -> Iterator[Finding]:
    right = is_synchronised()
    if right is not None:
        text = (
            "the kernel's clock is kept right" if right else "no time service keeps the kernel's clock right; run chrony or ntpd"
        )
        yield Finding("OK" if right else "WARN", "clock", text)


def _spool(settings: AgentSettings) -> Iterator[Finding]:
    path = settings.data_dir / "agent" / "spool.db"
    if path.exists():
        spool = Spool(path, SystemClock())
        waiting, size = spool.events, spool.bytes
        spool.close()
        full = f"{size >> 10} KiB of {SPOOL_MAX_BYTES >> 20} MiB"
        yield Finding("WARN" if waiting else "OK", "spool", f"{waiting} events wait ({full})")
    elif not os.access(_existing(path), os.W_OK):
        yield Finding("FAIL", "spool", f"{path.parent} cannot be made: no right to write in {_existing(path)}")


def _log(settings: AgentSettings) -> Iterator[Finding]:
    where = settings.to or settings.log
    if not settings.to and is_missing(where):
        yield Finding("OK", "log", f"there is none in {where} yet: it will be made")
        return
    try:
        with open_publisher(settings, SystemClock()) as publisher:
            answered = publisher.reachable(PATIENCE_S * 2)
        skew = None if settings.to else _skew(settings)
    except DimintError as error:
        yield Finding("FAIL", "log", str(error))
        return
    advice = ": look at the address, the overlord there, and whether both have the same key_file or none" if settings.to else ""
    yield Finding("OK" if answered else "FAIL", "log", f"{where} {'answers' if answered else f'does not answer{advice}'}")
    if skew is not None:
        yield skew


def _skew(settings: AgentSettings) -> Finding | None:
    """This host's clock against the log's. Raises LogError."""
    clock = SystemClock()
    host = known_host_id(settings.data_dir / "agent")
    log = open_settings_log(settings, clock=clock)
    try:
        found = find_genesis(log)
        if found is None or host is None:
            return Finding("OK", "clock skew", "not known before the agent's first sample")
        skew = log_skew(log, found.status_partition(host), host, clock.time_ns())
    finally:
        log.close()
    if skew.sample_s is None and not skew.behind_s:
        return Finding("OK", "clock skew", "not known: the log has no new sample of this host")
    ahead_s = skew.sample_s if skew.sample_s is not None else -(skew.behind_s or 0.0)
    text = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the log's clock, way included"
    return Finding("WARN" if abs(ahead_s) > SKEW_WARN_S else "OK", "clock skew", text)


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
