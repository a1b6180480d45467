"""NVML behind one door: the only importer of pynvml.

Every call may fail by itself on some GPU, driver or container, so each value is read by a guarded call: a failure makes
that value None and leaves its code, "not supported" is asked once per start and never again, and only codes that speak of
the whole GPU (lost, reset required) end the reading of that GPU. Nothing here raises for what a driver does.

This runs in a process of its own (gpu_child.py): a call into a broken driver may never return.
"""

import ctypes
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pynvml

from dimint.limits import GPUS_MAX
from dimint.producers.gpu_processes import ListFailed, running, utilisation
from dimint.producers.pci import nvidia_devices, runtime_status, sysfs_name

__all__ = ["Nvml", "host_state"]

_UNSUPPORTED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
_UNKNOWN: int = pynvml.NVML_ERROR_UNKNOWN
_HOST_STATES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no_library",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "no_driver",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver_mismatch",
    pynvml.NVML_ERROR_NO_PERMISSION: "no_permission",
    pynvml.NVML_ERROR_GPU_NOT_FOUND: "no_gpu",
}
_FIELD_MEMORY_TEMPERATURE = 82


def host_state(code: int) -> str:
    """What an error of nvmlInit means for the host: one of dimint.sample.GPU_SUPPORT."""
    return _HOST_STATES.get(code, "unknown")


class _Lost(Exception):
    """The GPU is off the bus or must be reset."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(call)
        self.call, self.code = call, code


class _Device:
    """One GPU or MIG instance: its handle, what it cannot do, and what was read less often."""

    def __init__(self, handle: Any, parent: "_Device | None" = None) -> None:
        self.handle, self.parent = handle, parent
        self.uuid: str | None = None
        self.fixed: dict[str, Any] = {}
        self.rare: dict[str, Any] = {}
        self.lost: _Lost | None = None
        self.unsupported: set[str] = set()
        self.errors: dict[str, int] = {}
        self.answered = 0
        self.instances: list[_Device] = []
        self.mig = False
        self.laid_out = False
        self.seen_us = 0

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """The call's value, None if it failed. Raises _Lost."""
        if name in self.unsupported:
            return None
        try:
            value = function(self.handle, *args)
        except pynvml.NVMLError as error:
            code: int = error.value
            if code in _UNSUPPORTED:
                self.unsupported.add(name)
            elif code in _LOST:
                raise _Lost(name, code) from error
            else:
                self.errors[name] = code
            return None
        except UnicodeDecodeError:  # names on WSL
            self.errors[name] = _UNKNOWN
            return None
        self.answered += 1
        return value

    def text(self, name: str, function: Callable[..., Any]) -> str | None:
        value = self.call(name, function)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def milli(self, name: str, function: Callable[..., Any], *args: Any) -> int | None:
        value = self.call(name, function, *args)
        return None if value is None else int(value) * 1000


