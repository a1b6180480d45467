"""Questions to a table file about long ranges: series of numbers, and processes on GPUs."""

from bisect import bisect_left, bisect_right
from typing import Any, Final, NamedTuple

import apsw

from dimint.consumers.chunk import Path
from dimint.consumers.intervals import Interval, joined, processes_of
from dimint.consumers.opened import OpenedChunk
from dimint.consumers.reading_host import LAST_NS, HostSamples
from dimint.consumers.reading_joined import JoinedSamples, parts_of
from dimint.consumers.tables_summaries import INTERVAL_COLUMNS, interval_of
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, SLOTS, Slots, block_of, coarser, merge, sum_up, unpack_block

__all__ = ["RAW_RANGE_MAX_NS", "Busy", "Series", "busy", "processes", "series"]

RAW_RANGE_MAX_NS: Final = 2 * HOUR_NS
"""Ranges longer than this are answered from the tiers, however many points are wanted."""
MINUTES_RANGE_MAX_NS: Final = 48 * HOUR_NS
"""Ranges longer than this are answered from hours: two days of minutes are half a second's work already."""
_SECOND_NS: Final = 1_000_000_000
_OVERLAPPING: Final = "from processes where host = ? and end_ns >= ? and start_ns <= ? order by start_ns, gpu, pid limit ?"


class Series(NamedTuple):
    """Summed-up samples (consumers/tiers.py): slot number → GPU → series, each slot `length_ns` long.

    `tier_ns` says what they were made of: 0 single samples, else the tier's length.
    """

    length_ns: int
    tier_ns: int
    slots: Slots


class Busy(NamedTuple):
    """How busy a host's GPUs were, slot by slot of a tier (UUID → number of the slot → (sum of %, samples)), and who was on them.

    `holders` are (UUID, user, start, end) in ns, by their start. The newest samples are in no tier yet.
    """

    gpus: dict[str, dict[int, tuple[int, int]]]
    holders: list[tuple[str, str, int, int]]


_SUM, _COUNT = 2, 3
_BLOCKS: Final = "select blob from tiers where host = ? and length_ns = ? and block between ? and ?"
_HOLDERS: Final = "select gpu, user, start_ns, end_ns from processes where host = ? and end_ns >= ? and start_ns <= ?"


def _is_utilisation(path: Path) -> bool:
    """Whether a leaf of a block is a slot's number, or the sum or the count of a GPU's utilisation."""
    return path == (0,) or (len(path) == 4 and path[2] == "util_pct" and path[3] in (_SUM, _COUNT))


def busy(db: apsw.Connection, host: str, from_ns: int, to_ns: int, tier_ns: int) -> Busy:
    """Of one host and the closed range; of a block of a tier only this is read. Inside the caller's transaction."""
    from_ns, to_ns = max(0, min(from_ns, LAST_NS)), max(0, min(to_ns, LAST_NS))
    first, last = from_ns // tier_ns, to_ns // tier_ns
    gpus: dict[str, dict[int, tuple[int, int]]] = {}
    holders: list[tuple[str, str, int, int]] = []
    for part in parts_of(db, host):
        for (blob,) in list(db.execute(_BLOCKS, (part, tier_ns, block_of(first), block_of(last)))):
            leaves = OpenedChunk(blob).numbers(_is_utilisation)
            numbers = leaves.pop((0,))
            inside = slice(bisect_left(numbers, first), bisect_right(numbers, last))
            for path, sums in leaves.items():
                if path[3] == _SUM:
                    of_slot = zip(numbers[inside], zip(sums[inside], leaves[*path[:3], _COUNT][inside], strict=True), strict=True)
                    gpus.setdefault(path[1], {}).update([(number, known) for number, known in of_slot if known[1]])
        holders += db.execute(_HOLDERS, (part, from_ns, to_ns))
    return Busy(gpus, sorted(holders, key=lambda holder: holder[2]))


