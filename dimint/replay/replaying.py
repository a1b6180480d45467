"""A stretch of a log into another log, at the pace it had, at another one, or as fast as it goes."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from dimint.log.port import Log, TopicPartition
from dimint.log.reading import DEAD_REASONS, Counted
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.copying import Copier, Incoming, find_genesis_row, prepare, row_of
from dimint.replay.counting import Count, count_events
from dimint.replay.pacing import Pacer
from dimint.replay.positions import Range
from dimint.replay.ranges import next_time
from dimint.replay.stream import Stream

__all__ = ["Replayed", "incoming_of", "plan_replay", "replay"]


class Replayed(NamedTuple):
    """What was copied, and what was passed over."""

    batches: int
    events: int
    repeated: int
    dead_letters: int


def incoming_of(source: Log, ranges: Sequence[Range]) -> Incoming:
    """Ranges of a log, for a target to judge."""
    first_ns = {}
    for each in ranges:
        found = next_time(source, each.place, each.start, each.start if each.end is None else each.end)
        if found is not None:
            first_ns[each.place] = found[1]
    starts = {each.place: each.start for each in ranges}

    def batches_before(place: TopicPartition, offset: int) -> int:
        return sum(count.batches for count in count_events(source, [Range(*place, starts[place], offset)]).values())

    return Incoming(source.describe().generation, find_genesis_row(source), ranges, first_ns, batches_before)


def plan_replay(source: Log, ranges: Sequence[Range], target: Log | None) -> dict[Range, Count]:
    """What `replay` would copy: the rest of each range, counted. A target of None is one that is not there yet.

    Writes nothing. Raises what `replay` raises before it writes anything.
    """
    if target is not None:
        start = prepare(target, incoming_of(source, ranges), dry=True).start
        ranges = [each._replace(start=start[each.place]) for each in ranges]
    return count_events(source, ranges)


def replay(
    source: Log, ranges: Sequence[Range], target: Log, *, speed: float | None = None, progress: Progress = NO_PROGRESS
) -> Replayed:
    """Copy ranges into another log; what it has of them from an earlier call is left out.

    The same event ids, log times and order within partitions; over partitions the order of log times. With a `speed` a
    batch is handed over when its log time says so, counted from the first one; a target that is too slow is never waited
    for twice. Raises LogMismatch if the target is not one that this can go into, before anything is written.
    """
    start = prepare(target, incoming_of(source, ranges)).start
    copier = Copier(target, source.describe().generation)
    pacer = Pacer(speed)
    with Stream(source, [each._replace(start=start[each.place]) for each in ranges]) as stream:
        total = stream.left()
        counts = stream.counts
        began_s: float | None = None
        try:
            for number, item in enumerate(stream.history()):
                if not isinstance(item.taken, Counted):
                    continue
                row = row_of(item)
                due_s = pacer.due_s(row.logged_at_ns)
                if began_s is not None:
                    _wait(copier, began_s + due_s)
                copier.put(row)
                if began_s is None and speed is not None:
                    copier.flush()  # ways are opened for the first one: time counts from when it has arrived
                    began_s = time.monotonic()
                if speed is not None or number % 256 == 0:
                    progress.at(total - stream.left(), total, counts["events"])
            copier.flush()
        finally:
            progress.end(total - stream.left(), total, counts["events"])
    dead = sum(counts[reason] for reason in DEAD_REASONS)
    return Replayed(counts["batches"], counts["events"], counts["repeated"], dead)


def _wait(copier: Copier, due_s: float) -> None:
    """Look after what is under way until then."""
    if due_s <= time.monotonic():
        return
    copier.settle(due_s - time.monotonic())
    left_s = due_s - time.monotonic()
    if left_s > 0:
        time.sleep(left_s)
