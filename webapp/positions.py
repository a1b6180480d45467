"""Where in the log a page's data ends, as one word: the id of server-sent events, so that a reconnect misses nothing. [S]

``<first 8 digits of the log's generation>:<partition>.<next offset>-<partition>.<next offset>…``, partitions ascending.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Positions", "covers", "read_positions", "write_positions"]

_TEXT_MAX_CHARS: Final = 32_768
_GENERATION_DIGITS: Final = 8


class Positions(NamedTuple):
    """The next offset of each partition that is read, of the log of this generation. Empty = not known."""

    generation: str
    offsets: tuple[tuple[int, int], ...]

    def __bool__(self) -> bool:
        return bool(self.generation)


def write_positions(generation: str | None, offsets: Mapping[int, int]) -> str:
    """The word; empty where nothing has been read."""
    if generation is None:
        return ""
    return f"{generation[:_GENERATION_DIGITS]}:" + "-".join(
        f"{partition}.{offset}" for partition, offset in sorted(offsets.items())
    )


def read_positions(text: str) -> Positions:
    """The positions in such a word; empty ones for every other text."""
    generation, colon, rest = text.partition(":")
    if not colon or not generation or len(text) > _TEXT_MAX_CHARS:
        return Positions("", ())
    found = []
    for pair in rest.split("-") if rest else ():
        partition, _, offset = pair.partition(".")
        if not (_is_number(partition) and _is_number(offset)):
            return Positions("", ())
        found.append((int(partition), int(offset)))
    return Positions(generation, tuple(sorted(found)))


def covers(seen: Positions, other: Positions) -> bool:
    """Whether who has seen `seen` has seen all that `other` has."""
    have = dict(seen.offsets)
    return seen.generation == other.generation and all(have.get(partition, 0) >= offset for partition, offset in other.offsets)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
