"""Time as an argument: the Clock port and the clock that tests turn by hand. [S]"""

from typing import Protocol

__all__ = ["Clock", "ManualClock"]


class Clock(Protocol):
    """What a driver needs of time. Cores get times as plain arguments instead."""

    def time_ns(self) -> int:
        """Nanoseconds since the epoch, UTC; may jump."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""


class ManualClock:
    """A clock that moves only when `advance` is called.

    >>> clock = ManualClock(time_ns=0)
    >>> clock.advance(1.5)
    >>> clock.time_ns(), clock.monotonic()
    (1500000000, 1.5)
    """

    def __init__(self, time_ns: int = 1_700_000_000_000_000_000) -> None:
        self._time_ns = time_ns
        self._monotonic_ns = 0

    def time_ns(self) -> int:
        return self._time_ns

    def monotonic(self) -> float:
        return self._monotonic_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        step = round(seconds * 1e9)
        self._time_ns += step
        self._monotonic_ns += step

    def jump(self, seconds: float) -> None:
        """Move only the wall clock, as an administrator or NTP does."""
        self._time_ns += round(seconds * 1e9)
