"""What every sample must be, whoever took it: the types of dimint/sample.py and ranges that physics allows."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from dimint.sample import GPU_STATES, GPU_SUPPORT, THROTTLE_REASONS, Sample

__all__ = ["problems_of"]

_SHARES = frozenset("util_pct mutil_pct enc_pct dec_pct sm_pct".split())
_COUNTERS = frozenset("e_mJ pcie_rx pcie_tx nvl_rx nvl_tx mem_used mem_tot mem_rsv mem_orphan mem_other rss".split())


def problems_of(sample: Mapping[str, Any]) -> list[str]:
    """What is wrong with a sample, a line each."""
    problems = list(_misfits("sample", sample, Sample))
    if sample["gpu_state"] not in GPU_SUPPORT:
        problems.append(f"gpu_state {sample['gpu_state']}")
    gpus = sample.get("gpu", [])
    if [gpu["i"] for gpu in gpus] != list(range(len(gpus))) or len({gpu["u"] for gpu in gpus}) != len(gpus):
        problems.append("places or UUIDs are not unique")
    for gpu in gpus:
        problems += [f"{gpu['u']}: {line}" for line in _gpu_problems(gpu)]
    places = {gpu["i"] for gpu in gpus}
    for row in sample.get("proc", []):
        if row["g"] not in places or row["pid"] <= 0 or row["type"] not in ("C", "G", "CG"):
            problems.append(f"process {row}")
    return problems


def _gpu_problems(gpu: Mapping[str, Any]) -> list[str]:
    found = []
    if gpu["st"] not in GPU_STATES:
        found.append(f"st {gpu['st']}")
    measured = {"util_pct", "mem_used", "p_mW", "t_mC", "ev"}
    if gpu["st"] != "ok" and any(gpu.get(key) is not None for key in measured):
        found.append(f"{gpu['st']}, and yet it has values")
    found += [f"{key} {gpu[key]}" for key in _SHARES if not 0 <= (gpu.get(key) or 0) <= 100]
    found += [f"{key} {gpu[key]}" for key in _COUNTERS if not 0 <= (gpu.get(key) or 0) < 1 << 63]
    if not -50_000 <= (gpu.get("t_mC") or 0) <= 150_000 or not 0 <= (gpu.get("p_mW") or 0) <= 3_000_000:
        found.append(f"t_mC {gpu.get('t_mC')}, p_mW {gpu.get('p_mW')}")
    if (gpu.get("mem_used") or 0) > (gpu.get("mem_tot") or gpu.get("mem_used") or 0):
        found.append("more memory used than there is")
    if not set(gpu.get("thr_ns", ())) <= set(THROTTLE_REASONS):
        found.append(f"thr_ns {gpu['thr_ns']}")
    return found


def _misfits(where: str, value: Any, hint: Any) -> list[str]:
    """Where a value is not what its annotation says; keys that the annotation does not have count too."""
    origin = get_origin(hint)
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        if not isinstance(value, dict):
            return [f"{where} is {value!r}"]
        return [line for key, item in value.items() for line in (
            _misfits(f"{where}.{key}", item, hints[key]) if key in hints else [f"{where}.{key} is unknown"]
        )]  # fmt: skip
    if origin in (Union, UnionType):
        tried = [_misfits(where, value, one) for one in get_args(hint)]
        return [] if [] in tried else tried[0]
    if origin is list:
        if not isinstance(value, list):
            return [f"{where} is {value!r}"]
        return [line for at, item in enumerate(value) for line in _misfits(f"{where}[{at}]", item, get_args(hint)[0])]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where} is {value!r}"]
        return [line for key, item in value.items() for line in _misfits(f"{where}.{key}", item, get_args(hint)[1])]
    kinds = {float: (float, int), None: (NoneType,)}.get(hint, (hint,))
    fits = isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
    return [] if fits else [f"{where} is {value!r}"]
