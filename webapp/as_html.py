"""The pages for browsers. They stand on their own: complete without a script, kept live by one where it runs. [S]

A page is a frame around parts that are HTML already (`to_html` made them, so they are escaped); a part that did not
change since the last request is not made again.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from dimint.webapp.cards import PageStyle
from dimint.webapp.nodes import Child, Node, node, to_html, users_text

__all__ = ["Page", "gpu_table_page", "hosts_page", "message_page"]

_HOLE: Final = "\u0000parts\u0000"
"""Where the parts go; no text of a page can contain it, because NUL is made visible before."""


class Page(NamedTuple):
    """Which page it is: its path, the number asked for (0 = all) of how many, the address of its live updates.

    `when` is the time of its data as shown, `now_ms` the server's clock, from which a browser tells how old data is.
    """

    path: str
    number: int
    pages: int
    when: str
    events: str
    now_ms: int


def hosts_page(page: Page, style: PageStyle, summary: str, hosts: Iterable[str], *, rows: bool) -> str:
    """`/`: totals and hosts, each given as HTML."""
    shown = "".join(hosts)
    empty = None if shown else node("p", "No host has reported yet. Start an agent with: dimint-produce", cls="empty")
    content = node("div", _HOLE, id="hosts", cls="rows" if rows else "cards", data_events=page.events, data_now=str(page.now_ms))
    return _fill(_frame(page, style, [_SUMMARY, _LEGEND if rows else None, content, empty]), summary, shown)


def gpu_table_page(page: Page, style: PageStyle, summary: str, bodies: Iterable[str]) -> str:
    """`/gpu_table`: every GPU of every host in one table; `bodies` are its table bodies as HTML."""
    heads = (("host", None), ("GPU", None), ("memory", None), ("utilisation", None), ("temp.", "right"), ("users", None))
    head = node("thead", node("tr", *(node("th", word, scope="col", cls=cls) for word, cls in heads)))
    table = node("table", head, _HOLE, id="hosts", cls="gputable", data_events=page.events, data_now=str(page.now_ms))
    return _fill(_frame(page, style, [_SUMMARY, node("div", table, cls="scroll")]), summary, "".join(bodies))


def message_page(style: PageStyle, title: str, message: str) -> str:
    """A page that only says something: an error."""
    return _frame(Page("", 0, 1, "", "", 0), style, [node("h1", users_text(title)), node("p", users_text(message), cls="empty")])


_LEGEND: Final = node(
    "p", "each GPU: ", node("span", "■", cls="util"), " left, how busy · ", node("span", "■", cls="mem"), " right, memory in use",
    cls="legend",
)  # fmt: skip
_SUMMARY: Final = node("div", _HOLE + "s")


def _fill(frame: str, summary: str, parts: str) -> str:
    return frame.replace(_HOLE + "s", summary, 1).replace(_HOLE, parts, 1)


def _pager(page: Page) -> Node | None:
    if page.pages < 2:
        return None
    links: list[Child] = []
    for number in range(page.pages + 1):
        if number > 1 and abs(number - page.number) > 3 and number != page.pages:
            continue
        current = "page" if number == page.number else None
        links.append(node("a", "all" if number == 0 else str(number), href=f"{page.path}?page={number}", aria_current=current))
    return node("nav", *links, cls="pager", aria_label="Pages")


def _frame(page: Page, style: PageStyle, content: list[Child]) -> str:
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("title", users_text(style.title)),
        node("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        node("link", rel="stylesheet", href="/static/style.css"),
        node("script", src="/static/live.js", type="module"),
    )
    views = (("/", "Hosts"), ("/gpu_table", "GPUs"))
    links = [node("a", word, href=path, aria_current="page" if path == page.path else None) for path, word in views]
    clock: list[Child] = ["data of ", node("time", page.when, id="data-time")] if page.when else []
    top = node(
        "header",
        node("a", users_text(style.title), href="/", cls="brand"),
        node("nav", *links, aria_label="Views"),
        node("input", type="search", id="filter", placeholder="Filter: host, user, GPU …", aria_label="Filter", hidden=""),
        node("p", node("span", "", id="live", role="status"), node("span", *clock), cls="clock"),
        cls="top",
    )
    description = node("p", users_text(style.description), cls="description") if style.description else None
    main = node("main", description, *content, _pager(page), id="main")
    body = node("body", node("a", "Skip to content", href="#main", cls="skip"), top, main)
    return "<!DOCTYPE html>\n" + to_html(node("html", head, body, lang="en"))
