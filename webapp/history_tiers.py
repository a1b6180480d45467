"""A host's past of any length from samples summed up by minute or hour, and from the times of processes. [S]"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from dimint.consumers.intervals import Interval
from dimint.consumers.past import GAP_INTERVALS
from dimint.consumers.tiers import Slot, Slots, Summed, rates
from dimint.webapp.history import Come, History, Series, late_stretches, top_users

__all__ = ["history_of_slots", "network_of"]

_MIB: Final = 1 << 20
_NETS_MAX: Final = 4
"""Lines of the network's chart: the two busiest interfaces, in and out."""
_USER: Final = "user/"
_SUM, _COUNT, _LAST_AT = 2, 3, 5
_BRIDGED_STEPS: Final = 12
_COME_NS: Final = 5 * 60_000_000_000
"""Processes of one user that begin or end this close together are one coming or leaving."""


def history_of_slots(
    slots: Slots,
    length_ns: int,
    from_ns: int,
    to_ns: int,
    *,
    names: Mapping[str, str],
    memory_total: int | None,
    gpus_total_mib: int,
    processes: Sequence[Interval],
    made_of: int,
) -> History:
    """Whole slots around the range. `names` are those of the GPUs by UUID; one that is not among them was there earlier."""
    first, last = from_ns // length_ns, to_ns // length_ns
    numbers = range(first, last + 1)
    uuids = sorted({uuid for slot in slots.values() for uuid in slot if uuid}, key=lambda uuid: (names.get(uuid, "~"), uuid))

    def series(name: str, uuid: str, key: str, scale: Callable[[float], int]) -> Series:
        found = [slots.get(number, {}).get(uuid, {}).get(key) for number in numbers]
        return _series(name, found, scale)

    def by_gpu(key: str, scale: Callable[[float], int]) -> tuple[Series, ...]:
        return tuple(series(names.get(uuid, f"GPU {uuid[:12]}"), uuid, key, scale) for uuid in uuids)

    host = [series("CPU", "", "cpu_pm", lambda value: round(value / 10))]
    if memory_total:
        host.append(series("RAM", "", "mem_used", lambda value: round(value * 100 / memory_total)))
    return History(
        from_ns=first * length_ns,
        step_ns=length_ns,
        steps=len(numbers),
        util=by_gpu("util_pct", round),
        memory=top_users([_held(slots.get(number)) for number in numbers]),
        memory_total_mib=gpus_total_mib,
        power=by_gpu("p_mW", _from_milli),
        temperature=by_gpu("t_mC", _from_milli),
        clock=by_gpu("sm_MHz", round),
        host=tuple(host),
        network=network_of(slots, length_ns, first, len(numbers)),
        users=_comings(processes, from_ns, to_ns, names),
        made_of=made_of,
        backfilled=late_stretches(_late(slots, length_ns), GAP_INTERVALS * length_ns),
    )


def network_of(slots: Slots, length_ns: int, first: int, steps: int) -> tuple[Series, ...]:
    """What the busiest interfaces took in and gave out, KiB/s, in each of `steps` slots from number `first` on."""
    counters = sorted({key for slot in slots.values() for key in slot.get("", {}) if key.startswith("net/")})
    found = []
    for key in counters:
        rate: dict[int, int] = {}
        for number, value in rates(slots, length_ns, "", key):
            # a rate is of the time since the slot before: of every step in between, if there are not too many
            between = [at for at in range(max(rate, default=number - first) + 1, number - first) if at >= 0]
            rate |= dict.fromkeys([*(between if len(between) <= _BRIDGED_STEPS else ()), number - first], round(value / 1024))
        _, _, rest = key.partition("/")
        name, _, way = rest.rpartition("/")
        values = tuple(rate.get(at) for at in range(steps))
        found.append((-sum(rate.values()), Series(f"{name} {'in' if way == 'rx' else 'out'}", values)))
    return tuple(series for _, series in sorted(found)[:_NETS_MAX] if any(value is not None for value in series.values))


def _late(slots: Slots, length_ns: int) -> Iterator[tuple[int, int, bool]]:
    """Each slot from its start to its last sample that came late; without one, its start and False."""
    for number in sorted(slots):
        late = slots[number].get("", {}).get("late_ms")
        first_ns = number * length_ns
        yield first_ns, first_ns + (late[_LAST_AT] if late else 0), late is not None


def _from_milli(value: float) -> int:
    return round(value / 1000)


def _series(name: str, found: Sequence[Summed | None], scale: Callable[[float], int]) -> Series:
    values = tuple(None if one is None else scale(one[2] / one[3]) for one in found)
    low = tuple(None if one is None else scale(one[0]) for one in found)
    high = tuple(None if one is None else scale(one[1]) for one in found)
    return Series(name, values) if low == high else Series(name, values, low, high)


def _held(slot: Slot | None) -> dict[str, int] | None:
    """The memory, MiB, that each user held on average over a slot; None where nothing is known of it."""
    if not slot:
        return None
    series = slot.get("", {})
    samples = series["procs"][_COUNT] if "procs" in series else 0
    names = [name for name in series if name.startswith(_USER) and samples]
    return {name.removeprefix(_USER): series[name][_SUM] // samples // _MIB for name in names}


def _comings(processes: Iterable[Interval], from_ns: int, to_ns: int, names: Mapping[str, str]) -> tuple[Come, ...]:
    """Who came to which GPUs and left them, from when a user's first process on a GPU is there to when the last one is gone."""
    stays: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for process in sorted(processes, key=lambda one: one.start_ns):
        mine = stays.setdefault((process.user, process.gpu), [])
        if mine and process.start_ns <= mine[-1][1] + _COME_NS:
            mine[-1] = mine[-1][0], max(mine[-1][1], process.end_ns)
        else:
            mine.append((process.start_ns, process.end_ns))
    moved: dict[tuple[int, str, bool], list[int]] = {}
    for (user, uuid), times in stays.items():
        index = names.get(uuid, "").removeprefix("GPU ")
        for begin, end in times:
            for at, came in ((begin, True), (end, False)):
                if user and index.isdigit() and from_ns < at < to_ns - _COME_NS * (not came):
                    moved.setdefault((at // _COME_NS, user, came), [at]).append(int(index))
    found = [Come(gpus[0], user, came, tuple(sorted(set(gpus[1:])))) for (_, user, came), gpus in moved.items()]
    return tuple(sorted(found))
