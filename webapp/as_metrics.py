"""`/metrics`: the newest sample of every host in Prometheus' text format, version 0.0.4. [S]

Format: https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md; names by
https://prometheus.io/docs/practices/naming/. What is not available has no line: never a 0 that nobody measured. Series
carry `host`, and those of a GPU `host,gpu,uuid`; names and versions stand on the `_info` families only, so a renamed card
or a new driver starts no new series. Samples are what hosts sent: a value of a wrong type is not available, and of two
equal series of one host the first counts, because a scrape with both would be refused as a whole.

A host's text is made once per sample (`host_part`); `exposition` puts the parts of all hosts together, family by family,
as the format demands. Gauges and counters of a host that is silent for longer than STALE_INTERVALS are left out, since
Prometheus would store them as if they were of now; `dimint_host_up` and the time of its last sample stay.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from dimint.consumers.rows import HostRow, StoredSample
from dimint.limits import GPUS_MAX, PROCESSES_MAX
from dimint.sample import GPU_STATES
from dimint.webapp.text import clean

__all__ = ["CONTENT_TYPE", "FAMILIES", "STALE_INTERVALS", "Family", "HostNow", "Part", "exposition", "host_part", "is_stale"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
STALE_INTERVALS: Final = 3
_LEAST_STALE_S: Final = 15.0
"""Samples that are taken ten times a second still take their way through log and tables."""
_LABEL_MAX_CHARS: Final = 256
_ENTRIES_MAX: Final = 256
"""Devices, mounts, sensors, fans and failed calls that one host or GPU shows of each."""
_LARGEST: Final = 1 << 63

Labels: TypeAlias = tuple[tuple[str, str], ...]
Part: TypeAlias = tuple[str, ...]
"""Lines of one host, a text a family in the order of FAMILIES."""


class Family(NamedTuple):
    """One metric family. `always` families are shown for stale hosts too."""

    name: str
    type: str
    help: str
    always: bool = False


class HostNow(NamedTuple):
    """A host as the tables have it. `name` is the shown one; `up` whether it counts as running."""

    row: HostRow
    name: str
    stored: StoredSample | None
    up: bool


class _Gauge(NamedTuple):
    """One number of a map: where it stands, what it is multiplied by, and the labels that tell it from others."""

    family: Family
    key: str
    scale: float = 1
    labels: Labels = ()


_PERCENT, _MILLI = 0.01, 0.001


def _gauge(name: str, help_: str, key: str, scale: float = 1, **labels: str) -> _Gauge:
    return _Gauge(Family(name, "gauge", help_), key, scale, tuple(labels.items()))


def _counter(name: str, help_: str, key: str, scale: float = 1, **labels: str) -> _Gauge:
    return _Gauge(Family(name, "counter", help_), key, scale, tuple(labels.items()))


_HOST_UP: Final = Family("dimint_host_up", "gauge", "1 while the host reports, 0 once it is down or was not heard yet.", True)
_HOST_LAST: Final = Family(
    "dimint_host_last_sample_timestamp_seconds", "gauge", "When the newest sample was taken, by the host's clock.", True
)
_HOST_INFO: Final = Family("dimint_host_info", "gauge", "What the host says of itself; always 1.", True)
_HOST_SKEW: Final = Family(
    "dimint_host_clock_skew_seconds", "gauge", "Host's clock minus the log's when the newest sample arrived; its way counts too."
)
_NET_IN: Final = Family("dimint_host_network_receive_bytes_total", "counter", "Bytes received since the host's boot.")
_NET_OUT: Final = Family("dimint_host_network_transmit_bytes_total", "counter", "Bytes sent since the host's boot.")
_DISK_USED: Final = Family("dimint_host_filesystem_used_bytes", "gauge", "Bytes in use on a local file system.")
_DISK_SIZE: Final = Family("dimint_host_filesystem_size_bytes", "gauge", "Size of a local file system.")
_HOST_TEMPERATURE: Final = Family("dimint_host_temperature_celsius", "gauge", "Sensors of the host.")
_COLLECT: Final = Family("dimint_agent_collect_duration_seconds", "gauge", "How long taking the newest sample took.")
_INTERVAL: Final = Family("dimint_agent_interval_seconds", "gauge", "Time between two samples that the agent aims at.")
_ERRORS: Final = Family("dimint_agent_collect_errors", "gauge", "NVML calls that failed in the newest sample, by code.")
_GPU_INFO: Final = Family("dimint_gpu_info", "gauge", "What a GPU or MIG instance is; always 1.")
_GPU_UP: Final = Family("dimint_gpu_up", "gauge", "1 while the GPU answers.")
_GPU_STATE: Final = Family("dimint_gpu_state", "gauge", "1 for the state that the GPU is in, 0 for the others.")
_FAN: Final = Family("dimint_gpu_fan_speed_ratio", "gauge", "Intended speed of a fan; may be above 1.")
_PROCESSES: Final = Family("dimint_gpu_processes", "gauge", "Processes that use the GPU.")
_USER_MEMORY: Final = Family("dimint_gpu_user_memory_used_bytes", "gauge", "Memory of the GPU that a user's processes hold.")
_ORPHAN_MEMORY: Final = Family("dimint_gpu_orphan_memory_bytes", "gauge", "Memory of the GPU held under pids that do not exist.")

_CPU: Final = (
    _gauge("dimint_host_cpu_utilization_ratio", "Share of time that the CPUs were busy.", "tot_pm", _MILLI),
    _gauge("dimint_host_cpu_iowait_ratio", "Share of time that the CPUs waited for disks.", "iowait_pm", _MILLI),
    _gauge("dimint_host_cpus", "Logical CPUs.", "n"),
)
_LOADS: Final = tuple(
    Family(f"dimint_host_load{minutes}", "gauge", f"Load average over {minutes} min.") for minutes in (1, 5, 15)
)
_MEMORY: Final = (
    _gauge("dimint_host_memory_used_bytes", "Memory in use.", "used"),
    _gauge("dimint_host_memory_available_bytes", "Memory that programs can still get.", "avail"),
    _gauge("dimint_host_memory_total_bytes", "Memory of the host.", "tot"),
    _gauge("dimint_host_swap_used_bytes", "Swap in use.", "swap_used"),
    _gauge("dimint_host_swap_total_bytes", "Swap of the host.", "swap_tot"),
)
_GPU: Final = (
    _gauge("dimint_gpu_utilization_ratio", "Share of time that kernels ran.", "util_pct", _PERCENT),
    _gauge("dimint_gpu_memory_utilization_ratio", "Share of time that the memory controller was busy.", "mutil_pct", _PERCENT),
    _gauge("dimint_gpu_memory_used_bytes", "Memory in use, without what the driver reserves.", "mem_used"),
    _gauge("dimint_gpu_memory_reserved_bytes", "Memory that the driver keeps for itself.", "mem_rsv"),
    _gauge("dimint_gpu_memory_total_bytes", "Memory of the GPU.", "mem_tot"),
    _gauge("dimint_gpu_temperature_celsius", "Temperature.", "t_mC", _MILLI, sensor="core"),
    _gauge("dimint_gpu_temperature_celsius", "Temperature.", "tmem_mC", _MILLI, sensor="memory"),
    _gauge("dimint_gpu_power_watts", "Power drawn.", "p_mW", _MILLI, kind="average"),
    _gauge("dimint_gpu_power_limit_watts", "Enforced power limit.", "p_lim_mW", _MILLI),
    _counter("dimint_gpu_energy_joules_total", "Energy used since the driver was loaded.", "e_mJ", _MILLI),
    _gauge("dimint_gpu_clock_hertz", "Present clock.", "sm_MHz", 1e6, clock="sm"),
    _gauge("dimint_gpu_clock_hertz", "Present clock.", "mem_MHz", 1e6, clock="memory"),
    _gauge("dimint_gpu_encoder_utilization_ratio", "Share of time that the encoder was busy.", "enc_pct", _PERCENT),
    _gauge("dimint_gpu_decoder_utilization_ratio", "Share of time that the decoder was busy.", "dec_pct", _PERCENT),
    _gauge("dimint_gpu_performance_state", "Performance state, 0 is the fastest.", "pst"),
)  # fmt: skip
_LIMITS: Final = (
    _gauge("dimint_gpu_temperature_threshold_celsius", "Where the GPU slows down or shuts down.", "t_slow_mC", _MILLI,
           kind="slowdown"),
    _gauge("dimint_gpu_temperature_threshold_celsius", "Where the GPU slows down or shuts down.", "t_shut_mC", _MILLI,
           kind="shutdown"),
)  # fmt: skip

FAMILIES: Final[tuple[Family, ...]] = tuple(
    dict.fromkeys(
        (
            _HOST_UP, _HOST_LAST, _HOST_INFO, _HOST_SKEW, *(row.family for row in _CPU), *_LOADS,
            *(row.family for row in _MEMORY), _NET_IN, _NET_OUT, _DISK_USED, _DISK_SIZE, _HOST_TEMPERATURE,
            _COLLECT, _INTERVAL, _ERRORS, _GPU_INFO, _GPU_UP, _GPU_STATE, *(row.family for row in (*_GPU, *_LIMITS)), _FAN,
            _PROCESSES, _USER_MEMORY, _ORPHAN_MEMORY,
        )
    )
)  # fmt: skip
"""Every family, in the order of the text."""

_HEADS: Final = tuple(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.type}\n" for family in FAMILIES)


def is_stale(host: HostNow, now_ns: int) -> bool:
    """Whether the host's numbers are too old to be given out as of now."""
    if host.stored is None or host.row.received_ns is None:
        return True
    interval_ms = _number(host.stored.sample.get("int_ms")) or 0
    return now_ns - host.row.received_ns > max(STALE_INTERVALS * interval_ms / 1e3, _LEAST_STALE_S) * 1e9


