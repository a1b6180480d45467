"""A whole cluster on one thread and a turned clock: real overlord cores, placement, node replicas and desks over a log in
memory. The network may lose, repeat and reorder messages, appends may fail, processes may die; all by one seed."""

import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from dimint import door
from dimint.assignment import Assignment
from dimint.clock import ManualClock
from dimint.door import AskOutcomes, Disputed, Fetch, Progress, Reads, Unfetch
from dimint.errors import NotApplied
from dimint.events import CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import TopicSpec
from dimint.node.desk import Desk
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from dimint.node.watches import Limits, Watches
from dimint.overlord.effects import Append
from dimint.overlord.placement import Cluster, place
from dimint.overlord.requests import Core, Identity
from dimint.writer import Appended, BatchWriter, Outgoing

STEP_S = 0.002
PARTITIONS = 4


class Faults(NamedTuple):
    """Chances per message or append, and how long things take at most."""

    lose: float = 0.0
    repeat: float = 0.0
    delay_s: float = 0.0
    append_fails: float = 0.0
    lag: float = 0.0
    """Chance that a node does not read in a step."""


class SimNode:
    """A node's replicas and desk."""

    def __init__(self, sim: "Sim", id: str) -> None:
        self.sim, self.id = sim, id
        self.replicas: dict[int, Replica] = {}
        self.watches = Watches(self.replicas, Limits(recent_bytes=1000, reply_bytes=1000))
        self.desk: Desk[str] = Desk(self.replicas, self.watches)
        self.caught_up: set[int] = set()
        self.disputed: dict[int, str] = {}
        self.renewed: set[int] = set()
        self.mastered: frozenset[int] = frozenset()

    def assigned(self, assignment: Assignment) -> None:
        held = assignment.held_by(self.id)
        for partition in self.replicas.keys() - held:
            del self.replicas[partition]
            self.caught_up.discard(partition)
            self.desk.dropped(partition)
            self.watches.drop(partition)
        for partition in held - self.replicas.keys():
            self.replicas[partition] = Replica(partition, self.sim.genesis, MemoryState())
        self.mastered = assignment.mastered_by(self.id)

    def dispute(self, told: Disputed) -> None:
        """Build a partition anew from the log, once until it agrees."""
        if told.agreed:
            self.renewed.discard(told.partition)
        if told.text is not None and told.partition in self.replicas and told.partition not in self.renewed:
            self.replicas[told.partition] = Replica(told.partition, self.sim.genesis, MemoryState())
            self.caught_up.discard(told.partition)
            self.disputed[told.partition] = told.text
            self.renewed.add(told.partition)

    def turn(self) -> None:
        sim = self.sim
        for partition, replica in self.replicas.items():
            end = sim.log.bounds(KV_TOPIC, partition).end
            if replica.next_offset < end and sim.random.random() >= sim.faults.lag:
                records = sim.log.read(KV_TOPIC, partition, replica.next_offset, max_records=sim.random.randint(1, 5))
                for applied in replica.apply(records):
                    name = sim.overlord_of.get(applied.writer)
                    if name is not None and partition in self.mastered:
                        self.desk.push(name, partition, applied)
                self.desk.came_on(partition)
                self.watches.came_on(partition)
            if replica.next_offset == end:
                self.caught_up.add(partition)
                self.disputed.pop(partition, None)
        for partition, offset in self.watches.wants():
            records = sim.log.read(KV_TOPIC, partition, offset, max_records=3)
            sim.later(partial(self.watches.was_read, partition, offset, records), sim.delay())
        self.desk.expire(sim.now)
        self.watches.expire(sim.now)
        for overlord, message in self.desk.take():
            sim.to_overlord(self.id, overlord, message)
        if sim.steps % 20 == 0:
            states = [
                msgspec.structs.replace(
                    replica.state(caught_up=partition in self.caught_up),
                    problem=self.disputed.get(partition),
                    anew=partition in self.renewed,
                )
                for partition, replica in self.replicas.items()
            ]
            for overlord in sim.overlords:
                sim.to_overlord(self.id, overlord, Progress(self.id, 0, states))


