"""What changed on a host between two looks: its driver and its clock. [S]"""

from typing import Final, NamedTuple

__all__ = ["CLOCK_STEP_MS", "ClockWatch", "DriverChange", "DriverWatch"]

CLOCK_STEP_MS: Final = 1000
_TELLING: Final = frozenset({"ok", "no_gpu", "driver_mismatch", "no_library", "no_driver"})
"""States of the host in which it is known what driver there is. A driver that hangs is still there."""


class ClockWatch:
    """Compares the wall clock with the monotonic one, which nobody sets and which stands still while a machine sleeps."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def step_ms(self, time_ns: int, mono_ns: int) -> int | None:
        """By how much the clock was set since the last call, if it was by CLOCK_STEP_MS or more."""
        before, self._offset_ns = self._offset_ns, time_ns - mono_ns
        by_ms = 0 if before is None else round((self._offset_ns - before) / 1e6)
        return by_ms if abs(by_ms) >= CLOCK_STEP_MS else None


class DriverChange(NamedTuple):
    before: str | None
    now: str | None


class DriverWatch:
    """Which driver the host has. `known` is (the version,) as an earlier run kept it, or () if there was none."""

    def __init__(self, known: tuple[str | None] | tuple[()] = ()) -> None:
        self._known = known

    @property
    def known(self) -> tuple[str | None] | tuple[()]:
        return self._known

    def look(self, state: str, library: str | None, module: str | None) -> DriverChange | None:
        """What changed since the last look. `library` and `module` are the versions that NVML and the kernel tell.

        After an upgrade without a reboot the loaded module is what counts: the host still runs the old driver.
        """
        if state not in _TELLING:
            return None
        version = module or library
        before, self._known = self._known, (version,)
        if not before or before[0] == version:
            return None
        return DriverChange(before[0], version)
