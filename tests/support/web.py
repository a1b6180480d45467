"""A web app on a free port of 127.0.0.1, served on a thread, as the program serves it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from dimint.clock import Clock
from dimint.settings import WebSettings, build, settings_of
from dimint.webapp.app import Surroundings, create_app
from dimint.webapp.board import Tables
from dimint.webapp.intake import Reports
from dimint.webapp.logbook import LogBook
from dimint.webapp.server import WebServer, bind, quiet_sanic
from dimint.webapp.store import Store
from tests.support.answers import check_answers
from tests.support.at_work import at_work

__all__ = ["raw_exchange", "serving", "web_settings"]


def web_settings(**given: Any) -> WebSettings:
    """The defaults, on a free port, with what a test gives."""
    values = {row.name: row.default for row in settings_of("web")}
    return build(WebSettings, values | {"data_dir": Path("/nowhere"), "log": "/nowhere", "http_port": 0} | given, given)


@contextmanager
def serving(
    tables: Tables,
    clock: Clock,
    *,
    reports: Reports | None = None,
    store: Store | None = None,
    book: LogBook | None = None,
    checked: bool = True,
    zone: tzinfo = UTC,
    **given: Any,
) -> Iterator[tuple[str, int]]:
    """Serve these tables; (address, port). It has ended, threads and all, when the block is left.

    Every answer must then have been one that the description of the API knows; `checked=False` spares benchmarks the time.
    """
    quiet_sanic()
    settings = web_settings(**given)
    app = create_app(tables, settings, clock, Surroundings(zone, own_names=("monitor.lab",)), reports, store, book)
    problems = check_answers(app) if checked else []
    listening = threading.Event()
    server = WebServer(app, bind(settings.http_bind, settings.http_port), listening.set)
    with at_work(server):
        assert listening.wait(10)
        yield server.address
    assert not problems, problems[:5]


def raw_exchange(address: tuple[str, int], request: bytes, timeout_s: float = 5.0) -> bytes:
    """Send bytes as they are and read until the server closes, or until nothing comes for the time given."""
    with socket.create_connection(address, timeout=timeout_s) as connection:
        connection.sendall(request)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except TimeoutError:
            pass
        return received
