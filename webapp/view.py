"""What is stored, and the time, become view models. [S]

Samples come from other machines: a value of a wrong type, or out of all range, reads as "not available" and never as an
error; a GPU list in which two entries claim one index still gets distinct keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dimint.consumers.untrusted import integer, mapping, mappings, text
from dimint.consumers.wanted import Wanted
from dimint.limits import GPUS_MAX, PROCESSES_MAX, TAGS_MAX
from dimint.settings_thresholds import THRESHOLDS, Thresholds
from dimint.webapp.models import Cell, Gpu, Host, Process, Sampled, Status

__all__ = ["SHOWN", "host_view", "ordered", "paged", "sampled", "status_of", "thinned"]

SHOWN: Final = Wanted({
    "int_ms": None, "gpu_state": None, "procs_err": None,
    "cpu": dict.fromkeys(("tot_pm", "n", "load")),
    "mem": dict.fromkeys(("used", "tot")),
    "gpu": {
        **dict.fromkeys((
            "i", "u", "name", "st", "t_mC", "mem_tot", "mem_used", "mem_free", "mem_other", "util_pct", "mutil_pct", "p_mW",
            "p_lim_mW", "at", "tmem_mC", "sm_MHz", "fan_pct", "ev", "parent", "profile",
        )),
        "ecc": {"vu": None}, "remap": dict.fromkeys(("pend", "fail")),
    },
    "proc": dict.fromkeys((
        "g", "pid", "name", "cmd", "user", "mem", "orphan", "t0_ms", "seen_ms", "sm_pct", "foreign", "job", "pod", "ns", "ctr",
        "rt",
    )),
})  # fmt: skip
"""What `sampled` reads of a sample."""
_MIB = 1 << 20


def status_of(heard_ns: int | None, *, started_ns: int, now_ns: int, down_after_s: float) -> Status:
    """A host's state: not heard since this server started, silent longer than the threshold, or running.

    `heard_ns` is when the host was last heard by our clocks (not by its own); None if it never reported.
    """
    if heard_ns is None or heard_ns < started_ns:
        return Status.WAITING
    return Status.DOWN if now_ns - heard_ns > down_after_s * 1e9 else Status.RUNNING


def sampled(time_ns: int, sample: Mapping[str, Any], limits: Thresholds = THRESHOLDS) -> Sampled:
    """One stored sample (dimint/sample.py), as shown; `limits` says what counts as idle or hot."""
    cpu, memory = mapping(sample.get("cpu")), mapping(sample.get("mem"))
    return Sampled(
        time_ns=time_ns,
        gpus=_gpus(sample, limits),
        gpu_support=text(sample.get("gpu_state")) or "ok",
        cpu_pm=integer(cpu.get("tot_pm")),
        cores=integer(cpu.get("n")),
        load=_load(cpu.get("load")),
        memory_used=integer(memory.get("used")),
        memory_total=integer(memory.get("tot")),
        interval_ms=integer(sample.get("int_ms")),
    )


def host_view(
    host_id: str,
    name: str,
    ip: str,
    facts: Mapping[str, Any],
    status: Status,
    heard_ns: int | None,
    samples: Iterable[Sampled],
    trends: Sequence[tuple[int | None, ...]] = (),
    hour: Sequence[tuple[Cell, ...]] = (),
    backfilled: bool = False,
) -> Host:
    """One host with its newest samples, oldest first."""
    return Host(
        id=host_id,
        name=name,
        ip=ip,
        status=status,
        simulated=facts.get("simulated") is True,
        samples=tuple(samples),
        heard_ns=heard_ns,
        facts=_facts_line(facts),
        trends=trends,
        hour=hour,
        tags=_tags(facts.get("tags")),
        driver=text(facts.get("driver")),
        backfilled=backfilled,
    )


def thinned(samples: Sequence[Sampled], interval_s: float, most: int) -> Sequence[Sampled]:
    """The newest `most` of these samples (oldest first) that are at least `interval_s` apart, counted from the newest."""
    if interval_s <= 0:
        return samples[-most:]
    kept: list[Sampled] = []
    for sample in reversed(samples):
        if not kept or kept[-1].time_ns - sample.time_ns >= interval_s * 1e9:
            kept.append(sample)
            if len(kept) == most:
                break
    return kept[::-1]


def ordered(hosts: Iterable[Host], by: str) -> list[Host]:
    """Hosts by name or, with `address`, by address (numbers compared as numbers), then by name."""
    if by == "address":
        return sorted(hosts, key=lambda host: (_address_key(host.ip), host.name, host.id))
    return sorted(hosts, key=lambda host: (host.name, host.id))


def paged(hosts: Sequence[Host], page: int, per_page: int) -> Sequence[Host]:
    """The hosts of page 1, 2, …; 0 is all of them, a page past the end is empty."""
    return hosts if page == 0 else hosts[(page - 1) * per_page : page * per_page]


def _address_key(ip: str) -> tuple[int, tuple[int, ...], str]:
    parts = ip.split(".")
    if len(parts) == 4 and all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        return 0, tuple(map(int, parts)), ""
    return 1, (), ip


def _gpus(sample: Mapping[str, Any], limits: Thresholds) -> tuple[Gpu, ...]:
    unread = mapping(sample.get("procs_err"))
    processes: dict[int, list[Process]] = {}
    for entry in mappings(sample.get("proc"), PROCESSES_MAX):
        index = integer(entry.get("g"))
        if index is not None:
            processes.setdefault(index, []).append(_process(entry))
    gpus: list[Gpu] = []
    keys: set[str] = set()
    for place, entry in enumerate(mappings(sample.get("gpu"), GPUS_MAX)):
        index = integer(entry.get("i"))
        index = place if index is None else index
        key = f"gpu:{index}"
        if key in keys:
            key = f"gpu:{index}.{place}"
        keys.add(key)
        uuid = text(entry.get("u")) or ""
        gpus.append(
            Gpu(
                key=key,
                index=index,
                uuid=uuid,
                name=text(entry.get("name")),
                state=text(entry.get("st")) or "ok",
                temperature_c=_milli(entry.get("t_mC")),
                total_mib=_mib(entry.get("mem_tot")),
                used_mib=_mib(entry.get("mem_used")),
                util_pct=integer(entry.get("util_pct")),
                power_w=_milli(entry.get("p_mW")),
                power_limit_w=_milli(entry.get("p_lim_mW")),
                processes=tuple(processes.pop(index, ())),
                processes_known=uuid not in unread,
                free_mib=_mib(entry.get("mem_free")),
                free_known="mem_free" in entry,
                read_at=text(entry.get("at")),
                memory_busy_pct=integer(entry.get("mutil_pct")),
                memory_temperature_c=_milli(entry.get("tmem_mC")),
                clock_mhz=integer(entry.get("sm_MHz")),
                fan_pct=_most(entry.get("fan_pct")),
                slowed=integer(entry.get("ev")) or 0,
                parent=text(entry.get("parent")),
                profile=text(entry.get("profile")),
                other_mib=_mib(entry.get("mem_other")),
                limits=limits,
                faults=_memory_faults(entry),
            )
        )
    return tuple(gpus)


def _process(entry: Mapping[str, Any]) -> Process:
    pid = integer(entry.get("pid"))
    return Process(
        pid="" if pid is None else str(pid),
        name=text(entry.get("name")) or text(entry.get("cmd")),
        user=text(entry.get("user")),
        used_mib=_mib(entry.get("mem")),
        orphan=entry.get("orphan") is True,
        started_ns=_scaled(entry.get("t0_ms") or entry.get("seen_ms"), 1_000_000),
        place=_place(entry),
        command=text(entry.get("cmd")),
        busy_pct=integer(entry.get("sm_pct")),
        foreign=entry.get("foreign") is True,
    )


def _facts_line(facts: Mapping[str, Any]) -> str:
    """Operating system, driver and CUDA in one line, as far as they are known."""
    parts = [text(facts.get("os")) or ""]
    for name, key in (("driver", "driver"), ("CUDA", "cuda")):
        value = text(facts.get(key))
        parts.append(f"{name} {value}" if value else "")
    return " · ".join(part for part in parts if part)


def _place(entry: Mapping[str, Any]) -> str | None:
    """Where a process runs: `job 77`, `pod lab/train-0`, `docker 0123456789ab`."""
    job, pod, container = text(entry.get("job")), text(entry.get("pod")), text(entry.get("ctr"))
    if job is not None:
        return f"job {job}"
    if pod is not None:
        space = text(entry.get("ns"))
        return f"pod {space}/{pod}" if space else f"pod {pod}"
    return None if container is None else f"{text(entry.get('rt')) or 'container'} {container[:12]}"


def _memory_faults(entry: Mapping[str, Any]) -> tuple[str, ...]:
    if "ecc" not in entry and "remap" not in entry:
        return ()
    ecc, remap = mapping(entry.get("ecc")), mapping(entry.get("remap"))
    found = []
    if count := integer(ecc.get("vu")):
        found.append(f"{count} uncorrected memory errors")
    if remap.get("pend") is True:
        found.append("memory rows wait for a reset")
    if remap.get("fail") is True:
        found.append("replacing memory rows failed")
    return tuple(found)


def _tags(value: object) -> tuple[tuple[str, str], ...]:
    """Tags of the facts, by name; at most TAGS_MAX."""
    return tuple(sorted((key, word) for key, word in mapping(value).items() if isinstance(key, str) and text(word)))[:TAGS_MAX]


def _mib(value: object) -> int | None:
    number = integer(value)
    return None if number is None else number // _MIB


def _milli(value: object) -> int | None:
    """A value in thousandths, rounded to whole units."""
    number = integer(value)
    return None if number is None else (number + 500) // 1000


def _scaled(value: object, factor: int) -> int | None:
    number = integer(value)
    return None if number is None else number * factor


def _most(value: object) -> int | None:
    """The highest of a list of numbers."""
    known = [number for number in map(integer, value[:GPUS_MAX]) if number is not None] if isinstance(value, list) else []
    return max(known, default=None)


def _load(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, list) or not value or not all(integer(entry) is not None for entry in value):
        return None
    return tuple(float(entry) for entry in value[:3])
