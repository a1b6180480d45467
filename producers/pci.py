"""What the kernel says of NVIDIA's devices without waking them: sysfs and /proc only, never the driver."""

import re
from pathlib import Path

__all__ = ["driver_module_version", "nvidia_devices", "runtime_status", "sysfs_name"]

_VENDOR = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")


def nvidia_devices(sysfs: Path) -> list[str]:
    """Bus ids of NVIDIA GPUs in the order of the bus; empty where there is no PCI bus to look at."""
    try:
        devices = sorted((sysfs / "bus/pci/devices").iterdir())
    except OSError:
        return []
    return [
        device.name
        for device in devices
        if _line(device / "vendor") == _VENDOR and (_line(device / "class") or "")[:6] in _DISPLAY_CLASSES
    ]


def runtime_status(sysfs: Path, pci: str) -> str | None:
    """Say "active", "suspended", … of one device; None if the kernel does not say."""
    return _line(sysfs / "bus/pci/devices" / pci / "power/runtime_status")


def sysfs_name(bus_id: str) -> str:
    """NVML's bus id as sysfs writes it.

    >>> sysfs_name("00000000:3B:00.0")
    '0000:3b:00.0'
    """
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def driver_module_version(proc: Path) -> str | None:
    """Version of the loaded kernel module, from /proc/driver/nvidia/version."""
    text = _line(proc / "driver/nvidia/version") or ""
    found = re.search(r"Kernel Module(?:\s+for\s+\S+)?\s+(\d\S*)", text)
    return found[1] if found else None


def _line(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(4096).strip()
    except OSError:
        return None
