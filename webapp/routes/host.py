"""`/hosts/<name>/`: the page of one host, its charts of any range, what happened, and who was on its GPUs."""

from dataclasses import replace

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadQuery
from dimint.webapp.as_html import Page, hosts_page, message_page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_terminal import DETAIL_VIEW
from dimint.webapp.asked import Asked
from dimint.webapp.filter import parse_filter
from dimint.webapp.nodes import to_json
from dimint.webapp.ranges import read_span
from dimint.webapp.routes.host_charts import Wanted, below, charts, host_path
from dimint.webapp.routes.pages import events_address, is_true, wrong_query
from dimint.webapp.routes.terminal import terminal_answer
from dimint.webapp.site import App, Site
from dimint.webapp.text import clean

__all__ = ["add_routes"]


def add_routes(app: App, site: Site) -> None:
    async def host(request: Request, name: str) -> HTTPResponse | None:
        try:
            wanted = await find(request, name)
            if wanted is None:
                words = f"{name} is not known{' at that time' if site.asked(request).times else ''}"
                if is_true(request, "term"):
                    return text(f"{clean(words)}\n", status=404)
                return html(message_page(site.page_style, "No such host", f"{words}."), 404)
            if is_true(request, "term"):
                return await terminal_answer(request, site, DETAIL_VIEW, only=wanted.host.id)
            return html(await whole_page(wanted))
        except BadQuery as error:
            return wrong_query(request, site, error)

    async def find(request: Request, name: str) -> Wanted | None:
        """Raises BadQuery."""
        span = request.args.get("last") or ""
        read_span(span)
        snapshot, asked, moment = await site.snapshot(site.asked(request))
        found = await site.feed.read(lambda board: board.find(name, snapshot))
        return None if found is None else Wanted(found, snapshot, asked, moment, span)

    async def whole_page(wanted: Wanted) -> str:
        host, moment, snapshot, asked = wanted.host, wanted.moment, wanted.snapshot, wanted.asked
        only = replace(asked, filter=parse_filter(f"id=={host.id}"), layout="cards", page=0, sort=())
        shown = site.show(snapshot, only, moment)
        page = Page(
            path=host_path(host),
            asked=Asked(at=asked.at, from_=asked.from_, to=asked.to),
            pages=1,
            when=site.when(snapshot),
            events=events_address(only, "cards", snapshot.position) if moment is None else None,
            now_ms=site.now_ms() if moment is None else moment.at_ns // 1_000_000,
            past=moment is not None,
        )
        parts, plotter = site.html_of(shown, moment), "uplot.js" in site.static
        under = await below(site, wanted)
        return hosts_page(page, site.page_style, shown, parts, title=host.name, below=under, plotter=plotter)

    async def host_charts(request: Request, name: str) -> HTTPResponse:
        try:
            wanted = await find(request, name)
        except BadQuery as error:
            return raw(dump(error_body(400, str(error))), status=400, content_type="application/json")
        if wanted is None:
            return raw(dump(error_body(404, "not found")), status=404, content_type="application/json")
        tree, numbers = await charts(site, wanted, drawn=is_true(request, "drawn"))
        return raw(dump({"tree": to_json([tree])[0], "plots": numbers}), content_type="application/json")

    app.add_route(host_charts, "/hosts/<name:str>/charts", methods=("GET", "HEAD"), name="host_charts", unquote=True)
    app.add_route(host, "/hosts/<name:str>/", methods=("GET", "HEAD"), name="host", unquote=True)
