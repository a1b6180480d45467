"""Positions in a log and their text, the tokens of the client protocol. [S]

::

    token      generation ":" part { "," part }
    part       partition ":" offset [ "." events ]

A part says: everything below this offset of this partition, and so many events of the record there.
"""

from collections.abc import Mapping
from typing import NamedTuple

from dimint.errors import ParseError, WrongLog
from dimint.limits import PARTITIONS_MAX

__all__ = ["Position", "format_positions", "is_number", "parse_positions", "positions_in"]


class Position(NamedTuple):
    """Everything below `offset`, and the first `events` events of the record there."""

    offset: int
    events: int = 0

    @property
    def end(self) -> int:
        """The first offset of which nothing was seen."""
        return self.offset + 1 if self.events else self.offset


def format_positions(generation: str, positions: Mapping[int, Position]) -> str:
    """The token of these partitions.

    >>> format_positions("4f1c", {3: Position(17), 0: Position(9, 2)})
    '4f1c:0:9.2,3:17'
    """
    parts = [f"{at}:{one.offset}.{one.events}" if one.events else f"{at}:{one.offset}" for at, one in sorted(positions.items())]
    return f"{generation}:{','.join(parts)}"


def parse_positions(text: str) -> tuple[str, dict[int, Position]]:
    """Generation and positions by partition. Raises ParseError.

    >>> parse_positions("4f1c:0:9.2,3:17")
    ('4f1c', {0: Position(offset=9, events=2), 3: Position(offset=17, events=0)})
    """
    generation, _, rest = text.partition(":")
    parts = rest.split(",", PARTITIONS_MAX)
    positions: dict[int, Position] = {}
    for part in parts:
        partition, _, place = part.partition(":")
        offset, dot, events = place.partition(".")
        if not (is_number(partition, 9) and is_number(offset, 18) and (is_number(events, 9) or not dot)):
            break
        positions[int(partition)] = Position(int(offset), int(events or 0))
    if not generation or len(positions) != len(parts):
        raise ParseError(f"{text[:80]!r} is not a token")
    return generation, positions


def positions_in(tokens: str | list[str], generation: str, partitions: int) -> dict[int, Position]:
    """The furthest position of each partition that a request's tokens name. Raises ParseError or WrongLog."""
    furthest: dict[int, Position] = {}
    for text in (tokens,) if isinstance(tokens, str) else tokens:
        other, found = parse_positions(text)
        if other != generation:
            raise WrongLog("the position is of another log")
        for partition, position in found.items():
            if partition >= partitions:
                raise ParseError(f"the log has no partition {partition}")
            furthest[partition] = max(position, furthest.get(partition, position))
    return furthest


def is_number(text: str, most_digits: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= most_digits
