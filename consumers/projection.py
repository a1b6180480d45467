"""What a projection of the status topic hands to its tables: writes as data, in order. [S]

A projection is fed counted batches (dimint/log/reading.py) and keeps in memory only what it needs to decide. `take` gives
everything since the last `take` as one Changes, which the tables commit together with the position. How batches are split
over commits must not show in the tables: writes of one host are performed in their order, and a Seal depends only on what
was written for its host before.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

__all__ = [
    "Changes",
    "CoveredRow",
    "DropAlert",
    "DropHost",
    "HostFacts",
    "HostLatest",
    "MakeHost",
    "MarkTold",
    "PutAlert",
    "PutEvent",
    "PutGap",
    "PutTail",
    "PutVersion",
    "RunRow",
    "Seal",
    "UsedRow",
    "Write",
]


class PutTail(NamedTuple):
    """Add one sample as a row of its own; `n` is new in the host's table."""

    host: str
    n: int
    time_ns: int
    blob: bytes


class Seal(NamedTuple):
    """Move all but the newest rows of the host's tail into chunks, if there are enough of them, and let go of what is older
    than it is to be kept, counted from the log time `now_ns`: so a rebuild lets go of the same."""

    host: str
    now_ns: int


class PutGap(NamedTuple):
    """Samples that the agent dropped; the same gap again changes nothing."""

    host: str
    run: bytes
    first_seq: int
    last_seq: int
    reason: str
    time_ns: int


class PutEvent(NamedTuple):
    """Something that happened on or to a host. `n` counts what happened to it in log order; `fields` is a msgpack map."""

    host: str
    n: int
    kind: str
    time_ns: int
    received_ns: int
    fields: bytes


class MakeHost(NamedTuple):
    """A host is known from now on: its samples need a table."""

    host: str


class DropHost(NamedTuple):
    """Nothing is kept of a host; it may become known again."""

    host: str


class PutVersion(NamedTuple):
    """What a host said of itself from `since_ns` on, until its next version. `n` counts them in log order."""

    host: str
    n: int
    since_ns: int
    given_name: str
    claimed_ns: int
    ip: str
    facts: bytes
    simulated: bool
    renamed: str


class PutAlert(NamedTuple):
    """An alert is open. One that is open already stays as it is."""

    host: str
    rule: str
    subject: str
    severity: str
    since_ns: int
    raised_ns: int
    text: str


class DropAlert(NamedTuple):
    """An alert is over."""

    host: str
    rule: str
    subject: str


class MarkTold(NamedTuple):
    """People were told that an alert is open."""

    host: str
    rule: str
    subject: str


Write: TypeAlias = MakeHost | DropHost | PutTail | Seal | PutGap | PutEvent | PutVersion | PutAlert | DropAlert | MarkTold


class HostFacts(NamedTuple):
    """What rarely changes of a host. `claimed_ns` is the log time since which it has called itself `given_name`."""

    id: str
    given_name: str
    claimed_ns: int
    ip: str
    facts: bytes
    simulated: bool
    registered_ns: int
    renamed: str = ""
    """What people call it; empty = by its given name."""
    merged_into: str = ""
    """Id of the host that goes on with its history; empty = it stands for itself."""
    merged_ns: int = 0


class HostLatest(NamedTuple):
    """What changes with every sample. `samples` were stored so far; times are None before the first one."""

    id: str
    samples: int
    first_ns: int | None
    last_ns: int | None
    received_ns: int | None


class RunRow(NamedTuple):
    """Numbers seen of one run of a host's agent; `ranges` None = forget the run."""

    host: str
    run: bytes
    used_us: int
    ranges: bytes | None


class UsedRow(NamedTuple):
    """GPU time to be added to what a user used on a host in an hour (consumers/usage.py)."""

    hour: int
    host: str
    user: str
    used: Sequence[int]


class CoveredRow(NamedTuple):
    """GPU time of a host in an hour of which the processes are known, to be added.

    `gpus` is the most that there were, `longest_us` the longest time that one sample stands for.
    """

    hour: int
    host: str
    gpus: int
    known_us: int
    longest_us: int


class Changes(NamedTuple):
    """What one commit has to store: the writes in their order, then the rest; counts and use are to be added."""

    writes: tuple[Write, ...]
    facts: tuple[HostFacts, ...]
    names: Mapping[str, str]
    latest: tuple[HostLatest, ...]
    runs: tuple[RunRow, ...]
    counts: Mapping[str, int]
    used: tuple[UsedRow, ...] = ()
    covered: tuple[CoveredRow, ...] = ()
