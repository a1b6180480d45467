"""The page of the cluster: overlords, nodes, who holds which partition, and what happened; for browsers and terminals. [S]"""

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlencode

from dimint.webapp.as_html import Page, framed
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.cluster import ClusterView, Happening, Member, Placed
from dimint.webapp.nodes import Child, Node, node, users_text
from dimint.webapp.parts import PageStyle
from dimint.webapp.text import clean, cut
from dimint.webapp.times import iso_us, stamp_us

__all__ = ["cluster_page", "cluster_text"]

_LAG_WARNS: Final = 1000


def cluster_page(page: Page, style: PageStyle, view: ClusterView) -> str:
    """Now with lags and problems, in the past who held what."""
    when = "now" if view.at_us is None else f"as of {stamp_us(view.at_us, style)}"
    happened = [_happening(one, style) for one in view.happened]
    content: list[Child] = [
        node("h1", "Cluster"),
        node("p", f"{when}, assignment {view.epoch}", cls="fine"),
        node("p", node("span", "▲", cls="sign warn"), " ", users_text(view.note)) if view.note else None,
        node("h2", "Overlords"), _members(view.overlords, style, "None was there."),
        node("h2", "Nodes"), _members(view.nodes, style, "None was there."),
        node("h2", "Partitions"),
        _partitions(view.partitions) if view.partitions else node("p", "Nothing was assigned.", cls="empty"),
        node("h2", "What happened before") if happened else None,
        node("ul", *happened, cls="changes keylist") if happened else None,
    ]  # fmt: skip
    return framed(page, style, content, title="Cluster")


def cluster_text(view: ClusterView, style: TerminalStyle) -> str:
    """A line a member and a partition."""
    lines = [f"{'now' if view.at_us is None else 'as of ' + stamp_us(view.at_us, style)}, assignment {view.epoch}"]
    if view.note:
        lines.append(f"▲ {clean(view.note)}")
    for name, members in (("overlord", view.overlords), ("node", view.nodes)):
        lines += [f"{name} {clean(one.id)} {clean(one.address)} {', '.join(_facts(one, style))}" for one in members]
    for one in view.partitions:
        facts = ", ".join(word for word in (_lag(one), clean(one.problem or "")) if word)
        moving = f" → {', '.join(map(clean, one.moving_to))}" if one.moving_to else ""
        holders = " ".join(map(clean, (one.master or "-", *one.slaves)))
        lines.append(f"partition {one.partition:>3} {holders}{moving} {facts}")
    lines += ["", *(f"{stamp_us(one.time_us, style)} {one.kind} {clean(one.text)}" for one in view.happened)]
    return "\n".join(cut(line.rstrip(), style.width) for line in lines) + "\n"


def _happening(one: Happening, style: PageStyle) -> Node:
    then = f"/cluster?{urlencode({'at': iso_us(one.time_us)})}"
    when = node("a", node("time", stamp_us(one.time_us, style)), href=then)
    return node("li", when, " ", node("b", one.kind), " ", node("bdi", users_text(one.text)))


def _members(members: Sequence[Member], style: PageStyle, none: str) -> Node:
    if not members:
        return node("p", none, cls="empty")
    rows = [
        node("li", _sign(ok=one.connected), " ", node("bdi", users_text(one.id), cls="hostlink"), " ",
             node("span", ", ".join([one.address, *_facts(one, style)]), cls="fine"))
        for one in members
    ]  # fmt: skip
    return node("ul", *rows, cls="changes")


def _facts(one: Member, style: PageStyle | TerminalStyle) -> Iterable[str]:
    if one.keys is not None:
        yield f"{one.keys} keys"
    if one.cpu_pct is not None:
        yield f"{one.cpu_pct:.0f} % of a core"
    if one.since_us is not None:
        yield f"since {stamp_us(one.since_us, style)}"
    if not one.connected:
        yield "not connected"


def _partitions(partitions: Sequence[Placed]) -> Node:
    heads = ("", "master", "slaves", "log's end", "behind", "")
    head = node("thead", node("tr", *(node("th", word, scope="col") for word in heads)))
    rows = [
        node("tr", node("th", str(one.partition), scope="row"),
             node("td", node("bdi", users_text(one.master)), data_label="master"),
             node("td", node("bdi", users_text(", ".join(one.slaves))), _moving(one), data_label="slaves"),
             node("td", "" if one.end is None else str(one.end), data_label="end"),
             node("td", _lag(one), data_label="behind" if one.lag is not None else None),
             node("td", _sign(ok=one.problem is None and one.master is not None), " ", users_text(one.problem, "")))
        for one in partitions
    ]  # fmt: skip
    return node("div", node("table", head, node("tbody", *rows), cls="rows placed"), cls="scroll")


def _moving(one: Placed) -> Child:
    return node("span", f" → {users_text(', '.join(one.moving_to))}", cls="fine") if one.moving_to else None


def _lag(one: Placed) -> str:
    return "" if one.lag is None else f"{one.lag} records{' ▲' if one.lag > _LAG_WARNS else ''}"


def _sign(*, ok: bool) -> Node:
    return node(
        "span", "●" if ok else "✖", cls=f"sign {'ok' if ok else 'bad'}", role="img", aria_label="well" if ok else "not well"
    )
