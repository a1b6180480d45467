"""The overlord's core: requests, acknowledgements, answers and ticks in; effects out. [S]

A turn of the driver: give everything that has come (`receive`, `appended`, `from_node` …), then call `turn` once and
perform its effects in the order that overlord/effects.py gives. All times are seconds of one monotonic clock.

What a single-key `set` costs on one core of a small virtual machine: here 5 µs (parse 0.4, value check 0.2, partition 0.1,
reply 0.2 …), sockets 4 (dimint/transport.py); with log and commits 18 µs of the clock at 512 outstanding and 45 at 64, as
ARCHITECTURE.md has it in detail. What mattered: one Pending and one Entry a request, no future, timer or task; deadlines
are looked at only when the earliest is over; fewer, fuller commits (`_cut`) and no wake-up where it can be helped, since
what a turn costs is what 64 outstanding requests feel.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dimint.assignment import Assignment
from dimint.batch import KEY, By, Event
from dimint.door import Answers, Due, Fetched, FromNode, Outcomes, Progress, Replica
from dimint.door_past import Historian, Told
from dimint.errors import NodeNotAvailable, NotApplied, OutcomeUnknown, ParseError, RequestError
from dimint.events import CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.overlord.cluster_answers import ClusterAnswers
from dimint.overlord.digests import DigestTable
from dimint.overlord.effects import Append, Effects, ToNode
from dimint.overlord.kv_reads import KeyValueReads
from dimint.overlord.kv_writes import KeyValueWrites
from dimint.overlord.outcomes import OutcomeTable
from dimint.overlord.past import PastQuestions
from dimint.overlord.pending import Pending, PendingTable
from dimint.overlord.publish import Publisher
from dimint.overlord.reads import ReadTable
from dimint.overlord.strong import StrongReads
from dimint.overlord.watching import Watching
from dimint.overlord.writes import Lane
from dimint.slots import homes
from dimint.wire import form_of, parse, refused
from dimint.wire_types import (
    COMMANDS,
    Cas,
    Delete,
    Diff,
    Get,
    GetAt,
    GetOverlords,
    History,
    Incr,
    Mget,
    Mset,
    OverlordState,
    Publish,
    Request,
    Result,
    Scan,
    ScanAt,
    Set,
    State,
    Status,
    Topology,
    Unwatch,
    Watch,
)

__all__ = ["GATHER_S", "Core", "Identity"]


SHARED_COMMIT_S = 0.05
"""How long the batches of a turn may hold back those of other partitions, should one of them be stuck."""


GATHER_S = 0.001
OWN_EVENTS_MAX = 1000
"""Expiries that wait in one lane."""


class Identity(NamedTuple):
    """Who this overlord is: its writer's incarnation and name in batches, and the log it writes to.

    `log_kind` and `durability` are for `status`.
    """

    writer: bytes
    by: By
    end_is_linearizable: bool
    log_kind: str = ""
    durability: str = ""


class Core:
    """One overlord without sockets, threads, clock or disk."""

    def __init__(self, genesis: Genesis, identity: Identity) -> None:
        by, generation = identity.by, genesis.generation
        self.genesis = genesis
        self.table = PendingTable()
        self.lanes = [Lane(KV_TOPIC, index, by, generation=generation) for index in range(genesis.kv_partitions)]
        self.status_lanes = [Lane(STATUS_TOPIC, index, by, absolute_times=True) for index in range(genesis.status_partitions)]
        self.cluster_lane = Lane(CLUSTER_TOPIC, 0, by)
        self.reads = ReadTable()
        self.digests = DigestTable(genesis.kv_partitions)
        self._servers: tuple[tuple[str, ...], ...] = ()
        self._told: list[ToNode] = []
        self.outcomes = OutcomeTable(identity.writer, lambda partition, entry: self.lanes[partition].was_new(entry))
        partition_of = homes(genesis.hash_range, genesis.kv_partitions).__getitem__
        self._strong = StrongReads(self.lanes, self.reads, end_is_linearizable=identity.end_is_linearizable)
        self._writes = KeyValueWrites(self.table, self.lanes, partition_of)
        self._kv_reads = KeyValueReads(self.table, self.lanes, self.reads, self._strong, partition_of, generation)
        self._watching = Watching(self.table, self.lanes, self.reads, partition_of, generation)
        self._past = PastQuestions(self.table, partition_of, generation, genesis.kv_partitions)
        self._publisher = Publisher(self.table, self.status_lanes, genesis.status_partition)
        self.cluster = ClusterAnswers(self.table, genesis, identity.log_kind, identity.durability, self.reads, self.lanes)
        self._every_lane = [*self.lanes, *self.status_lanes, self.cluster_lane]
        self._lane_of = {(lane.topic, lane.partition): lane for lane in self._every_lane}
        self._ends_cheap = self._commits_together = identity.end_is_linearizable  # a log on one machine
        self._flights = self._expected = self._answered = 0
        self._handed_at = self._gather_until = 0.0
        self.gathering = False
        """Whether writes wait for others to share their commit: call `turn` again within GATHER_S."""
        self._assignment: Assignment | None = None
        self.leads = False
        """Whether this overlord is the elected one, which appends what is due; the driver says so."""
        writes, reads, publisher, cluster = self._writes, self._kv_reads, self._publisher, self.cluster
        watching, past = self._watching, (self._past.ask, self._past.overdue)
        self._commands: dict[type[Request], tuple[Callable[[Pending], None], Callable[[Pending], None]]] = {
            Get: (reads.get, reads.overdue),
            Mget: (reads.mget, reads.overdue),
            Scan: (reads.scan, reads.overdue),
            Set: (writes.set, writes.overdue),
            Delete: (writes.delete, writes.overdue),
            Mset: (writes.mset, writes.overdue),
            Incr: (writes.incr, writes.overdue),
            Cas: (writes.cas, writes.overdue),
            Result: (writes.result, writes.overdue),
            Watch: (watching.watch, watching.overdue),
            Unwatch: (watching.unwatch, watching.overdue),
            GetAt: past,
            ScanAt: past,
            History: past,
            Diff: past,
            Publish: (publisher.publish, publisher.overdue),
            GetOverlords: (cluster.get_overlords, cluster.overdue),
            State: (cluster.state, cluster.overdue),
            OverlordState: (cluster.overlord_state, cluster.overdue),
            Topology: (cluster.topology, cluster.overdue),
            Status: (cluster.status, cluster.overdue),
        }
        assert set(self._commands) == set(COMMANDS.values())
        self._begin = {cls: begin for cls, (begin, _) in self._commands.items()}

    # --- what comes in -----------------------------------------------------------------------------------------------
    def receive(self, peer: Any, frame: bytes | None, now: float) -> None:
        """One message of a client; `frame` None for one that is not a single frame."""
        try:
            if frame is None:
                raise ParseError("a request is one frame")
            request = parse(frame)
        except RequestError as error:
            self.table.answer(peer, *refused(frame or b"", error))
            return
        pending = self.table.admit(peer, form_of(frame), request, len(frame), now)
        if pending is None:
            return
        try:
            self._begin[type(request)](pending)
        except RequestError as error:
            self.table.fail(pending, error)

    def appended(self, append: Append, offset: int, number: int, now: float) -> None:
        """The log has acknowledged a batch."""
        lane = self._lane_of[append.topic, append.partition]
        self._landed(lane.entries_in_flight, now)
        token, waiting = lane.landed(offset)
        if lane.topic != KV_TOPIC:
            return
        if not waiting:
            self.outcomes.landed_without(lane.partition, number)
            return
        # the master pushes outcomes only of batches that have some: who must know that nothing was odd has to ask
        plain = any(type(entry.pending.request) in (Set, Delete, Mset) for entry in waiting)
        self.outcomes.wait(lane.partition, number, token, waiting, now, ask_now=plain)

    def append_failed(self, append: Append, error: RequestError) -> None:
        """A batch is not in the log and never will be (NotApplied), or nobody will ever know (OutcomeUnknown)."""
        self._landed(0, 0.0)
        self._lane_of[append.topic, append.partition].failed(error)

    def from_node(self, node: str, message: FromNode, now: float) -> None:
        """One message of a connected node (its Hello is `node_is_there`)."""
        if isinstance(message, Answers):
            self.reads.answered(node, message.answers, now)
        elif isinstance(message, Fetched):
            self._watching.fetched(node, message, now)
        elif isinstance(message, Outcomes):
            if (node, message.partition) not in self.reads.disputed:  # another one is asked
                self.outcomes.take(message)
        elif isinstance(message, Due):
            # the master tells again every second: what does not fit now comes later
            if self.leads and 0 <= message.partition < len(self.lanes):
                lane = self.lanes[message.partition]
                for key, version in message.keys[: max(0, OWN_EVENTS_MAX - lane.own_waiting)]:
                    lane.add_own(["kv.expire", key, 0, 0, version])
        elif isinstance(message, Progress):
            replicas = [one for one in message.replicas if 0 <= one.partition < len(self.lanes)]
            serving = [one for one in replicas if one.partition < len(self._servers) and node in self._servers[one.partition]]
            self._told.extend(ToNode(node, told) for told in self.digests.take(node, serving))
            self.reads.disputed = self.digests.disputed
            self.reads.progress(node, replicas)

    def from_historian(self, peer: Any, message: Historian | Told, now: float) -> None:
        """One message of a consumer that keeps the history of keys."""
        self._past.heard(peer, message, now)

    def node_is_there(self, node: str, now: float) -> None:
        """A node said Hello and can be asked."""
        self.reads.node_is_there(node)
        self.outcomes.hurry(now)

    def node_is_gone(self, node: str) -> None:
        self.digests.forget(node)
        self.reads.disputed = self.digests.disputed
        self.reads.node_is_gone(node)
        self._watching.node_is_gone(node)

    def members(self, overlords: Mapping[str, Mapping[str, Any]], nodes: Mapping[str, Mapping[str, Any]]) -> None:
        """Who is alive, as the registry has it: id → info, this overlord included."""
        self.cluster.overlords, self.cluster.nodes = overlords, nodes
        for lane in self.lanes:
            lane.set_alone(len(overlords) == 1)

    def assigned(self, assignment: Assignment, now: float) -> None:
        """The registry has another assignment; one of an older epoch is passed over."""
        known = self._assignment
        if known is not None and assignment.epoch < known.epoch:
            return
        self._assignment = assignment
        self.cluster.assignment = assignment
        self._servers = servers = tuple(assignment.servers_of(index) for index in range(len(assignment.partitions)))
        self.reads.place(servers)
        self.outcomes.hurry(now)

    def record(self, topic: str, event: Event) -> None:
        """Append an event of this overlord itself: a heartbeat (with absolute time), or cluster history."""
        if topic == STATUS_TOPIC:
            self.status_lanes[self.genesis.status_partition(event[KEY])].add_own(list(event))
        else:
            self.cluster_lane.add_own(list(event))

    def ends(self, ends: Mapping[int, int]) -> None:
        """End offsets that the last effects asked for."""
        self._strong.ends(ends)
        self.cluster.ends(ends)

    # --- what goes out -----------------------------------------------------------------------------------------------
    def turn(self, now: float) -> Effects:
        """Everything to do after what has come. With `asks`, perform them, give `ends` and call `turn` again."""
        for pending in self.table.overdue(now):
            self._overdue(pending)
        asks = self._asks()
        appends = self._cut(now)
        sends = self.reads.turn(now)
        sends += self._watching.turn(now)
        if self._told:
            connected = self.reads.connected()
            sends.extend(told for told in self._told if told.node in connected)
            self._told = []
        if len(self.outcomes):
            sends.extend(self._outcome_asks(now))
        questions = self._past.turn(now)
        return Effects(appends, asks, sends, self.table.take_replies(), questions)

    def tick(self, now: float) -> None:
        """Call it about every 50 ms, before `turn`."""
        self.reads.tick(now)
        self._watching.tick(now)
        self._past.tick(now)

    @property
    def appending(self) -> bool:
        """Whether a batch is in flight."""
        return self._flights > 0

    @property
    def busy(self) -> int:
        """Requests under way."""
        return len(self.table)

    def progress(self) -> dict[str, dict[int, Replica]]:
        """What every connected node has said of its partitions last."""
        return {node: dict(self.reads.replicas(node)) for node in self.reads.connected()}

    # --- inside ------------------------------------------------------------------------------------------------------
    def _cut(self, now: float) -> list[Append]:
        """Batches to hand over: of every lane with none in flight.

        Where all lanes share one commit, a lane that went ahead would only queue behind it and leave the next one half
        empty, so they wait for each other. And clients that wait for their answers come back within the time that an
        fsync takes: whoever was just answered is waited for, at most GATHER_S, or two halves of them would take turns.
        """
        self.gathering = False
        if self._commits_together:
            if self._flights and now < self._handed_at + SHARED_COMMIT_S:
                return []
            if now < self._gather_until:
                waiting = sum([len(lane.open.entries) for lane in self._every_lane])
                if 0 < waiting < self._expected:
                    self.gathering = True
                    return []
        appends = [append for lane in self._every_lane if lane.flight is None and (append := lane.cut()) is not None]
        if appends:
            self._flights += len(appends)
            self._handed_at = now
        return appends

    def _landed(self, entries: int, now: float) -> None:
        """A batch is settled. With the last one of a commit it is known how many writes are to be expected now."""
        self._flights -= 1
        self._answered += entries
        if not self._flights:
            self._expected = self._answered + sum([len(lane.open.entries) for lane in self._every_lane])
            self._answered = 0
            self._gather_until = now + GATHER_S

    def _asks(self) -> list[int]:
        strong, status = self._strong.turn(), self.cluster.asks()
        if status and not self._ends_cheap:  # what is known must do: asking could block for long
            self.cluster.ends({lane.partition: self.reads.furthest(lane.partition) for lane in self.lanes})
            status = ()
        return sorted({*strong, *status}) if strong or status else []

    def _outcome_asks(self, now: float) -> list[ToNode]:
        asks = []
        for ask in self.outcomes.due(now):
            servers = self.reads.servers_of(ask.message.partition)
            if servers:
                asks.append(ToNode(servers[ask.attempt % len(servers)], ask.message))
        return asks

    def _overdue(self, pending: Pending) -> None:
        self._commands[type(pending.request)][1](pending)

    def end(self) -> None:
        """The overlord ends: answer everything that is left with what is known of it."""
        for pending in self.table.all():
            if pending.handed:
                self.table.fail(pending, OutcomeUnknown("the overlord ends"))
            elif type(pending.request) in (Set, Delete, Mset, Incr, Cas, Result, Publish):
                self.table.fail(pending, NotApplied("the overlord ends"))
            else:
                self.table.fail(pending, NodeNotAvailable("the overlord ends"))
