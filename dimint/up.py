"""`dimint up`: one of each process on this machine, and the line that says when all of them answer."""

import http.client
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from dimint.children import ChildSpec, Supervisor
from dimint.client import Client
from dimint.errors import DimintError, RegistryError, SettingsError
from dimint.locks import FileLock
from dimint.logs import log_path
from dimint.process_state import is_child
from dimint.registry.port import Membership, Registry
from dimint.registry.waiting import open_registry_when_there
from dimint.service import Service
from dimint.settings import UpSettings

__all__ = ["STOP_S", "Readiness", "children", "run"]

STOP_S: Final = 40.0
"""Longest that all children together may take to stop."""
ASK_S: Final = 0.1
LOOK_S: Final = 1.0
ANSWER_S: Final = 3.0
SAY_AGAIN_S: Final = 30.0

log = logging.getLogger("dimint")


def children(
    settings: UpSettings,
    command: Sequence[str],
    flags: Callable[[str], Sequence[str]],
    secrets: Callable[[str], Mapping[str, str]],
) -> list[ChildSpec]:
    """What `up` runs, in the order of starting.

    `flags(role)` are those that the user gave and the role has, `secrets(role)` the environment with those that must
    not stand on a command line.
    """
    roles: list[tuple[str, str, list[str]]] = [("overlord", "overlord", [])]
    roles += [(f"node-{number}", "node", [f"--node_name={number}"]) for number in range(1, settings.nodes + 1)]
    roles += [("consumer", "consumer", []), ("web", "web", []), ("alerts", "alerts", []), ("agent", "agent", [])]
    return [
        ChildSpec(
            name,
            (*command, role, "run", *flags(role), *more),
            log_path(settings.data_dir, name),
            secrets(role),
            # an agent that reported before the pages listened would count as not heard since, for one interval
            essential_first=role in {"overlord", "web"},
            # the store is of use without pages, and hosts are seen without alerts
            needed=role in {"overlord", "node"},
        )
        for name, role, more in roles
    ]


def run(settings: UpSettings, specs: Sequence[ChildSpec], service: Service) -> None:
    """Run until the service ends. Raises SettingsError for a directory or port that somebody else uses."""
    with ExitStack() as stack:
        lock = _lock_directory(settings.data_dir)
        stack.callback(lock.release)
        _check_ports(settings)
        registry = open_registry_when_there(settings, service=service)
        stack.callback(registry.close)
        supervisor = Supervisor(specs)
        service.spawn("telling", lambda: _tell(settings, registry, supervisor, service))
        service.run(supervisor)


def _lock_directory(directory: Path) -> FileLock:
    lock = FileLock(directory / "up.lock")
    if not lock.acquire():
        raise SettingsError(f"another dimint up runs on {directory}", hint="stop it, or give this one another --data_dir")
    return lock


def _check_ports(settings: UpSettings) -> None:
    """Find out about busy ports before anything is started."""
    for name, host, port in (
        ("port_for_client", settings.bind, settings.port_for_client),
        ("port_for_node", settings.bind, settings.port_for_node),
        ("http_port", settings.http_bind, settings.http_port),
    ):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise SettingsError(
                    f"{name}: cannot listen on {host}:{port}: {error.strerror}", hint=f"try another --{name}"
                ) from None


def _tell(settings: UpSettings, registry: Registry, supervisor: Supervisor, service: Service) -> None:
    """Tell people when everything answers, and the registry, for `dimint status`, what is off."""
    ready = _Ready(settings, registry)
    told: dict[str, str] = {}
    membership: Membership | None = None
    while not service.stopping.wait(LOOK_S if ready.is_told else ASK_S):
        off = supervisor.off()
        if not ready.is_told and ready.tell(off):
            service.ready()
        if off == told:
            continue
        info = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "off": {name: {"why": why, "log": str(log_path(settings.data_dir, name))} for name, why in off.items()},
        }
        try:
            if membership is None:
                membership = registry.join("up", os.urandom(16).hex(), info)
            else:
                membership.update(info)
            told = off
        except RegistryError as error:
            log.info("the registry does not take what is off: %s", error)


