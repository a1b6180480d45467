"""The events of the log: counted by kind and time, and those that are searched for; for browsers, terminals, programs. [S]"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from dimint.events import KV_TOPIC
from dimint.replay.event import LoggedEvent, json_line, shown_fields, text_of
from dimint.replay.found import Found
from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_keys import key_path
from dimint.webapp.as_log import bars
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import PageStyle
from dimint.webapp.text import clean, clean_long, cut
from dimint.webapp.timeline import MINUTE_NS, Timeline
from dimint.webapp.times import iso_us, stamp, stamp_us

__all__ = ["EventsView", "SearchWords", "events_json", "events_page", "events_text"]

_DETAIL_CHARS: Final = 300
_TOPICS: Final = ("", "dimint.kv", "dimint.status", "dimint.cluster")


@dataclass(frozen=True, slots=True)
class SearchWords:
    """What was asked for, in the words of the address."""

    topic: str = ""
    kind: str = ""
    key: str = ""
    source: str = ""
    by: str = ""

    def query(self, **more: str) -> str:
        """The address's query with these words and more."""
        words = {"topic": self.topic, "kind": self.kind, "key": self.key, "source": self.source, "by": self.by} | more
        text = urlencode({name: word for name, word in words.items() if word}, errors="backslashreplace")
        return f"?{text}" if text else ""


@dataclass(frozen=True, slots=True)
class EventsView:
    """`line` counts every event of the topics; `since_ns`: only from then on. `found` is in its order, newest first unless
    `forward`. `further` are the words of the address that go on, None at the end."""

    words: SearchWords
    from_ns: int
    to_ns: int
    line: Timeline
    since_ns: int | None
    found: Sequence[Found]
    forward: bool
    further: dict[str, str] | None

    @property
    def count(self) -> int:
        return sum(one.total for one in self.found)


def events_page(page: Page, style: PageStyle, view: EventsView) -> str:
    """The bars, each kind leading to its events; the search; the events found."""
    ends = " – ".join(stamp(at, style.zone, style.date_order) for at in (view.from_ns, view.to_ns))
    minutes = view.line.step_ns // MINUTE_NS
    step = f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"
    times = dict(page.asked.times)
    lines = [
        bars(kind, counts, page.path + _with(view, times, kind=kind), view.line, style, current=view.words.kind == kind)
        for kind, counts in view.line.counts.items()
    ]
    rows = [row for one in view.found for row in _rows(one, view, style)]
    more = node("a", "go on" if view.forward else "older", href=page.path + view.words.query(**view.further), rel="next") \
        if view.further else None  # fmt: skip
    content: list[Child] = [
        node("h1", "Events"),
        node("p", f"everything in the log {ends}, a bar for {step} · ", node("a", "what could not be read", href="/log/unread"),
             cls="fine"),
        None if view.since_ns is None else node(
            "p", f"Counted back to {stamp(view.since_ns, style.zone, style.date_order)} so far: load the page again to go on.",
            cls="fine"),
        node("ul", *lines, cls="loglines") if lines else None,
        _search(page, view.words),
        node("ul", *rows, cls="changes keylist") if rows else node("p", "Nothing found here.", cls="empty"),
        node("nav", more, cls="pager", aria_label="Pages") if more else None,
    ]  # fmt: skip
    return framed(page, style, content, title="Events")


def events_text(view: EventsView, style: TerminalStyle) -> str:
    """A line for each kind with its number, then one for each event."""
    lines = [f"{sum(counts):>8} {kind}" for kind, counts in view.line.counts.items()]
    if view.since_ns is not None:
        lines.append(f"counted back to {stamp(view.since_ns, style.zone, style.date_order)} so far")
    lines.append("")
    for one in view.found:
        lines += [
            f"{stamp_us(event.log_time_us, style)} {event.position} {event.kind} {clean(event.key or '-')} "
            f"{clean(_writer(event))} {_detail(event)}"
            for event in one.events
        ]
        if one.total > len(one.events):
            lines.append(f"… and {one.total - len(one.events)} more at {one.events[0].position}")
    if not view.found:
        lines.append("nothing found here")
    if view.further:
        lines.append(f"more: {view.words.query(**view.further)}")
    return "\n".join(cut(line, style.width) for line in lines) + "\n"


