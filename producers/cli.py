"""Puts the agent together from its settings: what `dimint-produce` and `dimint up` run."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dimint.clock import Clock
from dimint.errors import SettingsError
from dimint.locks import FileLock
from dimint.producers.agent import Agent
from dimint.producers.delivery import Delivery
from dimint.producers.gpu_watch import DEADLINE_S, GpuWatch, Want
from dimint.producers.host import machine_id, name_of_this_host
from dimint.producers.processes import Processes, in_first_pid_namespace
from dimint.producers.publish import LogPublisher, OverlordPublisher, Publisher
from dimint.producers.schedule import PROCESSES, SLOW, STATIC, Due, Schedule
from dimint.producers.simulated import SimulatedHost
from dimint.producers.sources import HostIdentity, SimulatedFleet, Source, ThisHost
from dimint.producers.spool import Spool
from dimint.producers.state import host_id, known_gpus, last_run, remember_gpus, remember_run, simulated_fleet
from dimint.service import Service
from dimint.settings import AgentSettings
from dimint.system_clock import SystemClock

__all__ = ["once", "open_publisher", "run"]


def run(settings: AgentSettings, service: Service) -> None:
    """Run the agent until the service ends. Raises SettingsError, in one line, for what cannot work."""
    clock = SystemClock()
    directory = settings.data_dir / "agent"
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / "lock")
    if not lock.acquire():
        raise SettingsError(f"another agent works with {directory}", hint="stop it, or give this one another --data_dir")
    with ExitStack() as stack:
        stack.callback(lock.release)
        identity = _identity(settings, directory)
        publisher = stack.enter_context(open_publisher(settings, clock, service))
        spool = Spool(directory / "spool.db", clock)
        stack.callback(spool.close)
        stack.enter_context(_announced(settings, identity.id, publisher, service))
        phase_s = settings.interval * int(identity.id[:8], 16) / 16**8
        schedule = Schedule(settings.interval, clock.monotonic(), phase_s=phase_s)
        sources: list[Source] = [_this_host(settings, identity, clock, schedule, spool)]
        if settings.simulate:
            sources.append(_simulated(settings, directory, clock))
        agent = Agent(sources, Delivery(publisher, spool, clock), publisher, schedule, clock)
        service.ready()
        service.run(agent)


def once(settings: AgentSettings) -> dict[str, Any]:
    """One sample of this host with all tiers, as events by kind; nothing is published or kept."""
    clock = SystemClock()
    schedule = Schedule(settings.interval, clock.monotonic())
    identity = HostIdentity(id="", name=settings.host_name or name_of_this_host(), tags=dict(settings.tags))
    with GpuWatch(clock) as gpus:
        gpus.ask(Want())
        first = gpus.collect(DEADLINE_S + 1)  # starting the driver takes long; the sample below then has everything
        source = ThisHost(identity, clock, schedule, gpus, _processes(settings, clock), interval_s=settings.interval)
        source.events(Due(frozenset(), ()))  # shares of time need two looks
        time.sleep(0.2)
        events = source.events(Due(frozenset({PROCESSES, SLOW, STATIC}), ()))
        source.close()
    found = {event[0]: event for event in events}
    registered, sample = found["host.registered"], found["host.sample"]
    return {
        "name": registered[3],
        "ip": registered[4],
        "facts": registered[5],
        "gpu_state": first.state if first else "hung",
        "sample": sample[5],
    }


def _identity(settings: AgentSettings, directory: Path) -> HostIdentity:
    return HostIdentity(
        id=host_id(directory, machine_id()),
        name=settings.host_name or name_of_this_host(),
        known_gpus=known_gpus(directory),
        remember_gpus=lambda known: remember_gpus(directory, known),
        last_run=last_run(directory),
        remember_run=lambda run: remember_run(directory, run),
        tags=dict(settings.tags),
    )


def _this_host(settings: AgentSettings, identity: HostIdentity, clock: Clock, schedule: Schedule, spool: Spool) -> ThisHost:
    processes = _processes(settings, clock)
    return ThisHost(identity, clock, schedule, GpuWatch(clock), processes, interval_s=settings.interval, spool=spool.state)


def _processes(settings: AgentSettings, clock: Clock) -> Processes:
    return Processes(clock, namespace_is_hosts=in_first_pid_namespace(), command_lines=settings.command_lines)


def _simulated(settings: AgentSettings, directory: Path, clock: Clock) -> SimulatedFleet:
    seed, ids = simulated_fleet(directory, settings.hosts)
    interval_ms = round(settings.interval * 1000)
    hosts = [SimulatedHost(seed, number, interval_ms=interval_ms) for number in range(settings.hosts)]
    return SimulatedFleet(hosts, ids, clock)


@contextmanager
def open_publisher(settings: AgentSettings, clock: Clock, service: Service | None = None) -> Iterator[Publisher]:
    """The way out that the settings name. Raises SettingsError or LogError for a log that cannot be opened.

    With a service, one that does not answer now is waited for.
    """
    if settings.to:
        to_overlord = OverlordPublisher(settings.to, clock, settings.key_file)
        try:
            yield to_overlord
        finally:
            to_overlord.close()
        return
    from dimint.log.opening import genesis, open_settings_log  # agents far from the log do without it
    from dimint.log.waiting import open_when_there
    from dimint.writer import BatchWriter

    host, process = socket.gethostname(), f"agent/{os.getpid()}"
    if service is not None:
        log, found = open_when_there(settings, wanted=settings.genesis, clock=clock, process=process, service=service)
    else:
        log = open_settings_log(settings, clock=clock)
        found = genesis(log, wanted=settings.genesis, clock=clock, host=host, process=process)
    try:
        to_log = LogPublisher(BatchWriter(log, clock=clock, host=host, process=process), found)
        try:
            yield to_log
        finally:
            to_log.close()
    finally:
        log.close()


@contextmanager
def _announced(settings: AgentSettings, identity: str, publisher: Publisher, service: Service) -> Iterator[None]:
    """Be a member of the registry, where there is one to reach: an agent with `to` knows only its overlord."""
    if not isinstance(publisher, LogPublisher):
        yield
        return
    from dimint.registry.waiting import open_registry_when_there

    registry = open_registry_when_there(settings, service=service, log_id=publisher.log_id)
    try:
        registry.join("agent", identity, {"pid": os.getpid(), "host": socket.gethostname(), "simulated": settings.hosts})
        yield
    finally:
        registry.close()
