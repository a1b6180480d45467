"""Which process was on which GPU from when to when: a fold over samples. [S]

A process of a host is (GPU's UUID, pid, create time). While samples with it are at most GAP_INTERVALS of the host's
intervals apart it was there in between; a longer silence is a gap, where nothing is known, and starts another interval.
The start is the process's own create time, exact where the host tells it and the interval is its first; the end is known
to one interval of the sampling, `sample_interval_ns`. Intervals are kept for ever.

What two sets of samples give can be put together (`join`), so late samples land in their place.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from dimint.consumers.past import GAP_INTERVALS, interval_ns
from dimint.consumers.rows import StoredSample
from dimint.limits import GPUS_MAX, PROCESS_NAME_MAX_CHARS, PROCESSES_MAX

__all__ = ["Interval", "gpus_of", "join", "joined", "processes_of", "user_of"]

_MEMORY_MAX: Final = 1 << 62


class Interval(NamedTuple):
    """One stretch of one process on one GPU, by the host's clock. `start_ns` and `end_ns` are of its first and last sample.

    `gpu_ns` counts one sampling interval a sample; `held_ns` is the time it held the GPU. None is what the host does not tell.
    """

    gpu: str
    pid: int
    created_ms: int | None
    start_ns: int
    end_ns: int
    samples: int
    sample_interval_ns: int
    gpu_ns: int
    peak_memory: int | None
    user: str
    name: str | None
    pod: str | None
    job: str | None

    @property
    def key(self) -> tuple[str, int, int]:
        """Which process on which GPU this is."""
        return self.gpu, self.pid, -1 if self.created_ms is None else self.created_ms

    @property
    def held_ns(self) -> int:
        """Time on the GPU, ± one interval at its end: samples that came more often than was said count once."""
        return min(self.gpu_ns, self.end_ns - self.start_ns + self.sample_interval_ns)

    @property
    def reach_ns(self) -> int:
        """How long after its end another sample still belongs to it."""
        return GAP_INTERVALS * self.sample_interval_ns


def processes_of(samples: Iterable[StoredSample]) -> list[Interval]:
    """The intervals of samples in the order of their times, in the order of (key, start)."""
    found: dict[tuple[str, int, int], list[Interval]] = {}
    for stored in samples:
        for interval in _seen(stored):
            mine = found.setdefault(interval.key, [])
            if mine and (both := join(mine[-1], interval)) is not None:
                mine[-1] = both
            else:
                mine.append(interval)
    return [interval for key in sorted(found) for interval in found[key]]


def joined(intervals: Iterable[Interval]) -> list[Interval]:
    """Intervals of any processes with those that touch put together, in the order of (key, start)."""
    out: list[Interval] = []
    for interval in sorted(intervals, key=lambda entry: (entry.key, entry.start_ns, entry.end_ns)):
        if out and out[-1].key == interval.key and (both := join(out[-1], interval)) is not None:
            out[-1] = both
        else:
            out.append(interval)
    return out


def join(first: Interval, second: Interval) -> Interval | None:
    """Both as one, if there is no gap between them; `first` starts first, both are of one process."""
    interval = max(first.sample_interval_ns, second.sample_interval_ns)
    if second.start_ns - first.end_ns > GAP_INTERVALS * interval:
        return None
    later = second if second.end_ns >= first.end_ns else first
    peaks = [peak for peak in (first.peak_memory, second.peak_memory) if peak is not None]
    return later._replace(
        start_ns=min(first.start_ns, second.start_ns),
        samples=first.samples + second.samples,
        sample_interval_ns=interval,
        gpu_ns=first.gpu_ns + second.gpu_ns,
        peak_memory=max(peaks, default=None),
    )


def gpus_of(sample: Mapping[str, Any]) -> dict[int, tuple[str, dict[str, Any]]]:
    """Place in the sample's list → (UUID, or the place as text where there is none; the GPU's map)."""
    gpus = sample.get("gpu")
    found = {}
    for at, gpu in enumerate(gpus[:GPUS_MAX] if type(gpus) is list else ()):
        if type(gpu) is dict:
            place, uuid = gpu.get("i"), gpu.get("u")
            place = place if type(place) is int else at
            found[place] = (uuid[:PROCESS_NAME_MAX_CHARS] if type(uuid) is str and uuid else f"gpu:{place}"), gpu
    return found


def user_of(process: Mapping[str, Any]) -> str:
    """Whose process it is: the user's name, else the number as `uid 1007`, else `?`."""
    user, uid = process.get("user"), process.get("uid")
    if type(user) is str and user:
        return user[:PROCESS_NAME_MAX_CHARS]
    return f"uid {uid}" if type(uid) is int else "?"


def _seen(stored: StoredSample) -> Iterable[Interval]:
    processes = stored.sample.get("proc")
    if type(processes) is not list or not processes:
        return
    gpus = gpus_of(stored.sample)
    length = interval_ns(stored.sample)
    for process in processes[:PROCESSES_MAX]:
        if type(process) is not dict or type(place := process.get("g")) is not int or place not in gpus:
            continue
        pid = _bounded(process.get("pid"))
        if pid is None:
            continue
        yield Interval(gpus[place][0], pid, _bounded(process.get("t0_ms")), stored.time_ns, stored.time_ns, 1, length, length,
                       _bounded(process.get("mem")), user_of(process), _text(process, "name"), _text(process, "pod"),
                       _text(process, "job"))  # fmt: skip


def _bounded(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MEMORY_MAX else None


def _text(process: Mapping[str, Any], name: str) -> str | None:
    value = process.get(name)
    return value[:PROCESS_NAME_MAX_CHARS] if type(value) is str and value else None
