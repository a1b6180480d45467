"""`/hosts/<name>/`: the page of one host, its charts of any range, what happened, and who was on its GPUs."""

from dataclasses import replace
from typing import NamedTuple
from urllib.parse import quote, urlencode

from sanic import Request
from sanic.response import HTTPResponse, html, raw, text

from dimint.errors import BadQuery
from dimint.webapp.alerts import alert_lines
from dimint.webapp.as_alerts import alerts_list
from dimint.webapp.as_html import Page, hosts_page, message_page
from dimint.webapp.as_json import dump, error_body
from dimint.webapp.as_processes import processes_section
from dimint.webapp.as_terminal import DETAIL_VIEW
from dimint.webapp.asked import Asked
from dimint.webapp.charts import charts_node
from dimint.webapp.filter import parse_filter
from dimint.webapp.happenings import gpu_names, marks_of
from dimint.webapp.host_past import read_history, read_processes
from dimint.webapp.models import Host, Snapshot
from dimint.webapp.nodes import Node, to_html, to_json
from dimint.webapp.plots import plots
from dimint.webapp.ranges import DEFAULT_SPAN, Range, range_nav, read_span
from dimint.webapp.routes.pages import events_address, is_true, wrong_query
from dimint.webapp.routes.terminal import terminal_answer
from dimint.webapp.site import App, Moment, Site
from dimint.webapp.text import clean
from dimint.webapp.times import iso

__all__ = ["add_routes"]


class _Found(NamedTuple):
    """The host that a request is about, as it was then, and what is asked of it."""

    host: Host | None
    snapshot: Snapshot
    asked: Asked
    moment: Moment | None
    span: str


def add_routes(app: App, site: Site) -> None:
    async def host(request: Request, name: str) -> HTTPResponse | None:
        try:
            found = await find(request, name)
            if found.host is None:
                words = f"{name} is not known{' at that time' if found.moment else ''}"
                if is_true(request, "term"):
                    return text(f"{clean(words)}\n", status=404)
                return html(message_page(site.page_style, "No such host", f"{words}."), 404)
            if is_true(request, "term"):
                return await terminal_answer(request, site, DETAIL_VIEW, only=found.host.id)
            return html(await whole_page(found, found.host))
        except BadQuery as error:
            return wrong_query(request, site, error)

    async def find(request: Request, name: str) -> _Found:
        """Raises BadQuery."""
        span = request.args.get("last") or ""
        read_span(span)
        snapshot, asked, moment = await site.snapshot(site.asked(request))
        return _Found(await site.feed.read(lambda board: board.find(name, snapshot)), snapshot, asked, moment, span)

    async def whole_page(found: _Found, host: Host) -> str:
        moment, snapshot = found.moment, found.snapshot
        only = replace(found.asked, filter=parse_filter(f"id=={host.id}"), layout="cards", page=0, sort=())
        shown = site.show(snapshot, only, moment)
        page = Page(
            path=_path(host),
            asked=Asked(at=found.asked.at, from_=found.asked.from_, to=found.asked.to),
            pages=1,
            when=site.when(snapshot),
            events=events_address(only, "cards", snapshot.position) if moment is None else None,
            now_ms=site.now_ms() if moment is None else moment.at_ns // 1_000_000,
            past=moment is not None,
        )
        times = _range(found, site.clock.time_ns())
        tree, _ = await charts(found, host, times, drawn=False)
        was_here = await site.feed.aside(lambda tables: read_processes(tables, host, times.from_ns, times.to_ns))
        who = processes_section(was_here, gpu_names(host), times.from_ns, times.to_ns, site.page_style.zone)
        below = to_html(tree) + (to_html(who) if who is not None else "")
        plotter = "uplot.js" in site.static
        return hosts_page(
            page, site.page_style, shown, site.html_of(shown, moment), title=host.name, below=below, plotter=plotter
        )

    async def charts(found: _Found, host: Host, times: Range, *, drawn: bool) -> tuple[Node, dict[str, object]]:
        """The charts as a tree, and as numbers."""
        zone = site.page_style.zone
        history = await site.feed.aside(lambda tables: read_history(tables, host, times.from_ns, times.to_ns))
        events = await site.feed.read(lambda board: board.events(times.from_ns, times.to_ns, host.id))
        marks = marks_of(host, events, history, zone)
        opened = alerts_list(alert_lines(found.snapshot.alerts, [host]), site.page_style)
        words = {"last": found.span, "at": found.asked.at, "from": found.asked.from_, "to": found.asked.to}
        address = f"/hosts/{host.id}/charts?" + urlencode({name: word for name, word in words.items() if word})
        spans = range_nav(_path(host), times, site.clock.time_ns())
        refresh = address if times.live else None
        log = "/log?" + urlencode({"filter": f"id=={host.id}", "from": iso(times.from_ns), "to": iso(times.to_ns)})
        tree = charts_node(
            history, marks, zone, refresh=refresh, alerts=opened, spans=spans, data=address, drawn=drawn, log=log
        )  # fmt: skip
        return tree, plots(history, marks, zone)

    async def host_charts(request: Request, name: str) -> HTTPResponse:
        try:
            found = await find(request, name)
        except BadQuery as error:
            return raw(dump(error_body(400, str(error))), status=400, content_type="application/json")
        if found.host is None:
            return raw(dump(error_body(404, "not found")), status=404, content_type="application/json")
        times = _range(found, site.clock.time_ns())
        tree, numbers = await charts(found, found.host, times, drawn=is_true(request, "drawn"))
        return raw(dump({"tree": to_json([tree])[0], "plots": numbers}), content_type="application/json")

    app.add_route(host_charts, "/hosts/<name:str>/charts", methods=("GET", "HEAD"), name="host_charts", unquote=True)
    app.add_route(host, "/hosts/<name:str>/", methods=("GET", "HEAD"), name="host", unquote=True)


def _path(host: Host) -> str:
    return f"/hosts/{quote(host.name, safe='', errors='backslashreplace')}/"


def _range(found: _Found, now_ns: int) -> Range:
    """The range asked for; with one end of it only, or none, as long as `last=` says."""
    span_ns = read_span(found.span or DEFAULT_SPAN)
    if found.moment is None:
        return Range(now_ns - span_ns, now_ns, live=True)
    at_ns, from_ns = found.moment
    return Range(max(0, at_ns - span_ns) if from_ns is None else from_ns, at_ns, live=False)
