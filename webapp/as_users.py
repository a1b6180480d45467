"""The users of GPUs over a range, for browsers and for terminals: held, worked, wasted, not known. [S]"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from dimint.consumers.accounting import Account, Accounting, as_json
from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.nodes import Node, node, users_text
from dimint.webapp.parts import PageStyle
from dimint.webapp.text import clean, cut, fit
from dimint.webapp.times import iso, stamp
from dimint.webapp.users import filter_of, hours

__all__ = ["users_json", "users_page", "users_text_table"]

_NAME_MAX: Final = 24
_HEADS: Final = ("GPUs now", "idle now", "GPU-hours held", "active", "wasted", "not known")


def users_page(
    page: Page, style: PageStyle, answer: Accounting, held: Counter[str], idle: Counter[str], *, busy_hours: int
) -> str:
    """A table, who held GPUs the longest first. `busy_hours` is the share of all GPU time that somebody held, in %."""
    asked = answer.question
    times = urlencode({"from": iso(asked.from_ns), "to": iso(asked.to_ns), "by": "user,host"})
    ends = [stamp(time_ns, style.zone, style.date_order) for time_ns in (asked.from_ns, asked.to_ns)]
    rows = [_row(one, held, idle, style) for one in _users(answer)]
    heads = [node("th", "user", scope="col"), *(node("th", word, scope="col", cls="right") for word in _HEADS)]
    table = node("div", node("table", node("thead", node("tr", *heads)), node("tbody", *rows), cls="usertable"), cls="scroll")
    words = node(
        "p", f"{ends[0]} to {ends[1]}. Somebody held {busy_hours} % of all GPU time. With each host: ",
        node("a", "JSON", href=f"/accounting/?{times}"), ", ", node("a", "CSV", href=f"/accounting/?{times}&format=csv"), ".",
        cls="fine",
    )  # fmt: skip
    empty = node("p", "Nobody was on a GPU in this time.", cls="empty")
    return framed(page, style, [node("h1", "Users"), words, node("div", table, cls="scroll") if rows else empty], title="Users")


def users_json(answer: Accounting, held: Counter[str], idle: Counter[str]) -> dict[str, Any]:
    """The same for programs: hours with six decimals, as `/accounting/` has them."""
    told = as_json(answer, iso)
    users = [
        {"user": one["user"], "gpus": held[one["user"]], "idle": idle[one["user"]]} | one
        for one in told["gpu_hours"]
        if one["user"] is not None
    ]
    return {"from": told["from"], "to": told["to"], "users": users}


def users_text_table(answer: Accounting, held: Counter[str], idle: Counter[str], style: TerminalStyle) -> str:
    """The same for terminals."""
    found = _users(answer)
    if not found:
        return "nobody was on a GPU in this time\n"
    columns = min(_NAME_MAX, max(4, *(len(clean(one.user or "")) for one in found)))
    lines = [f"{'user':<{columns}} {'GPUs':>5} {'idle':>5} {'held h':>9} {'active':>9} {'wasted':>9} {'unknown':>9}"]
    for one in found:
        name = fit(cut(clean(one.user or ""), columns), columns)
        numbers = " ".join(f"{hours(value):>9}" for value in _times(one))
        lines.append(f"{name} {held[one.user or '']:>5} {idle[one.user or '']:>5} {numbers}")
    return "\n".join(cut(line, style.width) for line in lines) + "\n"


def _users(answer: Accounting) -> Sequence[Account]:
    return [one for one in answer.accounts if one.user is not None]


def _times(one: Account) -> tuple[int, int, int, int]:
    return one.held_us, one.active_us, one.wasted_us, one.unknown_us


def _row(one: Account, held: Counter[str], idle: Counter[str], style: PageStyle) -> Node:
    name = one.user or ""
    link = f"/?filter={filter_of(name)}{style.link.replace('?', '&')}"
    counts: list[Any] = [str(held[name]), str(idle[name]), *map(hours, _times(one))]
    cells = [
        node("td", text, cls="right warn" if word == "idle now" and text != "0" else "right", data_label=word)
        for word, text in zip(_HEADS, counts, strict=True)
    ]
    return node("tr", node("th", node("a", node("bdi", users_text(name)), href=link), scope="row"), *cells)
