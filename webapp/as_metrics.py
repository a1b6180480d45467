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

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from dimint.consumers.rows import GpuTotal, HostRow, StoredSample, XidCount
from dimint.consumers.untrusted import mapping, mappings, number
from dimint.limits import GPUS_MAX, PROCESSES_MAX
from dimint.sample import GPU_STATES, NOTHING_WRONG
from dimint.webapp import metric_families as families
from dimint.webapp.cluster import ClusterView
from dimint.webapp.metric_families import FAMILIES, Family
from dimint.webapp.text import clean

__all__ = [
    "CONTENT_TYPE",
    "STALE_INTERVALS",
    "HostNow",
    "Part",
    "SystemNow",
    "exposition",
    "host_part",
    "is_stale",
    "system_part",
]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
STALE_INTERVALS: Final = 3
_LEAST_STALE_S: Final = 15.0
"""Samples that are taken ten times a second still take their way through log and tables."""
_LABEL_MAX_CHARS: Final = 256
_ENTRIES_MAX: Final = 256
"""Devices, mounts, sensors, fans and failed calls that one host or GPU shows of each."""

Part: TypeAlias = tuple[str, ...]
"""Lines of one host, a text a family in the order of FAMILIES."""


class HostNow(NamedTuple):
    """A host as the tables have it. `name` is the shown one; `up` whether it counts as running."""

    row: HostRow
    name: str
    stored: StoredSample | None
    up: bool


class SystemNow(NamedTuple):
    """What the tables hold of all hosts. `hosts` has the shown name and the GPUs (UUID → index) of each host that is listed.

    `lag` is how many records of each partition the tables have not read yet; None where the log cannot be asked.
    """

    hosts: Mapping[str, tuple[str, Mapping[str, int]]]
    used: Sequence[GpuTotal] = ()
    xids: Sequence[XidCount] = ()
    lag: Mapping[int, int] | None = None
    store_up: bool | None = None
    """Whether an overlord answers; None where there is no store to ask."""
    store: ClusterView | None = None


_STATES: Final = [(state, f',state="{state}"') for state in GPU_STATES]
_REASONS: Final = [(bit, f',reason="{reason}"') for bit, reason in families.EVENT_BITS.items()]
_HEADS: Final = tuple(f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.type}\n" for family in FAMILIES)


def is_stale(host: HostNow, now_ns: int) -> bool:
    """Whether the host's numbers are too old to be given out as of now."""
    if host.stored is None or host.row.received_ns is None:
        return True
    interval_ms = number(host.stored.sample.get("int_ms")) or 0
    return now_ns - host.row.received_ns > max(STALE_INTERVALS * interval_ms / 1e3, _LEAST_STALE_S) * 1e9


def host_part(host: HostNow, *, stale: bool) -> Part:
    """The lines of one host."""
    lines = _Lines()
    name = extended("", ("host", host.name))
    row, stored = host.row, host.stored
    lines.add(families.HOST_UP, name, int(host.up))
    facts = {label: row.facts.get(key) for label, key in (("os", "os"), ("kernel", "kernel"), ("driver_version", "driver"),
                                                          ("cuda_version", "cuda"), ("agent_version", "agent"))}  # fmt: skip
    info = {"id": row.id, "name": row.given_name, "ip": row.ip, **facts, "simulated": "true" if row.simulated else None}
    told = ((label, value) for label, value in info.items() if isinstance(value, str) and value)
    lines.add(families.HOST_INFO, extended(name, *told), 1)
    if stored is None:
        return lines.part()
    lines.add(families.HOST_LAST, name, stored.time_ns / 1e9)
    if not stale:
        lines.add(families.HOST_SKEW, name, (stored.time_ns - stored.received_ns) / 1e9)
        _add_host(lines, name, stored.sample)
        _add_gpus(lines, host.name, stored.sample, mappings(row.facts.get("gpus"), GPUS_MAX))
    return lines.part()


def system_part(system: SystemNow) -> Part:
    """The lines that are about no host's newest sample."""
    lines = _Lines()
    for used in system.used:
        if (host := system.hosts.get(used.host)) is not None:
            user = extended("", ("user", used.user), ("host", host[0]))
            lines.add(families.USER_TIME, extended(user, ("kind", "held")), used.held_us, 1e-6)
            lines.add(families.USER_TIME, extended(user, ("kind", "active")), used.active_us, 1e-6)
    for seen in system.xids:
        if (host := system.hosts.get(seen.host)) is not None:
            index = host[1].get(seen.gpu)
            gpu = (("uuid", seen.gpu),) if index is None else (("gpu", str(index)), ("uuid", seen.gpu))
            labels = extended("", ("host", host[0]), *(gpu if seen.gpu else ()), ("xid", str(seen.xid)))
            lines.add(families.XIDS, labels, seen.errors)
            lines.add(families.XID_LAST, labels, seen.last_ns, 1e-9)
    for partition, behind in sorted((system.lag or {}).items()):
        lines.add(families.LAG, extended("", ("partition", str(partition))), behind)
    _add_store(lines, system)
    return lines.part()