# --- readiness ------------------------------------------------------------------------------------------------------
class Readiness(NamedTuple):
    """What answers so far: `waiting` says in words what does not, empty when all do that are not off."""

    waiting: str
    client: str = ""
    pages: str = ""


class _Ready:
    """Finds out whether everything answers, and says so once."""

    def __init__(self, settings: UpSettings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry
        self._started = self._said = time.monotonic()
        self.is_told = False

    def tell(self, off: Collection[str]) -> bool:
        """Ask once; whether it is ready, which is said then. Says once in a while what it waits for."""
        found = _ask(self._settings, self._registry, off)
        now, data_dir = time.monotonic(), self._settings.data_dir
        if not found.waiting:
            without = f", without {', '.join(sorted(off))}" if off else ""
            print(
                f"ready: clients tcp://{found.client}, pages {found.pages or 'none'}, data {data_dir}, "
                f"after {now - self._started:.1f} s{without}",
                flush=True,
            )
            self.is_told = True
        elif now - self._said > SAY_AGAIN_S:
            self._said = now
            print(f"dimint: still waiting for {found.waiting}; see {data_dir / 'logs'}", file=sys.stderr, flush=True)
        return self.is_told


def _ask(settings: UpSettings, registry: Registry, off: Collection[str]) -> Readiness:
    """Ask every process that is not off for something only it can answer. Nothing is written."""
    try:
        overlords, nodes, pages = (_own(registry, role) for role in ("overlord", "node", "webapp"))
        if not overlords:
            return Readiness("the overlord")
        if len(nodes) < settings.nodes:
            return Readiness(f"nodes ({len(nodes)} of {settings.nodes} are there)")
        client = str(next(iter(overlords.values())).get("client", "")).removeprefix("tcp://")
        if "web" in off:
            return Readiness(_ask_store(settings, client), client)
        if not pages:
            return Readiness("the pages")
        where = str(next(iter(pages.values())).get("http", ""))
        hosts = 0 if {"agent", "consumer"} & set(off) else 1 + (settings.hosts if settings.simulate else 0)
        return Readiness(_ask_store(settings, client) or _ask_pages(settings, where, hosts), client, where)
    except (DimintError, OSError, http.client.HTTPException, ValueError) as error:
        return Readiness(f"an answer ({error})")


def _own(registry: Registry, role: str) -> dict[str, dict[str, Any]]:
    """Members that this program has started: others of the system may have been there before."""
    return {name: info for name, info in registry.members(role).items() if is_child(info.get("pid"))}


def _ask_store(settings: UpSettings, address: str) -> str:
    with Client(address, timeout=ANSWER_S, key_file=settings.key_file) as client:
        if not client.overlords():
            return "the overlord to know itself"
        known = len(client.state())
        if known < settings.nodes:
            return f"nodes ({known} of {settings.nodes} are there)"
        without = sum(not _is_served(partition) for partition in client.status()["partitions"])
        if without:
            return f"{without} partitions to be served"
        client.get("dimint", consistency="strong")
    return ""


def _is_served(partition: Mapping[str, Any]) -> bool:
    replicas = partition.get("replicas") or {}
    return bool(replicas.get(partition.get("master"), {}).get("caught_up"))


def _merged(settings: UpSettings) -> int:
    """Hosts that report as parts of others."""
    from dimint.consumers.reading import TABLES_FOLDER, StatusReader  # only where everything runs

    with StatusReader(settings.data_dir / TABLES_FOLDER) as reader:
        return len(reader.merged())


def _ask_pages(settings: UpSettings, address: str, hosts: int) -> str:
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=ANSWER_S)
    try:
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            return "healthy pages"
        connection.request("GET", "/states/")
        states = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if states.get("status_code") == 403:
        return ""  # a network filter keeps even this machine out
    running = sum(isinstance(host, dict) and host.get("status") == "running" for host in states.values())
    wanted = hosts - _merged(settings) if hosts else 0
    return "" if running >= wanted else f"hosts ({running} of {wanted} reported)"
