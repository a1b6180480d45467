"""What happens on this host beside its samples: XIDs, another driver, a clock that is set, the agent's start and end."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dimint import __version__
from dimint.producers.changes import ClockWatch, DriverWatch
from dimint.producers.gpu_watch import Xid
from dimint.producers.kernel_log import KernelLog
from dimint.producers.publish import Event
from dimint.producers.state import LastRun
from dimint.producers.xid import XidFilter

__all__ = ["Happenings", "uuid_by_pci"]

_KERNEL_CLOCK_SLACK_NS = 60 * 10**9
"""A line of the kernel's log that seems older than this, or from the future, was written by another clock."""

log = logging.getLogger("dimint.agent")


class Happenings:
    """Makes the events of one host; belongs to one thread. `remember` keeps what the next start has to know."""

    def __init__(
        self, host: str, run: bytes, last: LastRun | None, remember: Callable[[LastRun], None], kernel_log: KernelLog
    ) -> None:
        self._host, self._run, self._last, self._remember, self._kernel_log = host, run, last, remember, kernel_log
        self._clock, self._xids = ClockWatch(), XidFilter()
        self._driver = DriverWatch(last.driver if last else ())

    def begin(self, time_ns: int) -> list[Event]:
        """The agent's start."""
        clean = self._last.clean if self._last else None
        self._keep(clean=False)
        return [["agent.started", self._host, time_ns, self._run, __version__, clean]]

    def end(self, time_ns: int, last_seq: int) -> list[Event]:
        """The agent's end."""
        self._keep(clean=True)
        return [["agent.stopped", self._host, time_ns, self._run, last_seq]]

    def clock(self, time_ns: int, mono_ns: int) -> list[Event]:
        """Whether the clock was set since the last call."""
        step_ms = self._clock.step_ms(time_ns, mono_ns)
        if step_ms is None:
            return []
        log.warning("the clock was set by %.1f s", step_ms / 1000)
        return [["clock.stepped", self._host, time_ns, step_ms]]

    def driver(self, time_ns: int, state: str, library: str | None, module: str | None) -> list[Event]:
        """Whether the host has another driver than it had."""
        known = self._driver.known
        change = self._driver.look(state, library, module)
        if self._driver.known != known:
            self._keep(clean=False)
        if change is None:
            return []
        log.warning("the GPU driver was %s and is %s", change.before or "none", change.now or "none")
        return [["driver.changed", self._host, time_ns, change.before, change.now]]

    def xids(self, time_ns: int, mono_ns: int, told: Sequence[Xid], uuid_by_pci: Mapping[str, str]) -> list[Event]:
        """Errors that the driver told of through NVML, and those in the kernel's log."""
        found = [(xid.time_ns, "nvml", xid.uuid, xid.xid) for xid in told]
        for line in self._kernel_log.xids():
            age_ns = mono_ns - line.since_boot_us * 1000
            at_ns = time_ns - age_ns if abs(age_ns) <= _KERNEL_CLOCK_SLACK_NS else time_ns
            found.append((min(at_ns, time_ns), "kernel", uuid_by_pci.get(line.pci), line.xid))
        events: list[Event] = []
        for at_ns, source, uuid, xid in sorted(found, key=lambda row: row[0]):
            if self._xids.is_new(source, uuid, xid, mono_ns / 1e9):
                log.warning("GPU %s: XID %d", uuid or "(unknown)", xid)
                events.append(["gpu.xid", self._host, at_ns, uuid, xid])
        return events

    def close(self) -> None:
        """Idempotent."""
        self._kernel_log.close()

    def _keep(self, *, clean: bool) -> None:
        try:
            self._remember(LastRun(clean, self._driver.known))
        except OSError as error:
            log.warning("cannot write down how this run is: %s", error)


def uuid_by_pci(facts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Bus id without its function → UUID, as the kernel's log names GPUs."""
    return {gpu["pci"].rpartition(".")[0]: gpu["u"] for gpu in facts if gpu.get("pci") and gpu.get("u")}
