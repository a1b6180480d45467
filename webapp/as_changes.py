"""What changed between two instants, for browsers and for terminals. [S]"""

from collections.abc import Collection, Sequence
from typing import TypeAlias
from urllib.parse import quote

from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.marks import Mark
from dimint.webapp.models import Change
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import PageStyle, change_sign
from dimint.webapp.text import clean, cut, display_name
from dimint.webapp.times import iso, stamp

__all__ = ["Happened", "changes_page", "changes_text", "happened_lines", "happened_list"]

Happened: TypeAlias = tuple[str, str, Mark]
"""Host name, kind of event, and the event in words."""


def changes_page(
    page: Page,
    style: PageStyle,
    found: Sequence[Change],
    marks: Sequence[Happened],
    ends: tuple[str, str],
    simulated: Collection[str] = (),
) -> str:
    """Two lists: how the two instants differ, and what happened in between; each host leads to its page of then."""
    lines = [
        node("li", change_sign(change), " ", *_host(change.host, page.asked.query(), simulated),
             node("bdi", users_text(change.words)))
        for change in found
    ]  # fmt: skip
    events = happened_list(marks, style, simulated)
    content: list[Child] = [
        node("h1", "What changed"),
        node("p", f"from {ends[0]} to {ends[1]}", cls="fine"),
        node("ul", *lines, cls="changes") if lines else node("p", "Nothing differs.", cls="empty"),
        node("h2", "What happened in between") if events else None,
        node("ul", *events, cls="changes") if events else None,
    ]
    return framed(page, style, content, title="What changed")


def changes_text(
    found: Sequence[Change],
    marks: Sequence[Happened],
    ends: tuple[str, str],
    style: TerminalStyle,
    simulated: Collection[str] = (),
) -> str:
    """One line each, cut to the width of the terminal."""
    lines = [f"what changed from {ends[0]} to {ends[1]}"]
    lines += [
        f"{change.symbol} {_name(change.host, simulated) + ' ' if change.host else ''}{clean(change.words)}" for change in found
    ]
    if not found:
        lines.append("nothing differs")
    if marks:
        lines += ["", "what happened in between"]
        lines += happened_lines(marks, style, simulated)
    return "\n".join(cut(line, style.width) for line in lines) + "\n"


def happened_list(marks: Sequence[Happened], style: PageStyle, simulated: Collection[str] = ()) -> list[Node]:
    """Events, the newest first; each host leads to its page of then."""
    return [
        node("li", node("time", stamp(mark.time_ns, style.zone, style.date_order)), " ",
             node("span", mark.symbol, cls=f"sign {mark.cls}"), " ", *_host(host, f"?at={quote(iso(mark.time_ns))}", simulated),
             node("bdi", users_text(mark.words)))
        for host, _, mark in reversed(marks)
    ]  # fmt: skip


def happened_lines(marks: Sequence[Happened], style: TerminalStyle, simulated: Collection[str] = ()) -> list[str]:
    """Events, the newest first, a line each."""
    return [
        f"{stamp(mark.time_ns, style.zone, style.date_order)} {mark.symbol} {_name(host, simulated)} {clean(mark.words)}"
        for host, _, mark in reversed(marks)
    ]


def _host(name: str | None, query: str, simulated: Collection[str]) -> list[Child]:
    if name is None:
        return []
    href = f"/hosts/{quote(name, safe='', errors='backslashreplace')}/{query}"
    return [node("a", node("bdi", _name(name, simulated)), href=href, cls="hostlink"), " "]


def _name(name: str, simulated: Collection[str]) -> str:
    """As shown; `simulated` are the names of the hosts that do not exist."""
    return "".join(display_name(name, simulated=name in simulated))