class Nvml:
    """The driver of this host, from `open` to `close`. Belongs to one thread.

    `at(index)` is called before a GPU is touched, so that whoever watches knows which one never answered; -1 means the
    driver as a whole.
    """

    def __init__(self, at: Callable[[int], None], *, sysfs: Path = Path("/sys")) -> None:
        self._at, self._sysfs = at, sysfs
        self._devices: dict[int, _Device] = {}
        self._refused: dict[int, dict[str, Any]] = {}
        self._count = 0
        self._library: Any = None
        self._versions: dict[str, str | None] = {}

    def open(self) -> str:
        """Initialise; the host's state, "ok" if GPUs can be read."""
        self._at(-1)
        sleeping = [pci for pci in nvidia_devices(self._sysfs) if runtime_status(self._sysfs, pci) == "suspended"]
        if sleeping and len(sleeping) == len(nvidia_devices(self._sysfs)):
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
        """One reading: `gpus`, `facts` of each GPU, `procs` [[i, pid, memory, type, sm], …], `procs_err` and the time that
        these took (`procs_s`) if asked for.

        GPUs whose index is in `skip` are not touched and stand there as hung. An entry without `u` could not even say its
        UUID. The first reading of a GPU always reads everything.
        """
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
        return reading

    def _index_of(self, device: _Device) -> int:
        index: int = (device.parent or device).fixed["i"]
        return index

    def _read_gpu(self, index: int, slow: bool, skip: bool) -> tuple[dict[str, Any], _Device | None]:
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
                device = _Device(pynvml.nvmlDeviceGetHandleByIndex(index))
            except pynvml.NVMLError as error:
                state = "lost" if error.value in _LOST else "unknown"
                self._refused[index] = {"i": index, "u": None, "st": state, "err": {"handle": error.value}}
                return self._refused[index], None
            device.fixed["i"] = index
            self._devices[index] = device
        return self._values(device, slow), device

    def _values(self, device: _Device, slow: bool) -> dict[str, Any]:
        """Everything but processes. A lost GPU keeps its identity and is left alone until NVML is initialised again."""
        device.errors, device.answered = {}, 0
        values: dict[str, Any] = {}
        try:
            if device.lost is not None:
                raise device.lost
            if device.uuid is None:
                _read_identity(device)
            if slow or not device.rare:
                _read_rare(device)
            values = _read_fast(device)
            state = "ok" if device.answered or not device.errors else "unknown"
            if slow or not device.laid_out:
                self._find_instances(device)
        except _Lost as lost:
            device.lost, device.instances, values, state = lost, [], {}, "lost"
            device.errors = {lost.call: lost.code}
        entry = {"i": device.fixed["i"], "u": device.uuid, "name": device.fixed.get("name"), "st": state}
        if device.errors:
            entry["err"] = device.errors
        return entry | {"pci": device.fixed.get("pci")} | device.rare | values if state != "lost" else entry

    def _find_instances(self, device: _Device) -> None:
        device.laid_out = True
        if device.parent is not None or not (modes := device.call("mig_mode", pynvml.nvmlDeviceGetMigMode)):
            return
        device.mig = device.fixed["mig"] = modes[0] == 1
        known = {instance.uuid: instance for instance in device.instances}
        device.instances = []
        most = device.call("mig_count", pynvml.nvmlDeviceGetMaxMigDeviceCount) if device.mig else 0
        for index in range(min(most or 0, GPUS_MAX)):
            try:
                instance = _Device(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device.handle, index), device)
            except pynvml.NVMLError:  # holes are normal: the instance before was destroyed
                continue
            _read_identity(instance)
            device.instances.append(known.get(instance.uuid, instance) if instance.uuid else instance)
            device.instances[-1].handle = instance.handle

    def _pci_of(self, index: int) -> str | None:
        """Bus id of a GPU that was never touched: NVML numbers GPUs in the order of the bus."""
        devices = nvidia_devices(self._sysfs)
        return devices[index] if len(devices) == self._count else None

    def _read_processes(self, entry: dict[str, Any], device: _Device, rows: list[list[Any]], failed: dict[str, int]) -> None:
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
        serious = [code for code in codes if code not in _UNSUPPORTED]
        if serious or len(codes) == 2:
            failed[entry["u"]] = (serious or codes)[0]
        if "process_utilisation" not in device.unsupported and merged:
            try:
                shares, device.seen_us = utilisation(self._library, device.handle, device.seen_us)
                for pid, row in merged.items():
                    row[4] = shares.get(pid)
            except ListFailed as error:
                if error.code in _UNSUPPORTED:
                    device.unsupported.add("process_utilisation")
        rows.extend(row for _, row in sorted(merged.items()))


