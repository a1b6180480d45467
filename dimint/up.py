"""`dimint up`: one of each process on this machine, and the line that says when all of them answer."""

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from dimint.children import ChildSpec, Supervisor
from dimint.client import Client
from dimint.errors import DimintError, SettingsError
from dimint.locks import FileLock
from dimint.logs import log_path
from dimint.process_state import is_child
from dimint.registry.port import Registry
from dimint.registry.waiting import open_registry_when_there
from dimint.service import Service
from dimint.settings import UpSettings

__all__ = ["STOP_S", "Readiness", "children", "run"]

STOP_S: Final = 40.0
"""Longest that all children together may take to stop."""
ASK_S: Final = 0.1
ANSWER_S: Final = 3.0
SAY_AGAIN_S: Final = 30.0


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
        service.spawn("readiness", lambda: _tell_when_ready(settings, registry, service))
        service.run(Supervisor(specs))


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


# --- readiness ------------------------------------------------------------------------------------------------------
class Readiness(NamedTuple):
    """What answers so far: `waiting` says in words what does not, empty when all do."""

    waiting: str
    client: str = ""
    pages: str = ""


def _tell_when_ready(settings: UpSettings, registry: Registry, service: Service) -> None:
    started = said = time.monotonic()
    while not service.stopping.wait(ASK_S):
        found = _ask(settings, registry)
        if not found.waiting:
            took = time.monotonic() - started
            print(
                f"ready: clients tcp://{found.client}, pages {found.pages}, data {settings.data_dir}, after {took:.1f} s",
                flush=True,
            )
            service.ready()
            return
        if time.monotonic() - said > SAY_AGAIN_S:
            said = time.monotonic()
            print(f"dimint: still waiting for {found.waiting}; see {settings.data_dir / 'logs'}", file=sys.stderr, flush=True)


def _ask(settings: UpSettings, registry: Registry) -> Readiness:
    """Ask every process for something only it can answer. Nothing is written."""
    try:
        overlords, nodes, pages = (_own(registry, role) for role in ("overlord", "node", "webapp"))
        if not overlords:
            return Readiness("the overlord")
        if len(nodes) < settings.nodes:
            return Readiness(f"nodes ({len(nodes)} of {settings.nodes} are there)")
        if not pages:
            return Readiness("the pages")
        client = str(next(iter(overlords.values())).get("client", "")).removeprefix("tcp://")
        where = str(next(iter(pages.values())).get("http", ""))
        return Readiness(_ask_store(settings, client) or _ask_pages(settings, where), client, where)
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


def _ask_pages(settings: UpSettings, address: str) -> str:
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
    wanted = 1 + (settings.hosts if settings.simulate else 0) - _merged(settings)
    return "" if running >= wanted else f"hosts ({running} of {wanted} reported)"