def host_part(host: HostNow, *, stale: bool) -> Part:
    """The lines of one host."""
    lines = _Lines()
    name = (("host", host.name),)
    row, stored = host.row, host.stored
    lines.add(_HOST_UP, name, int(host.up))
    facts = {label: row.facts.get(key) for label, key in (("os", "os"), ("kernel", "kernel"), ("driver_version", "driver"),
                                                          ("cuda_version", "cuda"), ("agent_version", "agent"))}  # fmt: skip
    info = {"id": row.id, "name": row.given_name, "ip": row.ip, **facts, "simulated": "true" if row.simulated else None}
    lines.add(_HOST_INFO, (*name, *((label, value) for label, value in info.items() if isinstance(value, str) and value)), 1)
    if stored is None:
        return lines.part()
    lines.add(_HOST_LAST, name, stored.time_ns / 1e9)
    if not stale:
        lines.add(_HOST_SKEW, name, (stored.time_ns - stored.received_ns) / 1e9)
        _add_host(lines, name, stored.sample)
        _add_gpus(lines, host.name, stored.sample, _maps(row.facts.get("gpus"), GPUS_MAX))
    return lines.part()


def exposition(parts: Iterable[Part], version: str) -> bytes:
    """The whole text: each family with its lines of all hosts; families without a line are left out."""
    out = [
        "# HELP dimint_build_info Version of the server; always 1.\n# TYPE dimint_build_info gauge\n"
        f'dimint_build_info{{version="{_escaped(version)}"}} 1\n'
    ]
    for head, texts in zip(_HEADS, zip(*parts, strict=True), strict=False):
        text = "".join(texts)
        if text:
            out += (head, text)
    return "".join(out).encode("utf-8", "backslashreplace")


