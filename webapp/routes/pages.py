"""`/` and `/gpu_table`: pages for browsers, tables for terminals."""

from dataclasses import replace

from sanic import Request
from sanic.response import HTTPResponse, html, text

from dimint.errors import BadQuery
from dimint.webapp.as_html import Page, hosts_page, message_page
from dimint.webapp.as_terminal import DETAIL_VIEW, GPU_TABLE_VIEW, STATUS_VIEW, TerminalView
from dimint.webapp.asked import Asked, read_page
from dimint.webapp.routes.host_charts import Wanted, below
from dimint.webapp.routes.terminal import terminal_answer
from dimint.webapp.site import App, Site

__all__ = ["add_routes", "events_address", "is_true", "wrong_query"]

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
        parts = site.html_of(shown, moment)
        if path == "/" and shown.layout == "cards" and len(snapshot.hosts) == len(shown.hosts) == 1 and not asked.filter.text:
            under = await below(site, Wanted(shown.hosts[0], snapshot, asked, moment))
            return html(hosts_page(page, site.page_style, shown, parts, below=under, plotter="uplot.js" in site.static))
        return html(hosts_page(page, site.page_style, shown, parts))

    app.add_route(hosts, "/", methods=("GET", "HEAD"), name="hosts")
    app.add_route(gpu_table, "/gpu_table", methods=("GET", "HEAD"), name="gpu_table")


def events_address(asked: Asked, layout: str, position: str) -> str:
    """Where a page that shows this is kept live from."""
    query = asked.query(layout=layout)
    return f"/events{query or '?'}{'&' if query else ''}since={position}"
