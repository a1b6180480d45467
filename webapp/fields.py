"""What filters and orders can speak about: fields of hosts and of their GPUs, by name. [S]"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple, TypeAlias

from dimint.errors import BadQuery
from dimint.webapp.judge import held_since, units, use_of
from dimint.webapp.models import Gpu, Host, Status, Use

__all__ = ["FIELDS", "SHORT", "Field", "Subject", "Values", "field_name", "subjects"]

_MIB_PER_GIB: Final = 1024


class Subject(NamedTuple):
    """What a term is asked of: a host, one of its GPUs (None: it has none), and the time."""

    host: Host
    gpu: Gpu | None
    now_ns: int


Values: TypeAlias = Sequence[str] | float | bool | None
"""What a field has for a subject: texts, of which one must match; a number; yes or no; None if it is not known."""


class Field(NamedTuple):
    """`kind` is text, number, time (in seconds) or flag."""

    kind: str
    about_gpu: bool
    read: Callable[[Subject], Values]
    help: str


def _gpu_number(name: str) -> Callable[[Subject], Values]:
    return lambda subject: None if subject.gpu is None else getattr(subject.gpu, name)


def _gpu_gib(name: str) -> Callable[[Subject], Values]:
    def read(subject: Subject) -> Values:
        mib = None if subject.gpu is None else getattr(subject.gpu, name)
        return None if mib is None else mib / _MIB_PER_GIB

    return read


def _use(subject: Subject) -> Use | None:
    return None if subject.gpu is None or subject.host.status is not Status.RUNNING else use_of(subject.gpu)


def _is_use(wanted: Use) -> Callable[[Subject], Values]:
    def read(subject: Subject) -> Values:
        use = _use(subject)
        return None if use is None or (use is Use.UNKNOWN and wanted is not Use.UNKNOWN) else use is wanted

    return read


def _held_s(subject: Subject) -> Values:
    since = held_since(subject.gpu) if subject.gpu is not None else None
    return None if since is None else max(0.0, (subject.now_ns - since) / 1e9)


def _users(subject: Subject) -> Values:
    return () if subject.gpu is None else tuple(process.user for process in subject.gpu.processes if process.user)


def _programs(subject: Subject) -> Values:
    names: list[str] = []
    for process in subject.gpu.processes if subject.gpu is not None else ():
        names += [text for text in (process.name, (process.name or "").rpartition("/")[2], process.command) if text]
    return names


def _pids(subject: Subject) -> Values:
    return () if subject.gpu is None else tuple(process.pid for process in subject.gpu.processes)


def _percent(part: int | None, whole: int | None) -> Values:
    return None if part is None or not whole else part * 100 / whole


def _cpu(subject: Subject) -> Values:
    sample = subject.host.newest
    return None if sample is None or sample.cpu_pm is None else sample.cpu_pm / 10


def _load(subject: Subject) -> Values:
    sample = subject.host.newest
    return None if sample is None or sample.load is None else sample.load[0]


def _ram(subject: Subject) -> Values:
    sample = subject.host.newest
    return None if sample is None else _percent(sample.memory_used, sample.memory_total)


def _age_s(subject: Subject) -> Values:
    heard = subject.host.heard_ns
    return None if heard is None else max(0.0, (subject.now_ns - heard) / 1e9)


def _gpus(subject: Subject) -> Values:
    return None if subject.host.newest is None else len(units(subject.host.newest.gpus))


def _tags(subject: Subject) -> Values:
    return tuple(text for name, value in subject.host.tags for text in (value, f"{name}={value}"))


def _texts(read: Callable[[Subject], str | None]) -> Callable[[Subject], Values]:
    def values(subject: Subject) -> Values:
        text = read(subject)
        return None if text is None else (text,)

    return values


FIELDS: Final[dict[str, Field]] = {
    "gpu.util": Field("number", True, _gpu_number("util_pct"), "how busy, %"),
    "gpu.mem": Field("number", True, _gpu_number("memory_pct"), "memory in use, %"),
    "gpu.used": Field("number", True, _gpu_gib("used_mib"), "memory in use, GiB"),
    "gpu.left": Field("number", True, _gpu_gib("available_mib"), "memory left, GiB"),
    "gpu.total": Field("number", True, _gpu_gib("total_mib"), "memory in all, GiB"),
    "gpu.temp": Field("number", True, _gpu_number("temperature_c"), "°C"),
    "gpu.power": Field("number", True, _gpu_number("power_w"), "W"),
    "gpu.clock": Field("number", True, _gpu_number("clock_mhz"), "MHz"),
    "gpu.index": Field("number", True, _gpu_number("index"), "its number on the host"),
    "gpu.name": Field("text", True, _texts(lambda subject: subject.gpu.name if subject.gpu else None), "its model"),
    "gpu.uuid": Field("text", True, _texts(lambda subject: subject.gpu.uuid if subject.gpu else None), "its UUID"),
    "gpu.state": Field("text", True, _texts(lambda subject: subject.gpu.state if subject.gpu else None), "ok, lost, hung …"),
    "gpu.free": Field("flag", True, _is_use(Use.FREE), "nobody has a process on it"),
    "gpu.busy": Field("flag", True, _is_use(Use.BUSY), "it works"),
    "gpu.idle": Field("flag", True, _is_use(Use.IDLE), "held, and it does nothing"),
    "gpu.lost": Field("flag", True, _is_use(Use.LOST), "lost, hung or missing"),
    "held": Field("time", True, _held_s, "how long its oldest process has been there"),
    "user": Field("text", True, _users, "who has a process on it"),
    "program": Field("text", True, _programs, "path, name or command of a process on it"),
    "pid": Field("text", True, _pids, "pid of a process on it"),
    "host": Field("text", False, _texts(lambda subject: subject.host.name), "name of the host"),
    "id": Field("text", False, _texts(lambda subject: subject.host.id), "its id, 32 hex digits"),
    "ip": Field("text", False, _texts(lambda subject: subject.host.ip), "its address"),
    "state": Field("text", False, _texts(lambda subject: str(subject.host.status)), "running, waiting for re-uplink, down"),
    "tag": Field("text", False, _tags, "a tag's value, or name=value"),
    "driver": Field("text", False, _texts(lambda subject: subject.host.driver), "driver version"),
    "cpu": Field("number", False, _cpu, "CPU, %"),
    "ram": Field("number", False, _ram, "the host's memory in use, %"),
    "load": Field("number", False, _load, "load of the last minute"),
    "gpus": Field("number", False, _gpus, "how many"),
    "age": Field("time", False, _age_s, "since the host was last heard"),
    "simulated": Field("flag", False, lambda subject: subject.host.simulated, "it does not exist"),
}
"""Every field, by name; docs/http.md has them for people."""

SHORT: Final = {
    "util": "gpu.util", "mem": "gpu.mem", "temp": "gpu.temp", "power": "gpu.power", "free": "gpu.free", "busy": "gpu.busy",
    "idle": "gpu.idle", "lost": "gpu.lost", "name": "gpu.name", "process": "program", "status": "state", "address": "ip",
}  # fmt: skip
"""Other names of the same fields."""


def field_name(name: str) -> str:
    """The full name of a field. Raises BadQuery, with names that come near."""
    plain = name.casefold()
    full = SHORT.get(plain, plain)
    if full in FIELDS:
        return full
    names = sorted({*FIELDS, *SHORT})
    near = get_close_matches(plain, names, n=3) or [other for other in names if plain in other][:4]
    raise BadQuery(f"there is no field {name[:40]!r}; {'did you mean ' if near else 'there are '}{', '.join(near or names)}")


def subjects(host: Host, now_ns: int) -> list[Subject]:
    """What fields are read of: each GPU of the host, or the host alone if it has none."""
    gpus: Sequence[Gpu | None] = host.newest.gpus if host.newest is not None else ()
    return [Subject(host, gpu, now_ns) for gpu in gpus or (None,)]
