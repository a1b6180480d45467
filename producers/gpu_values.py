"""What is read of one GPU or MIG instance, tier by tier, in the units of dimint/sample.py.

Counters and rarely changing values come through one call (nvmlDeviceGetFieldValues), and so do power and energy: every
call takes the driver's lock, which the workload on the GPU waits for. nvmlDeviceGetPcieThroughput is not used at all,
because it measures for 20 ms in each direction.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import pynvml

from dimint.producers.gpu_device import Device
from dimint.producers.pci import sysfs_name

__all__ = ["read_fast", "read_identity", "read_rare"]

_ALL_LINKS: Final = 0xFFFFFFFF
"""Scope of a field that is counted per NVLink: their sum."""
_FAST_FIELDS: Final = (("power_average", 185, 0), ("power_instant", 186, 0), ("energy_field", 83, 0))
_THROTTLE_FIELDS: Final = {
    "sw_power_cap": 74,
    "thermal": 75,
    "sync_boost": 76,
    "board_limit": 77,
    "low_utilization": 78,
    "reliability": 79,
    "sw_thermal": 269,
    "hw_thermal": 270,
    "hw_power_brake": 271,
}
"""Of dimint.sample.THROTTLE_REASONS: NVML's counters in ns."""
_RARE_FIELDS: Final = (
    ("memory_temperature", 82, 0),
    ("ecc_vc", 3, 0), ("ecc_vu", 4, 0), ("ecc_ac", 5, 0), ("ecc_au", 6, 0),
    ("remap_c", 142, 0), ("remap_u", 143, 0), ("remap_pend", 144, 0), ("remap_fail", 145, 0),
    ("recovery_action", 230, 0),
    ("pcie_tx", 197, 0), ("pcie_rx", 198, 0),
    ("nvlink_tx", 138, _ALL_LINKS), ("nvlink_rx", 139, _ALL_LINKS),
    *((f"throttle_{reason}", field, 0) for reason, field in _THROTTLE_FIELDS.items()),
)  # fmt: skip
_PROFILE: Final = re.compile(r"\bMIG (\S+)$")


def read_identity(device: Device) -> None:
    """What a GPU is; what was read before and cannot be read now is still so."""
    known = dict(device.fixed)
    _read_identity(device)
    device.fixed |= {name: value for name, value in known.items() if device.fixed.get(name) is None}
    device.uuid = device.fixed["u"]


def _read_identity(device: Device) -> None:
    fixed = device.fixed
    fixed["u"] = device.text("uuid", pynvml.nvmlDeviceGetUUID)
    fixed["name"] = device.text("name", pynvml.nvmlDeviceGetName)
    if device.parent is not None:
        fixed["parent"] = device.parent.uuid
        fixed["gi"] = device.call("gpu_instance", pynvml.nvmlDeviceGetGpuInstanceId)
        fixed["ci"] = device.call("compute_instance", pynvml.nvmlDeviceGetComputeInstanceId)
        fixed["profile"] = _profile(device)
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
    fixed["minor"] = device.call("minor", pynvml.nvmlDeviceGetMinorNumber)
    persistence = device.call("persistence", pynvml.nvmlDeviceGetPersistenceMode)
    fixed["persistence"] = None if persistence is None else persistence == 1
    fixed.setdefault("mig", False)


def read_rare(device: Device) -> None:
    """Counters, fans, performance state, power limit and memory temperature; a MIG instance has none of them."""
    if device.parent is not None:
        device.rare = {key: device.fixed.get(key) for key in ("parent", "gi", "ci", "profile")}
        return
    limit = device.call("power_limit", pynvml.nvmlDeviceGetEnforcedPowerLimit)
    device.fixed["p_lim_mW"] = limit
    found = device.fields("rare_fields", _RARE_FIELDS)
    device.rare = {
        "fan_pct": _fans(device),
        "pst": device.call("performance_state", pynvml.nvmlDeviceGetPerformanceState),
        "p_lim_mW": limit,
        "tmem_mC": _scaled(found["memory_temperature"], 1000),
        "pcie_rx": found["pcie_rx"],
        "pcie_tx": found["pcie_tx"],
        "nvl_rx": _scaled(found["nvlink_rx"], 1024),
        "nvl_tx": _scaled(found["nvlink_tx"], 1024),
        "rec": found["recovery_action"],
        **_groups(found),
    }
    device.fixed["unsupported"] = sorted(device.unsupported)


