"""A sample as it was sent, with types: what the pages read of it, in the units of the log. [S]

Samples come from other machines. One in which every value has its type is taken as it is, at the speed of the decoder; in
any other each value of a wrong type, or out of all range, is read as "not available", never as an error.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from dimint.consumers.rows import unpack_row
from dimint.consumers.untrusted import LARGEST, integer, mapping, mappings, text
from dimint.consumers.wanted import Keys, Wanted
from dimint.limits import GPUS_MAX, PROCESSES_MAX

__all__ = ["OF_MANY", "SHOWN", "Sent", "SentGpu", "SentProcess", "keyed", "left_mib", "read_doubtful", "read_packed", "read_sent"]

Integer: TypeAlias = Annotated[int, Meta(ge=1 - LARGEST, le=LARGEST - 1)] | None
Text: TypeAlias = str | None
"""May be empty, which is as good as none."""
Yes: TypeAlias = bool | None


class SentErrors(Struct, gc=False):
    """Errors of a GPU's memory."""

    vu: Integer = None


class SentRemap(Struct, gc=False):
    """Rows of a GPU's memory that are or were replaced."""

    pend: Yes = None
    fail: Yes = None


class SentGpu(Struct, gc=False):
    """A GPU's map (dimint/sample.py). `mem_free` UNSET: the sender does not speak of it."""

    i: Integer = None
    u: Text = None
    name: Text = None
    st: Text = None
    t_mC: Integer = None
    mem_tot: Integer = None
    mem_used: Integer = None
    mem_free: Integer | UnsetType = UNSET
    mem_other: Integer = None
    util_pct: Integer = None
    mutil_pct: Integer = None
    p_mW: Integer = None
    p_lim_mW: Integer = None
    at: Text = None
    tmem_mC: Integer = None
    sm_MHz: Integer = None
    fan_pct: Annotated[list[Integer], Meta(max_length=GPUS_MAX)] | None = None
    ev: Integer = None
    parent: Text = None
    profile: Text = None
    ecc: SentErrors | None = None
    remap: SentRemap | None = None


class SentProcess(Struct, gc=False):
    """A process's map."""

    g: Integer = None
    pid: Integer = None
    name: Text = None
    cmd: Text = None
    user: Text = None
    mem: Integer = None
    orphan: Yes = None
    t0_ms: Integer = None
    seen_ms: Integer = None
    sm_pct: Integer = None
    foreign: Yes = None
    job: Text = None
    pod: Text = None
    ns: Text = None
    ctr: Text = None
    rt: Text = None


class SentCpu(Struct):
    """The CPU's map."""

    tot_pm: Integer = None
    n: Integer = None
    load: Any = None


class SentMemory(Struct):
    """The memory's map."""

    used: Integer = None
    tot: Integer = None


class Sent(Struct):
    """A sample."""

    int_ms: Integer = None
    mono_ns: Integer = None
    late: Yes = None
    gpu_state: Text = None
    procs_err: dict[Any, Any] | None = None
    cpu: SentCpu | None = None
    mem: SentMemory | None = None
    gpu: Annotated[list[SentGpu], Meta(max_length=GPUS_MAX)] | None = None
    proc: Annotated[list[SentProcess], Meta(max_length=PROCESSES_MAX)] | None = None


def _names(kind: type[Struct]) -> dict[str, None]:
    return dict.fromkeys(field.name for field in msgspec.structs.fields(kind))


SHOWN: Final = Wanted({
    **_names(Sent),
    "cpu": _names(SentCpu),
    "mem": _names(SentMemory),
    "gpu": {**_names(SentGpu), "ecc": _names(SentErrors), "remap": _names(SentRemap)},
    "proc": _names(SentProcess),
})  # fmt: skip
"""What pages read of a sample."""

_OF_ONE: Final = frozenset((
    "mutil_pct", "tmem_mC", "sm_MHz", "fan_pct", "p_lim_mW", "profile", "sm_pct", "foreign", "job", "pod", "ns", "ctr", "rt",
))  # fmt: skip


def _without(keys: Keys | None) -> Keys | None:
    return None if keys is None else {key: _without(under) for key, under in keys.items() if key not in _OF_ONE}