def _add_store(lines: "_Lines", system: SystemNow) -> None:
    lines.add(families.STORE_UP, "", None if system.store_up is None else int(system.store_up))
    if system.store is None:
        return
    for overlord in system.store.overlords:
        lines.add(families.OVERLORD_UP, extended("", ("overlord", overlord.id)), int(overlord.connected))
    for member in system.store.nodes:
        node = extended("", ("node", member.id))
        lines.add(families.NODE_UP, node, int(member.connected))
        lines.add(families.NODE_KEYS, node, member.keys)
    for placed in system.store.partitions:
        partition = extended("", ("partition", str(placed.partition)))
        lines.add(families.SERVED, partition, int(placed.master is not None and placed.problem is None))
        lines.add(families.STORE_LAG, partition, placed.lag)


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
    return b"".join(text.encode("utf-8", "backslashreplace") for text in out)  # never all of it as text and as bytes


# --- one host -------------------------------------------------------------------------------------------------------
def _add_host(lines: "_Lines", name: str | None, sample: Mapping[str, Any]) -> None:
    cpu, memory = mapping(sample.get("cpu")), mapping(sample.get("mem"))
    lines.table(families.CPU, name, cpu)
    lines.table(families.MEMORY, name, memory)
    loads = cpu.get("load")
    for family, load in zip(families.LOADS, loads if isinstance(loads, list) else (), strict=False):
        lines.add(family, name, load)
    for entry in mappings(sample.get("net"), _ENTRIES_MAX):
        device = extended(name, ("device", entry.get("if")))
        lines.add(families.NET_IN, device, entry.get("rx"))
        lines.add(families.NET_OUT, device, entry.get("tx"))
    for entry in mappings(sample.get("disk"), _ENTRIES_MAX):
        mount = extended(name, ("mountpoint", entry.get("mnt")))
        lines.add(families.DISK_USED, mount, entry.get("used"))
        lines.add(families.DISK_SIZE, mount, entry.get("tot"))
    for sensor, value in list(mapping(sample.get("temp_mC")).items())[:_ENTRIES_MAX]:
        lines.add(families.HOST_TEMPERATURE, extended(name, ("sensor", sensor)), value, families.MILLI)
    lines.add(families.COLLECT, extended(name, ("tier", "all")), sample.get("dur_us"), 1e-6)
    for tier, took_us in list(mapping(sample.get("tier_us")).items())[:_ENTRIES_MAX]:
        lines.add(families.COLLECT, extended(name, ("tier", tier)), took_us, 1e-6)
    entries = mappings(sample.get("gpu"), GPUS_MAX)
    if isinstance(support := sample.get("gpu_state"), str) and support != "starting":
        failed = any(entry.get("err") for entry in entries) or bool(sample.get("procs_err"))
        lines.add(families.COLLECTED, name, int(support in NOTHING_WRONG and not failed))
    spool = mapping(sample.get("spool"))
    lines.add(families.SPOOL, name, spool.get("bytes"))
    lines.add(families.SPOOL_MAX, name, spool.get("max"))
    lines.add(families.INTERVAL, name, sample.get("int_ms"), families.MILLI)


