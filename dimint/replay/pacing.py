"""When each batch of a replay is due. [S]"""

import re
from typing import Final

from dimint.errors import SettingsError

__all__ = ["Pacer", "parse_pace"]

_TIMES: Final = re.compile(r"x(\d{1,6}(?:\.\d{1,6})?)", re.ASCII)


def parse_pace(text: str) -> float | None:
    """How many times as fast as it was: 1 for `original`, N for `xN`, None for `max`. Raises SettingsError.

    >>> parse_pace("original"), parse_pace("x2.5"), parse_pace("max")
    (1.0, 2.5, None)
    """
    if text == "max":
        return None
    if text == "original":
        return 1.0
    match = _TIMES.fullmatch(text)
    if match is None or not float(match[1]):
        raise SettingsError(f"pace: {text[:40]!r} is not a pace", hint="write original, x2, x0.5, … or max")
    return float(match[1])


class Pacer:
    """Due times in seconds after the first batch: the gaps between log times, divided by the speed.

    >>> pacer = Pacer(10.0)
    >>> pacer.due_s(5_000_000_000), pacer.due_s(6_000_000_000)
    (0.0, 0.1)
    """

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._first_ns: int | None = None

    def due_s(self, logged_at_ns: int) -> float:
        """Of a batch of this log time; never below 0, and 0 for all at no given speed."""
        if self._speed is None:
            return 0.0
        if self._first_ns is None:
            self._first_ns = logged_at_ns
        return max(0, logged_at_ns - self._first_ns) / 1e9 / self._speed
