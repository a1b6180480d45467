"""When to start a dead child again, and when to give up. [S]

A child dies too often when it does so five times within half a minute. One that is needed is given up then. Any other is
*off*: the rest goes on without it, and it is tried again after pauses that grow to minutes, until it runs for half a minute.
"""

from collections import deque
from typing import Final

__all__ = ["DEATHS_MAX", "DEATHS_WITHIN_S", "OFF_PAUSE_MAX_S", "Restarts"]

DEATHS_MAX: Final = 5
DEATHS_WITHIN_S: Final = 30.0
"""Five deaths within this are too many; a child that was off and lives longer than this is back."""
PAUSE_MAX_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.5
OFF_PAUSE_S: Final = 10.0
OFF_PAUSE_MAX_S: Final = 300.0


class Restarts:
    """The deaths of one child. The first one costs no pause, further ones soon after it cost more and more.

    >>> restarts = Restarts()
    >>> [restarts.died(now=at) for at in (0.0, 1.0, 2.0, 4.0, 8.0)]
    [0.0, 0.5, 1.0, 2.0, None]
    """

    def __init__(self, *, needed: bool = True) -> None:
        self.off = False
        """Whether it died too often and has not lived for long since."""
        self._needed = needed
        self._deaths: deque[float] = deque(maxlen=DEATHS_MAX)
        self._tries = 0
        self._started = 0.0

    def died(self, now: float, *, hopeless: bool = False) -> float | None:
        """A death at `now` (monotonic seconds): the pause in seconds before the next start, None to give up.

        `hopeless`: the next start will end like this one, so it counts as all the deaths that it takes.
        """
        self.lives(now)
        while self._deaths and now - self._deaths[0] > DEATHS_WITHIN_S:
            self._deaths.popleft()
        self._deaths.append(now)
        count = len(self._deaths)
        if self.off or hopeless or count >= DEATHS_MAX:
            if self._needed:
                return None
            self.off = True
            pause = min(OFF_PAUSE_MAX_S, OFF_PAUSE_S * 2.0**self._tries)
            self._tries += 1
        else:
            pause = 0.0 if count == 1 else min(PAUSE_MAX_S, FIRST_PAUSE_S * 2.0 ** (count - 2))
        self._started = now + pause
        return pause

    def lives(self, now: float) -> bool:
        """To be called while it runs: whether it was off, and is back now."""
        if not self.off or now - self._started <= DEATHS_WITHIN_S:
            return False
        self.off, self._tries = False, 0
        self._deaths.clear()
        return True