class SimOverlord:
    """A core and its writer; appends land after a while, some not at all."""

    def __init__(self, sim: "Sim", name: str) -> None:
        self.sim, self.name = sim, name
        incarnation = sim.random.randbytes(16)
        self.writer = BatchWriter(sim.log, clock=sim.clock, host="sim", process=name, incarnation=incarnation)
        sim.overlord_of[incarnation] = name
        self.core = Core(sim.genesis, Identity(incarnation, self.writer.by, sim.linearizable))
        for node in sim.nodes:
            self.core.node_is_there(node, sim.now)
        if sim.assignment is not None:
            self.core.assigned(sim.assignment, sim.now)
        self.dead = False

    def turn(self) -> None:
        sim, core = self.sim, self.core
        if sim.steps % 25 == 0:
            core.tick(sim.now)
        appends, asks, sends, replies, _ = core.turn(sim.now)
        for append in appends:
            sim.later(partial(self.append, append), sim.delay())
        for node, message in sends:
            sim.to_node(self.name, node, message)
        for peer, frame in replies:
            sim.over_network(partial(peer, frame))
        if asks:
            core.ends({partition: sim.log.bounds(KV_TOPIC, partition).end for partition in asks})
            self.turn()

    def append(self, append: Append) -> None:
        if self.dead and self.sim.random.random() < 0.5:
            return  # it died before the log had it
        if self.sim.random.random() < self.sim.faults.append_fails:
            self.sim.later(partial(self.settle, append, None), self.sim.delay())
            return
        batch = Outgoing(append.topic, append.partition, append.by, append.events, time_ns=append.time_ns)
        self.sim.later(partial(self.settle, append, self.writer.append([batch])[0].result(0)), self.sim.delay())

    def settle(self, append: Append, appended: Appended | None) -> None:
        if self.dead:
            return
        if appended is None:
            self.core.append_failed(append, NotApplied("refused"))
        else:
            self.core.appended(append, appended.offset, appended.number, self.sim.now)


