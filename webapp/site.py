"""What all routes share: the feed, the styles, and the parts of pages that were made before and still hold.

A part is kept with the Host that it was made from; hosts are immutable and an unchanged one is the same object in every
snapshot, so a kept part is never stale.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from sanic import Sanic

from dimint.clock import Clock
from dimint.webapp.as_json import live_update, states_item
from dimint.webapp.as_terminal import TerminalStyle, TerminalView
from dimint.webapp.board import Snapshot
from dimint.webapp.cards import CARDS_MAX, PageStyle, gpu_rows_node, host_node, summary_node
from dimint.webapp.feed import Feed
from dimint.webapp.models import Host
from dimint.webapp.nodes import Node, dump_json, to_html, to_json
from dimint.webapp.static_files import StaticFile
from dimint.webapp.times import stamp
from dimint.webapp.view import paged

__all__ = ["VIEWS", "App", "Site", "View", "read_page"]

App: TypeAlias = Sanic[Any, Any]
View: TypeAlias = Literal["cards", "rows", "gpus"]
Part = TypeVar("Part")
VIEWS: Final[tuple[View, ...]] = get_args(View)

_PAGE_MAX_DIGITS: Final = 9


def read_page(text: str | None) -> int | None:
    """A page number as asked for: none, empty or unreadable = 0 (all); None if it is negative."""
    plain = (text or "").strip()
    digits = plain.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _PAGE_MAX_DIGITS:
        return 0
    return None if plain.startswith("-") and int(digits) else int(digits)


@dataclass(slots=True)
class Site:
    """Belongs to the server's event loop. `boot` tells this start of the server from every other."""

    feed: Feed
    clock: Clock
    page_style: PageStyle
    terminal_style: TerminalStyle
    hosts_per_page: int
    static: Mapping[str, StaticFile]
    boot: str
    streams: int = 0
    _kept: dict[tuple[str, str], tuple[Host, Any]] = field(default_factory=dict)
    _summary: tuple[int, str] = (-1, "")
    _messages: dict[tuple[View, int, int], bytes] = field(default_factory=dict)
    _messages_of: int = -1

    def now_ms(self) -> int:
        return self.clock.time_ns() // 1_000_000

    def hosts_of(self, snapshot: Snapshot, page: int) -> Sequence[Host]:
        """The hosts of page 1, 2, …; 0 is all."""
        return paged(snapshot.hosts, page, self.hosts_per_page)

    def pages_of(self, snapshot: Snapshot) -> int:
        return max(1, -(-len(snapshot.hosts) // self.hosts_per_page))

    def view_for(self, hosts: Sequence[Host]) -> View:
        """Cards for few hosts, rows for many."""
        return "rows" if len(hosts) > CARDS_MAX else "cards"

    def when(self, snapshot: Snapshot) -> str:
        """Time of the newest data, as shown."""
        return stamp(snapshot.data_ns, self.page_style.zone, self.page_style.date_order)

    def html_of(self, view: View, hosts: Sequence[Host]) -> list[str]:
        """The hosts' parts of a page."""
        return [self._keep(view, host, lambda host: to_html(self._node(view, host))) for host in hosts]

    def terminal(self, view: TerminalView, hosts: Sequence[Host]) -> str:
        """A whole terminal view of these hosts."""
        style = self.terminal_style
        blocks = (self._keep(view.name, host, lambda host: view.block(host, style)) for host in hosts)
        return view.head(style) + "".join(blocks)

    def states_items(self, hosts: Sequence[Host]) -> list[bytes]:
        """The hosts' members of the map that `/states/` answers."""
        return [self._keep("states", host, lambda host: states_item(host, self.page_style.zone)) for host in hosts]

    def _forget_others(self, snapshot: Snapshot) -> None:
        """Let go of the parts of hosts that are gone."""
        for key in [key for key in self._kept if key[1] not in snapshot.changed]:
            del self._kept[key]

    def summary_html(self, snapshot: Snapshot) -> str:
        if self._summary[0] != snapshot.sequence:
            self._forget_others(snapshot)
            self._summary = snapshot.sequence, to_html(summary_node(snapshot.hosts))
        return self._summary[1]

    def tag(self, sequence: int) -> str:
        """Id of an event of the stream, and where a page says that its data ends."""
        return f"{self.boot}-{sequence}"

    def sequence_of(self, tag: str | None) -> int:
        """The sequence in a tag of this start of the server; -1 (= nothing seen yet) for every other text."""
        boot, _, number = (tag or "").rpartition("-")
        return int(number) if boot == self.boot and number.isascii() and number.isdigit() and len(number) < 16 else -1

    def message(self, view: View, page: int, since: int, snapshot: Snapshot) -> bytes:
        """The event that brings a page from sequence `since` to `snapshot`; made once for all who need the same."""
        if self._messages_of != snapshot.sequence:
            self._messages.clear()
            self._messages_of = snapshot.sequence
        made = self._messages.get((view, page, since))
        if made is None:
            made = self._messages[view, page, since] = self._make_message(view, page, since, snapshot)
        return made

    def _make_message(self, view: View, page: int, since: int, snapshot: Snapshot) -> bytes:
        hosts = self.hosts_of(snapshot, page)
        whole = snapshot.order_changed > since  # who is on which page may have changed
        changed = [host for host in hosts if snapshot.changed[host.id] > since or (whole and page)]
        body = {
            "parts": to_json([summary_node(snapshot.hosts), *(self._node(view, host) for host in changed)]),
            "order": [f"h-{host.id}" for host in hosts] if whole else None,
            "when": self.when(snapshot),
            "now": self.now_ms(),
        }
        text = f"event: parts\nid: {self.tag(snapshot.sequence)}\ndata: {dump_json(body)}\n\n"
        return text.encode("utf-8", "backslashreplace")

    def live_message(self, page: int, since: int, snapshot: Snapshot) -> str | None:
        """What a viewer of this page over the WebSocket gets, from sequence `since` on; None if there is nothing for it."""
        hosts = self.hosts_of(snapshot, page)
        changed = [host for host in hosts if snapshot.changed[host.id] > since]
        if not changed:
            return None
        names = [host.name for host in hosts]
        return live_update(self.states_items(changed), names, self.pages_of(snapshot)).decode()

    def _keep(self, kind: str, host: Host, make: Callable[[Host], Part]) -> Part:
        """What was made of this very Host before, or is made now."""
        kept = self._kept.get((kind, host.id))
        if kept is None or kept[0] is not host:
            kept = self._kept[kind, host.id] = host, make(host)
        part: Part = kept[1]
        return part

    def _node(self, view: View, host: Host) -> Node:
        if view == "gpus":
            return gpu_rows_node(host, self.page_style)
        return host_node(host, self.page_style, rows=view == "rows")
