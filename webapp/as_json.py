"""The JSON that scripts read: hosts by name, samples in ascending order of time, GPU maps in MiB, °C and %. [S]

Errors are JSON with HTTP status 200; what went wrong stands in `status_code`, where senders look for it. Keys may be
added at the end of a map, none of the old ones ever changes.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType, to_builtins

from dimint.limits import FETCH_MAX_SAMPLES
from dimint.webapp.models import Gpu, Host, Sampled, Status
from dimint.webapp.times import NO_ENTRY, compact, gpu_stamp

__all__ = ["CPU_FIELDS", "GPU_FIELDS", "Fields", "dump", "error_body", "fetch_num", "gpu_data", "host_state", "live_update",
           "states", "states_item"]  # fmt: skip

CPU_FIELDS: Final = ("cores", "cpu_percent", "load", "memory_total", "memory_used")
"""Keys of `cpu_data`."""


class Fields(NamedTuple):
    """The keys that are wanted of every GPU's map and of `cpu_data`; where none is, the map is left out or empty."""

    gpu: tuple[str, ...]
    cpu: tuple[str, ...]


def fetch_num(text: str | None) -> int:
    """How many samples are asked for: 1 … FETCH_MAX_SAMPLES; what cannot be read is 1."""
    if text is None or not (text.isascii() and text.isdigit()):
        return 1
    return min(max(1, int(text[:9])), FETCH_MAX_SAMPLES)


def error_body(status_code: int, message: str) -> dict[str, Any]:
    """The body of an error: `{"status": "ERROR", "status_code": 403 | 404 | …, "message": …}`."""
    return {"status": "ERROR", "status_code": status_code, "message": message}


class _ProcessState(Struct, gc=False):
    """A process in a GPU's map. A structure is written in less time than a dict."""

    pid: str | None
    name: str | None
    user: str | None
    used_memory: int | None


class _GpuState(Struct, gc=False):
    """A GPU's map."""

    device_num: int
    uuid: str | None
    gpu_name: str | None
    temperature: int | None
    total_memory: int | None
    available_memory: int | None
    used_memory: int | None
    timestamp: str
    gpu_volatile: int | None
    processes: list[_ProcessState]
    state: str | UnsetType = UNSET


GPU_FIELDS: Final = _GpuState.__struct_fields__
"""Keys of a GPU's map."""


def gpu_data(sample: Sampled, zone: tzinfo) -> dict[str, dict[str, Any]]:
    """The map of a sample's GPUs; empty for a host without any."""
    found: dict[str, dict[str, Any]] = to_builtins(_gpus(sample, zone))
    return found


def host_state(host: Host, zone: tzinfo, *, with_data: bool, fields: Fields | None = None) -> dict[str, Any]:
    """One host. Without `with_data`, a host that is not running has one entry with no GPU data and its last time."""
    found: dict[str, Any] = to_builtins(_state(host, zone, with_data=with_data, fields=fields))
    return found


def _state(host: Host, zone: tzinfo, *, with_data: bool, fields: Fields | None) -> dict[str, Any]:
    if host.newest is None:
        data: list[dict[str, Any]] = [{"gpu_data": {}, "timestamp": NO_ENTRY}]
    elif with_data or host.status is Status.RUNNING:
        data = [_entry(sample, zone, fields) for sample in host.samples]
    else:
        data = [{"gpu_data": {}, "timestamp": compact(host.newest.time_ns, zone)}]
    state: dict[str, Any] = {"data": data, "ip_address": host.ip, "status": str(host.status)}
    if host.simulated:
        state["simulated"] = True
    if host.backfilled:
        state["backfilled"] = True
    return state


def states_item(host: Host, zone: tzinfo, fields: Fields | None = None) -> bytes:
    """A host's member of the map that `/states/` answers: its name, a colon, and what `host_state` has without data."""
    return dump(host.name) + b":" + dump(_state(host, zone, with_data=False, fields=fields))


def states(items: Iterable[bytes]) -> bytes:
    """`/states/`: host name → host, of its members."""
    return b"{" + b",".join(items) + b"}"


def live_update(items: Iterable[bytes], names: Sequence[str], pages: int) -> bytes:
    """What a viewer of one page gets: its hosts that reported (members as of `states`), and which page this is."""
    return b'{"update":' + states(items) + b',"page_name_list":' + dump(names) + b',"total_page_num":' + dump(pages) + b"}"


def dump(value: object) -> bytes:
    """JSON text; lone surrogates in names, which UTF-8 cannot carry, stay `\\udXXX` escapes."""
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError):  # surrogates; integers of more than 64 bits
        return json.dumps(to_builtins(value), separators=(",", ":")).encode()


def _entry(sample: Sampled, zone: tzinfo, fields: Fields | None) -> dict[str, Any]:
    gpus: dict[str, Any] = {}
    if fields is None:
        gpus = _gpus(sample, zone)
    elif fields.gpu:
        whole = gpu_data(sample, zone)
        gpus = {key: {name: gpu[name] for name in fields.gpu if name in gpu} for key, gpu in whole.items()}
    entry: dict[str, Any] = {"gpu_data": gpus, "timestamp": compact(sample.time_ns, zone)}
    if sample.has_cpu and (fields is None or fields.cpu):
        cpu = {
            "cores": sample.cores,
            "cpu_percent": None if sample.cpu_pm is None else sample.cpu_pm / 10,
            "load": None if sample.load is None else list(sample.load),
            "memory_total": None if sample.memory_total is None else sample.memory_total >> 20,
            "memory_used": None if sample.memory_used is None else sample.memory_used >> 20,
        }
        entry["cpu_data"] = cpu if fields is None else {name: cpu[name] for name in fields.cpu}
    return entry


def _gpus(sample: Sampled, zone: tzinfo) -> dict[str, _GpuState]:
    when = gpu_stamp(sample.time_ns, zone)
    return {gpu.key: _gpu(gpu, when) for gpu in sample.gpus}


def _gpu(gpu: Gpu, when: str) -> _GpuState:
    return _GpuState(
        gpu.index,
        gpu.uuid or None,
        gpu.name,
        gpu.temperature_c,
        gpu.total_mib,
        gpu.available_mib,
        gpu.used_mib,
        gpu.read_at or when,
        gpu.util_pct,
        [_ProcessState(process.pid or None, process.name, process.user, process.used_mib) for process in gpu.processes],
        UNSET if gpu.state == "ok" else gpu.state,
    )