class Sim:
    """The world. `step` moves it by STEP_S."""

    def __init__(
        self, seed: int = 0, *, overlords: int = 1, nodes: int = 1, faults: Faults | None = None, linearizable: bool = True
    ) -> None:
        self.random = random.Random(seed)
        self.faults, self.linearizable = faults or Faults(), linearizable
        self.clock = ManualClock()
        self.log = MemoryLog(MemoryBroker(clock=self.clock))
        self.log.create([TopicSpec(KV_TOPIC, PARTITIONS), TopicSpec(STATUS_TOPIC, 2), TopicSpec(CLUSTER_TOPIC, 1)])
        self.genesis = Genesis(self.log.describe().generation, 10_000, PARTITIONS, 2)
        self.steps = 0
        self.assignment: Assignment | None = None
        self.overlord_of: dict[bytes, str] = {}
        self.overlords: dict[str, SimOverlord] = {}
        self.nodes: dict[str, SimNode] = {}
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._names = itertools.count(1)
        for _ in range(overlords):
            self.start_overlord()
        for _ in range(nodes):
            self.start_node()

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    # --- processes ---------------------------------------------------------------------------------------------------
    def start_overlord(self) -> str:
        name = f"o{next(self._names)}"
        self.overlords[name] = SimOverlord(self, name)
        self._tell_members()
        return name

    def kill_overlord(self, name: str) -> None:
        self.overlords.pop(name).dead = True
        self.later(self._tell_members, 0.2)

    def start_node(self) -> str:
        id = f"n{next(self._names)}"
        self.nodes[id] = SimNode(self, id)
        for overlord in self.overlords.values():
            overlord.core.node_is_there(id, self.now)
        self._tell_members()
        return id

    def kill_node(self, id: str) -> None:
        del self.nodes[id]
        for overlord in self.overlords.values():
            self.later(partial(overlord.core.node_is_gone, id), 0.2)

    # --- time and network --------------------------------------------------------------------------------------------
    def delay(self) -> float:
        return self.random.uniform(0, self.faults.delay_s)

    def later(self, act: Callable[[], object], delay_s: float) -> None:
        heapq.heappush(self._queue, (self.now + delay_s, next(self._order), act))

    def over_network(self, act: Callable[[], object]) -> None:
        if self.random.random() < self.faults.lose:
            return
        self.later(act, self.delay())
        if self.random.random() < self.faults.repeat:
            self.later(act, self.delay() * 5)

    def to_node(self, overlord: str, node: str, message: door.FromOverlord) -> None:
        decoded = door.decode_from_overlord(door.encode(message))

        def arrive() -> None:
            found = self.nodes.get(node)
            if found is None:
                return
            if isinstance(decoded, Reads):
                found.desk.read(overlord, decoded.reads, self.now)
            elif isinstance(decoded, AskOutcomes):
                found.desk.ask(overlord, decoded, self.now)
            elif isinstance(decoded, Fetch):
                found.desk.fetch(overlord, decoded, self.now)
            elif isinstance(decoded, Unfetch):
                found.desk.unfetch(overlord, decoded)
            elif isinstance(decoded, Disputed):
                found.dispute(decoded)

        self.over_network(arrive)

    def to_overlord(self, node: str, overlord: str, message: door.FromNode) -> None:
        decoded = door.decode_from_node(door.encode(message))

        def arrive() -> None:
            found = self.overlords.get(overlord)
            if found is not None and node in self.nodes:
                found.core.from_node(node, decoded, self.now)

        self.over_network(arrive)

    def step(self) -> None:
        self.clock.advance(STEP_S)
        self.steps += 1
        while self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()
        if self.steps % 10 == 1:
            self._place()
        for node in list(self.nodes.values()):
            node.turn()
        for overlord in list(self.overlords.values()):
            overlord.turn()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.step()

    def _place(self) -> None:
        if not self.overlords:
            return
        leader = next(iter(self.overlords.values()))
        cluster = Cluster(self.nodes.keys(), leader.core.progress(), PARTITIONS, 1)
        wanted = place(self.assignment, cluster)
        if wanted is self.assignment:
            return
        self.assignment = wanted
        for node in self.nodes.values():
            self.later(partial(node.assigned, wanted), self.delay())
        for overlord in list(self.overlords.values()):
            self.later(partial(overlord.core.assigned, wanted, self.now), self.delay())

    def _tell_members(self) -> None:
        for overlord in self.overlords.values():
            overlord.core.members({name: {} for name in self.overlords}, {id: {} for id in self.nodes})

    # --- clients -----------------------------------------------------------------------------------------------------
    def send(self, peer: Callable[[bytes], None], request: dict[str, Any] | bytes, overlord: str | None = None) -> None:
        """A request on its way to an overlord, any if none is named."""
        frame = request if isinstance(request, bytes) else msgspec.json.encode(request)
        if not self.overlords:
            return
        name = overlord or self.random.choice(list(self.overlords))

        def arrive() -> None:
            if name in self.overlords:
                self.overlords[name].core.receive(peer, frame, self.now)

        self.over_network(arrive)

    def ask(self, seconds: float = 12.0, **request: Any) -> Any:
        """Send one request and step until its reply is there."""
        return msgspec.json.decode(self.ask_frame(msgspec.json.encode(request), seconds))

    def ask_frame(self, frame: bytes, seconds: float = 12.0) -> bytes:
        replies: list[bytes] = []
        self.send(replies.append, frame)
        for _ in range(round(seconds / STEP_S)):
            if replies:
                return replies[0]
            self.step()
        raise AssertionError(f"no reply to {frame[:100]!r}")
