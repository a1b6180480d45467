"""The Sanic application: its factory, what guards every request, and how errors are answered."""

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import tzinfo
from itertools import count
from typing import Final

from sanic import Request, Sanic
from sanic.exceptions import MethodNotAllowed, NotFound, SanicException
from sanic.response import BaseHTTPResponse, HTTPResponse, empty, html, text

from dimint.clock import Clock
from dimint.errors import FormatError
from dimint.limits import HTTP_BODY_MAX_BYTES
from dimint.settings import WebSettings
from dimint.settings_thresholds import thresholds_of
from dimint.webapp.access import allows_address, allows_host, is_foreign_page
from dimint.webapp.as_html import message_page
from dimint.webapp.as_json import error_body
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.board import Board, BoardRules, Tables
from dimint.webapp.feed import Feed, Unreadable
from dimint.webapp.intake import Reports
from dimint.webapp.logbook import LogBook
from dimint.webapp.parts import PageStyle
from dimint.webapp.routes import (
    accounting,
    alerts,
    changes,
    cluster,
    host,
    keys,
    live,
    log_events,
    pages,
    senders,
    service,
    states,
    stream,
    unread,
    users,
)
from dimint.webapp.routes import log as log_route
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.static_files import load_static_files
from dimint.webapp.store import Store
from dimint.webapp.times import DateOrder

__all__ = ["Surroundings", "create_app"]

REQUEST_S: Final = 20
"""A request must be there this long after its first byte."""
RESPONSE_S: Final = 30
"""An answer must make progress; above the beat of streams."""

_SENDERS: Final = ("/register/", "/update/host/")
"""Where hosts report; the network filter is for readers."""

_UNREADABLE: Final = "NONE"
"""The method that Sanic gives the stand-in of a request which it could not read."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_numbers = count(1)
log = logging.getLogger("dimint.webapp")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the program finds around it: its zone, the names it is known under, names given to addresses."""

    zone: tzinfo
    own_names: Collection[str] = ()
    ip2name: tuple[tuple[str, str], ...] = ()


def create_app(
    reader: Tables,
    settings: WebSettings,
    clock: Clock,
    around: Surroundings,
    reports: Reports | None = None,
    store: Store | None = None,
    book: LogBook | None = None,
) -> App:
    """An application over these tables. It owns the reader from now on and closes it when the server stops.

    With `reports`, which its caller runs, hosts can report over HTTP; with `store` keys can be seen, with
    `book` the log; it closes both.
    """
    app: App = Sanic(f"dimint-web-{next(_numbers)}", configure_logging=False)
    app.config.update(
        ACCESS_LOG=False,
        MOTD=False,
        KEEP_ALIVE_TIMEOUT=60,
        REQUEST_TIMEOUT=REQUEST_S,
        RESPONSE_TIMEOUT=RESPONSE_S,
        REQUEST_MAX_SIZE=HTTP_BODY_MAX_BYTES,
        WEBSOCKET_MAX_SIZE=live.MESSAGE_MAX_BYTES,
        TOUCHUP=False,  # it rewrites classes of the process, which a second app in it then finds changed
    )
    limits = thresholds_of(settings)
    rules = BoardRules(settings.down_threshold, settings.order, settings.save_interval, dict(around.ip2name), limits, around.zone)
    order = DateOrder(settings.date_order)
    site = Site(
        feed=Feed(Board(reader, rules, clock)),
        clock=clock,
        page_style=PageStyle(around.zone, settings.page_title, settings.page_description, order, limits=limits),
        terminal_style=TerminalStyle(around.zone, settings.term_width, order),
        hosts_per_page=settings.page_size,
        static=load_static_files(),
    )
    for group in (pages, host, changes, log_route, alerts, users, states, accounting, stream, live):
        group.add_routes(app, site)
    service.add_routes(app, site, reports, store)
    keys.add_routes(app, site, store)
    log_events.add_routes(app, site, book)
    unread.add_routes(app, site, book)
    cluster.add_routes(app, site, store, book)
    if reports is not None:
        senders.add_routes(app, site, reports, settings.token)
    _guard(app, settings, around.own_names)
    _answer_errors(app, site)

    async def start(_app: App) -> None:
        site.feed.start()

    async def stop(_app: App) -> None:
        await site.feed.stop()
        for closing in (store, book):
            if closing is not None:
                await closing.close()

    app.register_listener(start, "before_server_start")
    app.register_listener(stop, "before_server_stop")
    return app


def _guard(app: App, settings: WebSettings, own_names: Collection[str]) -> None:
    pattern = re.compile(settings.network_filter) if settings.network_filter else None
    given = [name.strip() for name in settings.http_names.split(",")]
    names = {name.lower().removesuffix(".") for name in (*own_names, settings.http_bind, *given)} - {""}

    async def check(request: Request) -> HTTPResponse | None:
        if request.method == _UNREADABLE:
            return None  # it reaches no page: only the answer to what is wrong with it is on its way
        if not allows_host(request.headers.get("host", ""), names):
            return json_answer(error_body(400, "this server is not known under that name"), 400)
        from_sender = _is_sender(request)
        if (from_sender or request.path.startswith(live.LIVE_PATH)) and is_foreign_page(
            request.headers.get("origin"), request.headers.get("host", "")
        ):
            return json_answer(error_body(403, "forbidden"), 200 if from_sender else 403)
        if not from_sender and not request.path.startswith(service.HEALTH_PREFIX) and not allows_address(request.ip, pattern):
            # scripts look into the body, where the status is; browsers get a real one
            return json_answer(error_body(403, "forbidden"), 200 if request.path.startswith("/states") else 403)
        return None

    async def finish(_request: Request, response: BaseHTTPResponse) -> None:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")

    app.register_middleware(check, "request")
    app.register_middleware(finish, "response")


def _is_sender(request: Request) -> bool:
    return f"{request.path}/".startswith(_SENDERS)


def _answer_errors(app: App, site: Site) -> None:
    async def answer(request: Request, error: Exception) -> HTTPResponse:
        if isinstance(error, MethodNotAllowed):
            allowed = {"Allow": ", ".join(sorted({*error.headers.get("Allow", "").split(", "), "OPTIONS"} - {""}))}
            if request.method == "OPTIONS":
                return empty(204, headers=allowed)
            response = json_answer(error_body(405, "method not allowed"), 405)
            response.headers.update(allowed)
            return response
        status, message = _describe(error)
        if status == 500:
            log.error("%s %r failed", request.method, request.path[:200], exc_info=error)
        if _is_sender(request):
            return json_answer(error_body(status, message))
        if pages.is_true(request, "term"):
            return text(f"{message}\n", status=status)
        if "text/html" in (request.headers.get("accept") or ""):
            return html(message_page(site.page_style, message, f"error {status}"), status=status)
        return json_answer(error_body(status, message), status)

    app.error_handler.add(Exception, answer)


def _describe(error: Exception) -> tuple[int, str]:
    """Status and message of an error, without anything of its inside."""
    if isinstance(error, NotFound):
        return 404, "not found"
    if isinstance(error, Unreadable | FormatError):
        return 503, "the status tables cannot be read at present"
    if isinstance(error, SanicException) and error.status_code != 500:
        return error.status_code, str(error)[:200] or "request failed"
    return 500, "internal error"
