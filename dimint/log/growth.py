"""How fast a topic grows, from a few looks into its log: cheap on any backend, and near enough to plan disks by. [S]

Of at most PARTITIONS_MAX partitions, evenly spread over the topic, the records of the last day are counted by their offsets,
and a sample of them says how many events and bytes a record has.
"""

from typing import Final, NamedTuple

from dimint.batch import decode_header
from dimint.errors import CorruptRecord, ForeignRecord, OffsetOutOfRange, UnknownVersion
from dimint.log.port import Log, Record

__all__ = ["Growth", "growth"]

PARTITIONS_MAX: Final = 16
_SAMPLES: Final = 3
_SAMPLE_RECORDS: Final = 32
_SAMPLE_BYTES: Final = 256 << 10
_DAY_NS: Final = 86_400_000_000_000
_LEAST_NS: Final = 1_000_000_000


class Growth(NamedTuple):
    """A day's growth, about. `bytes_per_day` is of records, one copy; `over_s` is how long a time it was seen over, ≤ 86400."""

    events_per_day: float
    bytes_per_day: float
    over_s: float


def growth(log: Log, topic: str, partitions: int, now_ns: int) -> Growth:
    """Growth in the last day, or since the first record of a younger log (brought to a day). Raises LogError."""
    looked = min(partitions, PARTITIONS_MAX)
    events = size = 0.0
    oldest_ns = now_ns
    for place in range(looked):
        partition = place * partitions // looked
        start, end = log.bounds(topic, partition)
        begin = max(start, log.offset_at(topic, partition, now_ns - _DAY_NS))
        if begin >= end:
            continue
        sample = _sample(log, topic, partition, begin, end)
        if sample:
            oldest_ns = min(oldest_ns, sample[0].timestamp_ns if begin == start else now_ns - _DAY_NS)
            events += (end - begin) * sum(map(_events, sample)) / len(sample)
            size += (end - begin) * sum(len(record.value) for record in sample) / len(sample)
    over_ns = min(_DAY_NS, max(_LEAST_NS, now_ns - oldest_ns))
    whole = _DAY_NS / over_ns * partitions / looked
    return Growth(events * whole, size * whole, over_ns / 1e9)


def _sample(log: Log, topic: str, partition: int, begin: int, end: int) -> list[Record]:
    """Some records of [begin, end): at its begin, in between, and towards its end."""
    found: list[Record] = []
    for number in range(_SAMPLES):
        offset = begin + (end - begin) * number // _SAMPLES
        if found and offset <= found[-1].offset:
            continue  # a short partition: the sample before had it
        try:
            found += log.read(topic, partition, offset, max_records=_SAMPLE_RECORDS, max_bytes=_SAMPLE_BYTES)
        except OffsetOutOfRange:  # trimmed meanwhile
            continue
    return found


def _events(record: Record) -> int:
    try:
        return decode_header(record.value).event_count
    except (ForeignRecord, CorruptRecord, UnknownVersion):
        return 0
