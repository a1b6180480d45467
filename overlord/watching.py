"""The commands `watch` and `unwatch`: changes of one or many partitions, asked of the nodes that hold them. [S]

A watch is asked at one node for all partitions that this node is to answer for, and again as soon as it said that there is
nothing, until the request's deadline: then the client learns how far the positions have come and asks again itself. The
first answer with changes answers the request; nobody has to wait for the other nodes, whose changes come next time.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from dimint.door import Change, Fetch, Fetched, Unfetch
from dimint.errors import NodeNotAvailable, ParseError, PositionGone, TimedOut
from dimint.overlord.effects import ToNode
from dimint.overlord.pending import Pending, PendingTable
from dimint.overlord.reads import ReadTable, Want
from dimint.overlord.writes import Lane
from dimint.positions import Position
from dimint.wire import min_offsets, reply
from dimint.wire_types import Unwatch, Watch
from dimint.wire_watch import gone, watched, where_to_begin

__all__ = ["Watching"]

FETCH_S: Final = 1.0
"""After so long a node says where it stands: so soon another one is asked if it is behind or dead."""
LATE_S: Final = 1.0
PAUSE_S: Final = 0.05
ANSWER_S: Final = 0.1
"""So long before the deadline the node is to answer."""


class _Flight:
    """Partitions of one watch, asked of one node."""

    __slots__ = ("late_at", "node", "partitions", "watch")

    def __init__(self, watch: "_Watch", node: str, partitions: list[int], late_at: float) -> None:
        self.watch, self.node, self.partitions, self.late_at = watch, node, partitions, late_at


class _Watch:
    """One request. `idle` are its partitions that no node is asked for now; `unheard` those that no node spoke of yet."""

    __slots__ = ("changes", "flights", "idle", "pending", "positions", "starting", "starts", "tried", "unheard")

    def __init__(self, pending: Pending, positions: dict[int, Position | None], starts: dict[int, int]) -> None:
        self.pending, self.positions, self.starts = pending, positions, starts
        self.starting = any(position is None for position in positions.values())
        self.changes: list[tuple[int, list[Change]]] = []
        self.idle = set(positions)
        self.unheard = set(positions)
        self.tried: set[str] = set()
        self.flights: set[int] = set()


class Watching:
    """All watches under way."""

    def __init__(
        self,
        table: PendingTable,
        lanes: Sequence[Lane],
        reads: ReadTable,
        partition_of: Callable[[str], int],
        generation: str,
    ) -> None:
        self._table, self._lanes, self._reads = table, lanes, reads
        self._partition_of, self._generation = partition_of, generation
        self._flights: dict[int, _Flight] = {}
        self._last_id = 0
        self._to_ask: dict[_Watch, None] = {}
        self._paused: list[tuple[float, _Watch]] = []
        self._named: dict[tuple[Any, Any], _Watch] = {}
        self._sends: list[ToNode] = []

    def watch(self, pending: Pending) -> None:
        request: Watch = pending.request
        count = len(self._lanes)
        if request.key is not None:
            partitions: Sequence[int] = (self._partition_of(request.key),)
        elif request.partitions is None:
            partitions = range(count)
        elif request.partitions and all(0 <= partition < count for partition in request.partitions):
            partitions = request.partitions
        else:
            raise ParseError(f"`partitions` names some of the log's {count}")
        positions = where_to_begin(request, self._generation, partitions, count)
        # what this overlord acknowledged before the watch was asked for is not to appear in it
        starts = {at: self._lanes[at].acknowledged_end for at, position in positions.items() if position is None}
        for at, offset in min_offsets(request, self._generation, count).items():
            if at in starts:
                starts[at] = max(starts[at], offset)
        watch = pending.gather = _Watch(pending, positions, starts)
        if request.id is not None:
            self._named[pending.peer, request.id] = watch
        self._to_ask[watch] = None

    def unwatch(self, pending: Pending) -> None:
        request: Unwatch = pending.request
        watch = self._named.get((pending.peer, request.watch))
        if watch is not None:
            watch.unheard.clear()  # where it stands is all that is wanted
            self.overdue(watch.pending)
        self._table.finish(pending, reply(pending.form, request, {"ok": True}))

    def overdue(self, pending: Pending) -> None:
        """Its deadline is over, or it is to end: tell how far it has come."""
        watch = pending.gather
        if not isinstance(watch, _Watch):
            return
        if None not in watch.positions.values() and (watch.changes or not watch.unheard):
            self._answer(watch)
        else:
            self._end(watch)
            alone = [partition for partition in sorted(watch.unheard) if not self._reads.servers_of(partition)]
            late = TimedOut("no node told in time what has changed")
            self._table.fail(pending, NodeNotAvailable(f"no node serves partition {alone[0]}") if alone else late)

    def fetched(self, node: str, message: Fetched, now: float) -> None:
        """A node's answer; one that nobody waits for any more is passed over."""
        flight = self._flights.get(message.id)
        if flight is None or flight.node != node:
            return
        watch = flight.watch
        self._take_back(message.id)
        if message.error == PositionGone.code:
            pending = watch.pending
            self._end(watch)
            self._table.finish(pending, gone(pending.form, pending.request, self._generation, message.oldest))
            return
        if message.error is not None:
            watch.tried.add(node)
            self._paused.append((now + PAUSE_S, watch))
            return
        watch.tried.clear()
        for partition, offset, events in message.positions:
            if partition in watch.positions:
                watch.positions[partition] = Position(offset, events)
                watch.unheard.discard(partition)
        watch.changes += message.changes
        if (watch.changes or watch.starting) and None not in watch.positions.values():
            self._answer(watch)
        else:
            self._to_ask[watch] = None

    def node_is_gone(self, node: str) -> None:
        """What it was asked goes to others."""
        for id in [id for id, flight in self._flights.items() if flight.node == node]:
            self._to_ask[self._take_back(id).watch] = None

    def tick(self, now: float) -> None:
        """Give up on nodes that do not answer; ask again after a pause."""
        for id in [id for id, flight in self._flights.items() if flight.late_at <= now]:
            flight = self._take_back(id)
            flight.watch.tried.add(flight.node)
            self._to_ask[flight.watch] = None
        if self._paused:
            self._to_ask.update((watch, None) for at, watch in self._paused if at <= now)
            self._paused = [entry for entry in self._paused if entry[0] > now]

    def turn(self, now: float) -> list[ToNode]:
        """Messages to nodes."""
        if self._to_ask:
            to_ask, self._to_ask = self._to_ask, {}
            for watch in to_ask:
                if watch.pending.reply is None:
                    self._ask(watch, now)
                else:
                    self._end(watch)
        if not self._sends:
            return []
        connected = self._reads.connected()
        sends, self._sends = [send for send in self._sends if send.node in connected], []
        return sends

    # --- inside ------------------------------------------------------------------------------------------------------
    def _ask(self, watch: _Watch, now: float) -> None:
        by_node: dict[str, list[int]] = {}
        # one that only asks where the log is now is told that, and nothing that came after it
        idle = sorted(at for at in watch.idle if not watch.starting or watch.positions[at] is None)
        for partition in idle:
            position = watch.positions[partition]
            offset = watch.starts.get(partition, 0) if position is None else position.end
            node = self._reads.choose(Want(partition, offset, position is not None), watch.tried, prefer=by_node)
            if node is not None:
                by_node.setdefault(node, []).append(partition)
        if sum(map(len, by_node.values())) < len(idle):
            self._paused.append((now + PAUSE_S, watch))
            watch.tried.clear()
        request: Watch = watch.pending.request
        wait_s = max(0.0, min(FETCH_S, watch.pending.deadline - now - ANSWER_S))
        for node, partitions in by_node.items():
            self._last_id = id = self._last_id + 1
            known = [(at, *position) for at in partitions if (position := watch.positions[at]) is not None]
            starts = [(at, watch.starts[at]) for at in partitions if watch.positions[at] is None]
            message = Fetch(id, request.key, request.prefix or "", known, starts, int(wait_s * 1000))
            self._flights[id] = _Flight(watch, node, partitions, now + wait_s + LATE_S)
            watch.flights.add(id)
            watch.idle.difference_update(partitions)
            self._sends.append(ToNode(node, message))

    def _take_back(self, id: int) -> _Flight:
        flight = self._flights.pop(id)
        flight.watch.flights.discard(id)
        flight.watch.idle.update(flight.partitions)
        return flight

    def _answer(self, watch: _Watch) -> None:
        self._end(watch)
        pending = watch.pending
        positions = {partition: position for partition, position in watch.positions.items() if position is not None}
        self._table.finish(pending, watched(pending.form, pending.request, self._generation, positions, watch.changes))

    def _end(self, watch: _Watch) -> None:
        unwanted: dict[str, list[int]] = {}
        for id in list(watch.flights):
            unwanted.setdefault(self._take_back(id).node, []).append(id)
        self._sends += [ToNode(node, Unfetch(ids)) for node, ids in unwanted.items()]
        request: Watch = watch.pending.request
        if request.id is not None and self._named.get((watch.pending.peer, request.id)) is watch:
            del self._named[watch.pending.peer, request.id]
