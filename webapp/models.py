"""What a page, a terminal view or JSON shows: frozen view models, made by view.py and read by every as_*.py. [S]

Names in here are raw (hostile) text: whoever prints one passes it through text.py or escapes it. Memory is in MiB or bytes
as the field says; None always means "not available".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, NamedTuple, TypeVar

import msgspec

from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from dimint.settings_thresholds import THRESHOLDS, Thresholds
from dimint.webapp.sent import Sent

__all__ = [
    "NOTHING_NOTICED", "Cell", "Change", "Gpu", "Host", "Noticed", "Process", "Recent", "Sampled", "Snapshot", "Status", "Use",
    "UserDay",
]  # fmt: skip


Kind = TypeVar("Kind", bound=Enum)


def _members_as_attributes(kind: type[Kind]) -> type[Kind]:
    """Python 3.11 finds a member by calling a function written in Python, a hundred thousand times for a page of many GPUs."""
    for member in kind:
        type.__setattr__(kind, member.name, member)
    return kind


@_members_as_attributes
class Status(StrEnum):
    """The three states of a host, as scripts know them."""

    RUNNING = "running"
    WAITING = "waiting for re-uplink"
    DOWN = "down"


@_members_as_attributes
class Use(StrEnum):
    """What a GPU is doing, in one word."""

    BUSY = "busy"
    IDLE = "idle"
    """Held: a process has memory on it, and it does nothing."""
    FREE = "free"
    LOST = "lost"
    """Not usable: lost, hung or missing."""
    UNKNOWN = "unknown"
    SPLIT = "split"
    """Divided into MIG instances, which stand for it: nobody holds it as a whole."""


class Cell(NamedTuple):
    """What one GPU did in one minute: its mean utilisation in % (None = not known), and how it stood at the minute's end."""

    util: int | None
    use: Use
    user: str | None


class Process(msgspec.Struct, frozen=True, gc=False):
    """One process on one GPU."""

    pid: str
    name: str | None
    user: str | None
    used_mib: int | None
    orphan: bool
    started_ns: int | None = None
    """When the process began, ns UTC; None where the sender does not say."""
    command: str | None = None
    busy_pct: int | None = None
    """Share of the GPU's time that this process kept it busy."""
    place: str | None = None
    """Its pod, Slurm job or container."""
    foreign: bool = False
    """It runs in another pid namespace: its pid means nothing on the host."""


class Gpu(msgspec.Struct, frozen=True, gc=False):
    """One GPU or MIG instance. `key` is its name in JSON (`gpu:0`), unique within the sample."""

    key: str
    index: int
    uuid: str
    name: str | None
    state: str
    temperature_c: int | None
    total_mib: int | None
    used_mib: int | None
    util_pct: int | None
    power_w: int | None
    power_limit_w: int | None
    processes: tuple[Process, ...]
    processes_known: bool
    available_mib: int | None = None
    """What is left of the memory."""
    read_at: str | None = None
    """When the sender read this GPU, in its own words; None: with the sample."""
    memory_busy_pct: int | None = None
    memory_temperature_c: int | None = None
    clock_mhz: int | None = None
    fan_pct: int | None = None
    slowed: int = 0
    """Bit mask of the driver's reasons to run slower than it could (NVML's clocks event reasons)."""
    parent: str | None = None
    """UUID of the GPU that this MIG instance is on; None for a whole GPU."""
    profile: str | None = None
    """Of a MIG instance: `1g.10gb`."""
    other_mib: int | None = None
    """Memory in use that belongs to no process of the list; None if that cannot be told."""
    limits: Thresholds = THRESHOLDS
    """What it is judged by: from when on it is idle or hot."""
    faults: tuple[str, ...] = ()
    """What is wrong with its memory, in words: uncorrected errors, rows that wait for a reset."""
    split: bool = False
    """It is divided into MIG instances, which are GPUs of the sample too."""

    @property
    def memory_pct(self) -> int | None:
        """Used memory in whole percent, rounded down as the bars of the terminal views are."""
        if not self.total_mib or self.used_mib is None:
            return None
        return self.used_mib * 100 // self.total_mib