def series(db: apsw.Connection, host: str, from_ns: int, to_ns: int, points: int) -> Series:
    """About `points` slots of the closed range, in the finest tier that it takes. Inside the caller's transaction."""
    from_ns, to_ns = max(0, min(from_ns, LAST_NS)), max(0, min(to_ns, LAST_NS))
    if to_ns < from_ns:
        return Series(MINUTE_NS, MINUTE_NS, {})
    step_ns = max(1, -(-(to_ns - from_ns) // max(1, points)))
    if to_ns - from_ns > RAW_RANGE_MAX_NS:
        step_ns = max(step_ns, HOUR_NS if to_ns - from_ns > MINUTES_RANGE_MAX_NS else MINUTE_NS)
    parts = parts_of(db, host)
    tier_ns = max(_finest(db, part, from_ns, step_ns) for part in parts)
    unit_ns = tier_ns or _SECOND_NS
    length_ns = -(-step_ns // unit_ns) * unit_ns
    start_ns, end_ns = _whole(from_ns, to_ns, length_ns)
    table = JoinedSamples(db, parts)
    if not tier_ns:
        return Series(length_ns, 0, sum_up((stored for _, stored in table.up(start_ns, end_ns, -1)), length_ns))
    slots: Slots = {}
    first, last = start_ns // tier_ns, end_ns // tier_ns
    for part in parts:
        for (blob,) in db.execute(_BLOCKS, (part, tier_ns, block_of(first), block_of(last))):
            merge(slots, {number: slot for number, slot in unpack_block(blob).items() if first <= number <= last})
    merge(slots, sum_up((stored for _, stored in table.single(start_ns, end_ns)), tier_ns))
    return Series(length_ns, tier_ns, slots if length_ns == tier_ns else coarser(slots, tier_ns, length_ns))


def processes(db: apsw.Connection, host: str, from_ns: int, to_ns: int, limit: int) -> list[Interval]:
    """The intervals of processes of one host that overlap the closed range, by their start: the first `limit`."""
    from_ns, to_ns = max(0, min(from_ns, LAST_NS)), max(0, min(to_ns, LAST_NS))
    parts = parts_of(db, host)
    fresh = processes_of(stored for _, stored in JoinedSamples(db, parts).single(0, LAST_NS))
    reach_ns = max((interval.reach_ns for interval in fresh), default=0)
    sql = f"select {INTERVAL_COLUMNS} {_OVERLAPPING}"
    rows: list[tuple[Any, ...]] = [row for part in parts for row in db.execute(sql, (part, from_ns - reach_ns, to_ns, limit))]
    found = joined([*map(interval_of, rows), *fresh])
    inside = [interval for interval in found if interval.end_ns >= from_ns and interval.start_ns <= to_ns]
    return sorted(inside, key=lambda interval: (interval.start_ns, interval.key))[:limit]


def _finest(db: apsw.Connection, host: str, from_ns: int, step_ns: int) -> int:
    """The finest tier (0 = single samples) for such steps that still has the start of the range."""
    first_ns = db.execute("select first_ns from latest where id = ?", (host,)).get
    if step_ns < MINUTE_NS:
        oldest = HostSamples(db, host).next_time(0)
        if oldest is None or first_ns == oldest or from_ns >= oldest:
            return 0
    if step_ns < HOUR_NS:
        block = db.execute("select min(block) from tiers where host = ? and length_ns = ?", (host, MINUTE_NS)).get
        oldest = first_ns if block is None else block * SLOTS * MINUTE_NS
        if first_ns is None or first_ns >= oldest or from_ns >= oldest:
            return MINUTE_NS
    return HOUR_NS


def _whole(from_ns: int, to_ns: int, length_ns: int) -> tuple[int, int]:
    """The closed range of whole slots around a closed range."""
    return from_ns // length_ns * length_ns, (to_ns // length_ns + 1) * length_ns - 1
