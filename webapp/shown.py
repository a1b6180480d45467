"""A page as its parts: what is shown of a snapshot, each part with the number of its last change. [S]

A part is one element with an id: a host, a group, or the head. The same parts make the first page and, later, the messages
that keep it live. A part is kept with the hosts that it was made of; hosts are immutable and an unchanged one is the same
object in every snapshot, so a kept part is never stale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from dimint.webapp.alerts import what_is_wrong
from dimint.webapp.asked import Asked, Layout, layout_for, selected
from dimint.webapp.cards import card_node
from dimint.webapp.groups import grouped
from dimint.webapp.head import head_node
from dimint.webapp.many import grid_node, group_id, group_node
from dimint.webapp.models import Host, Snapshot
from dimint.webapp.nodes import Node, to_html
from dimint.webapp.parts import PageStyle
from dimint.webapp.rows import gpu_rows_node, row_node
from dimint.webapp.view import paged

__all__ = ["Kept", "Part", "Shown", "show"]

_HOST_NODES: Final[dict[Layout, Callable[[Host, PageStyle], Node]]] = {
    "cards": card_node, "rows": row_node, "grid": grid_node, "gpus": gpu_rows_node,
}  # fmt: skip
Made = TypeVar("Made")


class Part(NamedTuple):
    """`of` are the hosts in it; `changed` is the snapshot's sequence at which the last of them changed."""

    id: str
    changed: int
    of: tuple[Host, ...]
    make: Callable[[], Node]


@dataclass(frozen=True, slots=True)
class Shown:
    """One page of a snapshot. `matching` are the hosts that match, on all pages; `pages` is how many there are."""

    layout: Layout
    matching: Sequence[Host]
    hosts: Sequence[Host]
    pages: int
    parts: Sequence[Part]
    head: Node

    @property
    def order(self) -> list[str]:
        return [part.id for part in self.parts]


@dataclass(slots=True)
class Kept:
    """What was made of hosts before. One for each thread and snapshot line; `forget` lets go of hosts that are gone."""

    _made: dict[tuple[str, str], tuple[tuple[Host, ...], Any]] = field(default_factory=dict)

    def keep(self, kind: str, part_id: str, of: tuple[Host, ...], make: Callable[[], Made]) -> Made:
        """What was made of these very hosts before, or is made now."""
        kept = self._made.get((kind, part_id))
        if kept is None or len(kept[0]) != len(of) or any(a is not b for a, b in zip(kept[0], of, strict=True)):
            kept = self._made[kind, part_id] = of, make()
        made: Made = kept[1]
        return made

    def of_host(self, kind: str, host: Host, make: Callable[[Host], Made]) -> Made:
        """The same for what is made of one host."""
        return self.keep(kind, host.id, (host,), lambda: make(host))

    def html(self, layout: Layout, part: Part) -> str:
        """The part as HTML."""
        return self.keep(layout, part.id, part.of, lambda: to_html(part.make()))

    def forget(self, snapshot: Snapshot) -> None:
        """Let go of parts with hosts that are not in the snapshot."""
        gone = [key for key, (of, _) in self._made.items() if any(host.id not in snapshot.changed for host in of)]
        for key in gone:
            del self._made[key]


def show(snapshot: Snapshot, asked: Asked, style: PageStyle, *, now_ns: int, per_page: int) -> Shown:
    """What the page asked for shows of this snapshot."""
    matching = selected(snapshot.hosts, asked, now_ns)
    hosts = paged(matching, asked.page, per_page)
    layout = asked.layout or layout_for(len(hosts))
    if layout == "tiles":
        parts = _group_parts(hosts, snapshot, asked)
    else:
        make = _HOST_NODES[layout]
        parts = [_host_part(host, snapshot, make, style) for host in hosts]
    head = head_node(matching, style, snapshot, *what_is_wrong(snapshot, matching, now_ns), asked.filter)
    return Shown(layout, matching, hosts, max(1, -(-len(matching) // per_page)), parts, head)


def _host_part(host: Host, snapshot: Snapshot, make: Callable[[Host, PageStyle], Node], style: PageStyle) -> Part:
    return Part(f"h-{host.id}", snapshot.changed[host.id], (host,), lambda: make(host, style))


def _group_parts(hosts: Sequence[Host], snapshot: Snapshot, asked: Asked) -> list[Part]:
    query = Asked(at=asked.at, from_=asked.from_, to=asked.to).query().replace("?", "&", 1)
    parts = []
    for group in grouped(hosts, asked.group):
        changed = max(snapshot.changed[host.id] for host in group.hosts)
        parts.append(Part(group_id(group.name), changed, group.hosts, lambda group=group: group_node(group, query)))  # type: ignore[misc]
    return parts
