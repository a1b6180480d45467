"""`/` and `/gpu_table`: pages for browsers, tables for terminals."""

from sanic import Request
from sanic.response import HTTPResponse, html, text

from dimint.webapp.as_html import Page, gpu_table_page, hosts_page
from dimint.webapp.as_terminal import DETAIL_VIEW, GPU_TABLE_VIEW, STATUS_VIEW, TerminalView
from dimint.webapp.site import App, Site, View, read_page

__all__ = ["add_routes", "is_true"]

_BAD_PAGE = "invalid page number."


def is_true(request: Request, name: str) -> bool:
    """Whether a query parameter says yes."""
    return (request.args.get(name) or "").lower() in ("true", "1")


def add_routes(app: App, site: Site) -> None:
    async def hosts(request: Request) -> HTTPResponse:
        return await answer(request, "/", DETAIL_VIEW if is_true(request, "detail") else STATUS_VIEW)

    async def gpu_table(request: Request) -> HTTPResponse:
        return await answer(request, "/gpu_table", GPU_TABLE_VIEW)

    async def answer(request: Request, path: str, view: TerminalView) -> HTTPResponse:
        number = read_page(request.args.get("page"))
        if number is None:
            return text(_BAD_PAGE)
        snapshot = await site.feed.current()
        shown = site.hosts_of(snapshot, number)
        if is_true(request, "term"):
            return text(site.terminal(view, shown))
        kind: View = "gpus" if path == "/gpu_table" else site.view_for(shown)
        events = f"/events?view={kind}&page={number}&since={site.tag(snapshot.sequence)}"
        page = Page(path, number, site.pages_of(snapshot), site.when(snapshot), events, site.now_ms())
        summary, parts = site.summary_html(snapshot), site.html_of(kind, shown)
        if kind == "gpus":
            return html(gpu_table_page(page, site.page_style, summary, parts))
        return html(hosts_page(page, site.page_style, summary, parts, rows=kind == "rows"))

    app.add_route(hosts, "/", methods=("GET", "HEAD"), name="hosts")
    app.add_route(gpu_table, "/gpu_table", methods=("GET", "HEAD"), name="gpu_table")
