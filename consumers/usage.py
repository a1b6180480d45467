"""What one sample says about the use of GPUs: who held them, how busy they were, what is not known. [S]

A sample stands for one interval of its sender's sampling (`int_ms`), or, where the sender does not tell it, for the time
since the host's last sample, at most a minute. So every sum over samples is the same in whatever order they came, what was
never sampled is never use, and a process's start and end are each known to one interval.

    held      a process of the user was on the GPU
    active    of this the part in which the GPU worked for him: the SM % of his processes where the driver tells them, else
              the GPU's own utilisation × his share; never more than held
    unknown   held, but neither of the two is known
    wasted    held − active − unknown

When several users are on one GPU the *sharing rule* decides what each of them held:

    full      all of it, each of them: sums may exceed the GPU's time
    equal     one part of as many as there are users
    memory    by the memory of their processes; equal where that is not known

GPUs that have MIG instances count through these. A GPU whose state is not `ok` or `suspended`, or whose processes could
not be read, is unknown for that interval.
"""

from collections.abc import Iterable, Mapping
from operator import add, itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from dimint.consumers.intervals import gpus_of, user_of
from dimint.consumers.past import INTERVAL_NS, stated_interval_ns
from dimint.consumers.rows import Placed
from dimint.consumers.wanted import Wanted
from dimint.limits import GPUS_MAX, PROCESSES_MAX

__all__ = [
    "CAP_US", "HOUR_US", "READ", "SHARINGS", "Held", "Use", "Used", "add_use", "held_by", "percent_of", "span_us", "use_between",
    "use_of",
]  # fmt: skip

SHARINGS: Final = ("full", "equal", "memory")
HOUR_US: Final = 3_600_000_000
CAP_US: Final = GPUS_MAX * HOUR_US
"""All that a host can be used in an hour, whatever intervals its samples claim."""

READ: Final = Wanted({
    "int_ms": None, "procs_err": None, "gpu": dict.fromkeys(("i", "u", "parent", "st", "util_pct")),
    "proc": dict.fromkeys(("g", "user", "uid", "mem", "sm_pct")),
})  # fmt: skip
"""What is read of a sample here."""

Used: TypeAlias = list[int]
"""µs of GPU time: held, active, unknown for each of SHARINGS in turn."""


class Use(NamedTuple):
    """`known_us` is the time of all GPUs whose processes are known; `gpus` is how many there are, known or not."""

    gpus: int
    known_us: int
    users: dict[str, Used]


_MEMORY_MAX: Final = 1 << 62


class Held(NamedTuple):
    """Who is on the GPUs of a sample. `gpus` is how many there are, `known` has those whose processes are known, by place.

    `users` has for each place and user the places of his processes in the sample's list.
    """

    gpus: int
    known: dict[int, dict[str, Any]]
    users: dict[int, dict[str, list[int]]]


def _sum(parts: Iterable[object], most: int) -> int | None:
    """Numbers from 0 to `most` added up, no further than that; None if one of them is not known."""
    total = 0
    for part in parts:
        if type(part) is not int or not 0 <= part <= most:
            return None
        total += part
    return min(total, most)


def percent_of(shares: Iterable[object], util_pct: object) -> int | None:
    """How busy a GPU was for a user: the SM % of his processes, else its own utilisation; None if neither is known."""
    found = _sum(shares, 100)
    return found if found is not None else _sum((util_pct,), 100)


def span_us(sample: Mapping[str, Any], since_last_ns: int | None) -> int:
    """The time that a sample stands for; `since_last_ns` is how much later it was taken than the newest before it."""
    stated = stated_interval_ns(sample)
    if stated is None:
        stated = 0 if since_last_ns is None else max(0, min(since_last_ns, INTERVAL_NS))
    return min(stated // 1000, HOUR_US)


def use_between(placed: Iterable[Placed], from_ns: int, to_ns: int, *, began: bool) -> tuple[int, dict[str, Used]]:
    """(known µs, use per user) of the samples with from_ns ≤ time < to_ns.

    `placed` has the samples from INTERVAL_NS before on; `began` says that the host had some before these.
    """
    newest = from_ns - 2 * INTERVAL_NS if began else None
    known_us, users = 0, dict[str, Used]()
    # in the order of the log, as they were added up at first
    for _, (time_ns, _, _, _, sample) in sorted(placed, key=itemgetter(0)):
        weight_us = span_us(sample, None if newest is None else time_ns - newest)
        newest = time_ns if newest is None else max(newest, time_ns)
        if not from_ns <= time_ns < to_ns:
            continue
        known_us += add_use(users, use_of(sample, weight_us))
    return known_us, users


def add_use(users: dict[str, Used], use: Use) -> int:
    """Add a sample's use to the sums of users; its known µs."""
    for user, used in use.users.items():
        before = users.get(user)
        users[user] = used if before is None else list(map(add, before, used))
    return use.known_us


def use_of(sample: Mapping[str, Any], weight_us: int) -> Use:
    """What the sample says for its `weight_us`. Anything of a wrong type is not known."""
    held = held_by(sample)
    users: dict[str, Used] = {}
    for place, mine in held.users.items():
        _share_out(mine, sample["proc"], held.known[place].get("util_pct"), weight_us, users)
    return Use(held.gpus, len(held.known) * weight_us, users)


def held_by(sample: Mapping[str, Any]) -> Held:
    """Who is on which GPU."""
    gpus = gpus_of(sample)
    split = {gpu["parent"] for _, gpu in gpus.values() if type(gpu.get("parent")) is str}
    counted = {place: (uuid, gpu) for place, (uuid, gpu) in gpus.items() if uuid not in split}
    errors, processes = sample.get("procs_err"), sample.get("proc")
    if type(processes) is not list:
        return Held(len(counted), {}, {})
    known = {
        place: gpu
        for place, (uuid, gpu) in counted.items()
        if gpu.get("st", "ok") in ("ok", "suspended") and not (type(errors) is dict and uuid in errors)
    }
    users: dict[int, dict[str, list[int]]] = {}
    for at, process in enumerate(processes[:PROCESSES_MAX]):
        if type(process) is dict and type(place := process.get("g")) is int and place in known:
            users.setdefault(place, {}).setdefault(user_of(process), []).append(at)
    return Held(len(counted), known, users)


def _share_out(
    shares: Mapping[str, list[int]], processes: list[Any], util_pct: object, weight_us: int, users: dict[str, Used]
) -> None:
    equal_us = weight_us // len(shares)
    memories = {user: _sum((processes[at].get("mem") for at in mine), _MEMORY_MAX) for user, mine in shares.items()}
    total = sum(memory or 0 for memory in memories.values())
    by_memory = total > 0 and None not in memories.values()
    for user, mine in shares.items():
        used = users.setdefault(user, [0] * 3 * len(SHARINGS))
        memory_us = weight_us * (memories[user] or 0) // total if by_memory else equal_us
        sm_pct = _sum((processes[at].get("sm_pct") for at in mine), 100)
        util = _sum((util_pct,), 100)
        for at, held_us in enumerate((weight_us, equal_us, memory_us)):
            used[3 * at] += held_us
            if sm_pct is not None:
                used[3 * at + 1] += min(held_us, weight_us * sm_pct // 100)
            elif util is not None:
                used[3 * at + 1] += held_us * util // 100
            else:
                used[3 * at + 2] += held_us
