"""The pages of the store's keys, now and at any time: for browsers and for terminals. [S]"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from dimint.client.past import PastChange
from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.key_views import DiffView, KeysView, KeyView, restore_command, short, writer_of
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import PageStyle
from dimint.webapp.text import clean, clean_long, cut
from dimint.webapp.times import iso_us, stamp_us

__all__ = ["diff_page", "diff_text", "key_page", "key_path", "key_text", "keys_page", "keys_text"]

VALUE_CHARS: Final = 20_000
_HOUR_US: Final = 3600 * 1_000_000
_SIGNS: Final = {"+": "ok", "-": "bad", "~": "warn"}


def key_path(key: str) -> str:
    """The address of a key's page."""
    return f"/keys/{quote(key, safe='')}/"


def keys_page(page: Page, style: PageStyle, view: KeysView) -> str:
    """The keys of one page, each with the beginning of its value."""
    words = f"as of {stamp_us(view.at_us, style)}" if view.at_us is not None else "now"
    rows = [
        node("li", _key(key, view.at_us), " ", _code(value), " ", *(_who(change, style) if change else ()))
        for key, value, change in view.rows
    ]  # fmt: skip
    content: list[Child] = [
        node("h1", "Keys"),
        _prefix_form(page, view.prefix, kept={"at": page.asked.at, "from": page.asked.from_, "to": page.asked.to}),
        node("p", f"{words} · ", node("a", "what has changed in an hour", href=f"/diff{_changed(view)}"), cls="fine"),
        node("ul", *rows, cls="changes keylist") if rows else node("p", "No key.", cls="empty"),
        _more(page.path, page, {"prefix": view.prefix, "after": view.next}),
    ]
    return framed(page, style, content, title="Keys")


def keys_text(view: KeysView, style: TerminalStyle) -> str:
    """A line a key."""
    lines = []
    for key, value, change in view.rows:
        lines.append(f"{clean(key)} {clean(short(value))}{' ' + _who_text(change, style) if change else ''}")
    return _text(lines or ["no key"], view.next, style)


def key_page(page: Page, style: PageStyle, view: KeyView) -> str:
    """What the key is or was, how to bring that back, and every change of it."""
    change, path = view.change, key_path(view.key)
    when = "now" if view.at_us is None else f"as of {stamp_us(view.at_us, style)}"
    shown: list[Child]
    if change is None:
        shown = [node("p", "There is no such key." if view.at_us is None else "There was no such key.", cls="empty")]
    else:
        command = restore_command(change.log_time_us if view.at_us is None else view.at_us, view.key)
        shown = [
            node("pre", users_long(short(change.value, VALUE_CHARS)), cls="value"),
            node("p", f"version {change.version}, ", change.kind, " ", *_who(change, style), cls="fine"),
            node("p", "bring it back: ", node("code", users_long(command)), cls="fine") if view.at_us is not None else None,
        ]
    rows = [_change(one, view.key, style) for one in view.changes]
    content: list[Child] = [
        node("h1", node("bdi", users_text(view.key))),
        node("p", when, cls="fine"),
        *shown,
        node("h2", "History"),
        node("ul", *rows, cls="changes keylist") if rows else node("p", "Nothing is known of it in this time.", cls="empty"),
        _more(path, page, {"after": view.next}),
    ]
    return framed(page, style, content, title=view.key)


def key_text(view: KeyView, style: TerminalStyle) -> str:
    """The value, then a line a change."""
    change = view.change
    lines = ["no such key" if change is None else clean(short(change.value, 1000), 1000)]
    if change is not None:
        lines.append(f"version {change.version} {change.kind} {_who_text(change, style)}")
    lines.append("")
    lines += [
        f"{stamp_us(one.log_time_us, style)} {one.kind} {'-' if one.removed else clean(short(one.value, 60))} "
        f"{clean(writer_of(one))} {one.position}"
        for one in view.changes
    ]  # fmt: skip
    return _text(lines, view.next, style)