def _add_gpus(lines: "_Lines", host: str, sample: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> None:
    known = {entry.get("u"): entry for entry in facts if isinstance(entry.get("u"), str)}
    entries = mappings(sample.get("gpu"), GPUS_MAX)
    split = [entry.get("parent") for entry in entries if entry.get("parent")]
    unread = mapping(sample.get("procs_err"))
    labels_of: dict[int, str | None] = {}
    for place, entry in enumerate(entries):
        index, uuid = entry.get("i", place), entry.get("u")
        if not isinstance(uuid, str) or not uuid or not isinstance(index, int):
            continue
        labels = extended("", ("host", host), ("gpu", str(index)), ("uuid", uuid))
        _add_gpu(lines, labels, entry, known.get(uuid, {}))
        if entry.get("st", "ok") == "ok" and uuid not in unread and uuid not in split:
            labels_of.setdefault(index, labels)
    if not isinstance(sample.get("proc"), list):
        return  # nobody could tell of processes: that is not none
    rows = mappings(sample.get("proc"), PROCESSES_MAX)
    for index, labels in labels_of.items():
        _add_processes(lines, labels, [row for row in rows if row.get("g") == index])


def _add_gpu(lines: "_Lines", labels: str | None, entry: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    state = entry.get("st", "ok")
    info = (("name", entry.get("name") or facts.get("name")), ("pci_bus_id", entry.get("pci") or facts.get("pci")),
            ("parent_uuid", entry.get("parent")), ("mig_profile", entry.get("profile")))  # fmt: skip
    told = ((label, value) for label, value in info if isinstance(value, str) and value)
    lines.add(families.GPU_INFO, extended(labels, *told), 1)
    lines.add(families.GPU_UP, labels, int(state == "ok"))
    if state in GPU_STATES:
        for each, suffix in _STATES:
            lines.add(families.GPU_STATE, labels, int(each == state), suffix=suffix)
    lines.table(families.GPU, labels, entry)
    lines.table(families.LIMITS, labels, facts)
    kind = facts.get("p_kind", "average") or "unknown"
    lines.add(families.POWER, extended(labels, ("kind", kind)), entry.get("p_mW"), families.MILLI)
    _add_health(lines, labels, entry)
    fans = entry.get("fan_pct")
    for fan, speed in enumerate(fans[:_ENTRIES_MAX] if isinstance(fans, list) else ()):
        lines.add(families.FAN, extended(labels, ("fan", str(fan))), speed, families.PERCENT)
    for call, codes in list(mapping(entry.get("errs")).items())[:_ENTRIES_MAX]:
        for code, count in list(mapping(codes).items())[:_ENTRIES_MAX]:
            lines.add(families.ERRORS, extended(labels, ("call", call), ("code", code)), count)


def _add_health(lines: "_Lines", labels: str | None, entry: Mapping[str, Any]) -> None:
    lines.table(families.ECC, labels, mapping(entry.get("ecc")))
    remap = mapping(entry.get("remap"))
    lines.table(families.REMAP, labels, remap)
    for family, key in families.REMAP_FLAGS:
        if isinstance(flag := remap.get(key), bool):
            lines.add(family, labels, int(flag))
    for reason, spent_ns in list(mapping(entry.get("thr_ns")).items())[:_ENTRIES_MAX]:
        lines.add(families.THROTTLE, extended(labels, ("reason", reason)), spent_ns, 1e-9)
    if isinstance(bits := number(entry.get("ev")), int) and bits >= 0:
        for bit, suffix in _REASONS:
            lines.add(families.EVENT, labels, int(bool(bits & bit)), suffix=suffix)


def _add_processes(lines: "_Lines", labels: str | None, rows: Sequence[Mapping[str, Any]]) -> None:
    lines.add(families.PROCESSES, labels, len(rows))
    users: dict[str, float] = {}
    for row in rows:
        user, held = row.get("user"), number(row.get("mem"))
        if held is None:
            continue
        if isinstance(user, str) and user:
            users[user] = users.get(user, 0) + held
    for user, held in sorted(users.items()):
        lines.add(families.USER_MEMORY, extended(labels, ("user", user)), held)


class _Lines:
    """The lines of one host, collected by family. A value that is no number and a label that is no text make no line."""

    def __init__(self) -> None:
        self._texts: dict[Family, dict[str, str]] = {}

    def add(self, family: Family, labels: str | None, value: object, scale: float = 1, suffix: str = "") -> None:
        found = number(value)
        if found is not None and labels is not None:
            self._texts.setdefault(family, {}).setdefault(labels + suffix, _shown(found if scale == 1 else found * scale))

    def table(self, rows: Iterable[families.Number], labels: str | None, values: Mapping[str, Any]) -> None:
        for row in rows:
            if (value := values.get(row.key)) is not None:
                self.add(row.family, labels, value, row.scale, row.suffix)

    def part(self) -> Part:
        return tuple("".join(_line(family, *one) for one in self._texts.get(family, {}).items()) for family in FAMILIES)


def _line(family: Family, labels: str, value: str) -> str:
    return f"{family.name}{{{labels}}} {value}\n" if labels else f"{family.name} {value}\n"


def extended(labels: str | None, *more: tuple[str, object]) -> str | None:
    """Labels as they are written, with more of them; None if one is no text. Made once for all series that share them."""
    for label, text in more:
        if labels is None or not isinstance(text, str):
            return None
        labels += f'{"," if labels else ""}{label}="{_escaped(text)}"'
    return labels


def _shown(value: float) -> str:
    """The shortest text that reads back as this number; whole numbers without a point."""
    if type(value) is int:
        return str(value)
    rounded = round(value, 6)
    return str(int(rounded)) if rounded == int(rounded) else repr(rounded)


def _escaped(text: str) -> str:
    return _written_of(text) if len(text) <= _LABEL_MAX_CHARS else _written(text)  # nothing huge is remembered


def _written(text: str) -> str:
    return clean(text, _LABEL_MAX_CHARS).replace("\\", "\\\\").replace('"', '\\"')


_written_of = lru_cache(4096)(_written)
