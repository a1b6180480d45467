"""The JSON that scripts read: hosts by name, samples in ascending order of time, GPU maps in MiB, °C and %. [S]

Errors are JSON with HTTP status 200; what went wrong stands in `status_code`, where senders look for it. Keys may be
added at the end of a map, none of the old ones ever changes.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Any, Final, NamedTuple

import msgspec

from dimint.limits import FETCH_MAX_SAMPLES
from dimint.webapp.models import Gpu, Host, Sampled, Status
from dimint.webapp.times import NO_ENTRY, compact, gpu_stamp

__all__ = ["CPU_FIELDS", "GPU_FIELDS", "Fields", "dump", "error_body", "fetch_num", "gpu_data", "host_state", "live_update",
           "states", "states_item"]  # fmt: skip

GPU_FIELDS: Final = (
    "device_num", "uuid", "gpu_name", "temperature", "total_memory", "available_memory", "used_memory", "timestamp",
    "gpu_volatile", "processes", "state",
)  # fmt: skip
"""Keys of a GPU's map."""
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


def gpu_data(sample: Sampled, zone: tzinfo) -> dict[str, dict[str, Any]]:
    """The map of a sample's GPUs; empty for a host without any."""
    when = gpu_stamp(sample.time_ns, zone)
    return {gpu.key: _gpu(gpu, when) for gpu in sample.gpus}


def host_state(host: Host, zone: tzinfo, *, with_data: bool, fields: Fields | None = None) -> dict[str, Any]:
    """One host. Without `with_data`, a host that is not running has one entry with no GPU data and its last time."""
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
    return dump(host.name) + b":" + dump(host_state(host, zone, with_data=False, fields=fields))


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
        return json.dumps(value, separators=(",", ":")).encode()


def _entry(sample: Sampled, zone: tzinfo, fields: Fields | None) -> dict[str, Any]:
    gpus = gpu_data(sample, zone) if fields is None or fields.gpu else {}
    if fields is not None:
        gpus = {key: {name: gpu[name] for name in fields.gpu if name in gpu} for key, gpu in gpus.items()}
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


def _gpu(gpu: Gpu, when: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "device_num": gpu.index,
        "uuid": gpu.uuid or None,
        "gpu_name": gpu.name,
        "temperature": gpu.temperature_c,
        "total_memory": gpu.total_mib,
        "available_memory": gpu.available_mib,
        "used_memory": gpu.used_mib,
        "timestamp": gpu.read_at or when,
        "gpu_volatile": gpu.util_pct,
        "processes": [
            {"pid": process.pid or None, "name": process.name, "user": process.user, "used_memory": process.used_mib}
            for process in gpu.processes
        ],
    }
    if gpu.state != "ok":
        shown["state"] = gpu.state
    return shown
