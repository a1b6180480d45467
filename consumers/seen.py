"""Which samples of an agent's run have been stored already. [S]

An agent may send a sample again (its spool cannot know what became of the first try), and older ones after newer ones.
Numbers seen are kept as ranges: one range for an agent in order, a few more around what was lost. Both bounds below only
ever make a sample count as seen; they are rules over the log alone, so a rebuild decides the same.
"""

from bisect import bisect_right
from collections.abc import Iterable

__all__ = ["RANGES_MAX", "SeenNumbers"]

RANGES_MAX = 1024
"""Ranges of one run; at more, the lowest gap is closed: what is missing there is not waited for any longer."""


class SeenNumbers:
    """A set of numbers from 1 on.

    >>> seen = SeenNumbers()
    >>> [seen.add(number) for number in (1, 2, 5, 2, 3)]
    [True, True, True, False, True]
    >>> seen.ranges()
    [1, 3, 5, 5]
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[int] = ()) -> None:
        flat = list(ranges)
        self._firsts, self._lasts = flat[::2], flat[1::2]

    def add(self, number: int) -> bool:
        """Whether the number is new; it is seen from now on."""
        firsts, lasts = self._firsts, self._lasts
        if lasts and number == lasts[-1] + 1:
            lasts[-1] = number
            return True
        at = bisect_right(firsts, number)
        if at and number <= lasts[at - 1]:
            return False
        joins_left = at > 0 and lasts[at - 1] == number - 1
        joins_right = at < len(firsts) and firsts[at] == number + 1
        if joins_left and joins_right:
            lasts[at - 1] = lasts.pop(at)
            del firsts[at]
        elif joins_left:
            lasts[at - 1] = number
        elif joins_right:
            firsts[at] = number
        else:
            firsts.insert(at, number)
            lasts.insert(at, number)
            if len(firsts) > RANGES_MAX:
                del firsts[1], lasts[0]
        return True

    def ranges(self) -> list[int]:
        """[first, last, first, last, …], ascending."""
        return [edge for pair in zip(self._firsts, self._lasts, strict=True) for edge in pair]
