"""Places in a log as people and programs write them: `dimint.kv/3@1234`, several with commas, or a time. [S]

::

    position   topic "/" partition "@" offset        the record at this offset, and what follows
    positions  position { "," position }
    bound      positions | time                      times as in dimint/when.py

A bound that is positions names the partitions that are meant: those that it does not name are left out. A bound that is a
time means every partition. Bounds are half open: from is the first that is taken, to the first that is not, so that two
stretches with a bound in common tile. A position is worth something only with the log that it is of (its generation).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Final, NamedTuple, TypeAlias

from dimint.errors import BadPosition, BadTime
from dimint.events import KV_TOPIC
from dimint.limits import PARTITIONS_MAX
from dimint.log.port import TopicPartition
from dimint.when import FORMS, parse_time

__all__ = [
    "Bound",
    "Positions",
    "Range",
    "format_position",
    "format_positions",
    "kv_positions",
    "parse_bound",
    "parse_positions",
    "places_of",
]

Positions: TypeAlias = Mapping[TopicPartition, int]
"""Partition → the first offset that is meant."""
Bound: TypeAlias = Positions | int
"""Positions, or a time in ns since 1970, UTC."""

_POSITION: Final = re.compile(r"([A-Za-z0-9._-]{1,200})/(\d{1,4})@(\d{1,18})", re.ASCII)
_EXAMPLE: Final = "dimint.kv/3@1234"


class Range(NamedTuple):
    """Offsets [start, end) of one partition; an `end` of None has no end yet."""

    topic: str
    partition: int
    start: int
    end: int | None

    @property
    def place(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


def format_position(topic: str, partition: int, offset: int) -> str:
    """The text of one position.

    >>> format_position("dimint.kv", 3, 1234)
    'dimint.kv/3@1234'
    """
    return f"{topic}/{partition}@{offset}"


def format_positions(positions: Positions) -> str:
    """The text of several, in the order of their places.

    >>> format_positions({TopicPartition("t", 1): 5, TopicPartition("t", 0): 7})
    't/0@7,t/1@5'
    """
    return ",".join(format_position(topic, partition, offset) for (topic, partition), offset in sorted(positions.items()))


def parse_positions(text: str) -> dict[TopicPartition, int]:
    """Raises BadPosition."""
    found: dict[TopicPartition, int] = {}
    for part in text.split(","):
        match = _POSITION.fullmatch(part.strip())
        if match is None or int(match[2]) >= PARTITIONS_MAX:
            raise BadPosition(f"{part.strip()[:100]!r} is not a position; write it like {_EXAMPLE}")
        place = TopicPartition(match[1], int(match[2]))
        if place in found:
            raise BadPosition(f"{place.topic}/{place.partition} stands in the positions twice")
        found[place] = int(match[3])
    return found


def kv_positions(given: str | Positions) -> dict[int, int]:
    """Partition of dimint.kv → offset. Raises BadPosition, for positions of other topics too.

    >>> kv_positions("dimint.kv/3@1234")
    {3: 1234}
    """
    positions = parse_positions(given) if isinstance(given, str) else given
    for topic, partition in positions:
        if topic != KV_TOPIC:
            raise BadPosition(f"the keys are in {KV_TOPIC}, and {topic}/{partition} is none of its partitions")
    return {partition: offset for (_, partition), offset in positions.items()}


def parse_bound(text: str, *, now_ns: int, zone: tzinfo) -> Bound:
    """Positions or a time. Raises BadPosition or BadTime, in one line that says what is accepted."""
    if "/" in text:
        return parse_positions(text)
    try:
        return parse_time(text, now_ns=now_ns, zone=zone)
    except BadTime as error:
        if error.args[0].endswith(FORMS):
            raise BadTime(f"{error.message}, or give positions like {_EXAMPLE}") from None
        raise


def places_of(bounds: Iterable[Bound | None]) -> frozenset[TopicPartition] | None:
    """The partitions that the bounds leave, None for all of them. Raises BadPosition if they leave none."""
    left: frozenset[TopicPartition] | None = None
    for bound in bounds:
        if isinstance(bound, Mapping):
            left = frozenset(bound) if left is None else left & frozenset(bound)
    if left is not None and not left:
        raise BadPosition("from and to have no partition in common")
    return left
