"""The use of GPUs in a stretch of time from chunks of samples, column by column: what usage.py adds up sample by sample. [S]

Samples of a chunk that tell the same but for how busy the GPUs were (the same GPUs, the same processes of the same users) are
added up together. Where a sample stands for the time since the one before it, because its sender does not say how often it
samples, the order counts and this is not for them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final, TypeAlias

from dimint.consumers.chunk import Path
from dimint.consumers.opened import OpenedChunk
from dimint.consumers.past import stated_interval_ns
from dimint.consumers.rows import StoredSample
from dimint.consumers.usage import READ, SHARINGS, Held, Use, Used, add_use, held_by, percent_of, span_us, use_of
from dimint.consumers.wanted import Wanted

__all__ = ["use_of_chunks"]

_SAMPLE: Final = 5
"""Where a sample stands in a sealed row (consumers/rows.py)."""
_TELLING: Final = frozenset(("i", "u", "parent", "st", "g", "user", "uid"))
"""What says who is on which GPU."""
_PLAIN: Final = frozenset((int, type(None)))
_BUSY: Final = frozenset(("util_pct", "sm_pct"))

_OF_ALIKE: Final = Wanted({**READ.keys, "proc": dict.fromkeys(("g", "user", "uid"))})
"""What is read of a sample for all that are alike: memory decides only between several users of a GPU."""

_Columns: TypeAlias = Mapping[Path, Sequence[Any]]


def use_of_chunks(
    chunks: Iterable[OpenedChunk], singles: Iterable[StoredSample], from_ns: int, to_ns: int
) -> tuple[int, dict[str, Used]] | None:
    """(known µs, use per user) of the samples with from_ns ≤ time < to_ns; None if the time that one stands for is not stated."""
    known_us, users = 0, dict[str, Used]()
    for stored in singles:
        if from_ns <= stored.time_ns < to_ns:
            if stated_interval_ns(stored.sample) is None:
                return None
            known_us += add_use(users, use_of(stored.sample, span_us(stored.sample, None)))
    for chunk in chunks:
        for use in _uses_in(chunk, from_ns, to_ns):
            if use is None:
                return None
            known_us += add_use(users, use)
    return known_us, users


def _uses_in(chunk: OpenedChunk, from_ns: int, to_ns: int) -> Iterator[Use | None]:
    """The use in each group of alike samples of a chunk; None for one that does not state its interval."""
    columns = chunk.numbers(_is_read)
    times = columns[(0,)]
    steady = chunk.steady(_is_read)
    moving: list[Iterable[Any]] = [map(chunk.kind, range(len(times)))]
    mixed: set[Path] = set()
    """Where what is equal need not be the same: True, 1 and 1.0 are of several types."""
    for path in columns.keys() - steady:
        column = columns[path]
        if not _PLAIN.issuperset(map(type, column)):
            mixed.add(path)
        if len(path) > 1 and path[-1] not in _BUSY:
            moving += [column, map(type, column)] if path in mixed else [column]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, (time_ns, key) in enumerate(zip(times, zip(*moving, strict=True), strict=True)):
        if from_ns <= time_ns < to_ns:
            groups.setdefault(key, []).append(row)
    for rows in groups.values():
        sample = chunk.value(rows[0], _OF_ALIKE)[_SAMPLE]
        held = held_by(sample)
        if stated_interval_ns(sample) is None:
            yield None
        elif chunk.kind(rows[0]) is None or any(len(users) > 1 for users in held.users.values()):
            for row in rows:
                sample = chunk.value(row, READ)[_SAMPLE]
                yield use_of(sample, span_us(sample, None))
        else:
            yield _use_of_rows(sample, held, columns, mixed, rows)


def _use_of_rows(sample: Mapping[str, Any], held: Held, columns: _Columns, mixed: Set[Path], rows: Sequence[int]) -> Use:
    """The use of samples that are alike; the first of them is `sample`. No GPU has several users: he holds all of it."""
    weight_us = span_us(sample, None)
    users: dict[str, Used] = {}
    nothing = [None] * len(columns[(0,)])
    for place, mine in held.users.items():
        ((user, processes),) = mine.items()
        at = next(at for at, gpu in enumerate(sample["gpu"]) if gpu is held.known[place])
        paths = [(_SAMPLE, "gpu", at, "util_pct"), *((_SAMPLE, "proc", process, "sm_pct") for process in processes)]
        read = [columns.get(path, nothing) for path in paths]
        active_us = unknown_us = 0
        if len(read) == 2 and mixed.isdisjoint(paths):  # as mostly: percent_of of two integers, or None
            utils, shares = read
            for row in rows:
                busy = shares[row]
                if busy is None or not 0 <= busy <= 100:
                    busy = utils[row]
                if busy is None or not 0 <= busy <= 100:
                    unknown_us += weight_us
                else:
                    active_us += weight_us * busy // 100
        else:
            for row in rows:
                busy = percent_of([column[row] for column in read[1:]], read[0][row])
                if busy is None:
                    unknown_us += weight_us
                else:
                    active_us += weight_us * busy // 100
        used = users.setdefault(user, [0] * 3 * len(SHARINGS))
        for sharing in range(len(SHARINGS)):
            used[3 * sharing] += weight_us * len(rows)
            used[3 * sharing + 1] += active_us
            used[3 * sharing + 2] += unknown_us
    return Use(held.gpus, len(held.known) * weight_us * len(rows), users)


def _is_read(path: Path) -> bool:
    """Whether a leaf of a sealed row is its time, its interval, who is on which GPU, or how busy that is."""
    if len(path) == 4 and path[0] == _SAMPLE:
        return path[1] in ("gpu", "proc") and (path[3] in _TELLING or path[3] in _BUSY)
    return path in ((0,), (_SAMPLE, "int_ms"))
