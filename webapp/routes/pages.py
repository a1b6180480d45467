"""`/` and `/gpu_table`: pages for browsers, tables for terminals."""

from dataclasses import replace
from typing import Final
from urllib.parse import quote

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadQuery
from dimint.webapp.alerts import alert_lines
from dimint.webapp.as_alerts import alerts_list
from dimint.webapp.as_html import Page, hosts_page, message_page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_terminal import DETAIL_VIEW, GPU_TABLE_VIEW, STATUS_VIEW, TerminalView
from dimint.webapp.asked import Asked, read_page
from dimint.webapp.charts import charts_node
from dimint.webapp.filter import parse_filter
from dimint.webapp.happenings import marks_of
from dimint.webapp.models import Host, Snapshot
from dimint.webapp.nodes import Node, to_html, to_json
from dimint.webapp.routes.terminal import terminal_answer
from dimint.webapp.site import App, Moment, Site

__all__ = ["add_routes", "is_true", "wrong_query"]

_HISTORY_NS: Final = 3600 * 1_000_000_000
"""What charts show where no range is asked for."""
_BAD_PAGE = "invalid page number."


def is_true(request: Request, name: str) -> bool:
    """Whether a query parameter says yes."""
    return (request.args.get(name) or "").lower() in ("true", "1")


def wrong_query(request: Request, site: Site, error: BadQuery) -> HTTPResponse:
    """The answer to a query that cannot be read: its one line, for eyes or for terminals."""
    if is_true(request, "term"):
        return text(f"{error}\n", status=400)
    typed = request.args.get("filter") or ""
    return html(message_page(site.page_style, "That cannot be shown", str(error), typed=typed), status=400)


def add_routes(app: App, site: Site) -> None:
    async def hosts(request: Request) -> HTTPResponse | None:
        return await answer(request, "/", DETAIL_VIEW if is_true(request, "detail") else STATUS_VIEW)

    async def gpu_table(request: Request) -> HTTPResponse | None:
        return await answer(request, "/gpu_table", GPU_TABLE_VIEW)

    async def answer(request: Request, path: str, view: TerminalView) -> HTTPResponse | None:
        if read_page(request.args.get("page")) is None:
            return text(_BAD_PAGE)
        try:
            if is_true(request, "term"):
                return await terminal_answer(request, site, view)
            asked = site.asked(request)
            if path == "/gpu_table":
                asked = replace(asked, layout="gpus")
            snapshot, asked, moment = await site.snapshot(asked)
        except BadQuery as error:
            return wrong_query(request, site, error)
        shown = site.show(snapshot, asked, moment)
        page = Page(
            path=path,
            asked=asked if path == "/" else replace(asked, layout=None),
            pages=shown.pages,
            when=site.when(snapshot),
            events=events_address(asked, shown.layout, snapshot.position) if moment is None else None,
            now_ms=site.now_ms() if moment is None else moment.at_ns // 1_000_000,
            past=moment is not None,
        )
        return html(hosts_page(page, site.page_style, shown, site.html_of(shown, moment)))

    async def host(request: Request, name: str) -> HTTPResponse | None:
        try:
            snapshot, asked, moment = await site.snapshot(site.asked(request))
        except BadQuery as error:
            return wrong_query(request, site, error)
        found = await site.feed.read(lambda board: board.find(name, snapshot))
        if found is None:
            return html(
                message_page(site.page_style, "No such host", f"{name} is not known{' at that time' if moment else ''}."), 404
            )
        if is_true(request, "term"):
            try:
                return await terminal_answer(request, site, DETAIL_VIEW, only=found.id)
            except BadQuery as error:
                return wrong_query(request, site, error)
        only = replace(asked, filter=parse_filter(f"id=={found.id}"), layout="cards", page=0, sort=())
        shown = site.show(snapshot, only, moment)
        page = Page(
            path=f"/hosts/{quote(found.name, safe='', errors='backslashreplace')}/",
            asked=Asked(at=asked.at, from_=asked.from_, to=asked.to),
            pages=1,
            when=site.when(snapshot),
            events=events_address(only, "cards", snapshot.position) if moment is None else None,
            now_ms=site.now_ms() if moment is None else moment.at_ns // 1_000_000,
            past=moment is not None,
        )
        below = to_html(await charts(found, moment, snapshot))
        return html(hosts_page(page, site.page_style, shown, site.html_of(shown, moment), title=found.name, below=below))

    async def charts(host: Host, moment: Moment | None, snapshot: Snapshot) -> Node:
        """The last hour of a live page, or the range asked for, under the host's open alerts."""
        to_ns = site.clock.time_ns() if moment is None else moment.at_ns
        from_ns = to_ns - _HISTORY_NS if moment is None or moment.from_ns is None else moment.from_ns
        history = await site.feed.read(lambda board: board.history(host, from_ns, to_ns))
        events = await site.feed.read(lambda board: board.events(from_ns, to_ns, host.id))
        refresh = f"/hosts/{host.id}/charts" if moment is None else None
        marks = marks_of(host, events, history.users)
        alerts = alerts_list(alert_lines(snapshot.alerts, [host]), site.page_style)
        return charts_node(history, marks, site.page_style.zone, refresh=refresh, alerts=alerts)

    async def host_charts(_request: Request, name: str) -> HTTPResponse:
        snapshot = await site.feed.current()
        found = await site.feed.read(lambda board: board.find(name, snapshot))
        if found is None:
            return raw(dump(error_body(404, "not found")), status=404, content_type="application/json")
        return raw(dump(to_json([await charts(found, None, snapshot)])), content_type="application/json")

    app.add_route(host_charts, "/hosts/<name:str>/charts", methods=("GET", "HEAD"), name="host_charts", unquote=True)

    app.add_route(host, "/hosts/<name:str>/", methods=("GET", "HEAD"), name="host", unquote=True)
    app.add_route(hosts, "/", methods=("GET", "HEAD"), name="hosts")
    app.add_route(gpu_table, "/gpu_table", methods=("GET", "HEAD"), name="gpu_table")


def events_address(asked: Asked, layout: str, position: str) -> str:
    """Where a page that shows this is kept live from."""
    query = asked.query(layout=layout)
    return f"/events{query or '?'}{'&' if query else ''}since={position}"
