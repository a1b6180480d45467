"""`/alerts`: what is open now, or was at a time, as a page, for terminals and as JSON."""

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadQuery
from dimint.webapp.alerts import alert_lines
from dimint.webapp.as_alerts import alerts_json, alerts_page, alerts_text
from dimint.webapp.as_html import Page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.asked import selected
from dimint.webapp.routes.pages import is_true, wrong_query
from dimint.webapp.routes.states import json_answer
from dimint.webapp.site import App, Site
from dimint.webapp.terminal_options import read_terminal_options

__all__ = ["add_routes"]


def add_routes(app: App, site: Site) -> None:
    async def alerts(request: Request) -> HTTPResponse:
        for_terminal = is_true(request, "term")
        wants_json = request.args.get("format") == "json"
        try:
            asked = site.asked(request)
            snapshot, asked, moment = await site.snapshot(asked)
            options = read_terminal_options(request.args.get, site.page_style.limits) if for_terminal else None
        except BadQuery as error:
            return json_answer(error_body(400, str(error)), 400) if wants_json else wrong_query(request, site, error)
        now_ns = site.clock.time_ns() if moment is None else moment.at_ns
        hosts = selected(snapshot.hosts, asked, now_ns)
        lines = alert_lines(snapshot.alerts, hosts, strangers=asked.filter.test is None)
        if wants_json:
            return raw(dump(alerts_json(lines)), content_type="application/json")
        if options is not None:
            table = alerts_text(lines, options.style(site.terminal_style), past=moment is not None)
            return text(options.finished(table))
        page = Page("/alerts", asked, 1, site.when(snapshot), None, now_ns // 1_000_000, moment is not None)
        return html(alerts_page(page, site.style_for(asked), lines))

    app.add_route(alerts, "/alerts", methods=("GET", "HEAD"), name="alerts")