# --- one host -------------------------------------------------------------------------------------------------------
def _add_host(lines: "_Lines", name: Labels, sample: Mapping[str, Any]) -> None:
    cpu, memory = _map(sample.get("cpu")), _map(sample.get("mem"))
    lines.table(_CPU, name, cpu)
    lines.table(_MEMORY, name, memory)
    loads = cpu.get("load")
    for family, load in zip(_LOADS, loads if isinstance(loads, list) else (), strict=False):
        lines.add(family, name, load)
    for entry in _maps(sample.get("net"), _ENTRIES_MAX):
        device = (*name, ("device", entry.get("if")))
        lines.add(_NET_IN, device, entry.get("rx"))
        lines.add(_NET_OUT, device, entry.get("tx"))
    for entry in _maps(sample.get("disk"), _ENTRIES_MAX):
        mount = (*name, ("mountpoint", entry.get("mnt")))
        lines.add(_DISK_USED, mount, entry.get("used"))
        lines.add(_DISK_SIZE, mount, entry.get("tot"))
    for sensor, value in list(_map(sample.get("temp_mC")).items())[:_ENTRIES_MAX]:
        lines.add(_HOST_TEMPERATURE, (*name, ("sensor", sensor)), value, _MILLI)
    lines.add(_COLLECT, name, sample.get("dur_us"), 1e-6)
    lines.add(_INTERVAL, name, sample.get("int_ms"), _MILLI)


