"""Where events come from: this host, or simulated ones. A source gives the events of one tick, with run and numbers."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from dimint import __version__
from dimint.clock import Clock
from dimint.producers.gpu_states import Fleet
from dimint.producers.gpu_texts import GPU_TEXTS
from dimint.producers.gpu_watch import GpuReading, GpuWatch, Want
from dimint.producers.host import Host, address_of_this_host, boot_id, host_facts
from dimint.producers.pci import driver_module_version
from dimint.producers.processes import Processes
from dimint.producers.publish import Event
from dimint.producers.sample import Assembler, Fast
from dimint.producers.schedule import PROCESSES, SLOW, STATIC, Due, Schedule
from dimint.producers.simulated import SimulatedHost

__all__ = ["GPU_WAIT_S", "HostIdentity", "Numbers", "SimulatedFleet", "Source", "ThisHost"]

GPU_WAIT_S: Final = 1.0
"""Longest that a sample waits for its GPU part; without it the sample says nothing of GPUs."""

log = logging.getLogger("dimint.agent")


class Source(Protocol):
    """Belongs to one thread."""

    def events(self, due: Due) -> list[Event]:
        """Events of a tick at which these tiers are due."""

    def close(self) -> None:
        """Idempotent."""


class Numbers:
    """The run, 8 random bytes of this start, and the sample numbers of one host: 1, 2, 3, …."""

    def __init__(self, run: bytes | None = None) -> None:
        self.run = os.urandom(8) if run is None else run
        self._last = 0

    def next(self) -> int:
        self._last += 1
        return self._last


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """Who this host is, and where what it keeps is written."""

    id: str
    name: str
    known_gpus: Mapping[str, Mapping[str, Any]]
    remember_gpus: Callable[[Mapping[str, Mapping[str, Any]]], None]


class ThisHost:
    """Samples of the host that the agent runs on."""

    def __init__(
        self, identity: HostIdentity, clock: Clock, schedule: Schedule, gpus: GpuWatch, processes: Processes, *, interval_s: float
    ) -> None:
        self._identity, self._clock, self._schedule = identity, clock, schedule
        self._gpus, self._processes = gpus, processes
        self._wait_s = min(GPU_WAIT_S, interval_s / 2)
        self._interval_ms = round(interval_s * 1000)
        self._host = Host()
        self._fleet = Fleet(identity.known_gpus)
        self._assembler = Assembler(interval_ms=self._interval_ms, boot=boot_id())
        self._numbers = Numbers()
        self._fixed_facts = host_facts()
        self._gpu_facts: dict[str, Any] = {}
        self._gpus_changed = False
        self._said_state = ""
        self._registered: Event | None = None

    def events(self, due: Due) -> list[Event]:
        time_ns, started = self._clock.time_ns(), self._clock.monotonic()
        mono_ns = round(started * 1e9)
        self._gpus.ask(Want(processes=PROCESSES in due.tiers, slow=SLOW in due.tiers))
        cpu, memory, network = self._host.cpu(), self._host.memory(), self._host.network()
        if SLOW in due.tiers:
            self._read_slow(mono_ns)
        reading = self._gpus.collect(self._wait_s)
        events: list[Event] = []
        fast = Fast(cpu, memory, network, "unknown", None)
        if reading is None:
            self._schedule.ask_again({PROCESSES} & due.tiers)
        else:
            gpus, changes = self._fleet.apply(reading.state, reading.gpus, self._gpus.hung(), time_ns // 10**9)
            state = reading.state if reading.state != "suspended" else "ok" if gpus else "unknown"
            fast = Fast(cpu, memory, network, state, gpus)
            self._say_state(state)
            for change in changes:
                log.warning("GPU %s is %s", change.uuid, change.state)
                if change.state == "ok":
                    events.append(["gpu.back", self._identity.id, time_ns, change.uuid])
                else:
                    events.append(["gpu.lost", self._identity.id, time_ns, change.uuid, change.state])
            self._take_gpu_reading(reading, mono_ns)
            if changes or STATIC in due.tiers:
                self._remember()
        if SLOW in due.tiers or STATIC in due.tiers or self._gpus_changed:
            events = self._register(time_ns, again=STATIC in due.tiers) + events
        dur_us = round((self._clock.monotonic() - started) * 1e6)
        sample = self._assembler.build(fast, mono_ns=mono_ns, dur_us=dur_us, skipped=due.skipped)
        events.append(["host.sample", self._identity.id, time_ns, self._numbers.run, self._numbers.next(), sample])
        return events

    def close(self) -> None:
        self._gpus.close()
        self._remember()

    def _say_state(self, state: str) -> None:
        if state != self._said_state:
            self._said_state = state
            log.info("GPU driver: %s", GPU_TEXTS.get(state, state))

    def _read_slow(self, mono_ns: int) -> None:
        started = self._clock.monotonic()
        self._assembler.slow(disks=self._host.disks(), temperatures=self._host.temperatures(), mono_ns=mono_ns)
        now = self._clock.monotonic()
        self._schedule.cost(SLOW, now - started, now)

    def _take_gpu_reading(self, reading: GpuReading, mono_ns: int) -> None:
        if reading.procs is not None:
            self._assembler.processes(self._processes.describe(reading.procs), reading.procs_err, reading.gpus, mono_ns)
            self._schedule.cost(PROCESSES, reading.procs_s, self._clock.monotonic())
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
            "driver_module": driver_module_version(Path("/proc")),
            "tags": {},
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

    def close(self) -> None:
        """Nothing is open."""
