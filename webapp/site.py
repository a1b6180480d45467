"""What all routes share: the feed, the styles, what was made before and still holds, and where the log's reader stands."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeAlias

from sanic import Request, Sanic

from dimint.clock import Clock
from dimint.errors import BadQuery, BadTime
from dimint.webapp.as_json import Fields, live_update, states_item
from dimint.webapp.as_terminal import TerminalStyle, TerminalView
from dimint.webapp.asked import Asked, read_asked
from dimint.webapp.board import Board
from dimint.webapp.feed import Feed
from dimint.webapp.models import Host, Snapshot
from dimint.webapp.nodes import dump_json, to_json
from dimint.webapp.parts import PageStyle
from dimint.webapp.positions import Positions, covers, read_positions
from dimint.webapp.shown import Kept, Shown, show
from dimint.webapp.static_files import StaticFile
from dimint.webapp.times import iso, stamp
from dimint.webapp.view import paged
from dimint.when import parse_time

__all__ = ["STREAMS_MAX", "App", "Moment", "Site"]

App: TypeAlias = Sanic[Any, Any]

STREAMS_MAX: Final = 256
"""Open streams of one server; more get 503 and try again."""
_REMEMBERED: Final = 4096
"""Snapshots whose positions are remembered: what a stream that connects again may have missed is told from these."""


class Moment(NamedTuple):
    """A time in the past that a view is asked for, and the beginning of the range that ends there, if one is."""

    at_ns: int
    from_ns: int | None


_AHEAD_NS: Final = 60 * 1_000_000_000
"""By so much the clock of who asks may be ahead of the server's."""