def diff_page(page: Page, style: PageStyle, view: DiffView) -> str:
    """The keys that differ, before and after."""
    rows = [
        node("li", node("span", sign, cls=f"sign {_SIGNS[sign]}"), " ", _key(key, view.to_us), " ",
             _code(before.value) if before else node("span", "–"), " → ", _code(after.value) if after else node("span", "–"))
        for sign, key, before, after in _signed(view)
    ]  # fmt: skip
    times = {"from": iso_us(view.from_us), "to": iso_us(view.to_us)}
    content: list[Child] = [
        node("h1", "What differs in the store"),
        _prefix_form(page, view.prefix, kept=times),
        node("p", f"from {stamp_us(view.from_us, style)} to {stamp_us(view.to_us, style)}", cls="fine"),
        node("ul", *rows, cls="changes keylist") if rows else node("p", "Nothing differs.", cls="empty"),
        _more(page.path, page, {"prefix": view.prefix, "after": view.next}),
    ]
    return framed(page, style, content, title="What differs in the store")


def diff_text(view: DiffView, style: TerminalStyle) -> str:
    """A line a key: +, - or ~, before, after."""
    lines = []
    for sign, key, *ends in _signed(view):
        before, after = ("-" if one is None else clean(short(one.value, 60)) for one in ends)
        lines.append(f"{sign} {clean(key)} {before} → {after}")
    return _text(lines or ["nothing differs"], view.next, style)


def users_long(text: str) -> str:
    """Text of somebody, long, as a page may show it."""
    return clean_long(text, VALUE_CHARS)


def _signed(view: DiffView) -> list[tuple[str, str, PastChange | None, PastChange | None]]:
    return [("~" if one.before and one.after else "+" if one.after else "-", *one) for one in view.found]


def _change(change: PastChange, key: str, style: PageStyle) -> Node:
    then = f"{key_path(key)}?{urlencode({'at': iso_us(change.log_time_us)})}"
    back = node("code", users_long(restore_command(change.log_time_us, key)))
    return node(
        "li", node("a", node("time", stamp_us(change.log_time_us, style)), href=then), " ", node("b", change.kind), " ",
        None if change.removed else _code(change.value), " ", *_who(change, style, time=False), " ",
        node("details", node("summary", "bring back"), back),
    )  # fmt: skip


def _changed(view: KeysView) -> str:
    """The query of what changed in the hour before."""
    words = {"prefix": view.prefix}
    if view.at_us is not None:
        words |= {"from": iso_us(max(0, view.at_us - _HOUR_US)), "to": iso_us(view.at_us)}
    query = urlencode({name: word for name, word in words.items() if word})
    return f"?{query}" if query else ""


def _key(key: str, at_us: int | None) -> Node:
    query = "" if at_us is None else f"?{urlencode({'at': iso_us(at_us)})}"
    return node("a", node("bdi", users_text(key)), href=key_path(key) + query, cls="hostlink")


def _code(value: Any) -> Node:
    return node("code", users_long(short(value)))


def _who(change: PastChange, style: PageStyle, *, time: bool = True) -> list[Child]:
    when: list[Child] = [node("time", stamp_us(change.log_time_us, style)), " "] if time else []
    place = node("a", change.position, href=f"/log/events?{urlencode({'from': change.position})}", cls="place")
    return [*when, node("bdi", users_text(writer_of(change))), " ", place]


def _who_text(change: PastChange, style: TerminalStyle) -> str:
    return f"{stamp_us(change.log_time_us, style)} {clean(writer_of(change))} {change.position}"


def _prefix_form(page: Page, prefix: str, kept: dict[str, str]) -> Node:
    hidden = [node("input", type="hidden", name=name, value=users_text(value)) for name, value in kept.items() if value]
    box = node("input", type="search", name="prefix", value=prefix, placeholder="user:", autocomplete="off", maxlength="511")
    label = node("label", node("span", "keys that start with "), box)
    return node("form", label, *hidden, node("button", "Go", type="submit"), method="get", action=page.path, cls="times search")


def _more(path: str, page: Page, words: dict[str, str | None]) -> Node | None:
    if words.get("after") is None:
        return None
    times = {"at": page.asked.at, "from": page.asked.from_, "to": page.asked.to}
    query = urlencode({name: word for name, word in (times | words).items() if word})
    return node("nav", node("a", "more", href=f"{path}?{query}", rel="next"), cls="pager", aria_label="Pages")


def _text(lines: Sequence[str], further: str | None, style: TerminalStyle) -> str:
    end = [] if further is None else [f"more: &after={quote(further)}"]
    return "\n".join(cut(line, style.width) for line in [*lines, *end]) + "\n"