def _read_identity(device: _Device) -> None:
    fixed = device.fixed
    device.uuid = device.text("uuid", pynvml.nvmlDeviceGetUUID)
    fixed["u"], fixed["name"] = device.uuid, device.text("name", pynvml.nvmlDeviceGetName)
    if device.parent is not None:
        fixed["parent"] = device.parent.uuid
        fixed["gi"] = device.call("gpu_instance", pynvml.nvmlDeviceGetGpuInstanceId)
        fixed["ci"] = device.call("compute_instance", pynvml.nvmlDeviceGetComputeInstanceId)
        return
    pci = device.call("pci", pynvml.nvmlDeviceGetPciInfo)
    if pci is not None:
        fixed["pci"] = sysfs_name(pci.busId.decode("ascii", "replace") if isinstance(pci.busId, bytes) else pci.busId)
    fixed["serial"] = device.text("serial", pynvml.nvmlDeviceGetSerial)
    threshold = pynvml.nvmlDeviceGetTemperatureThreshold
    fixed["t_slow_mC"] = device.milli("slowdown", threshold, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    fixed["t_shut_mC"] = device.milli("shutdown", threshold, pynvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)
    fixed["sm_max_MHz"] = device.call("max_sm_clock", pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM)
    fixed["mem_max_MHz"] = device.call("max_memory_clock", pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_MEM)
    fixed["mig"] = False


def _read_rare(device: _Device) -> None:
    """Fans, performance state, power limit and memory temperature; a MIG instance has none of them."""
    if device.parent is not None:
        device.rare = {key: device.fixed.get(key) for key in ("parent", "gi", "ci")}
        return
    limit = device.call("power_limit", pynvml.nvmlDeviceGetEnforcedPowerLimit)
    device.fixed["p_lim_mW"] = limit
    device.rare = {
        "fan_pct": _fans(device),
        "pst": device.call("performance_state", pynvml.nvmlDeviceGetPerformanceState),
        "p_lim_mW": limit,
        "tmem_mC": _memory_temperature(device),
    }
    device.fixed["unsupported"] = sorted(device.unsupported)


def _read_fast(device: _Device) -> dict[str, Any]:
    values = _memory(device)
    device.fixed["mem_tot"] = values.get("mem_tot")
    if device.parent is not None:
        return values
    if not device.mig and (rates := device.call("utilisation", pynvml.nvmlDeviceGetUtilizationRates)):
        values |= {"util_pct": rates.gpu, "mutil_pct": rates.memory}
    temperature = device.milli("temperature", _temperature_v, pynvml.NVML_TEMPERATURE_GPU)
    if temperature is None and "temperature" in device.unsupported:
        temperature = device.milli("old_temperature", pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
    reasons = device.call("event_reasons", pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    if reasons is None and "event_reasons" in device.unsupported:
        reasons = device.call("throttle_reasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    values |= {
        "t_mC": temperature,
        "p_mW": device.call("power", pynvml.nvmlDeviceGetPowerUsage),
        "e_mJ": device.call("energy", pynvml.nvmlDeviceGetTotalEnergyConsumption),
        "sm_MHz": device.call("sm_clock", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
        "mem_MHz": device.call("memory_clock", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
        "ev": reasons,
    }
    if not device.mig:
        for key, name, function in (
            ("enc_pct", "encoder", pynvml.nvmlDeviceGetEncoderUtilization),
            ("dec_pct", "decoder", pynvml.nvmlDeviceGetDecoderUtilization),
        ):
            share = device.call(name, function)  # [%, sampling period in µs]
            values[key] = None if share is None else share[0]
    return values


def _memory(device: _Device) -> dict[str, Any]:
    """Memory by the newer call, which tells what the driver keeps for itself, else by the older one."""
    info = device.call("memory_v2", pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2)
    if info is not None:
        values = {"mem_tot": info.total, "mem_used": info.used, "mem_rsv": info.reserved}
    elif (info := device.call("memory", pynvml.nvmlDeviceGetMemoryInfo)) is not None:
        values = {"mem_tot": info.total, "mem_used": info.used, "mem_rsv": None}
    if info is None:
        return {"unified": True} if "memory" in device.unsupported else {}
    return values if info.total else {"unified": True}


def _fans(device: _Device) -> list[int] | None:
    count = device.call("fan_count", pynvml.nvmlDeviceGetNumFans)
    if count is None:
        speed = device.call("fan", pynvml.nvmlDeviceGetFanSpeed)
        return None if speed is None else [speed]
    speeds = [device.call(f"fan_{index}", pynvml.nvmlDeviceGetFanSpeed_v2, index) for index in range(min(count, 16))]
    return [speed for speed in speeds if speed is not None] or None


def _temperature_v(handle: Any, sensor: int) -> int:
    function = getattr(pynvml, "nvmlDeviceGetTemperatureV", None)  # absent in older packages
    if function is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    degrees: int = function(handle, sensor)
    return degrees


def _memory_temperature(device: _Device) -> int | None:
    fields = device.call("fields", pynvml.nvmlDeviceGetFieldValues, [_FIELD_MEMORY_TEMPERATURE])
    if not fields or fields[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(fields[0].value.uiVal) * 1000


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