@dataclass(slots=True)
class Site:
    """Belongs to the server's event loop."""

    feed: Feed
    clock: Clock
    page_style: PageStyle
    terminal_style: TerminalStyle
    hosts_per_page: int
    static: Mapping[str, StaticFile]
    streams: int = 0
    _kept: Kept = field(default_factory=Kept)
    _shown: dict[str, Shown] = field(default_factory=dict)
    _messages: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _made_of: int = -1
    _passed: deque[tuple[Positions, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def enter(self) -> bool:
        """Whether one more stream is served; who enters leaves."""
        if self.streams >= STREAMS_MAX:
            return False
        self.streams += 1
        return True

    def leave(self) -> None:
        self.streams -= 1

    def now_ms(self) -> int:
        return self.clock.time_ns() // 1_000_000

    def asked(self, request: Request) -> Asked:
        """What the request's query asks for. Raises BadQuery."""
        return read_asked(request.args.get)

    def moment(self, asked: Asked) -> Moment | None:
        """The time asked for; None is now, live. Raises BadQuery."""
        if not (asked.at or asked.from_ or asked.to):
            return None
        if asked.at and (asked.from_ or asked.to):
            raise BadQuery("ask either for at, or for from and to")
        at_ns = self._time("at" if asked.at else "to", asked.at or asked.to or "now")
        if asked.at and at_ns > self.clock.time_ns() + _AHEAD_NS:
            raise BadQuery(f"at: {asked.at} lies in the future; nothing is known of it yet")
        from_ns = self._time("from", asked.from_) if asked.from_ else None
        if from_ns is not None and from_ns >= at_ns:
            raise BadQuery("from is not before to")
        return Moment(at_ns, from_ns)

    def fixed(self, asked: Asked, moment: Moment) -> Asked:
        """The same with its times as such that mean the same tomorrow, in whole seconds: what links and tickets carry."""
        if moment.from_ns is None:
            return replace(asked, at=iso(moment.at_ns), from_="", to="")
        return replace(asked, at="", from_=iso(moment.from_ns), to=iso(moment.at_ns))

    def _time(self, name: str, text: str) -> int:
        try:
            return parse_time(text, now_ns=self.clock.time_ns(), zone=self.page_style.zone)
        except BadTime as error:
            raise BadQuery(f"{name}: {error}") from None

    async def snapshot(self, asked: Asked, *, bare: bool = False) -> tuple[Snapshot, Asked, Moment | None]:
        """All hosts at the time asked for; `bare` = without what was before it. Raises BadQuery, or Unreadable."""
        moment = self.moment(asked)
        if moment is None:
            return await self.feed.current(), asked, None
        asked = self.fixed(asked, moment)

        def read(board: Board) -> Snapshot:
            return board.past(moment.at_ns, moment.from_ns, traced=not bare, layout=asked.layout, whole=asked.narrows)

        return await self.feed.read(read), asked, moment

    def hosts_of(self, snapshot: Snapshot, page: int) -> Sequence[Host]:
        """The hosts of page 1, 2, …; 0 is all."""
        return paged(snapshot.hosts, page, self.hosts_per_page)

    def pages_of(self, snapshot: Snapshot) -> int:
        return max(1, -(-len(snapshot.hosts) // self.hosts_per_page))

    def when(self, snapshot: Snapshot) -> str:
        """Time of the newest data, as shown."""
        return stamp(snapshot.data_ns, self.page_style.zone, self.page_style.date_order)

    def style_for(self, asked: Asked) -> PageStyle:
        """The style with what links carry on from this page: the time, not the filter."""
        return replace(self.page_style, link=Asked(at=asked.at, from_=asked.from_, to=asked.to).query())

    def show(self, snapshot: Snapshot, asked: Asked, moment: Moment | None) -> Shown:
        """What a page shows; of the newest snapshot made once for all who ask for the same."""
        if moment is not None:
            return show(snapshot, asked, self.style_for(asked), now_ns=moment.at_ns, per_page=self.hosts_per_page)
        self._begin(snapshot)
        key = asked.query()
        shown = self._shown.get(key)
        if shown is None:
            shown = show(snapshot, asked, self.page_style, now_ns=self.clock.time_ns(), per_page=self.hosts_per_page)
            self._shown[key] = shown
        return shown

    def html_of(self, shown: Shown, moment: Moment | None) -> list[str]:
        """The parts of a page as HTML."""
        kept = self._kept if moment is None else Kept()
        return [kept.html(shown.layout, part) for part in shown.parts]

    def terminal(self, view: TerminalView, hosts: Sequence[Host], style: TerminalStyle, moment: Moment | None) -> str:
        """A whole terminal view of these hosts."""
        if moment is not None:
            return view.text(hosts, style)
        kind = f"{view.name} {style}"
        blocks = (self._kept.of_host(kind, host, lambda host: view.block(host, style)) for host in hosts)
        return view.head(style) + "".join(blocks)

    def states_items(self, hosts: Sequence[Host], fields: Fields | None = None) -> list[bytes]:
        """The hosts' members of the map that `/states/` answers."""
        zone = self.page_style.zone
        if fields is not None:
            return [states_item(host, zone, fields) for host in hosts]
        return [self._kept.of_host("states", host, lambda host: states_item(host, zone)) for host in hosts]

    def _begin(self, snapshot: Snapshot) -> None:
        """Let go of what was made of earlier snapshots."""
        if self._made_of != snapshot.sequence:
            self._made_of = snapshot.sequence
            self._shown.clear()
            self._messages.clear()
            self._kept.forget(snapshot)
            self._passed.append((read_positions(snapshot.position), snapshot.sequence))

    def sequence_of(self, position: str | None) -> int:
        """The last snapshot that whoever has seen this log position surely knows; -1 (= nothing) for every other text."""
        seen = read_positions(position or "")
        if not seen:
            return -1
        best: tuple[Positions, int] | None = None
        for passed in self._passed:  # oldest first: of several at one position the oldest is the sure one
            if covers(seen, passed[0]) and (best is None or passed[0] != best[0]):
                best = passed
        return -1 if best is None else best[1]

    def message(self, asked: Asked, since: int, snapshot: Snapshot) -> bytes:
        """The event that brings a page from sequence `since` to `snapshot`; made once for all who need the same."""
        self._begin(snapshot)
        key = (asked.query(), since)
        made = self._messages.get(key)
        if made is None:
            made = self._messages[key] = self._make_message(asked, since, snapshot)
        return made

    def _make_message(self, asked: Asked, since: int, snapshot: Snapshot) -> bytes:
        shown = self.show(snapshot, asked, None)
        whole = snapshot.order_changed > since  # who is on which page may have changed
        moved = bool(asked.page) and (whole or asked.narrows)
        changed = [part for part in shown.parts if part.changed > since or moved]
        body = {
            "parts": to_json([shown.head, *(part.make() for part in changed)]),
            "order": shown.order if whole or asked.narrows or shown.layout == "tiles" else None,
            "when": self.when(snapshot),
            "now": self.now_ms(),
        }
        text = f"event: parts\nid: {snapshot.position}\ndata: {dump_json(body)}\n\n"
        return text.encode("utf-8", "backslashreplace")

    def live_message(self, page: int, since: int, snapshot: Snapshot) -> str | None:
        """What a viewer of this page over the WebSocket gets, from sequence `since` on; None if there is nothing for it."""
        hosts = self.hosts_of(snapshot, page)
        changed = [host for host in hosts if snapshot.changed[host.id] > since]
        if not changed:
            return None
        names = [host.name for host in hosts]
        return live_update(self.states_items(changed), names, self.pages_of(snapshot)).decode()
