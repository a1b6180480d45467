"""What senders of GPU maps say, checked and turned into events. [S]

A sender registers a name, gets an id, and posts a map of its GPUs under that id again and again. The map, in MiB, °C and %:

    {"gpu:0": {"device_num": 0, "uuid": "GPU-…", "gpu_name": …, "temperature": 36, "total_memory": 11169,
               "available_memory": 10934, "used_memory": 235, "timestamp": "2018/11/30 23:29:47.115", "gpu_volatile": 0,
               "processes": [{"pid": "1963", "name": "/usr/bin/X", "user": "root", "used_memory": 148}]}, …}

Any field may be missing or null, and a number may come as text. A text that is no number, such as `[Not Supported]`, and a
number that cannot be, are "not available". What is no map of GPUs at all is a BadReport, and nothing of it is kept.
"""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgpack

from dimint.batch import Event
from dimint.consumers.names import clean_name, with_suffix
from dimint.errors import DimintError
from dimint.limits import GPUS_MAX, HOST_NAME_MAX_CHARS, PROCESS_NAME_MAX_CHARS, PROCESSES_MAX, SAMPLE_MAX_BYTES, SENDERS_NEW_MAX
from dimint.sample import Gpu, Process, Sample

__all__ = [
    "BadReport",
    "Newcomers",
    "Registered",
    "Report",
    "Reported",
    "event_of",
    "page_asked",
    "registered",
    "reported",
    "sample_of",
]

_MIB: Final = 1 << 20
_MEMORY_MAX_MIB: Final = 1 << 40
_UNREAD: Final = 999
"""NVML's code for "unknown": the sender did not say which processes there are."""

_KEY = re.compile(r"gpu:(\d{1,6})")
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?")
_PAGE_MAX_DIGITS: Final = 9


class BadReport(DimintError):
    """What a sender sent is not what it should be; the text says why, for whoever looks after the sender."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A host that has just been given its id."""

    host: str
    time_ns: int
    name: str
    ip: str
    facts: dict[str, Any]
    size: int


@dataclass(frozen=True, slots=True)
class Reported:
    """One accepted post; `time_ns` is when it came, `size` its bytes in the log before compression."""

    host: str
    time_ns: int
    sample: Sample
    size: int


Report: TypeAlias = Registered | Reported


def event_of(report: Report, base_ns: int, run: bytes, seq: int) -> Event:
    """The event of a report, in a batch whose time is `base_ns`; `run` and `seq` count for samples."""
    since_ns = report.time_ns - base_ns
    if isinstance(report, Registered):
        return ["host.registered", report.host, since_ns, 0, report.name, report.ip, report.facts]
    return ["host.sample", report.host, since_ns, 0, run, seq, report.sample]


def registered(host: str, time_ns: int, name: str, ip: str) -> Registered:
    """A new host, with what a sender tells of it."""
    return Registered(host, time_ns, name, ip, {"agent": "HTTP sender"}, len(name.encode("utf-8", "replace")) + 256)


def reported(host: str, time_ns: int, body: bytes) -> Reported:
    """A post as it came. Raises BadReport."""
    sample = sample_of(body)
    size = len(msgpack.packb(sample))
    if size > SAMPLE_MAX_BYTES:
        raise BadReport(f"a report of {size} bytes is over the limit of {SAMPLE_MAX_BYTES}")
    return Reported(host, time_ns, sample, size)


