"""Samples of one host, summed up a minute and an hour at a time. [S]

A *series* is one number of the host or of one of its GPUs over time. For every slot of a tier (a minute, an hour; whole
multiples since 1970, UTC) a series has

    [min, max, sum, count, last, last_at]     last_at: ns since the slot's start

All are integers, and putting two of them together gives what their samples together give, in any order: so late samples
land in their place, and a repeated one, which is never stored, changes nothing. Hours are made of minutes.

    of the host  cpu_pm ‰ · load_m load × 1000 · mem_used, swap_used bytes · net/IF/rx, net/IF/tx byte counters
                 procs processes on its GPUs, where they are known · user/NAME bytes of all GPUs that a user's processes hold
                 late_ms from when it was taken to when it came, of samples that nobody saw at their time (past.py) alone
    of a GPU     util_pct, mutil_pct % · mem_used bytes · p_mW · t_mC · sm_MHz · e_mJ counter
    (by UUID)

A user who is gone has no number: his mean over a slot is his sum by the count of `procs`.
For a counter `sum` is 0: its rate is the difference of `last` between slots (`rates`).

A *block* is SLOTS slots of a tier as one chunk (consumers/chunk.py) of [slot, {GPU's UUID or "": {series: summed up}}].
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from dimint.consumers import chunk
from dimint.consumers.intervals import user_of
from dimint.consumers.past import is_backfilled
from dimint.consumers.rows import StoredSample
from dimint.errors import CorruptRecord
from dimint.limits import GPUS_MAX, PROCESS_NAME_MAX_CHARS, PROCESSES_MAX

__all__ = ["HOUR_NS", "MINUTE_NS", "SLOTS", "TIERS", "Slot", "Slots", "Summed", "block_of", "coarser", "merge", "pack_block",
           "rates", "sum_up", "unpack_block"]  # fmt: skip

MINUTE_NS: Final = 60_000_000_000
HOUR_NS: Final = 60 * MINUTE_NS
TIERS: Final = (MINUTE_NS, HOUR_NS)
"""Lengths of a slot, finest first."""
SLOTS: Final = 120
"""Slots of a block: two hours of minutes, five days of hours."""
_NETS_MAX: Final = 16
_USERS_MAX: Final = 16
"""Users of one sample, those with the most memory."""
_VALUE_MAX: Final = 1 << 62
_SUM_MAX: Final = (1 << 63) - 1
_GPU_SERIES: Final = ("util_pct", "mutil_pct", "mem_used", "p_mW", "t_mC", "sm_MHz", "e_mJ")
_COUNTERS: Final = frozenset({"e_mJ"})

Summed: TypeAlias = list[int]
"""[min, max, sum, count, last, last_at] of one series in one slot."""
Slot: TypeAlias = dict[str, dict[str, Summed]]
"""GPU's UUID ("" = the host) → series → summed up."""
Slots: TypeAlias = dict[int, Slot]
"""Number of the slot (time // length) → slot."""


class _Series(NamedTuple):
    values: list[int]
    last_at: list[int]


def sum_up(samples: Iterable[StoredSample], length_ns: int) -> Slots:
    """The slots of samples in the order of their times."""
    slots: Slots = {}
    number: int | None = None
    open_: dict[tuple[str, str], _Series] = {}
    for stored in samples:
        slot, at = divmod(stored.time_ns, length_ns)
        if slot != number:
            if number is not None:
                _put(slots, number, _close(open_))
            number, open_ = slot, {}
        for key, value in _numbers(stored):
            if (series := open_.get(key)) is None:
                open_[key] = _Series([value], [at])
            else:
                series.values.append(value)
                series.last_at[0] = at
    if number is not None:
        _put(slots, number, _close(open_))
    return slots


def merge(into: Slots, more: Slots) -> Slots:
    """`into` with `more` added; `into` is changed and given back, `more` is let go."""
    for number, slot in more.items():
        _put(into, number, slot)
    return into


def coarser(slots: Slots, length_ns: int, to_ns: int) -> Slots:
    """Slots of one length put together to a multiple of it."""
    times = to_ns // length_ns
    out: Slots = {}
    for number in sorted(slots):
        whole, part = divmod(number, times)
        shift = part * length_ns
        there = out.setdefault(whole, {})
        for gpu, series in slots[number].items():
            known = there.setdefault(gpu, {})
            for name, more in series.items():
                old = known.get(name)
                if old is None:
                    known[name] = [*more[:5], more[5] + shift]
                    continue
                # in place and by hand: a day of minutes of 8 GPUs passes here as 80,000 lists
                if more[0] < old[0]:
                    old[0] = more[0]
                if more[1] > old[1]:
                    old[1] = more[1]
                old[2] = _bounded(old[2] + more[2])
                old[3] += more[3]
                old[4], old[5] = more[4], more[5] + shift
    return out


