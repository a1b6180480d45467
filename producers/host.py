"""CPU, memory, network, disks and temperatures of this host, through psutil. A value that cannot be read is None.

Shares of time are computed between two calls here, not by psutil, so that several readers never disturb each other.
"""

import os
import platform
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from dimint.limits import HOST_NAME_MAX_CHARS
from dimint.sample import Cpu, Disk, Memory, Net

__all__ = ["Host", "address_of_this_host", "boot_id", "host_facts", "machine_id", "name_of_this_host"]

_Value = TypeVar("_Value")
_FAILURES = (OSError, psutil.Error, RuntimeError, ValueError, NotImplementedError, AttributeError, IndexError)
"""What psutil and /proc raise in containers, on odd kernels and without permission."""
_INTERFACES_MAX = 64
_DISKS_MAX = 64
_SENSORS_MAX = 128
_CONTAINER_ENDS = tuple("veth cali lxc tap vnet cilium docker br- virbr cni flannel kube ifb dummy".split())


class Host:
    """Readings of this host. Belongs to one thread."""

    def __init__(self) -> None:
        self._times: list[tuple[float, float, float]] | None = None

    def cpu(self) -> Cpu:
        """Busy shares since the last call: None at the first one and for a core that was not there before."""
        cores = _try(lambda: [_busy_idle_iowait(times) for times in psutil.cpu_times(percpu=True)])
        before, self._times = self._times, cores
        load = _try(lambda: [round(value, 2) for value in os.getloadavg()])
        cpu: Cpu = {"n": len(cores) if cores else os.cpu_count() or 0, "load": load, "tot_pm": None, "util_pct": None}
        cpu["iowait_pm"] = None
        if cores is None or before is None:
            return cpu
        shares = [_share(now[0] - old[0], now[1] - old[1], 100) for now, old in zip(cores, before, strict=False)]
        cpu["util_pct"] = shares + [None] * (len(cores) - len(before))
        if len(cores) == len(before):
            busy, idle, iowait = (sum(now[part] - old[part] for now, old in zip(cores, before, strict=True)) for part in range(3))
            cpu["tot_pm"] = _share(busy, idle, 1000)
            cpu["iowait_pm"] = _share(iowait, busy + idle - iowait, 1000)
        return cpu

    def memory(self) -> Memory | None:
        memory = _try(psutil.virtual_memory)
        if memory is None:
            return None
        swap = _try(_swap)
        return {
            "tot": memory.total,
            "used": memory.used,
            "avail": memory.available,
            "swap_tot": swap[0] if swap else None,
            "swap_used": swap[1] if swap else None,
        }

    def network(self) -> list[Net] | None:
        counters = _try(lambda: psutil.net_io_counters(pernic=True))
        if counters is None:
            return None
        names = [name for name in sorted(counters) if name != "lo" and not name.startswith(_CONTAINER_ENDS)]
        return [
            {"if": name, "rx": counters[name].bytes_recv, "tx": counters[name].bytes_sent} for name in names[:_INTERFACES_MAX]
        ]

    def disks(self) -> list[Disk] | None:
        """Local file systems, one row a device. Network file systems are left out: asking a dead one never returns."""
        partitions = _try(lambda: psutil.disk_partitions(all=False))
        if partitions is None:
            return None
        found: dict[str, Disk] = {}
        for partition in sorted(partitions, key=lambda item: len(item.mountpoint)):
            if partition.device in found or partition.fstype in ("squashfs", "iso9660") or len(found) >= _DISKS_MAX:
                continue
            usage = _try(lambda at=partition.mountpoint: psutil.disk_usage(at))  # type: ignore[misc]
            if usage is not None:
                found[partition.device] = {"mnt": partition.mountpoint, "tot": usage.total, "used": usage.used}
        return list(found.values())

    def temperatures(self) -> dict[str, int] | None:
        """Sensor label → m°C; None where the kernel shows no sensors."""
        chips = _try(lambda: psutil.sensors_temperatures())
        if not chips:
            return None
        found: dict[str, int] = {}
        for chip, sensors in sorted(chips.items()):
            for number, sensor in enumerate(sensors):
                label = f"{chip}/{sensor.label or number}"
                if sensor.current is not None and len(found) < _SENSORS_MAX:
                    found[label if label not in found else f"{label}#{number}"] = round(sensor.current * 1000)
        return found


def boot_id() -> str | None:
    """Random id of this boot of the kernel."""
    return _line(Path("/proc/sys/kernel/random/boot_id"))


def machine_id() -> str | None:
    """Id of this installation, which every copy of a disk image should have of its own; None in most containers."""
    return _line(Path("/etc/machine-id")) or None


def name_of_this_host() -> str:
    """The system's host name, as given."""
    return (_try(socket.gethostname) or "localhost")[:HOST_NAME_MAX_CHARS]


def address_of_this_host() -> str:
    """The address that this host uses towards others; 127.0.0.1 without a route. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # an address that is never used (RFC 5737)
            address: str = probe.getsockname()[0]
            return address
    except OSError:
        return "127.0.0.1"


def host_facts() -> dict[str, Any]:
    """os, kernel, cpu_model, cores, ram of dimint/sample.py's facts."""
    return {
        "os": _try(lambda: platform.freedesktop_os_release()["PRETTY_NAME"]) or platform.system(),
        "kernel": platform.release(),
        "cpu_model": _try(_cpu_model),
        "cores": os.cpu_count(),
        "ram": _try(lambda: psutil.virtual_memory().total),
    }


def _busy_idle_iowait(times: Any) -> tuple[float, float, float]:
    # guest time is already part of user time
    iowait = getattr(times, "iowait", 0.0)
    idle = times.idle + iowait
    busy = times.user + times.system + sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq", "steal"))
    return busy, idle, iowait


def _share(part: float, rest: float, whole: int) -> int | None:
    """part / (part + rest) in parts of `whole`; None if no time passed. Counters may step back on some kernels."""
    total = part + rest
    return None if total <= 0 else min(whole, max(0, round(whole * part / total)))


def _swap() -> tuple[int, int] | None:
    """(total, used) from /proc/meminfo: psutil's swap_memory warns in containers that hide /proc/vmstat."""
    values: dict[str, int] = {}
    with Path("/proc/meminfo").open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("Swap"):
                name, _, rest = line.partition(":")
                values[name] = int(rest.split()[0]) * 1024
    return (values["SwapTotal"], values["SwapTotal"] - values["SwapFree"]) if "SwapFree" in values else None


def _cpu_model() -> str | None:
    with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        return _first_model(lines)


def _first_model(lines: Iterable[str]) -> str | None:
    for line in lines:
        if line.startswith(("model name", "Model\t", "cpu model")):
            return line.partition(":")[2].strip()[:200] or None
    return None


def _line(path: Path) -> str | None:
    return _try(lambda: path.read_text(encoding="ascii", errors="replace").strip())


def _try(read: Callable[[], _Value]) -> _Value | None:
    """What `read` gives, None where this host does not have it."""
    try:
        return read()
    except _FAILURES:
        return None
