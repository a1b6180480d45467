"""Counting events by the headers of their batches alone."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dimint.batch import decode_header
from dimint.errors import CorruptRecord, ForeignRecord, LogMismatch, UnknownVersion
from dimint.log.port import Log
from dimint.progress import NO_PROGRESS, Progress
from dimint.replay.positions import Range, format_position
from dimint.replay.stream import look_back

__all__ = ["Count", "count_events"]

_READ_MAX_BYTES = 4 << 20


class Count(NamedTuple):
    """What a range holds: batches and events that count, repeated batches, records that are no batches."""

    batches: int = 0
    events: int = 0
    repeated: int = 0
    dead: int = 0


def count_events(log: Log, ranges: Sequence[Range], *, progress: Progress = NO_PROGRESS) -> dict[Range, Count]:
    """Count each range. The ranges have ends. A batch whose events are malformed or in the wrong partition is
    counted: only its header is read.

    Raises LogMismatch at a record that no reader may pass over, OffsetOutOfRange if the log was trimmed meanwhile.
    """
    total = sum((each.end or 0) - each.start for each in ranges)
    done = events = 0
    found = {}
    for each in ranges:
        counter: Counter[str] = Counter()
        writers, log_time_us = look_back(log, each.place, each.start)
        offset, end = each.start, each.end or 0
        while offset < end:
            records = log.read(*each.place, offset, max_bytes=_READ_MAX_BYTES)
            if not records:
                break
            for record in records:
                if record.offset >= end:
                    break
                try:
                    header = decode_header(record.value)
                except ForeignRecord:
                    counter["dead"] += 1
                    continue
                except (CorruptRecord, UnknownVersion) as error:
                    raise LogMismatch(f"{format_position(*each.place, record.offset)} cannot be read: {error}") from error
                own_ns = record.timestamp_ns if header.logged_at_ns is None else header.logged_at_ns
                log_time_us = max(log_time_us, own_ns // 1000)
                if writers.take(header.writer, header.number, log_time_us=log_time_us):
                    counter["batches"] += 1
                    counter["events"] += header.event_count
                else:
                    counter["repeated"] += 1
            writers.forget(log_time_us)
            reached = min(records[-1].offset + 1, end)
            done += reached - offset
            offset = reached
            progress.at(done, total, events + counter["events"])
        events += counter["events"]
        found[each] = Count(**counter)
    progress.end(done, total, events)
    return found