def rates(slots: Slots, length_ns: int, gpu: str, series: str) -> Iterator[tuple[int, float]]:
    """(slot, increase a second) of a counter, from each slot's last value to the next one's; a counter that fell restarted."""
    before: tuple[int, int] | None = None
    for number in sorted(slots):
        summed = slots[number].get(gpu, {}).get(series)
        if summed is None:
            continue
        at, value = number * length_ns + summed[5], summed[4]
        if before is not None and value >= before[1] and at > before[0]:
            yield number, (value - before[1]) * 1e9 / (at - before[0])
        before = at, value


# --- blocks ---------------------------------------------------------------------------------------------------------
def block_of(slot: int) -> int:
    """The number of the block that a slot stands in."""
    return slot // SLOTS


def pack_block(slots: Mapping[int, Slot]) -> bytes:
    """The blob of a block."""
    return chunk.encode([[number, slots[number]] for number in sorted(slots)])


def unpack_block(blob: bytes) -> Slots:
    """The slots of a block. Raises CorruptRecord."""
    try:
        return dict(chunk.decode(blob))
    except (ValueError, TypeError) as error:
        raise CorruptRecord(f"a block of a tier is damaged: {error}", hint="rebuild the status tables") from error


# --- inside ---------------------------------------------------------------------------------------------------------
def _close(series: Mapping[tuple[str, str], _Series]) -> Slot:
    slot: Slot = {}
    for (gpu, name), (values, last_at) in series.items():
        total = 0 if _is_counter(name) else sum(values)
        slot.setdefault(gpu, {})[name] = [min(values), max(values), _bounded(total), len(values), values[-1], last_at[0]]
    return slot


def _put(into: Slots, number: int, slot: Slot) -> None:
    there = into.get(number)
    if there is None:
        into[number] = slot
        return
    for gpu, series in slot.items():
        known = there.setdefault(gpu, {})
        for name, more in series.items():
            old = known.get(name)
            known[name] = more if old is None else _merged(old, more)


def _merged(old: Sequence[int], more: Sequence[int]) -> Summed:
    last = more if more[5] >= old[5] else old
    return [min(old[0], more[0]), max(old[1], more[1]), _bounded(old[2] + more[2]), old[3] + more[3], last[4], last[5]]


def _bounded(total: int) -> int:
    """What a made-up number may add up to still has to be stored."""
    return max(-_SUM_MAX, min(total, _SUM_MAX))


def _is_counter(name: str) -> bool:
    return name in _COUNTERS or name.startswith("net/")


def _numbers(stored: StoredSample) -> Iterator[tuple[tuple[str, str], int]]:
    """Every series' number in a sample; what is not available or no number is left out."""
    sample = stored.sample
    if is_backfilled(stored):
        yield ("", "late_ms"), (stored.received_ns - stored.time_ns) // 1_000_000
    for name, value in _of_host(sample):
        if type(value) is int and -_VALUE_MAX < value < _VALUE_MAX:
            yield ("", name), value
    gpus = sample.get("gpu")
    for gpu in gpus[:GPUS_MAX] if type(gpus) is list else ():
        if type(gpu) is not dict or type(uuid := gpu.get("u")) is not str or not uuid:
            continue
        uuid = uuid[:PROCESS_NAME_MAX_CHARS]
        for name in _GPU_SERIES:
            value = gpu.get(name)
            if type(value) is int and -_VALUE_MAX < value < _VALUE_MAX:
                yield (uuid, name), value


def _of_host(sample: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    cpu, memory, nets = sample.get("cpu"), sample.get("mem"), sample.get("net")
    if type(cpu) is dict:
        yield "cpu_pm", cpu.get("tot_pm")
        load = cpu.get("load")
        if type(load) is list and load and type(load[0]) in (int, float) and abs(load[0]) < 1e9:
            yield "load_m", round(load[0] * 1000)
    if type(memory) is dict:
        yield "mem_used", memory.get("used")
        yield "swap_used", memory.get("swap_used")
    for net in nets[:_NETS_MAX] if type(nets) is list else ():
        if type(net) is dict and type(name := net.get("if")) is str:
            name = name[:PROCESS_NAME_MAX_CHARS]
            yield f"net/{name}/rx", net.get("rx")
            yield f"net/{name}/tx", net.get("tx")
    yield from _of_users(sample.get("proc"))


def _of_users(processes: object) -> Iterator[tuple[str, int]]:
    if type(processes) is not list:
        return
    known = [one for one in processes[:PROCESSES_MAX] if type(one) is dict and type(one.get("g")) is int]
    held: dict[str, int] = {}
    for process in known:
        user, memory = user_of(process), process.get("mem")
        held[user] = held.get(user, 0) + (memory if type(memory) is int and 0 <= memory < _VALUE_MAX else 0)
    yield "procs", len(known)
    for user in sorted(held, key=lambda user: (-held[user], user))[:_USERS_MAX]:
        yield f"user/{user}", held[user]