def _add_gpus(lines: "_Lines", host: str, sample: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> None:
    known = {entry.get("u"): entry for entry in facts if isinstance(entry.get("u"), str)}
    labels_of: dict[int, Labels] = {}
    for place, entry in enumerate(_maps(sample.get("gpu"), GPUS_MAX)):
        index, uuid = entry.get("i", place), entry.get("u")
        if not isinstance(uuid, str) or not uuid or not isinstance(index, int):
            continue
        labels: Labels = (("host", host), ("gpu", str(index)), ("uuid", uuid))
        labels_of.setdefault(index, labels)
        _add_gpu(lines, labels, entry, known.get(uuid, {}))
    unread = _map(sample.get("procs_err"))
    rows = _maps(sample.get("proc"), PROCESSES_MAX)
    for index, labels in labels_of.items():
        if labels[-1][1] not in unread:
            _add_processes(lines, labels, [row for row in rows if row.get("g") == index])


def _add_gpu(lines: "_Lines", labels: Labels, entry: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    state = entry.get("st", "ok")
    info = (("name", entry.get("name") or facts.get("name")), ("pci_bus_id", entry.get("pci") or facts.get("pci")),
            ("parent_uuid", entry.get("parent")))  # fmt: skip
    lines.add(_GPU_INFO, (*labels, *((label, value) for label, value in info if isinstance(value, str) and value)), 1)
    lines.add(_GPU_UP, labels, int(state == "ok"))
    if state in GPU_STATES:
        for each in GPU_STATES:
            lines.add(_GPU_STATE, (*labels, ("state", each)), int(each == state))
    lines.table(_GPU, labels, entry)
    lines.table(_LIMITS, labels, facts)
    fans = entry.get("fan_pct")
    for number, speed in enumerate(fans[:_ENTRIES_MAX] if isinstance(fans, list) else ()):
        lines.add(_FAN, (*labels, ("fan", str(number))), speed, _PERCENT)
    for call, code in list(_map(entry.get("err")).items())[:_ENTRIES_MAX]:
        lines.add(_ERRORS, (*labels, ("call", call), ("code", str(code))), 1)


def _add_processes(lines: "_Lines", labels: Labels, rows: Sequence[Mapping[str, Any]]) -> None:
    lines.add(_PROCESSES, labels, len(rows))
    users: dict[str, float] = {}
    orphaned = 0.0
    for row in rows:
        user, held = row.get("user"), _number(row.get("mem"))
        if held is None:
            continue
        if row.get("orphan") is True:
            orphaned += held
        if isinstance(user, str) and user:
            users[user] = users.get(user, 0) + held
    lines.add(_ORPHAN_MEMORY, labels, orphaned)
    for user, held in sorted(users.items()):
        lines.add(_USER_MEMORY, (*labels, ("user", user)), held)


class _Lines:
    """The lines of one host, collected by family. A value that is no number and a label that is no text make no line."""

    def __init__(self) -> None:
        self._texts: dict[Family, dict[str, str]] = {}

    def add(self, family: Family, labels: Sequence[tuple[str, object]], value: object, scale: float = 1) -> None:
        number = _number(value)
        if number is None or not all(isinstance(text, str) for _, text in labels):
            return
        named = ",".join(f'{label}="{_escaped(str(text))}"' for label, text in labels)
        self._texts.setdefault(family, {}).setdefault(named, _shown(number if scale == 1 else number * scale))

    def table(self, rows: Iterable[_Gauge], labels: Labels, values: Mapping[str, Any]) -> None:
        for row in rows:
            self.add(row.family, (*labels, *row.labels), values.get(row.key), row.scale)

    def part(self) -> Part:
        return tuple(
            "".join(f"{family.name}{{{labels}}} {value}\n" for labels, value in self._texts.get(family, {}).items())
            for family in FAMILIES
        )


def _number(value: object) -> float | int | None:
    """A finite number of a sane size, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(number: float) -> str:
    """The shortest text that reads back as this number; whole numbers without a point."""
    rounded = round(number, 6)
    return str(int(rounded)) if rounded == int(rounded) else repr(rounded)


def _escaped(text: str) -> str:
    return clean(text, _LABEL_MAX_CHARS).replace("\\", "\\\\").replace('"', '\\"')


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: object, most: int) -> list[Mapping[str, Any]]:
    return [entry for entry in value[:most] if isinstance(entry, Mapping)] if isinstance(value, list) else []
