"""What happened on the hosts in a range: bars by kind and hour, and the newest of it in words. [S]"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dimint.webapp.as_changes import Happened, happened_lines, happened_list
from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import PageStyle
from dimint.webapp.text import cut
from dimint.webapp.timeline import HOUR_NS, Timeline
from dimint.webapp.times import iso, stamp

__all__ = ["LogView", "bars", "log_json", "log_page", "log_text"]

_HEIGHT: Final = 10


@dataclass(frozen=True, slots=True)
class LogView:
    """`line` counts every kind; `rows` are the newest events of the kind asked for, oldest first, out of `count`.

    `cut` says that the range has more events than were read: the newest of it are counted.
    """

    from_ns: int
    to_ns: int
    line: Timeline
    rows: Sequence[Happened]
    count: int
    cut: bool
    simulated: frozenset[str] = frozenset()


def log_page(page: Page, style: PageStyle, view: LogView) -> str:
    """The bars, each kind leading to its events, and the rows below, the newest first."""
    ends = (stamp(at, style.zone, style.date_order) for at in (view.from_ns, view.to_ns))
    kind, query = page.asked.kind, page.asked.query
    lines = [
        bars(each, counts, page.path + query(kind=each), view.line, style, current=kind == each)
        for each, counts in view.line.counts.items()
    ]
    hours = view.line.step_ns // HOUR_NS
    step = "an hour" if hours == 1 else f"{hours} hours"
    every = node("a", "show all kinds", href=page.path + page.asked.query(kind="")) if kind else None
    rest = view.count - len(view.rows)
    happened = happened_list(view.rows, style, view.simulated)
    content: list[Child] = [
        node("h1", "Log"),
        node("p", f"what happened on the hosts {' – '.join(ends)}, a bar for {step}", cls="fine"),
        node("p", "There is more: the newest events are counted.", cls="fine") if view.cut else None,
        node("ul", *lines, cls="loglines") if lines else None,
        node("h2", users_text(kind), " ", every) if kind else None,
        node("ul", *happened, cls="changes") if happened else node("p", "Nothing happened.", cls="empty"),
        node("p", f"and {rest} earlier ones", cls="fine") if rest > 0 else None,
    ]  # fmt: skip
    return framed(page, style, content, title="Log")


def log_text(view: LogView, style: TerminalStyle) -> str:
    """A line for each kind with its number, then one for each event, the newest first."""
    lines = [f"{sum(counts):>6} {kind}" for kind, counts in view.line.counts.items()]
    lines += ["", *happened_lines(view.rows, style, view.simulated)] if view.rows else ["nothing happened"]
    return "\n".join(cut(line, style.width) for line in lines) + "\n"


def log_json(view: LogView) -> dict[str, Any]:
    """The counts from `first` on, one a step; the events, the newest first."""
    return {
        "from": iso(view.from_ns), "to": iso(view.to_ns), "more": view.cut, "first": iso(view.line.from_ns),
        "step_s": view.line.step_ns // 1_000_000_000, "counts": view.line.counts,
        "events": [
            {"time": iso(mark.time_ns), "host": host, "kind": kind, "text": mark.words}
            for host, kind, mark in reversed(view.rows)
        ],
    }  # fmt: skip


def bars(kind: str, counts: Sequence[int], href: str, line: Timeline, style: PageStyle, *, current: bool) -> Node:
    """One kind's name, leading to `href`, its number, and a bar for each step."""
    marks = []
    for at, count in enumerate(counts):
        if not count:
            continue
        when = stamp(line.from_ns + at * line.step_ns, style.zone, style.date_order)
        height = max(1, count * _HEIGHT // line.highest)
        marks.append(
            node("rect", node("title", f"{when}: {count}"), x=str(at), y=str(_HEIGHT - height), width="1", height=str(height),
                 cls="plain")
        )  # fmt: skip
    total, most = sum(counts), max(counts)
    lane = node("svg", *marks, viewBox=f"0 0 {len(counts)} {_HEIGHT}", preserveAspectRatio="none", cls="lane", role="img",
                aria_label=f"{kind}: {total} events, at most {most} in a bar")  # fmt: skip
    name = node("a", users_text(kind), href=href, aria_current="true" if current else None)
    return node("li", name, " ", node("b", str(total)), node("div", lane, cls="lanebox"))
