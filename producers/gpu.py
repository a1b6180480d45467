"""NVML behind one door: the driver of a host and its GPUs. Only the gpu modules here import pynvml.

Nothing here raises for what a driver does: a value that cannot be read is None (gpu_device.py), a GPU that is lost is an
entry that says so, and a driver that cannot be asked is a state of the host.

This runs in a process of its own (gpu_child.py): a call into a broken driver may never return.
"""

import ctypes
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pynvml

from dimint.limits import GPUS_MAX
from dimint.producers.gpu_device import LOST, UNSUPPORTED, Device, Lost
from dimint.producers.gpu_processes import ListFailed, running, utilisation
from dimint.producers.gpu_values import read_fast, read_identity, read_rare
from dimint.producers.pci import nvidia_devices, runtime_status, sysfs_name
from dimint.producers.schedule import FAST, PROCESSES, SLOW, STATIC

__all__ = ["Nvml", "host_state"]

_HOST_STATES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no_library",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "no_driver",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver_mismatch",
    pynvml.NVML_ERROR_NO_PERMISSION: "no_permission",
    pynvml.NVML_ERROR_GPU_NOT_FOUND: "no_gpu",
}

_MIG_HOLES = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT)
"""Answers for an index whose instance was destroyed: holes are normal."""


def host_state(code: int) -> str:
    """What an error of nvmlInit means for the host: one of dimint.sample.GPU_SUPPORT."""
    return _HOST_STATES.get(code, "unknown")


