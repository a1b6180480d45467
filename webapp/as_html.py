"""The pages for browsers. They stand on their own: complete without a script, kept live by one where it runs. [S]

A page is a frame around parts that are HTML already (`to_html` made them, so they are escaped); a part that did not
change since the last request is not made again.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from dimint.webapp.as_help import FOOT
from dimint.webapp.asked import LAYOUTS, Asked, Order
from dimint.webapp.heat import GRID_LEGEND, TILES_LEGEND
from dimint.webapp.nodes import Child, Node, node, to_html, users_text
from dimint.webapp.parts import PageStyle
from dimint.webapp.recent import RECENT_NS
from dimint.webapp.rows import ROW_COLUMNS
from dimint.webapp.shown import Shown
from dimint.webapp.timebar import time_bar
from dimint.webapp.times import NO_ENTRY, iso

__all__ = ["Page", "framed", "hosts_page", "message_page"]

_HOLE: Final = "\u0000parts\u0000"
"""Where the parts go; no text of a page can contain it, because NUL is made visible before."""
_VIEWS: Final = (
    ("/", "Hosts"), ("/gpu_table", "GPUs"), ("/users", "Users"), ("/alerts", "Alerts"), ("/changes", "Changes"), ("/log", "Log"),
    ("/log/events", "Events"), ("/keys/", "Keys"), ("/cluster", "Cluster"),
)  # fmt: skip
_FILTERED: Final = frozenset({"/", "/gpu_table", "/alerts", "/changes", "/log"})
"""Pages of hosts."""
_OVERVIEWS: Final = frozenset({"/", "/gpu_table"})
_NO_MATCH: Final = "Nothing matches."
_FILTER_HINT: Final = "gpu.util<5 and held>30m"


class Page(NamedTuple):
    """Which page it is: its path, what was asked for, how many pages there are, and the address of its live updates.

    `when` is the time of its data as shown, `now_ms` the clock that ages are told from: the server's, or the past moment's.
    """

    path: str
    asked: Asked
    pages: int
    when: str
    events: str | None
    now_ms: int
    past: bool


def hosts_page(
    page: Page, style: PageStyle, shown: Shown, parts: Iterable[str], *, title: str = "", below: str = "",
    plotter: bool = False,
) -> str:  # fmt: skip
    """`/` and `/gpu_table`: the overview and the parts, each as HTML; `/hosts/<name>/`: the parts, and `below` under them.

    `plotter` says that a script is there which draws charts.
    """
    content = "".join(parts)
    live = {"data_events": page.events, "data_now": str(page.now_ms)}
    hosts: list[Child]
    if shown.layout == "gpus":
        heads = (("host", None), ("GPU", None), ("memory", None), ("utilisation", None), ("temp.", "right"), ("users", None))
        head = node("thead", node("tr", *(node("th", word, scope="col", cls=cls) for word, cls in heads)))
        hosts = [node("div", node("table", head, _HOLE, id="hosts", cls="gputable", **live), cls="scroll")]
    elif shown.layout == "rows":
        hosts = [_ROWS_LEGEND, node("div", node("table", _row_heads(page), _HOLE, id="hosts", cls="rows", **live), cls="scroll")]
    elif shown.layout == "cards":
        hosts = [node("div", _HOLE, id="hosts", cls="cards", **live)]
    elif shown.layout == "grid":
        hosts = [GRID_LEGEND, node("div", _HOLE, id="hosts", cls="strips", **live)]
    else:
        hosts = [TILES_LEGEND, node("div", _HOLE, id="hosts", cls="groups", **live)]
    nothing = "No host was known at that time." if page.past else "No host has reported yet. Start an agent with: dimint-produce"
    words = _NO_MATCH if page.asked.filter.text else nothing
    # the page's script shows it, or hides it, as hosts come and go and the filter is typed
    empty = node("p", words, cls="empty", id="empty", hidden="" if content else None, data_nothing=nothing, data_match=_NO_MATCH)
    above = [node("div", _HOLE + "s"), _layouts(page, shown)] if page.path in _OVERVIEWS else []
    frame = framed(page, style, [*above, *hosts, empty, _pager(page), node("div", _HOLE + "b")], title=title, plotter=plotter)
    frame = frame.replace(_HOLE + "b", below, 1)
    return frame.replace(_HOLE + "s", to_html(shown.head), 1).replace(_HOLE, content, 1)


def message_page(style: PageStyle, title: str, message: str, *, typed: str = "") -> str:
    """A page that only says something: an error. `typed` is what stood in the filter."""
    page = Page("", Asked(), 1, "", None, 0, False)
    return framed(page, style, [node("h1", users_text(title)), node("p", users_text(message), cls="empty")], typed=typed)


_ROWS_LEGEND: Final = node(
    "p", "each GPU: ", node("span", "■", cls="util"), " left, how busy · ", node("span", "■", cls="mem"),
    " right, memory in use · click the bars for each GPU", cls="legend",
)  # fmt: skip


def _row_heads(page: Page) -> Node:
    """Headings; one that orders the hosts is a link, and turns the order round if it is the present one."""
    now = page.asked.sort[0].text if page.asked.sort else "host"
    cells = []
    for word, order, cls in ROW_COLUMNS:
        if order is None:
            cells.append(node("th", word, scope="col", cls=cls))
            continue
        turned = order.removeprefix("-") if order == now and order.startswith("-") else f"-{order}" if order == now else order
        link = page.path + page.asked.query(sort=(Order(turned.removeprefix("-"), turned.startswith("-")),), page=0)
        current = now.removeprefix("-") == order.removeprefix("-") and word != "GPUs"
        arrow = (" ▾" if now.startswith("-") else " ▴") if current else ""
        direction = ("descending" if now.startswith("-") else "ascending") if current else None
        cells.append(node("th", node("a", word + arrow, href=link), scope="col", cls=cls, aria_sort=direction))
    return node("thead", node("tr", *cells))


def _layouts(page: Page, shown: Shown) -> Node | None:
    if page.path != "/":
        return None
    links: list[Child] = []
    for layout in LAYOUTS:
        if layout == "gpus":
            continue
        current = "true" if layout == shown.layout else None
        links.append(node("a", layout, href=page.path + page.asked.query(layout=layout), aria_current=current))
    recent = Asked(filter=page.asked.filter, from_="-15m")
    words = "what changed in 15 min"
    if page.asked.from_:
        recent, words = replace(recent, from_=page.asked.from_, to=page.asked.to), "what changed in this range"
    elif page.past:
        at_ns = page.now_ms * 1_000_000
        recent, words = replace(recent, from_=iso(at_ns - RECENT_NS), to=iso(at_ns)), "what changed in the 15 min before"
    links.append(node("a", words, href=f"/changes{recent.query()}", cls="aside"))
    return node("nav", *links, cls="layouts", aria_label="Layout")


def _pager(page: Page) -> Node | None:
    if page.pages < 2:
        return None
    links: list[Child] = []
    for number in range(page.pages + 1):
        if number > 1 and abs(number - page.asked.page) > 3 and number != page.pages:
            continue
        current = "page" if number == page.asked.page else None
        href = page.path + (page.asked.query(page=number) or "?page=0")
        links.append(node("a", "all" if number == 0 else str(number), href=href, aria_current=current))
    return node("nav", *links, cls="pager", aria_label="Pages")


def _filter_form(page: Page, typed: str) -> Node:
    """Works without a script too: Enter asks for the page anew."""
    asked = page.asked
    kept = {
        "view": asked.layout or "", "sort": ",".join(order.text for order in asked.sort), "group": asked.group or "",
        "at": asked.at, "from": asked.from_, "to": asked.to, "kind": asked.kind,
    }  # fmt: skip
    hidden = [node("input", type="hidden", name=name, value=users_text(value)) for name, value in kept.items() if value]
    return node(
        "form",
        node("input", type="search", name="filter", id="filter", value=users_text(typed or asked.filter.text, ""),
             placeholder=f"Filter: {_FILTER_HINT}", aria_label="Filter", autocomplete="off", spellcheck="false",
             title="Words, or terms such as user==alice, tag:rack01, gpu.free and gpu.name~h100"),
        *hidden,
        node("span", "", id="wrong", role="alert"),
        method="get", action=page.path if page.path in _FILTERED else "/", cls="filter", role="search",
    )  # fmt: skip


def framed(
    page: Page, style: PageStyle, content: Iterable[Child], *, typed: str = "", title: str = "", plotter: bool = False
) -> str:
    """The frame of every page: head, top bar, time bar, and the content given."""
    words = users_text(f"{title} · {style.title}" if title else style.title)
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("title", words),
        node("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        node("link", rel="stylesheet", href="/static/style.css"),
        node("link", rel="service-desc", href="/openapi.json", type="application/json"),  # RFC 8631
        node("link", rel="stylesheet", href="/static/uplot.css") if plotter else None,
        node("script", src="/static/live.js", type="module"),
        node("script", src="/static/uplot.js", defer="") if plotter else None,
        node("script", src="/static/charts.js", type="module") if plotter else None,
    )
    times = Asked(at=page.asked.at, from_=page.asked.from_, to=page.asked.to).query()
    links = [node("a", word, href=path + times, aria_current="page" if path == page.path else None) for path, word in _VIEWS]
    clock: list[Child] = ["data of ", node("time", page.when, id="data-time")] if page.when else []
    if page.when == NO_ENTRY:
        clock = [node("time", "no data", id="data-time")]
    top = node(
        "header",
        node("a", users_text(style.title), href="/", cls="brand"),
        node("nav", *links, aria_label="Views"),
        _filter_form(page, typed),
        node(
            "p",
            node("span", "◷ past" if page.past else "", id="live", role="status", cls="wait"),
            node("span", *clock),
            cls="clock",
        ),
        cls="top",
    )
    description = node("p", users_text(style.description), cls="description") if style.description else None
    bar = time_bar(page.path, page.asked, page.now_ms) if page.path else None
    main = node("main", description, *content, id="main", cls="past" if page.past else None)
    body = node("body", node("a", "Skip to content", href="#main", cls="skip"), top, bar, main, FOOT)
    return "<!DOCTYPE html>\n" + to_html(node("html", head, body, lang="en"))