def _groups(found: Mapping[str, int | None]) -> dict[str, Any]:
    """`thr_ns`, `ecc` and `remap`, each left out if the GPU has nothing of it."""
    ecc = {key: found[f"ecc_{key}"] for key in ("vc", "vu", "ac", "au")}
    remap: dict[str, Any] = {key: found[f"remap_{key}"] for key in ("c", "u", "pend", "fail")}
    groups: dict[str, Any] = {
        "thr_ns": {reason: time for reason in _THROTTLE_FIELDS if (time := found[f"throttle_{reason}"]) is not None},
        "ecc": ecc if any(count is not None for count in ecc.values()) else None,
    }
    if any(value is not None for value in remap.values()):
        for key in ("pend", "fail"):
            remap[key] = None if remap[key] is None else remap[key] != 0
        groups["remap"] = remap
    return {key: value for key, value in groups.items() if value}


def read_fast(device: Device) -> dict[str, Any]:
    values = _memory(device)
    device.fixed["mem_tot"] = values.get("mem_tot")
    if device.parent is not None:
        return values
    if not device.mig and (rates := device.call("utilisation", pynvml.nvmlDeviceGetUtilizationRates)):
        values |= {"util_pct": rates.gpu, "mutil_pct": rates.memory}
    temperature = device.milli("temperature", _temperature_v, pynvml.NVML_TEMPERATURE_GPU)
    if temperature is None and "temperature" in device.unsupported:
        temperature = device.milli("old_temperature", pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
    if temperature is not None and device.fixed.get("t_slow_mC") is None:
        margin = device.milli("temperature_margin", _margin)
        values |= {} if margin is None else {"t_margin_mC": margin}
    reasons = device.call("event_reasons", pynvml.nvmlDeviceGetCurrentClocksEventReasons)
    if reasons is None and "event_reasons" in device.unsupported:
        reasons = device.call("throttle_reasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    values |= {
        "t_mC": temperature,
        **_power(device),
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


def _memory(device: Device) -> dict[str, Any]:
    """Memory by the newer call, which tells what the driver keeps for itself, else by the older one."""
    info = device.call("memory_v2", pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlMemory_v2)
    if info is not None:
        values = {"mem_tot": info.total, "mem_used": info.used, "mem_rsv": info.reserved}
    elif (info := device.call("memory", pynvml.nvmlDeviceGetMemoryInfo)) is not None:
        values = {"mem_tot": info.total, "mem_used": info.used, "mem_rsv": None}
    if info is None:
        return {"unified": True} if "memory" in device.unsupported else {}
    return values if info.total else {"unified": True}


def _fans(device: Device) -> list[int] | None:
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


def _margin(handle: Any) -> int:
    function = getattr(pynvml, "nvmlDeviceGetMarginTemperature", None)  # absent in older packages
    if function is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    degrees: int = function(handle)
    return degrees


def _power(device: Device) -> dict[str, int | None]:
    """Power and energy, in one call where the driver has the newer fields.

    What nvmlDeviceGetPowerUsage gives is a mean on some GPUs and of this instant on others, so it is the second choice.
    """
    found = device.fields("fast_fields", _FAST_FIELDS)
    power, energy = found["power_average"], found["energy_field"]
    if power is None:
        power = device.call("power", pynvml.nvmlDeviceGetPowerUsage)
    if energy is None:
        energy = device.call("energy", pynvml.nvmlDeviceGetTotalEnergyConsumption)
    if "p_kind" not in device.fixed and power is not None:
        instant_only = found["power_average"] is None and found["power_instant"] is not None
        device.fixed["p_kind"] = "instant" if instant_only else "average" if found["power_average"] is not None else None
    return {"p_mW": power, "p_inst_mW": found["power_instant"], "e_mJ": energy}


def _profile(device: Device) -> str | None:
    """Shape of a MIG instance as nvidia-smi writes it: from its name, else from its slices and memory."""
    named = _PROFILE.search(device.fixed.get("name") or "")
    if named is not None:
        return named[1]
    slices = device.call("attributes", pynvml.nvmlDeviceGetAttributes_v2)
    if slices is None or not slices.gpuInstanceSliceCount:
        return None
    part = f"{slices.computeInstanceSliceCount}c." if slices.computeInstanceSliceCount < slices.gpuInstanceSliceCount else ""
    return f"{part}{slices.gpuInstanceSliceCount}g.{round(slices.memorySizeMB / 1024)}gb"


def _scaled(value: int | None, by: int) -> int | None:
    return None if value is None else value * by