class Newcomers:
    """Hosts registered here that the status tables need not show yet: id → registered name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __contains__(self, host: str) -> bool:
        return host in self._names

    def __len__(self) -> int:
        return len(self._names)

    @property
    def full(self) -> bool:
        """Whether no more can be kept: the tables do not follow."""
        return len(self._names) >= SENDERS_NEW_MAX

    def settle(self, shown: Collection[str]) -> None:
        """Let go of the hosts that the tables show."""
        for host in [host for host in self._names if host in shown]:
            del self._names[host]

    def drop(self, host: str) -> None:
        """It was not registered after all."""
        self._names.pop(host, None)

    def add(self, wanted: str, taken: Collection[str], draw: Callable[[], str]) -> tuple[str, str, str]:
        """(id, registered name, name for the event) of a new host that wants this name; `taken` are names in the tables.

        `draw` gives a random id of 32 hex digits. A taken name gets the first 32 bits of the id behind it. Raises BadReport
        for a name with nothing to see in it.
        """
        name = clean_name(plain_text(wanted, HOST_NAME_MAX_CHARS))
        if not name.strip():
            raise BadReport("host_name is missing")

        def is_taken(name: str) -> bool:
            return name in taken or name in self._names.values()

        host = draw()
        if not is_taken(name):
            self._names[host] = name
            return host, name, plain_text(wanted, HOST_NAME_MAX_CHARS)
        while is_taken(longer := with_suffix(name, host)):
            host = draw()
        self._names[host] = longer
        return host, longer, longer


def page_asked(text: object) -> int | None:
    """The page (0 = all) that a viewer asks for; None for everything that is no page number."""
    plain = text.strip() if isinstance(text, str) else ""
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= _PAGE_MAX_DIGITS else None


def plain_text(text: str, most: int) -> str:
    """At most `most` characters that UTF-8 can carry: lone surrogates become visible escapes."""
    return text[:most].encode("utf-8", "backslashreplace").decode()[:most]


def sample_of(body: bytes) -> Sample:
    """The sample of a posted GPU map. Raises BadReport."""
    try:
        found = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadReport("the body is not JSON") from None
    if not isinstance(found, dict):
        raise BadReport("the body is not a map of GPUs")
    if len(found) > GPUS_MAX:
        raise BadReport(f"{len(found)} GPUs are over the limit of {GPUS_MAX}")
    gpus: list[Gpu] = []
    processes: list[Process] = []
    unread: dict[str, int] = {}
    taken: set[int] = set()
    for key, entry in found.items():
        where = _shown(key)
        match = _KEY.fullmatch(key)
        if match is None or not isinstance(entry, dict):
            raise BadReport(f"{where} is not a GPU: a map under `gpu:<number>` is")
        index = _number(entry, "device_num", where, 0, 999_999)
        place = int(match[1]) if index is None else int(index)
        if place in taken:
            raise BadReport(f"{where} has the number {place} of another GPU")
        taken.add(place)
        gpu = _gpu(entry, where, place)
        gpus.append(gpu)
        listed = entry.get("processes")
        if listed is not None:
            processes += _processes(listed, where, place)
        elif gpu["u"]:
            unread[gpu["u"]] = _UNREAD
    sample: Sample = {"gpu_state": "ok" if gpus else "no_gpu", "gpu": gpus, "proc": processes}
    if unread:
        sample["procs_err"] = unread
    if (more := len(processes) - PROCESSES_MAX) > 0:
        smallest = sorted(range(len(processes)), key=lambda at: processes[at].get("mem") or 0)[:more]
        gone = set(smallest)
        sample["proc"] = [process for at, process in enumerate(processes) if at not in gone]
        sample["proc_more"] = more
    return sample


def _gpu(entry: dict[str, Any], where: str, place: int) -> Gpu:
    heat = _number(entry, "temperature", where, -273, 10_000)
    util = _number(entry, "gpu_volatile", where, 0, 1000)
    gpu: Gpu = {
        "i": place,
        "u": _text(entry, "uuid", where) or "",
        "name": _text(entry, "gpu_name", where),
        "st": "ok",
        "util_pct": None if util is None else round(util),
        "mem_tot": _memory(entry, "total_memory", where),
        "mem_used": _memory(entry, "used_memory", where),
        "t_mC": None if heat is None else round(heat * 1000),
    }
    if "available_memory" in entry:
        gpu["mem_free"] = _memory(entry, "available_memory", where)
    if (when := _text(entry, "timestamp", where)) is not None:
        gpu["at"] = when
    return gpu


def _processes(listed: object, where: str, place: int) -> list[Process]:
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise BadReport(f"{where}: processes is not a list of maps")
    found: list[Process] = []
    for entry in listed:
        process: Process = {
            "g": place,
            "name": _text(entry, "name", where),
            "user": _text(entry, "user", where),
            "mem": _memory(entry, "used_memory", where),
        }
        pid = _number(entry, "pid", where, 0, 1 << 53)
        if pid is not None:
            process["pid"] = int(pid)
        found.append(process)
    return found


def _number(entry: dict[str, Any], name: str, where: str, low: int, high: int) -> int | float | None:
    """The field's number; None if it is not available. Raises BadReport for a list, a map or a boolean."""
    value = entry.get(name)
    if isinstance(value, str):
        plain = value.strip()
        if not plain.isascii() or _NUMBER.fullmatch(plain) is None:
            return None
        value = float(plain) if "." in plain else int(plain)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadReport(f"{where}: {name} is not a number")
    return value if low <= value <= high else None


def _memory(entry: dict[str, Any], name: str, where: str) -> int | None:
    """The field's MiB in bytes."""
    value = _number(entry, name, where, 0, _MEMORY_MAX_MIB)
    return None if value is None else int(value * _MIB)


def _text(entry: dict[str, Any], name: str, where: str) -> str | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadReport(f"{where}: {name} is not a text")
    return plain_text(str(value), PROCESS_NAME_MAX_CHARS)


def _shown(key: str) -> str:
    return repr(key[:40]) if len(key) <= 40 else repr(key[:40]) + "…"


def _refuse(name: str) -> Any:
    raise ValueError(name)
