"""When to start a dead child again, and when to give up. [S]"""

from collections import deque
from typing import Final

__all__ = ["DEATHS_MAX", "DEATHS_WITHIN_S", "Restarts"]

DEATHS_MAX: Final = 5
DEATHS_WITHIN_S: Final = 30.0
PAUSE_MAX_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.5


class Restarts:
    """The deaths of one child. The first one costs no pause, further ones soon after it cost more and more.

    >>> restarts = Restarts()
    >>> [restarts.died(now=at) for at in (0.0, 1.0, 2.0, 4.0, 8.0)]
    [0.0, 0.5, 1.0, 2.0, None]
    """

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=DEATHS_MAX)

    def died(self, now: float) -> float | None:
        """A death at `now` (monotonic seconds): the pause in seconds before the next start, None to give up."""
        while self._deaths and now - self._deaths[0] > DEATHS_WITHIN_S:
            self._deaths.popleft()
        self._deaths.append(now)
        count = len(self._deaths)
        if count >= DEATHS_MAX:
            return None
        return 0.0 if count == 1 else min(PAUSE_MAX_S, FIRST_PAUSE_S * 2.0 ** (count - 2))
