"""Where events come from: this host, or simulated ones. A source gives the events of one tick, with run and numbers."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from dimint import __version__
from dimint.clock import Clock
from dimint.producers.failures import Failures
from dimint.producers.gpu_states import Fleet
from dimint.producers.gpu_texts import GPU_TEXTS
from dimint.producers.gpu_watch import GpuReading, GpuWatch, Want
from dimint.producers.happenings import Happenings, uuid_by_pci
from dimint.producers.host import Host, address_of_this_host, boot_id, host_facts
from dimint.producers.kernel_log import KernelLog
from dimint.producers.pci import driver_module_version
from dimint.producers.processes import Processes
from dimint.producers.publish import Event
from dimint.producers.sample import Assembler, Fast
from dimint.producers.schedule import FAST, PROCESSES, SLOW, STATIC, Due, Schedule
from dimint.producers.simulated import SimulatedHost
from dimint.producers.state import LastRun
from dimint.sample import Gpu, SpoolState

__all__ = ["GPU_WAIT_S", "HostIdentity", "Numbers", "SimulatedFleet", "Source", "ThisHost"]

GPU_WAIT_S: Final = 1.0
"""Longest that a sample waits for its GPU part; without it the sample says nothing of GPUs."""

log = logging.getLogger("dimint.agent")


class Source(Protocol):
    """Belongs to one thread."""

    def events(self, due: Due) -> list[Event]:
        """Events of a tick at which these tiers are due."""

    def ending(self) -> list[Event]:
        """The last events, when the agent is told to end."""

    def close(self) -> None:
        """Idempotent."""


class Numbers:
    """The run, 8 random bytes of this start, and the sample numbers of one host: 1, 2, 3, …."""

    def __init__(self, run: bytes | None = None) -> None:
        self.run = os.urandom(8) if run is None else run
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """Who this host is, and where what it keeps is written."""

    id: str
    name: str
    known_gpus: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remember_gpus: Callable[[Mapping[str, Mapping[str, Any]]], None] = lambda _: None
    last_run: LastRun | None = None
    remember_run: Callable[[LastRun], None] = lambda _: None
    tags: Mapping[str, str] = field(default_factory=dict)


class ThisHost:
    """Samples of the host that the agent runs on."""

    def __init__(
        self,
        identity: HostIdentity,
        clock: Clock,
        schedule: Schedule,
        gpus: GpuWatch,
        processes: Processes,
        *,
        interval_s: float,
        kernel_log: KernelLog | None = None,
        spool: Callable[[], SpoolState] | None = None,
    ) -> None:
        self._identity, self._clock, self._schedule = identity, clock, schedule
        self._gpus, self._processes, self._spool = gpus, processes, spool
        self._wait_s = min(GPU_WAIT_S, interval_s / 2)
        self._interval_ms = round(interval_s * 1000)
        self._host = Host()
        self._fleet = Fleet(identity.known_gpus)
        self._failures = Failures()
        self._assembler = Assembler(interval_ms=self._interval_ms, boot=boot_id())
        self._numbers = Numbers()
        self._happenings = Happenings(
            identity.id,
            self._numbers.run,
            identity.last_run,
            identity.remember_run,
            KernelLog() if kernel_log is None else kernel_log,
        )
        self._fixed_facts = host_facts()
        self._gpu_facts: dict[str, Any] = {}
        self._gpus_changed = False
        self._state = "starting"
        """What the driver said last."""
        self._module: str | None = None
        self._registered: Event | None = None

    def events(self, due: Due) -> list[Event]:
        time_ns, started = self._clock.time_ns(), self._clock.monotonic()
        mono_ns = round(started * 1e9)
        events = self._happenings.begin(time_ns) if not self._numbers.last else []
        events += self._happenings.clock(time_ns, mono_ns)
        self._gpus.ask(Want(processes=PROCESSES in due.tiers, slow=SLOW in due.tiers))
        fast = Fast(self._host.cpu(), self._host.memory(), self._host.network(), self._state, None)
        slow_s = self._read_slow(mono_ns) if SLOW in due.tiers else 0.0
        reading = self._gpus.collect(self._wait_s)
        others_s = slow_s
        if reading is None:
            self._schedule.ask_again({PROCESSES} & due.tiers)
            fast = fast._replace(gpus=self._fleet.unanswered() or None, answered=False)
        else:
            others_s += reading.slow_s + reading.procs_s
            state, gpus, changes = self._apply(reading, time_ns)
            fast = fast._replace(gpu_state=state, gpus=gpus)
            events += changes
            self._take_gpu_reading(reading, mono_ns)
            if changes or STATIC in due.tiers:
                self._remember()
        if SLOW in due.tiers:
            self._cost(SLOW, slow_s + (reading.slow_s if reading else 0.0))
        buses = uuid_by_pci(self._gpu_facts.get("gpus", ()))
        events += self._happenings.xids(time_ns, mono_ns, self._gpus.take_xids(), buses)
        if SLOW in due.tiers or STATIC in due.tiers or self._gpus_changed:
            events = self._register(time_ns, again=STATIC in due.tiers) + events
        took_s = self._clock.monotonic() - started
        self._assembler.took(FAST, max(0.0, took_s - others_s))
        if self._spool is not None:
            fast = fast._replace(spool=self._spool())
        sample = self._assembler.build(fast, mono_ns=mono_ns, dur_us=round(took_s * 1e6), skipped=due.skipped)
        events.append(["host.sample", self._identity.id, time_ns, self._numbers.run, self._numbers.next(), sample])
        return events

    def ending(self) -> list[Event]:
        return self._happenings.end(self._clock.time_ns(), self._numbers.last) if self._numbers.last else []

    def close(self) -> None:
        self._gpus.close()
        self._happenings.close()
        self._remember()

    def _say_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            log.info("GPU driver: %s", GPU_TEXTS.get(state, state))

    def _apply(self, reading: GpuReading, time_ns: int) -> tuple[str, list[Gpu], list[Event]]:
        """State of the host's GPUs, the sample's list of them, and what happened to them and to their driver."""
        host = self._identity.id
        gpus, changes = self._fleet.apply(reading.state, reading.gpus, self._gpus.hung(), time_ns // 10**9)
        self._failures.count(reading.failed, gpus)
        state = reading.state if reading.state != "suspended" else "ok" if gpus else "unknown"
        self._say_state(state)
        events: list[Event] = []
        for change in changes:
            log.warning("GPU %s is %s", change.uuid, change.state)
            back = change.state == "ok"
            events.append([f"gpu.{'back' if back else 'lost'}", host, time_ns, change.uuid, *([] if back else [change.state])])
        events += self._happenings.driver(time_ns, reading.state, reading.versions.get("driver"), self._module)
        return state, gpus, events

    def _cost(self, tier: str, seconds: float) -> None:
        self._assembler.took(tier, seconds)
        self._schedule.cost(tier, seconds, self._clock.monotonic())

    def _read_slow(self, mono_ns: int) -> float:
        """Read this host's part of the slow tier; the seconds that it took."""
        self._module = driver_module_version(Path("/proc"))
        started = self._clock.monotonic()
        self._assembler.slow(disks=self._host.disks(), temperatures=self._host.temperatures(), mono_ns=mono_ns)
        return self._clock.monotonic() - started

    def _take_gpu_reading(self, reading: GpuReading, mono_ns: int) -> None:
        if reading.procs is not None:
            self._assembler.processes(self._processes.describe(reading.procs), reading.procs_err, reading.gpus, mono_ns)
            self._cost(PROCESSES, reading.procs_s)
        facts: dict[str, Any] = {name: version for name, version in reading.versions.items() if version is not None}
        # a driver that cannot be asked now has not lost its GPUs
        facts["gpus"] = [dict(gpu) for gpu in reading.facts] if reading.state == "ok" else self._gpu_facts.get("gpus", [])
        self._gpus_changed = facts != self._gpu_facts
        self._gpu_facts = facts

    def _register(self, time_ns: int, *, again: bool) -> list[Event]:
        """The `host.registered` event if anything in it changed, or at any rate if `again`."""
        facts = {
            "agent": __version__,
            **self._fixed_facts,
            "simulated": False,
            "interval_ms": self._interval_ms,
            "driver_module": self._module,
            "tags": dict(self._identity.tags),
            **self._gpu_facts,
        }
        event: Event = ["host.registered", self._identity.id, time_ns, self._identity.name, address_of_this_host(), facts]
        changed = self._registered is None or self._registered[3:] != event[3:]
        if not changed and not again:
            return []
        self._registered = event
        return [event]

    def _remember(self) -> None:
        try:
            self._identity.remember_gpus(self._fleet.remember())
        except OSError as error:
            log.warning("cannot write down which GPUs there are: %s", error)


class SimulatedFleet:
    """Samples of hosts that do not exist."""

    def __init__(self, hosts: Sequence[SimulatedHost], ids: Sequence[str], clock: Clock) -> None:
        self._clock = clock
        self._hosts = [(host, host_id, Numbers()) for host, host_id in zip(hosts, ids, strict=True)]

    def events(self, due: Due) -> list[Event]:
        time_ns, mono_ns = self._clock.time_ns(), round(self._clock.monotonic() * 1e9)
        events: list[Event] = []
        for host, host_id, numbers in self._hosts:
            if STATIC in due.tiers:
                events.append(["host.registered", host_id, time_ns, host.name, host.ip, host.facts()])
            events.append(["host.sample", host_id, time_ns, numbers.run, numbers.next(), host.sample(time_ns, mono_ns)])
        return events

    def ending(self) -> list[Event]:
        return []

    def close(self) -> None:
        """Nothing is open."""
