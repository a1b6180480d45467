"""Dead letters: the records of the log that no reader took in, why, and their bytes. [S]"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from dimint.replay.found import Unread, hex_dump
from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import PageStyle
from dimint.webapp.text import clean, clean_long, cut
from dimint.webapp.times import iso_us, stamp

__all__ = ["UnreadView", "unread_json", "unread_page", "unread_text"]

BYTES_SHOWN: Final = 1024
ROWS: Final = 500
_WORDS: Final = {
    "foreign": "not a record of ours", "framing": "ill made", "fields": "fields that do not fit",
    "partition": "a key in the wrong partition",
    "newer": "of a newer program: readers stop here", "damaged": "damaged: readers stop here",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class UnreadView:
    """What was found; not `complete`: only so far. `chosen` is the record that is looked at, with its bytes."""

    found: Sequence[Unread]
    complete: bool
    chosen: tuple[Unread, bytes] | None = None


def unread_page(page: Page, style: PageStyle, view: UnreadView) -> str:
    """The list, or one record with its bytes and what can be done."""
    content: list[Child] = [node("h1", "Dead letters")]
    if view.chosen is not None:
        content += _one(*view.chosen, style)
    else:
        content.append(node("p", "records of the log that no reader took in, the newest first", cls="fine"))
        if not view.complete:
            content.append(node("p", "Not all of the log was looked at yet: load the page again to go on.", cls="fine"))
        rows = [_row(one, style) for one in view.found[:ROWS]]
        empty = "Everything could be read." if view.complete else "None so far."
        content.append(node("ul", *rows, cls="changes keylist") if rows else node("p", empty, cls="empty"))
        if len(view.found) > ROWS:
            content.append(node("p", f"and {len(view.found) - ROWS} older ones", cls="fine"))
    return framed(page, style, content, title="Dead letters")


def unread_text(view: UnreadView, style: TerminalStyle) -> str:
    """A line a record, or one with its bytes."""
    chosen = view.chosen
    lines = [_line(one, style) for one in (view.found if chosen is None else [chosen[0]])]
    if chosen is not None:
        lines += ["", *hex_dump(chosen[1][:BYTES_SHOWN]).splitlines()]
    elif not lines:
        lines.append("everything could be read" if view.complete else "none so far")
    if not view.complete and chosen is None:
        lines.append("not all of the log was looked at yet: ask again to go on")
    return "\n".join(cut(line, style.width) for line in lines) + "\n"


def unread_json(view: UnreadView) -> dict[str, Any]:
    """The records; of a chosen one its bytes too."""
    if view.chosen is not None:
        one, data = view.chosen
        return {"complete": True, "records": [_fields(one) | {"hex": data.hex()}]}
    return {"complete": view.complete, "records": [_fields(one) for one in view.found]}


def _fields(one: Unread) -> dict[str, Any]:
    return {
        "position": one.position, "time": iso_us(one.time_ns // 1000), "bytes": one.size, "reason": one.reason,
        "detail": one.detail, "stops": not one.is_dead, "redriven": one.redriven,
    }  # fmt: skip


def _row(one: Unread, style: PageStyle) -> Node:
    href = f"/log/unread?{urlencode({'position': one.position})}"
    state = node("span", "redriven", cls="badge") if one.redriven else None
    return node(
        "li", node("time", stamp(one.time_ns, style.zone, style.date_order)), " ", node("a", one.position, href=href), " ",
        node("b", _WORDS[one.reason]), " ", node("bdi", users_text(one.detail)), f" {one.size} bytes ", state,
    )  # fmt: skip


def _one(one: Unread, data: bytes, style: PageStyle) -> list[Child]:
    shown = data[:BYTES_SHOWN]
    more = f", the first {BYTES_SHOWN} are shown" if len(data) > BYTES_SHOWN else ""
    text = clean_long(shown.decode("utf-8", "backslashreplace"), BYTES_SHOWN)
    if one.redriven:
        where = node("a", one.redriven, href=f"/log/events?{urlencode({'from': one.redriven})}")
        then: Node = node("p", "Redriven: what stands for it is at ", where, ".")
    elif one.is_dead:
        command = f"dimint deadletters redrive {one.position} --as FILE"
        then = node("p", "Append what it should have been: ", node("code", command), cls="fine")
    else:
        then = node("p", "Readers stop here until this is mended: see docs/operations.md.", cls="fine")
    return [
        node("p", node("b", one.position), " ", stamp(one.time_ns, style.zone, style.date_order)),
        node("p", node("b", _WORDS[one.reason]), ": ", node("bdi", users_text(one.detail))),
        then,
        node("p", f"{len(data)} bytes{more}, as text", cls="fine"), node("pre", text, cls="value"),
        node("p", "and in hex", cls="fine"), node("pre", hex_dump(shown), cls="value hex"),
        node("p", node("a", "all dead letters", href="/log/unread")),
    ]  # fmt: skip


def _line(one: Unread, style: TerminalStyle) -> str:
    state = f" redriven at {one.redriven}" if one.redriven else ""
    when = stamp(one.time_ns, style.zone, style.date_order)
    return f"{when} {one.position} {one.reason} {clean(one.detail)} {one.size} bytes{state}"
