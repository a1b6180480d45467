"""The real clock."""

import time

__all__ = ["SystemClock"]


class SystemClock:
    """The Clock of a running process (dimint/clock.py)."""

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()
