"""What the status tables say of the past: the fleet at an instant, and one host's samples of a range. [S]

Two clocks meet here. *Taken* is the time by the host's own clock, *received* the log's time. All views of the past go by
the time taken, because that is when the GPU was busy; a sample that reached the log much later than it was taken (an agent
that was cut off sends its spool) is marked as backfilled: it stands in its place now, but nobody saw it then. What a host
said of itself (name, address, facts) counts from the time of its registration, by the host's clock and never later than
the log's.

    reader.fleet_at(at_ns)                          → [HostAt], every host known then, by its name then
    reader.page(host, from_ns, to_ns, limit=…,      → SamplePage: samples, gaps, and the cursor to go on with
                step_ns=…, after=cursor)
    reader.series(host, from_ns, to_ns, points)     → Series: min, max, sum, count, last of every number a slot (tiers.py)
    reader.processes(host, from_ns, to_ns)          → [Interval]: who was on which GPU from when to when (intervals.py)
    reader.events(from_ns, to_ns, host_id=…)        → [HostEvent]: what happened

A host is known from its registration or its first sample on, whichever is earlier. Any instant costs the same: of each
host's chunk one sample is decoded, well under a millisecond a host where only what is shown is wanted (wanted.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from dimint.consumers.rows import HostRow, StoredSample
from dimint.consumers.sealing import Key
from dimint.errors import BadCursor

__all__ = [
    "BACKFILLED_NS",
    "GAP_INTERVALS",
    "INTERVAL_NS",
    "Gap",
    "HostAt",
    "SamplePage",
    "cursor_text",
    "interval_ns",
    "is_backfilled",
    "missing",
    "parse_cursor",
    "stated_interval_ns",
]

BACKFILLED_NS: Final = 30_000_000_000
"""A sample that was received later than this after it was taken was not there to be seen live."""
GAP_INTERVALS: Final = 3
"""A host that sends nothing for more than this many of its intervals is unknown in between."""
INTERVAL_NS: Final = 60_000_000_000
"""Interval of senders that do not say theirs."""
_INTERVAL_MAX_MS: Final = 24 * 3600 * 1000


class HostAt(NamedTuple):
    """A host as it was at an instant.

    `host` has the name, address and facts of then; its times are those of the newest sample taken until then.
    """

    host: HostRow
    sample: StoredSample | None
    age_ns: int | None
    """Time from the sample to the instant; None without a sample."""

    @property
    def backfilled(self) -> bool:
        """Whether the sample was received so late that it was not to be seen then."""
        return self.sample is not None and is_backfilled(self.sample)

    @property
    def unknown(self) -> bool:
        """Whether the instant lies in a gap: no sample, or one older than GAP_INTERVALS of the host's intervals."""
        return self.sample is None or self.age_ns is None or self.age_ns > GAP_INTERVALS * interval_ns(self.sample.sample)


class Gap(NamedTuple):
    """Nothing is known of a host after `after_ns` and before `before_ns`, times of the samples around the gap.

    `before_ns` is None while nothing came since. `lost` counts samples that were taken and did not arrive, None if that
    is not known (the agent or the host was down); `reason` is what the agent said about them.
    """

    after_ns: int
    before_ns: int | None
    lost: int | None
    reason: str | None


class SamplePage(NamedTuple):
    """Samples of one host, oldest first, and the gaps between them. `cursor` is where the next page starts, None at the end."""

    samples: list[StoredSample]
    gaps: list[Gap]
    cursor: Key | None


def is_backfilled(stored: StoredSample) -> bool:
    """Whether the sample was received much later than it was taken."""
    return stored.received_ns - stored.time_ns > BACKFILLED_NS


def interval_ns(sample: Mapping[str, Any]) -> int:
    """The interval at which the sender of this sample aims, INTERVAL_NS if it does not say."""
    return stated_interval_ns(sample) or INTERVAL_NS


def stated_interval_ns(sample: Mapping[str, Any]) -> int | None:
    """The interval at which the sender of this sample says that it aims."""
    interval_ms = sample.get("int_ms")
    return interval_ms * 1_000_000 if type(interval_ms) is int and 0 < interval_ms <= _INTERVAL_MAX_MS else None


def missing(samples: Iterable[StoredSample], step_ns: int = 0) -> Iterator[tuple[StoredSample, StoredSample]]:
    """Neighbours, in order, with a gap between them; of samples thinned to a step only gaps above two steps can be told."""
    for before, behind in pairwise(samples):
        if behind.time_ns - before.time_ns > max(GAP_INTERVALS * interval_ns(before.sample), 2 * step_ns):
            yield before, behind


def cursor_text(cursor: Key) -> str:
    """A cursor for a URL.

    >>> cursor_text((1543620587115000000, 42))
    '1543620587115000000.42'
    """
    return f"{cursor[0]}.{cursor[1]}"


def parse_cursor(text: str) -> Key:
    """The cursor of `cursor_text`. Raises BadCursor."""
    time, dot, n = text.partition(".")
    if not (dot and time.isascii() and time.isdigit() and n.isascii() and n.isdigit() and len(text) <= 40):
        raise BadCursor(f"{text[:40]!r} is not a cursor of an earlier answer")
    return min(int(time), (1 << 63) - 1), min(int(n), (1 << 63) - 1)
