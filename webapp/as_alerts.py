"""The open alerts, for browsers, for terminals and for programs. [S]"""

from collections.abc import Iterable, Sequence
from typing import Any

from dimint.webapp.alerts import AlertLine
from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import PageStyle, host_link
from dimint.webapp.text import clean, cut, display_name, fit
from dimint.webapp.times import iso, stamp

__all__ = ["alerts_json", "alerts_list", "alerts_page", "alerts_text"]

_NAME_MAX = 24
_RULE_MAX = 20


def alerts_page(page: Page, style: PageStyle, lines: Sequence[AlertLine]) -> str:
    """One list, the worst first."""
    empty = node("p", "No alert was open." if page.past else "No alert is open.", cls="empty")
    listing = node("ul", *alerts_list(lines, style), cls="changes") if lines else empty
    asked = " of the hosts that match" if page.asked.filter.text else ""
    when = "then" if page.past else "now"
    over = node("a", "the day before in the log", href=f"/log{style.link}{'&' if style.link else '?'}kind=alert.raised")
    content: list[Child] = [
        node("h1", "Open alerts"),
        node("p", f"{len(lines)} open {when}{asked}. All that was raised: ", over, cls="fine"),
        listing,
    ]
    return framed(page, style, content, title="Open alerts")


def alerts_list(lines: Iterable[AlertLine], style: PageStyle) -> list[Node]:
    """A line each: severity, since when, whose, which rule, in words."""
    found = []
    for line in lines:
        name = host_link(line.host, style, short=True) if line.host is not None else node("bdi", users_text(line.name))
        found.append(
            node(
                "li", node("span", line.symbol, cls=f"sign {line.cls}", aria_hidden="true"), " ",
                node("b", users_text(line.alert.severity)), " ",
                node("time", stamp(line.alert.since_ns, style.zone, style.date_order)), " ", name,
                f" {users_text(line.where)}" if line.where else None, " ",
                node("bdi", users_text(line.alert.rule), cls="fine"), " ", node("bdi", users_text(line.words)),
            )
        )  # fmt: skip
    return found


def alerts_text(lines: Sequence[AlertLine], style: TerminalStyle, *, past: bool = False) -> str:
    """A table, cut to the width of the terminal."""
    if not lines:
        return f"no alert {'was' if past else 'is'} open\n"
    names = [_name(line) for line in lines]
    columns = min(_NAME_MAX, max(4, *map(len, names)))
    rules = min(_RULE_MAX, max(4, *(len(clean(line.alert.rule)) for line in lines)))
    rows = [f"  severity {'since':<19} {'host':<{columns}} {'where':<8} {'rule':<{rules}} text"]
    for line, name in zip(lines, names, strict=True):
        when = stamp(line.alert.since_ns, style.zone, style.date_order)
        rows.append(
            f"{line.symbol} {fit(clean(line.alert.severity), 8)} {when} {fit(name, columns)} {fit(clean(line.where), 8)} "
            f"{fit(clean(line.alert.rule), rules)} {clean(line.words)}"
        )
    return "\n".join(cut(row, style.width) for row in rows) + "\n"


def alerts_json(lines: Iterable[AlertLine]) -> dict[str, Any]:
    """`{"alerts": […]}` in the order of the page; times in UTC; `subject` is the GPU's UUID, empty for the host itself."""
    return {
        "alerts": [
            {
                "severity": line.alert.severity, "rule": line.alert.rule, "host": line.name, "subject": line.alert.subject,
                "where": line.where, "text": line.alert.text, "since": iso(line.alert.since_ns),
                "raised": iso(line.alert.raised_ns), "told": line.alert.told,
            }
            for line in lines
        ]
    }  # fmt: skip


def _name(line: AlertLine) -> str:
    simulated = line.host is not None and line.host.simulated
    return "".join(display_name(line.name, simulated=simulated))