OF_MANY: Final = Wanted(_without(SHOWN.keys) or {})
"""The same without what only the card of a single GPU shows, for a look at very many: each leaf has to be picked."""

_decoder: Final = msgspec.msgpack.Decoder(tuple[int, Any, Any, Sent])


def read_sent(sample: Mapping[str, Any]) -> Sent:
    """What a sample says."""
    try:
        return msgspec.convert(sample, Sent)
    except msgspec.ValidationError:
        return read_doubtful(sample)


def read_packed(row: bytes) -> tuple[int, Sent]:
    """The same of a tail row's msgpack (consumers/rows.py), and how long after it was taken it was received, ns.

    Raises CorruptRecord.
    """
    try:
        late_ns, _, _, sent = _decoder.decode(row)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        stored = unpack_row(0, row)
        return stored.received_ns, read_doubtful(stored.sample)
    return late_ns, sent


def keyed(sent: Sent) -> list[tuple[str, int, SentGpu, Sequence[SentProcess]]]:
    """Each GPU with its key, which is unique within the sample, its index, and the processes on it."""
    processes: dict[int, list[SentProcess]] = {}
    for process in sent.proc or ():
        if process.g is not None:
            processes.setdefault(process.g, []).append(process)
    found: list[tuple[str, int, SentGpu, Sequence[SentProcess]]] = []
    keys: set[str] = set()
    for place, gpu in enumerate(sent.gpu or ()):
        index = place if gpu.i is None else gpu.i
        key = f"gpu:{index}"
        if key in keys:
            key = f"gpu:{index}.{place}"
        keys.add(key)
        found.append((key, index, gpu, processes.pop(index, ())))
    return found


def left_mib(gpu: SentGpu) -> int | None:
    """What is left of a GPU's memory: what the sender says, or total − used, None unless both are known."""
    total, used, free = gpu.mem_tot, gpu.mem_used, gpu.mem_free
    if free is not UNSET:
        return None if free is None else free >> 20
    return None if total is None or used is None else max(0, (total >> 20) - (used >> 20))


# --- what has values of wrong types ---------------------------------------------------------------------------------
Reader: TypeAlias = Callable[[Any], Any]
Kind = TypeVar("Kind", bound=Struct)


def read_doubtful(sample: Mapping[str, Any]) -> Sent:
    """The same value by value, whatever their types are."""
    return Sent(
        integer(sample.get("int_ms")),
        integer(sample.get("mono_ns")),
        sample.get("late") is True or None,
        text(sample.get("gpu_state")),
        dict(mapping(sample.get("procs_err"))),
        _read(SentCpu, sample.get("cpu")),
        _read(SentMemory, sample.get("mem")),
        [_read(SentGpu, entry) for entry in mappings(sample.get("gpu"), GPUS_MAX)],
        [_read(SentProcess, entry) for entry in mappings(sample.get("proc"), PROCESSES_MAX)],
    )


def _read(kind: type[Kind], value: object) -> Kind:
    found = mapping(value)
    return kind(**{name: reader(found[name]) for name, reader in _READERS[kind] if name in found})


def _integers(value: object) -> list[int | None] | None:
    return list(map(integer, value[:GPUS_MAX])) if isinstance(value, list) else None


def _readers(kind: type[Struct], **more: Reader) -> Iterable[tuple[str, Reader]]:
    of_type: tuple[tuple[Any, Reader], ...] = (
        (Integer, integer), (Integer | UnsetType, integer), (Text, text), (Yes, lambda value: value if value is True else None),
    )  # fmt: skip
    fields = msgspec.structs.fields(kind)
    return [(one.name, more.get(one.name) or next(read for kind, read in of_type if kind == one.type)) for one in fields]


_READERS: Final[dict[type[Struct], Iterable[tuple[str, Reader]]]] = {
    SentErrors: _readers(SentErrors),
    SentRemap: _readers(SentRemap),
    SentCpu: _readers(SentCpu, load=lambda value: value),
    SentMemory: _readers(SentMemory),
    SentProcess: _readers(SentProcess),
    SentGpu: _readers(SentGpu, fan_pct=_integers, ecc=partial(_read, SentErrors), remap=partial(_read, SentRemap)),
}
