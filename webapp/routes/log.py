"""`/log`: what happened on the hosts in a range, as a page, for terminals and as JSON."""

from dataclasses import replace
from typing import Final

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadQuery
from dimint.limits import EVENTS_FETCH_MAX
from dimint.webapp.as_html import Page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_log import LogView, log_json, log_page, log_text
from dimint.webapp.asked import selected
from dimint.webapp.board import Board
from dimint.webapp.happenings import gpu_names, mark_of
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.terminal_options import read_terminal_options
from dimint.webapp.timeline import timeline_of

__all__ = ["add_routes"]

_DEFAULT: Final = "-24h"
_DAY_NS: Final = 24 * 3600 * 1_000_000_000
_ROWS_MAX: Final = 300


def add_routes(app: App, site: Site) -> None:
    async def log(request: Request) -> HTTPResponse:
        wants_json = request.args.get("format") == "json"
        try:
            asked = site.asked(request)
            live = not (asked.at or asked.from_ or asked.to)
            if asked.at:  # the day before that moment
                moment = site.moment(asked)
                assert moment is not None
                asked = site.fixed(asked, moment._replace(from_ns=moment.at_ns - _DAY_NS))
            asked = replace(asked, at="", from_=asked.from_ or _DEFAULT, to=asked.to or "now")
            moment = site.moment(asked)
            options = read_terminal_options(request.args.get, site.page_style.limits) if is_true(request, "term") else None
        except BadQuery as error:
            return json_answer(error_body(400, str(error)), 400) if wants_json else wrong_query(request, site, error)
        assert moment is not None
        at_ns, from_ns = moment
        assert from_ns is not None

        def read(board: Board) -> LogView:
            hosts = {host.id: host for host in selected(board.past(at_ns, traced=False).hosts, asked, at_ns)}
            found = board.events(from_ns, at_ns)
            events = [event for event in found if event.host in hosts]
            line = timeline_of(((event.kind, event.time_ns) for event in events), from_ns, at_ns)
            wanted = [event for event in events if asked.kind in ("", event.kind)]
            newest = wanted[-_ROWS_MAX:]
            names = {host_id: gpu_names(hosts[host_id]) for host_id in {event.host for event in newest}}
            rows = [(hosts[event.host].name, event.kind, mark_of(event, names[event.host])) for event in newest]
            simulated = frozenset(host.name for host in hosts.values() if host.simulated)
            return LogView(from_ns, at_ns, line, rows, len(wanted), len(found) >= EVENTS_FETCH_MAX, simulated)

        view = await site.feed.read(read)
        if wants_json:
            return raw(dump(log_json(view)), content_type="application/json")
        if options is not None:
            return text(options.finished(log_text(view, options.style(site.terminal_style))))
        # a page of now keeps its addresses free of times: a reload shows the newest again
        shown = replace(asked, from_="", to="") if live else site.fixed(asked, moment)
        page = Page("/log", shown, 1, "", None, at_ns // 1_000_000, not live)
        return html(log_page(page, site.page_style, view))

    app.add_route(log, "/log", methods=("GET", "HEAD"), name="log")