class Sampled(msgspec.Struct, frozen=True, gc=False):
    """One sample of a host. `time_ns` is when it was taken, UTC; `gpus` is made of what was `sent` when somebody looks."""

    time_ns: int
    sent: Sent
    gpus: Sequence[Gpu]
    gpu_support: str
    cpu_pm: int | None
    cores: int | None
    load: tuple[float, ...] | None
    memory_used: int | None
    memory_total: int | None
    interval_ms: int | None = None
    up_s: int | None = None
    """How long the host has been up, without the time that it slept; None where the sender does not say."""
    skew_ms: int | None = None
    """Its clock minus the log's when this sample arrived, way included; None for a sample that waited, or without a clock."""

    @property
    def utils(self) -> tuple[int | None, ...]:
        """How busy each GPU is, %."""
        return tuple([gpu.util_pct for gpu in self.sent.gpu or ()])

    @property
    def has_cpu(self) -> bool:
        """Whether the sender reports anything about its CPU at all; senders of GPU maps do not."""
        return self.cpu_pm is not None or self.load is not None or self.memory_total is not None


class Host(msgspec.Struct, frozen=True, gc=False):
    """One host with its newest samples, oldest first. `name` is unique among the hosts.

    `heard_ns` is when it was last heard by our clocks, None if it never sent a sample. `trends` has, for each GPU of the
    newest sample, its utilisation over the last minutes in even steps, `hour` one cell a minute (see trends.py).
    `tags` are what the agent's settings call the host: (name, value), by name.
    """

    id: str
    name: str
    ip: str
    status: Status
    simulated: bool
    samples: tuple[Sampled, ...]
    heard_ns: int | None
    facts: str
    trends: Sequence[tuple[int | None, ...]] = ()
    hour: Sequence[tuple[Cell, ...]] = ()
    tags: tuple[tuple[str, str], ...] = ()
    driver: str | None = None
    backfilled: bool = False
    """The sample shown came so late that nobody saw it then: an agent that was cut off sent it afterwards."""

    @property
    def newest(self) -> Sampled | None:
        """The last sample, whatever the status; None if the host never reported one."""
        return self.samples[-1] if self.samples else None


class UserDay(NamedTuple):
    """What a user held of GPUs on one day, and how much of it did nothing, µs."""

    user: str
    held_us: int
    wasted_us: int


_SYMBOLS: Final = {"✖": (0, "bad"), "▲": (1, "warn"), "●": (2, "ok"), "→": (3, "plain"), "←": (4, "plain")}
_OTHER_SYMBOL: Final = (5, "plain")


class Change(NamedTuple):
    """One line of what changed. `host` is its name, None for what concerns all of them; `kind` is one word for programs."""

    kind: str
    symbol: str
    host: str | None
    words: str

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return _SYMBOLS.get(self.symbol, _OTHER_SYMBOL)[0]

    @property
    def cls(self) -> str:
        """The class of its symbol on pages."""
        return _SYMBOLS.get(self.symbol, _OTHER_SYMBOL)[1]


class Noticed(NamedTuple):
    """A change of a host, and when it was noticed."""

    time_ns: int
    host_id: str
    change: Change


class Recent(NamedTuple):
    """Changes of hosts since `since_ns`, oldest first, and which users hold more or fewer GPUs than then."""

    since_ns: int
    noticed: tuple[Noticed, ...]
    users: tuple[Change, ...]


NOTHING_NOTICED: Final = Recent(0, (), ())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All hosts in their order. `changed` is, for each host id, the sequence number at which it last changed."""

    sequence: int
    hosts: tuple[Host, ...]
    changed: Mapping[str, int]
    order_changed: int
    data_ns: int | None
    position: str = ""
    """Where in the log its data ends, at least (positions.py)."""
    alerts: tuple[OpenAlert, ...] = ()
    """Those that are open."""
    xids: tuple[HostEvent, ...] = ()
    """The newest XIDs of GPUs, as many as were read."""
    today: tuple[UserDay, ...] = ()
    """GPU time of each user since the day began, the most first."""
    recent: Recent = NOTHING_NOTICED
    """What changed in the last minutes (recent.py)."""

    def by_name(self, name: str) -> Host | None:
        return next((host for host in self.hosts if host.name == name), None)
