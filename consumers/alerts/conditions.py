"""What an alert can look at: conditions by name, and comparisons of the numbers of a sample. [S]

A condition looks at one host as it is now and says of each subject (the host itself, or its GPUs) whether it holds: yes, no,
or unknown. Unknown changes nothing, so a number that cannot be read neither raises an alert nor ends one.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dimint.consumers.untrusted import mapping, mappings, number
from dimint.consumers.wanted import Wanted
from dimint.limits import GPUS_MAX, PROCESSES_MAX
from dimint.settings_thresholds import THRESHOLDS, Thresholds

__all__ = ["CONDITIONS", "HOST", "NUMBERS", "WAITING", "Condition", "Finding", "Observed", "Parameter", "defaults_by", "gpu_name",
           "lists_its_gpus", "parse_comparison"]  # fmt: skip

HOST: Final = ""
"""The subject of what is true of a host as a whole; GPUs are named by their UUID."""

WAITING: Final = Wanted({"int_ms": None})
"""All that conditions which wait look at in a sample: the rest of it need not be kept until the next one comes."""

_NS: Final = 1_000_000_000
_MIB: Final = 1 << 20


class Finding(NamedTuple):
    """`holds` None is unknown. `value` is what people are told; hostile text."""

    subject: str
    holds: bool | None
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A host at a moment. Times in ns, UTC; `xids` has, for each GPU, the last XID that was reported and when."""

    id: str
    name: str
    ip: str
    facts: Mapping[str, Any]
    registered_ns: int
    received_ns: int | None
    sample: Mapping[str, Any] | None
    xids: Mapping[str, tuple[int, int]]
    now_ns: int


class Parameter(NamedTuple):
    """A number of a condition that a rule may set; `is_span` numbers are written as 10m and kept in seconds."""

    name: str
    default: float
    is_span: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """A named condition. `waits` = it can change while no sample comes."""

    name: str
    text: str
    look: Callable[[Observed, Mapping[str, float]], Iterator[Finding]]
    message: str
    cleared_message: str
    parameters: tuple[Parameter, ...] = ()
    waits: bool = False
    number: str = ""
    """The number that a comparison compares, such as gpu.temp_c."""


_SIGNS: Final = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne}
_COMPARISON: Final = re.compile(r"\s*(host|gpu)\.([a-z0-9_]+)\s*(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?)\s*", re.ASCII)


def parse_comparison(text: str) -> Condition:
    """`scope.field sign bound`, for example gpu.temp_c > 85. Raises ValueError in words."""
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.80} is no comparison; write it like gpu.temp_c > 85")
    scope, field, sign, bound = match.groups()
    fields = _HOST_FIELDS if scope == "host" else _GPU_FIELDS
    if field not in fields:
        raise ValueError(f"{scope}.{field:.80} is not known; there are {', '.join(f'{scope}.{name}' for name in fields)}")
    read, compare, edge = fields[field], _SIGNS[sign], float(bound)

    def finding(subject: str, values: Mapping[str, Any]) -> Finding:
        found = read(values)
        return Finding(subject, None) if found is None else Finding(subject, compare(found, edge), f"{found:g}")

    def look(host: Observed, _parameters: Mapping[str, float]) -> Iterator[Finding]:
        if scope == "gpu":
            yield from (finding(gpu["u"], gpu) for gpu in _gpus(host))
        elif host.sample is not None:
            yield finding(HOST, host.sample)

    plain = " ".join(text.split())
    where = "`{host}`: " + ("{gpu}: " if scope == "gpu" else "")
    return Condition(plain, plain, look, f"{where}{plain} ({{value}})", f"{where}over ({{value}})", number=f"{scope}.{field}")


# --- numbers of a sample --------------------------------------------------------------------------------------------
def _scaled(value: object, scale: float = 1) -> float | None:
    found = number(value)
    return None if found is None else found * scale


def _share(part: object, whole: object) -> float | None:
    some, all_ = _scaled(part), _scaled(whole)
    return None if some is None or not all_ else some * 100 / all_


def _disk(sample: Mapping[str, Any]) -> float | None:
    shares = [_share(disk.get("used"), disk.get("tot")) for disk in mappings(sample.get("disk"), 256)]
    return max((share for share in shares if share is not None), default=None)


def _load(sample: Mapping[str, Any]) -> float | None:
    load = mapping(sample.get("cpu")).get("load")
    return _scaled(load[0]) if isinstance(load, list) and load else None