class Nvml:
    """The driver of this host, from `open` to `close`. Belongs to one thread.

    `at(index)` is called before a GPU is touched, so that whoever watches knows which one never answered; -1 means the
    driver as a whole. `opened(handle)` is called with every GPU that is found.
    """

    def __init__(
        self, at: Callable[[int], None], *, opened: Callable[[Any], None] = lambda _: None, sysfs: Path = Path("/sys")
    ) -> None:
        self._at, self._opened, self._sysfs = at, opened, sysfs
        self._devices: dict[int, Device] = {}
        self._refused: dict[int, dict[str, Any]] = {}
        self._count = 0
        self._library: Any = None
        self._slow_s = 0.0
        self._failed: list[tuple[int, str, int]] = []
        self._versions: dict[str, str | None] = {}
        self.sleeping: list[dict[str, Any]] = []
        """Entries of the GPUs where all of them sleep: what the kernel tells of them."""

    def open(self) -> str:
        """Initialise; the host's state, "ok" if GPUs can be read."""
        self._at(-1)
        devices = nvidia_devices(self._sysfs)
        if devices and all(runtime_status(self._sysfs, pci) == "suspended" for pci in devices):
            self.sleeping = [{"i": at, "u": None, "name": None, "st": "suspended", "pci": pci} for at, pci in enumerate(devices)]
            return "suspended"  # initialising would wake them all
        try:
            pynvml.nvmlInit()
            self._count = min(pynvml.nvmlDeviceGetCount(), GPUS_MAX)
        except pynvml.NVMLError as error:
            return host_state(error.value)
        finally:
            self._versions = {
                "driver": _system(pynvml.nvmlSystemGetDriverVersion),
                "nvml": _system(pynvml.nvmlSystemGetNVMLVersion),
                "cuda": _cuda_version(),
            }
        self._library = ctypes.CDLL("libnvidia-ml.so.1")  # the one pynvml has loaded
        return "ok" if self._count else "no_gpu"

    def close(self) -> None:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            return  # it was never initialised, or the driver is gone: there is nothing to give back

    @property
    def versions(self) -> dict[str, str | None]:
        """`driver`, `nvml` and `cuda`, as far as they can be asked."""
        return self._versions

    def read(self, *, processes: bool, slow: bool, skip: Collection[int] = ()) -> dict[str, Any]:
        """One reading: `gpus`, `facts` of each GPU, `failed` [[i, call, code], …] of every call that failed in it, `procs`
        [[i, pid, memory, type, sm], …], `procs_err` and the time that these took (`procs_s`) if asked for, and `slow_s`,
        the time that the rare values took.

        GPUs whose index is in `skip` are not touched and stand there as hung. An entry without `u` could not even say its
        UUID. The first reading of a GPU always reads everything.
        """
        self._slow_s, self._failed = 0.0, []
        found = [self._read_gpu(index, slow, index in skip) for index in range(self._count)]
        gpus = [reading for reading, _ in found]
        devices = [device for _, device in found]
        whole = [device for device in devices if device is not None]
        for instance in [instance for device in whole for instance in device.instances]:
            instance.fixed["i"] = len(gpus)
            gpus.append(self._values(instance, slow))
            devices.append(instance)
        reading: dict[str, Any] = {"gpus": gpus, "facts": [device.fixed for device in whole]}
        if processes:
            started = time.monotonic()
            reading |= {"procs": [], "procs_err": {}}
            for entry, device in zip(gpus, devices, strict=True):
                if device is not None and entry["st"] == "ok" and not device.mig:
                    self._at(self._index_of(device))
                    self._read_processes(entry, device, reading["procs"], reading["procs_err"])
            reading["procs_s"] = time.monotonic() - started
        for entry, device in zip(gpus, devices, strict=True):
            if device is not None:
                self._failed += [(entry["i"], call, code) for call, code in device.failed]
                if errors := device.errors:
                    entry["err"] = errors
        return reading | {"failed": self._failed, "slow_s": self._slow_s}

    def _index_of(self, device: Device) -> int:
        index: int = (device.parent or device).fixed["i"]
        return index

    def _read_gpu(self, index: int, slow: bool, skip: bool) -> tuple[dict[str, Any], Device | None]:
        if skip:
            known = self._devices.get(index)
            return {"i": index, "u": known and known.uuid, "st": "hung"}, None
        device = self._devices.get(index)
        pci = device.fixed.get("pci") if device else self._pci_of(index)
        if pci and runtime_status(self._sysfs, sysfs_name(pci)) == "suspended":
            return {"i": index, "u": device and device.uuid, "st": "suspended", "pci": pci}, None
        if index in self._refused:
            return self._refused[index], None
        self._at(index)
        if device is None:
            try:
                device = Device(pynvml.nvmlDeviceGetHandleByIndex(index))
            except pynvml.NVMLError as error:
                state = "lost" if error.value in LOST else "unknown"
                self._refused[index] = {"i": index, "u": None, "st": state, "err": {"handle": error.value}}
                self._failed.append((index, "handle", error.value))
                return self._refused[index], None
            device.fixed["i"] = index
            self._devices[index] = device
            self._opened(device.handle)
        return self._values(device, slow), device

    def _values(self, device: Device, slow: bool) -> dict[str, Any]:
        """Everything but processes. A lost GPU keeps its identity and is left alone until NVML is initialised again."""
        device.start()
        values: dict[str, Any] = {}
        try:
            if device.lost is not None:
                raise device.lost
            if device.uuid is None or (slow and device.lacks(STATIC)):
                device.begin(STATIC)
                read_identity(device)
            started = time.monotonic()
            if slow or not device.rare:
                device.begin(SLOW)
                read_rare(device)
                self._find_instances(device)
            self._slow_s += time.monotonic() - started
            device.begin(FAST)
            values = read_fast(device)
            state = "ok" if device.answered or not device.failed else "unknown"
        except Lost as lost:
            device.lose(lost)
            values, state = {}, "lost"
        entry = {"i": device.fixed["i"], "u": device.uuid, "name": device.fixed.get("name"), "st": state}
        return entry | {"pci": device.fixed.get("pci")} | device.rare | values if state != "lost" else entry

    def _find_instances(self, device: Device) -> None:
        if device.parent is not None or not (modes := device.call("mig_mode", pynvml.nvmlDeviceGetMigMode)):
            return
        device.mig = device.fixed["mig"] = modes[0] == 1
        most = device.call("mig_count", pynvml.nvmlDeviceGetMaxMigDeviceCount) if device.mig else 0
        if most is None:
            return  # not said this time: those that were there still are
        known = {instance.uuid: instance for instance in device.instances}
        found: list[Device] = []
        for index in range(min(most, GPUS_MAX)):
            try:
                instance = Device(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device.handle, index), device)
            except pynvml.NVMLError as error:
                if error.value in _MIG_HOLES:
                    continue
                device.fail("mig_device", error.value)
                return
            instance.begin(STATIC)
            read_identity(instance)
            found.append(known.get(instance.uuid, instance) if instance.uuid else instance)
            found[-1].handle = instance.handle
        device.instances = found

    def _pci_of(self, index: int) -> str | None:
        """Bus id of a GPU that was never touched: NVML numbers GPUs in the order of the bus."""
        devices = nvidia_devices(self._sysfs)
        return devices[index] if len(devices) == self._count else None

    def _read_processes(self, entry: dict[str, Any], device: Device, rows: list[list[Any]], unread: dict[str, int]) -> None:
        device.begin(PROCESSES)
        merged: dict[int, list[Any]] = {}
        codes: list[int] = []
        for kind in ("Compute", "Graphics"):
            try:
                for pid, memory in running(self._library, device.handle, kind):
                    if memory is not None and memory > (entry.get("mem_tot") or memory):
                        memory = None
                    row = merged.setdefault(pid, [entry["i"], pid, memory, "", None])
                    row[3] += kind[0]
                    row[2] = max((value for value in (row[2], memory) if value is not None), default=None)
            except ListFailed as error:
                codes.append(error.code)
        serious = [code for code in codes if code not in UNSUPPORTED]
        if serious or len(codes) == 2:
            unread[entry["u"]] = (serious or codes)[0]
        device.failed += [("processes", code) for code in serious]
        if "process_utilisation" not in device.unsupported and merged:
            try:
                shares, device.seen_us = utilisation(self._library, device.handle, device.seen_us)
                for pid, row in merged.items():
                    row[4] = shares.get(pid)
            except ListFailed as error:
                if error.code in UNSUPPORTED:
                    device.unsupported.add("process_utilisation")
                else:
                    device.fail("process_utilisation", error.code)
        rows.extend(row for _, row in sorted(merged.items()))


def _system(function: Callable[[], Any]) -> str | None:
    try:
        value = function()
    except (pynvml.NVMLError, UnicodeDecodeError):
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _cuda_version() -> str | None:
    try:
        number: int = pynvml.nvmlSystemGetCudaDriverVersion()
    except pynvml.NVMLError:
        return None
    return f"{number // 1000}.{number % 1000 // 10}"
