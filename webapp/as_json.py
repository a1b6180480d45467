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
from dimint.webapp.models import Host, Sampled, Status
from dimint.webapp.sent import SentGpu, SentProcess, keyed, left_mib
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


class _CpuState(Struct, gc=False):
    """`cpu_data`."""

    cores: int | None
    cpu_percent: float | None
    load: tuple[float, ...] | None
    memory_total: int | None
    memory_used: int | None


class _Entry(Struct, gc=False):
    """A sample in a host's map."""

    gpu_data: dict[str, Any]
    timestamp: int | str
    cpu_data: _CpuState | dict[str, Any] | UnsetType = UNSET


class _HostState(Struct, gc=False):
    """A host's map."""

    data: list[_Entry]
    ip_address: str
    status: Status
    simulated: bool | UnsetType
    backfilled: bool | UnsetType


def _state(host: Host, zone: tzinfo, *, with_data: bool, fields: Fields | None) -> _HostState:
    if host.newest is None:
        data = [_Entry({}, NO_ENTRY)]
    elif with_data or host.status is Status.RUNNING:
        data = [_entry(sample, zone, fields) for sample in host.samples]
    else:
        data = [_Entry({}, compact(host.newest.time_ns, zone))]
    return _HostState(data, host.ip, host.status, host.simulated or UNSET, host.backfilled or UNSET)


def states_item(host: Host, zone: tzinfo, fields: Fields | None = None) -> bytes:
    """A host's member of the map that `/states/` answers: its name, a colon, and what `host_state` has without data."""
    return dump(host.name) + b":" + dump(_state(host, zone, with_data=False, fields=fields))


def states(items: Iterable[bytes]) -> bytes:
    """`/states/`: host name → host, of its members."""
    return b"{" + b",".join(items) + b"}"


def live_update(items: Iterable[bytes], names: Sequence[str], pages: int) -> bytes:
    """What a viewer of one page gets: its hosts that reported (members as of `states`), and which page this is."""
    return b'{"update":' + states(items) + b',"page_name_list":' + dump(names) + b',"total_page_num":' + dump(pages) + b"}"


_encode: Final = msgspec.json.Encoder().encode


def dump(value: object) -> bytes:
    """JSON text; lone surrogates in names, which UTF-8 cannot carry, stay `\\udXXX` escapes."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, OverflowError):  # surrogates; integers of more than 64 bits
        return json.dumps(to_builtins(value), separators=(",", ":")).encode()


def _entry(sample: Sampled, zone: tzinfo, fields: Fields | None) -> _Entry:
    gpus: dict[str, Any] = {}
    if fields is None:
        gpus = _gpus(sample, zone)
    elif fields.gpu:
        whole = gpu_data(sample, zone)
        gpus = {key: {name: gpu[name] for name in fields.gpu if name in gpu} for key, gpu in whole.items()}
    if not sample.has_cpu or (fields is not None and not fields.cpu):
        return _Entry(gpus, compact(sample.time_ns, zone))
    cpu = _CpuState(
        sample.cores,
        None if sample.cpu_pm is None else sample.cpu_pm / 10,
        sample.load,
        None if sample.memory_total is None else sample.memory_total >> 20,
        None if sample.memory_used is None else sample.memory_used >> 20,
    )
    said = cpu if fields is None else {name: getattr(cpu, name) for name in fields.cpu}
    return _Entry(gpus, compact(sample.time_ns, zone), said)


def _gpus(sample: Sampled, zone: tzinfo) -> dict[str, _GpuState]:
    # from what was sent: the models of eight thousand GPUs would take as long again
    when = gpu_stamp(sample.time_ns, zone)
    return {key: _gpu(index, gpu, processes, when) for key, index, gpu, processes in keyed(sample.sent)}


def _gpu(index: int, gpu: SentGpu, processes: Sequence[SentProcess], when: str) -> _GpuState:
    heat, total, used = gpu.t_mC, gpu.mem_tot, gpu.mem_used
    return _GpuState(
        index,
        gpu.u or None,
        gpu.name or None,
        None if heat is None else (heat + 500) // 1000,
        None if total is None else total >> 20,
        left_mib(gpu),
        None if used is None else used >> 20,
        gpu.at or when,
        gpu.util_pct,
        [
            _ProcessState(
                None if one.pid is None else str(one.pid),
                one.name or one.cmd or None,
                one.user or None,
                None if one.mem is None else one.mem >> 20,
            )
            for one in processes
        ],
        UNSET if not gpu.st or gpu.st == "ok" else gpu.st,
    )
