"""`/cluster`: who is there and who holds what, now or at any time: a page, for terminals and as JSON."""

from dataclasses import replace

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.client import operations
from dimint.errors import BadQuery, LogError, LogMismatch, RequestError, SettingsError
from dimint.webapp.as_cluster import cluster_page, cluster_text
from dimint.webapp.as_html import Page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.asked import Asked
from dimint.webapp.cluster import cluster_at, cluster_json, with_status
from dimint.webapp.logbook import LogBook
from dimint.webapp.routes.log_events import cannot_read
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.store import Store
from dimint.webapp.terminal_options import read_terminal_options
from dimint.webapp.times import iso_us

__all__ = ["add_routes"]


def add_routes(app: App, site: Site, store: Store | None, book: LogBook | None) -> None:
    async def cluster(request: Request) -> HTTPResponse:
        wants_json = request.args.get("format") == "json"
        try:
            asked = site.asked(request)
            moment = site.moment(asked)
            options = read_terminal_options(request.args.get, site.page_style.limits) if is_true(request, "term") else None
        except BadQuery as error:
            return json_answer(error_body(400, str(error)), 400) if wants_json else wrong_query(request, site, error)
        if book is None or store is None:
            return cannot_read(request, site, "these pages are not connected to a log")
        now_ns = site.clock.time_ns()
        try:
            events = await book.cluster(None if moment is None else moment.at_ns)
        except (LogError, LogMismatch, SettingsError) as error:
            return cannot_read(request, site, error.message)
        view = cluster_at(events, None if moment is None else moment.at_ns // 1000)
        if moment is None:
            try:
                view = with_status(view, await store.ask(operations.ask("status")))
            except RequestError as error:
                view = cluster_at(events, now_ns // 1000)
                view = replace(view, note=f"no overlord tells how it is now ({error.message}): as the log had it last")
        if wants_json:
            return raw(dump(cluster_json(view, iso_us)), content_type="application/json")
        if options is not None:
            return text(options.finished(cluster_text(view, options.style(site.terminal_style))))
        shown = Asked(at=asked.at, from_=asked.from_, to=asked.to)
        now_ms = (now_ns if moment is None else moment.at_ns) // 1_000_000
        page = Page("/cluster", shown, 1, "", None, now_ms, moment is not None)
        return html(cluster_page(page, site.page_style, view))

    app.add_route(cluster, "/cluster", methods=("GET", "HEAD"), name="cluster")