def events_json(view: EventsView) -> dict[str, Any]:
    """The counts from `first` on, one a step; the events as `dimint events --json` has them."""
    return {
        "from": iso_us(view.from_ns // 1000), "to": iso_us(view.to_ns // 1000), "first": iso_us(view.line.from_ns // 1000),
        "step_s": view.line.step_ns // 1_000_000_000, "counts": view.line.counts,
        "counted_from": None if view.since_ns is None else iso_us(view.since_ns // 1000),
        "events": [json.loads(json_line(event), parse_int=_int) for one in view.found for event in one.events],
        "left_out": view.count - sum(len(one.events) for one in view.found), "next": view.further,
    }  # fmt: skip


def _int(digits: str) -> int | str:
    """Longer integers than Python converts stay text here; `/keys/` has them whole."""
    return int(digits) if len(digits) <= 4000 else digits


def _with(view: EventsView, times: dict[str, str], **changes: str) -> str:
    words = {"topic": view.words.topic, "kind": view.words.kind, "key": view.words.key, "source": view.words.source,
             "by": view.words.by} | changes  # fmt: skip
    return SearchWords(**words).query(**times)


def _search(page: Page, words: SearchWords) -> Node:
    fields: list[Child] = []
    options = [node("option", one or "all topics", value=one, selected="" if one == words.topic else None) for one in _TOPICS]
    fields.append(node("label", node("span", "topic"), node("select", *options, name="topic")))
    for name, value, hint in (("kind", words.kind, "kv.set or host.*"), ("key", words.key, "user:1 or user:*"),
                              ("source", words.source, "host"), ("by", words.by, "client or process")):  # fmt: skip
        box = node(
            "input", name=name, value=users_text(value, ""), placeholder=hint, autocomplete="off", size="14", maxlength="511"
        )
        fields.append(node("label", node("span", name), box))
    hidden = [node("input", type="hidden", name=name, value=users_text(value)) for name, value in page.asked.times if value]
    return node(
        "form", *fields, *hidden, node("button", "Search", type="submit"), method="get", action=page.path, cls="times search"
    )


def _rows(one: Found, view: EventsView, style: PageStyle) -> list[Node]:
    rows = [_row(event, view, style) for event in one.events]
    if one.total > len(one.events):
        rows.append(node("li", f"… and {one.total - len(one.events)} more in this record", cls="fine"))
    return rows


def _row(event: LoggedEvent, view: EventsView, style: PageStyle) -> Node:
    place = node("a", event.position, href=f"/log/events{view.words.query(**{'from': event.position})}", cls="place")
    key: Child = None
    if event.key is not None:
        name = node("bdi", users_text(event.key))
        key = node("a", name, href=key_path(event.key), cls="hostlink") if event.topic == KV_TOPIC else name
    return node(
        "li", node("time", stamp_us(event.log_time_us, style)), " ", node("b", event.kind), " ", key, " ",
        node("code", _detail(event)), " ", node("bdi", users_text(_writer(event))), " ", place,
    )  # fmt: skip


def _writer(event: LoggedEvent) -> str:
    return f"{event.by.client or event.by.process}@{event.by.host}"


def _detail(event: LoggedEvent) -> str:
    fields = {name: value for name, value in shown_fields(event).items() if value is not None}
    text = " ".join(f"{name}={_short(text_of(value))}" for name, value in fields.items())
    return clean_long(text, _DETAIL_CHARS) + ("…" if len(text) > _DETAIL_CHARS else "")


def _short(text: str) -> str:
    return text if len(text) <= _DETAIL_CHARS else text[:_DETAIL_CHARS]
