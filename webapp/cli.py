"""Puts the web app together from its settings: what `dimint web` and `dimint up` run."""

import json
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from dimint.collector import tune_collector
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.errors import SettingsError
from dimint.log.opening import Genesis, genesis, open_settings_log
from dimint.log.port import Log
from dimint.registry.waiting import open_registry_when_there
from dimint.service import Service
from dimint.settings import WebSettings
from dimint.system_clock import SystemClock
from dimint.webapp.app import Surroundings, create_app
from dimint.webapp.intake import Intake
from dimint.webapp.logbook import SystemLogBook
from dimint.webapp.server import WebServer, bind, quiet_sanic
from dimint.webapp.store import SystemStore
from dimint.zone import local_zone

__all__ = ["open_web_log", "read_ip2name", "run"]

_IP2NAME_MAX_BYTES: Final = 4 << 20
YOUNG: Final = 5_000


def run(settings: WebSettings, service: Service) -> None:
    """Serve the pages until the service ends. Raises SettingsError, in one line, for what cannot work."""
    names = read_ip2name(settings.ip2name) if settings.ip2name is not None else ()
    own_names = (socket.gethostname(), socket.getfqdn())
    quiet_sanic()
    with ExitStack() as stack:
        door = bind(settings.http_bind, settings.http_port)
        stack.callback(door.close)
        registry = open_registry_when_there(settings, service=service)
        stack.callback(registry.close)
        reader = StatusReader(settings.data_dir / TABLES_FOLDER)
        store = SystemStore(
            lambda: [str(info["client"]) for info in registry.members("overlord").values() if info.get("client")],
            settings.key_file,
        )
        book = SystemLogBook(lambda: open_web_log(settings))
        intake = Intake(lambda: open_web_log(settings), SystemClock())
        app = create_app(reader, settings, SystemClock(), Surroundings(local_zone(), own_names, names), intake, store, book)
        server = WebServer(app, door, service.ready)
        host, port = server.address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        registry.join("webapp", where, {"http": f"http://{where}/", "pid": os.getpid(), "host": socket.gethostname()})
        tune_collector(YOUNG)
        service.run(server, intake)


def open_web_log(settings: WebSettings) -> tuple[Log, Genesis]:
    """The log of these settings with its genesis; the caller closes it. Raises LogError or SettingsError."""
    clock = SystemClock()
    source = open_settings_log(settings, clock=clock)
    try:
        found = genesis(source, wanted=settings.genesis, clock=clock, host=socket.gethostname(), process="webapp")
    except BaseException:
        source.close()
        raise
    return source, found


def read_ip2name(path: Path) -> tuple[tuple[str, str], ...]:
    """Addresses and the names that the pages show for them: a JSON map of text to text. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_IP2NAME_MAX_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"ip2name: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SettingsError(f"ip2name: {path} is not JSON ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) and name for name in found.values()):
        raise SettingsError(f"ip2name: {path} is not a map of addresses to names")
    return tuple(found.items())
