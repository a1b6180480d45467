"""What is stored, and the time, become view models. [S]

Samples come from other machines: a value of a wrong type, or out of all range, reads as "not available" and never as an
error; a GPU list in which two entries claim one index still gets distinct keys.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

from dimint.consumers.untrusted import integer, mapping, text
from dimint.limits import TAGS_MAX
from dimint.settings_thresholds import THRESHOLDS, Thresholds
from dimint.webapp.judge import GONE
from dimint.webapp.models import Cell, Gpu, Host, Process, Sampled, Status
from dimint.webapp.sent import Sent, SentGpu, SentProcess, keyed, left_mib, read_sent

__all__ = ["Facts", "host_view", "ordered", "paged", "sampled", "sampled_of", "status_of", "thinned"]


def status_of(heard_ns: int | None, *, started_ns: int, now_ns: int, down_after_s: float) -> Status:
    """A host's state: not heard since this server started, silent longer than the threshold, or running.

    `heard_ns` is when the host was last heard by our clocks (not by its own); None if it never reported.
    """
    if heard_ns is None or heard_ns < started_ns:
        return Status.WAITING
    return Status.DOWN if now_ns - heard_ns > down_after_s * 1e9 else Status.RUNNING


def sampled(
    time_ns: int, sample: Mapping[str, Any], limits: Thresholds = THRESHOLDS, *, received_ns: int | None = None
) -> Sampled:
    """One stored sample (dimint/sample.py), as shown; `limits` says what counts as idle or hot.

    With `received_ns`, when the log had it, it also tells by how much the host's clock is off.
    """
    return sampled_of(time_ns, read_sent(sample), limits, received_ns=received_ns)


def sampled_of(time_ns: int, sent: Sent, limits: Thresholds = THRESHOLDS, *, received_ns: int | None = None) -> Sampled:
    """The same of what was read already."""
    skew_ms = None
    if received_ns is not None and sent.mono_ns is not None and sent.late is not True:
        # what waited on the agent's disk tells nothing of its clock, and senders have none of their own
        skew_ms = (time_ns - received_ns) // 1_000_000
    cpu, memory = sent.cpu, sent.mem
    return Sampled(
        time_ns=time_ns,
        sent=sent,
        gpus=_Gpus(sent, limits),
        gpu_support=sent.gpu_state or "ok",
        cpu_pm=None if cpu is None else cpu.tot_pm,
        cores=None if cpu is None else cpu.n,
        load=None if cpu is None else _load(cpu.load),
        memory_used=None if memory is None else memory.used,
        memory_total=None if memory is None else memory.tot,
        interval_ms=sent.int_ms,
        up_s=None if sent.mono_ns is None else sent.mono_ns // 1_000_000_000,
        skew_ms=skew_ms,
    )


class Facts(NamedTuple):
    """What a host says of itself, as shown. It changes seldom: make it once for the same facts."""

    simulated: bool
    line: str
    tags: tuple[tuple[str, str], ...]
    driver: str | None

    @classmethod
    def of(cls, facts: Mapping[str, Any], simulated: bool) -> "Facts":
        """Of what is stored."""
        return cls(simulated, _facts_line(facts), _tags(facts.get("tags")), text(facts.get("driver")))


def host_view(
    host_id: str,
    name: str,
    ip: str,
    facts: Facts,
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
        simulated=facts.simulated,
        samples=tuple(samples),
        heard_ns=heard_ns,
        facts=facts.line,
        trends=trends,
        hour=hour,
        tags=facts.tags,
        driver=facts.driver,
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


class _Gpus(Sequence[Gpu]):
    """The GPUs of a sample, made when somebody looks: of most samples nobody does."""

    __slots__ = ("_limits", "_made", "_sent")

    def __init__(self, sent: Sent, limits: Thresholds) -> None:
        self._sent, self._limits = sent, limits
        self._made: tuple[Gpu, ...] | None = None

    def __len__(self) -> int:
        return len(self._sent.gpu or ())

    def __iter__(self) -> Iterator[Gpu]:
        return iter(self._all())

    @overload
    def __getitem__(self, at: int) -> Gpu: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Gpu, ...]: ...
    def __getitem__(self, at: int | slice) -> Gpu | tuple[Gpu, ...]:
        return self._all()[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def _all(self) -> tuple[Gpu, ...]:
        if self._made is None:
            self._made = _gpus(self._sent, self._limits)
        return self._made


def _gpus(sent: Sent, limits: Thresholds) -> tuple[Gpu, ...]:
    # eight thousand GPUs and as many processes on one page: arguments go by place, and nothing is called for each value
    unread = sent.procs_err or ()
    gpus: list[Gpu] = []
    split = {one.parent for one in sent.gpu or () if one.parent}
    for key, index, one, processes in keyed(sent):
        uuid = one.u or ""
        total, used, other = one.mem_tot, one.mem_used, one.mem_other
        heat, memory_heat, power, power_limit = one.t_mC, one.tmem_mC, one.p_mW, one.p_lim_mW
        gpus.append(
            Gpu(
                key,
                index,
                uuid,
                one.name or None,
                one.st or "ok",
                None if heat is None else (heat + 500) // 1000,
                None if total is None else total >> 20,
                None if used is None else used >> 20,
                one.util_pct,
                None if power is None else (power + 500) // 1000,
                None if power_limit is None else (power_limit + 500) // 1000,
                tuple(map(_process, processes)),
                uuid not in unread,
                left_mib(one),
                one.at or None,
                one.mutil_pct,
                None if memory_heat is None else (memory_heat + 500) // 1000,
                one.sm_MHz,
                _most(one.fan_pct),
                one.ev or 0,
                one.parent or None,
                one.profile or None,
                None if other is None else other >> 20,
                limits,
                () if one.ecc is None and one.remap is None else _memory_faults(one),
                uuid in split and one.st not in GONE,
            )
        )
    return tuple(gpus)


def _process(sent: SentProcess) -> Process:
    pid, memory, started_ms = sent.pid, sent.mem, sent.t0_ms or sent.seen_ms
    return Process(
        "" if pid is None else str(pid),
        sent.name or sent.cmd or None,
        sent.user or None,
        None if memory is None else memory >> 20,
        sent.orphan is True,
        None if started_ms is None else started_ms * 1_000_000,
        sent.cmd or None,
        sent.sm_pct,
        _place(sent),
        sent.foreign is True,
    )


def _facts_line(facts: Mapping[str, Any]) -> str:
    """Operating system, driver and CUDA in one line, as far as they are known."""
    parts = [text(facts.get("os")) or ""]
    for name, key in (("driver", "driver"), ("CUDA", "cuda")):
        value = text(facts.get(key))
        parts.append(f"{name} {value}" if value else "")
    return " · ".join(part for part in parts if part)


def _place(sent: SentProcess) -> str | None:
    """Where a process runs: `job 77`, `pod lab/train-0`, `docker 0123456789ab`."""
    if sent.job:
        return f"job {sent.job}"
    if sent.pod:
        return f"pod {sent.ns}/{sent.pod}" if sent.ns else f"pod {sent.pod}"
    return f"{sent.rt or 'container'} {sent.ctr[:12]}" if sent.ctr else None


def _memory_faults(sent: SentGpu) -> tuple[str, ...]:
    found = []
    if sent.ecc is not None and sent.ecc.vu:
        found.append(f"{sent.ecc.vu} uncorrected memory errors")
    if sent.remap is not None and sent.remap.pend:
        found.append("memory rows wait for a reset")
    if sent.remap is not None and sent.remap.fail:
        found.append("replacing memory rows failed")
    return tuple(found)


def _tags(value: object) -> tuple[tuple[str, str], ...]:
    """Tags of the facts, by name; at most TAGS_MAX."""
    return tuple(sorted((key, word) for key, word in mapping(value).items() if isinstance(key, str) and text(word)))[:TAGS_MAX]


def _most(numbers: Sequence[int | None] | None) -> int | None:
    """The highest of a list of numbers."""
    return max((number for number in numbers if number is not None), default=None) if numbers else None


def _load(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, list) or not value or not all(integer(entry) is not None for entry in value):
        return None
    return tuple(float(entry) for entry in value[:3])