_HOST_FIELDS: Final[dict[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "cpu_pct": lambda sample: _scaled(mapping(sample.get("cpu")).get("tot_pm"), 0.1),
    "load1": _load,
    "memory_pct": lambda sample: _share(mapping(sample.get("mem")).get("used"), mapping(sample.get("mem")).get("tot")),
    "swap_used_mib": lambda sample: _scaled(mapping(sample.get("mem")).get("swap_used"), 1 / _MIB),
    "disk_pct": _disk,
}
_GPU_FIELDS: Final[dict[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "util_pct": lambda gpu: _scaled(gpu.get("util_pct")),
    "memory_pct": lambda gpu: _share(gpu.get("mem_used"), gpu.get("mem_tot")),
    "memory_used_mib": lambda gpu: _scaled(gpu.get("mem_used"), 1 / _MIB),
    "temp_c": lambda gpu: _scaled(gpu.get("t_mC"), 0.001),
    "memory_temp_c": lambda gpu: _scaled(gpu.get("tmem_mC"), 0.001),
    "power_w": lambda gpu: _scaled(gpu.get("p_mW"), 0.001),
}


NUMBERS: Final = (*(f"host.{name}" for name in _HOST_FIELDS), *(f"gpu.{name}" for name in _GPU_FIELDS))
"""What can be compared."""


def _gpus(host: Observed) -> Sequence[Mapping[str, Any]]:
    """The GPUs of the newest sample that can be named."""
    entries = mappings(host.sample.get("gpu"), GPUS_MAX) if host.sample is not None else ()
    return [gpu for gpu in entries if isinstance(gpu.get("u"), str) and gpu["u"]]


def gpu_name(host: Observed, uuid: str) -> str:
    """`GPU 3`, as the host numbers them; by its UUID if the host does not say, `a GPU` if the driver did not."""
    if uuid == HOST:
        return "a GPU"
    # a sample may be reduced to what conditions that wait look at: then the facts tell
    known = [*_gpus(host), *mappings(host.facts.get("gpus"), GPUS_MAX)]
    index = next((gpu.get("i") for gpu in known if gpu.get("u") == uuid), None)
    return f"GPU {index if type(index) is int else uuid}"


def lists_its_gpus(host: Observed) -> bool:
    """Whether a GPU that is not in the newest sample is really no more; a driver that does not answer hides MIG instances."""
    if host.sample is None or not isinstance(host.sample.get("gpu"), list):
        return False
    return all(gpu.get("st", "ok") not in ("unknown", "hung") for gpu in _gpus(host))


def _processes(host: Observed, gpu: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The processes on a GPU; None if they could not be read, or stand with the MIG instances of the GPU."""
    assert host.sample is not None
    if any(other.get("parent") == gpu["u"] for other in _gpus(host)):
        return None
    if gpu["u"] in mapping(host.sample.get("procs_err")) or not isinstance(host.sample.get("proc"), list):
        return None
    return [row for row in mappings(host.sample.get("proc"), PROCESSES_MAX) if row.get("g") == gpu.get("i")]


# --- conditions by name ---------------------------------------------------------------------------------------------
def _down(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    if host.received_ns is not None:
        silent_s = max(0, host.now_ns - host.received_ns) / _NS
        yield Finding(HOST, silent_s > parameters["after"], f"{parameters['after']:g}")


def _stale(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    interval_ms = None if host.sample is None else _scaled(host.sample.get("int_ms"))
    if host.received_ns is not None and interval_ms:
        silent_s = max(0, host.now_ns - host.received_ns) / _NS
        yield Finding(HOST, silent_s > parameters["intervals"] * interval_ms / 1000, f"{silent_s:.0f} s")


def _registered(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    yield Finding(HOST, host.now_ns - host.registered_ns < parameters["hold"] * _NS)


def _driver_mismatch(host: Observed, _parameters: Mapping[str, float]) -> Iterator[Finding]:
    if host.sample is not None and isinstance(state := host.sample.get("gpu_state"), str):
        yield Finding(HOST, None if state in ("unknown", "starting") else state == "driver_mismatch", state)


def _spool(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    spool = mapping(None if host.sample is None else host.sample.get("spool"))
    share = _share(spool.get("bytes"), spool.get("max"))
    if share is not None:
        yield Finding(HOST, share > parameters["above"], f"{share:.0f} %")


def _gone(host: Observed, _parameters: Mapping[str, float]) -> Iterator[Finding]:
    for gpu in _gpus(host):
        state = gpu.get("st", "ok")
        known = isinstance(state, str) and state in ("ok", "suspended", "lost", "hung", "missing")
        yield Finding(gpu["u"], state in ("lost", "hung", "missing") if known else None, str(state))


def _xid(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    for uuid, (xid, time_ns) in host.xids.items():
        yield Finding(uuid, host.now_ns - time_ns < parameters["hold"] * _NS, str(xid))


def _hot(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    """By the margin to the card's own slowdown temperature, and only without one by a fixed temperature."""
    limits = {gpu.get("u"): _scaled(gpu.get("t_slow_mC"), 0.001) for gpu in mappings(host.facts.get("gpus"), GPUS_MAX)
              if isinstance(gpu.get("u"), str)}  # fmt: skip
    for gpu in _gpus(host):
        heat, margin = _scaled(gpu.get("t_mC"), 0.001), _scaled(gpu.get("t_margin_mC"), 0.001)
        limit = limits.get(gpu["u"])
        if limit is not None and heat is not None:
            margin = limit - heat
        holds = margin < parameters["margin"] if margin is not None else None if heat is None else heat > parameters["above"]
        yield Finding(gpu["u"], holds, "" if heat is None else f"{heat:.0f} °C")


def _idle_held(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    for gpu in _gpus(host):
        used, busy = _scaled(gpu.get("mem_used"), 1 / _MIB), _scaled(gpu.get("util_pct"))
        rows = _processes(host, gpu)
        if used is None or busy is None or rows is None:
            yield Finding(gpu["u"], None)
            continue
        users = sorted({row["user"] for row in rows if isinstance(row.get("user"), str)})
        holds = bool(rows) and used > parameters["held_mib"] and busy < parameters["below"]
        yield Finding(gpu["u"], holds, f"{used:.0f} MiB, {busy:.0f} %, {', '.join(users) or 'user unknown'}")


def _held_without_process(host: Observed, parameters: Mapping[str, float]) -> Iterator[Finding]:
    for gpu in _gpus(host):
        used, rows = _scaled(gpu.get("mem_used"), 1 / _MIB), _processes(host, gpu)
        unknown = used is None or rows is None
        yield Finding(gpu["u"], None if unknown else not rows and (used or 0) > parameters["held_mib"], f"{used or 0:.0f} MiB")


CONDITIONS: Final = {
    condition.name: condition
    for condition in (
        Condition("host.registered", "a host registered a moment ago", _registered,
                  "⬆︎⬆︎⬆︎ `Uplink` Detected - New uplink from `{}`. Hello!", "", (Parameter("hold", 600, True),), waits=True),
        Condition("host.down", "nothing was heard of a host for `after`", _down,
                  "⬇︎⬇︎⬇︎ ` Down ` Detected - Connection from `{host_name}` has been lost more than {value} sec."
                  " Check network and machine.",
                  "⬆︎⬆︎⬆︎ `  Up  ` Detected - Uplink from `{}`. Welcome back!", (Parameter("after", 60, True),), waits=True),
        Condition("host.stale", "nothing was heard of a host for `intervals` of its intervals", _stale,
                  "`{host}` is late: {value} since its last sample", "`{host}` reports again", (Parameter("intervals", 3),),
                  waits=True),
        Condition("host.driver_mismatch", "library and kernel module of the driver have different versions", _driver_mismatch,
                  "`{host}`: the driver's library and kernel module do not fit (upgraded without a reboot?)",
                  "`{host}`: the driver fits again"),
        Condition("host.spool_filling", "the agent's spool is fuller than `above` %", _spool,
                  "`{host}`: the agent cannot deliver, its spool is {value} full", "`{host}`: the agent delivers again",
                  (Parameter("above", 50),)),
        Condition("gpu.gone", "a GPU is lost, hung or missing", _gone,
                  "`{host}`: {gpu} is {value}", "`{host}`: {gpu} is back ({value})"),
        Condition("gpu.xid", "a GPU reported an XID within `hold`", _xid,
                  "`{host}`: {gpu} reported XID {value}", "", (Parameter("hold", 600, True),), waits=True),
        Condition("gpu.hot", "a GPU is within `margin` °C of its slowdown temperature, or above `above` °C where none is known",
                  _hot, "`{host}`: {gpu} has {value}", "`{host}`: {gpu} has cooled to {value}",
                  (Parameter("margin", 3), Parameter("above", THRESHOLDS.hot_temperature))),
        Condition("gpu.idle_held", "a GPU has processes, more than `held_mib` in use, and works less than `below` %", _idle_held,
                  "`{host}`: {gpu} is held and idle: {value}", "`{host}`: {gpu} is in use again or free",
                  (Parameter("held_mib", 500), Parameter("below", THRESHOLDS.idle_percent))),
        Condition("gpu.held_without_process", "a GPU has more than `held_mib` in use and no process", _held_without_process,
                  "`{host}`: {gpu} has {value} in use and no process", "`{host}`: {gpu} is free or has a process",
                  (Parameter("held_mib", 500),)),
    )
}  # fmt: skip
"""Every named condition."""


def defaults_by(thresholds: Thresholds) -> dict[tuple[str, str], float]:
    """(condition, parameter) → its default by the settings, of those that the settings decide."""
    return {("gpu.hot", "above"): thresholds.hot_temperature, ("gpu.idle_held", "below"): thresholds.idle_percent}
