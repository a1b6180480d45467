"""The overlord's driver: two doors, one poller, one batch writer, and the core between them.

One thread does everything that requests need. Other threads only enqueue and wake it: the log's when a batch is settled,
the membership's with news of the cluster. A turn takes all that has come, asks the core once, and performs its effects in
the order of overlord/effects.py.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from dimint import door
from dimint.curve import Key
from dimint.door import AskLog, Hello, LogPlace, Progress, Welcome
from dimint.door_past import Historian, Told
from dimint.errors import LogBroken, OutcomeUnknown, ParseError, RecordTooLarge, RequestError, TooLarge
from dimint.events import CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.overlord.effects import Append, Effects
from dimint.overlord.membership import REGISTRY_LOOK_S, Heard, Membership, News, Ports, Record, Seen
from dimint.overlord.requests import GATHER_S, Core, Identity
from dimint.service import spawn_thread
from dimint.transport import Context, Peer
from dimint.writer import Appended, BatchWriter, Outgoing

__all__ = ["Addresses", "Overlord"]

TICK_S = 0.05
RECEIVE_MAX = 2000
"""Messages taken from a door in one turn: bounds how long the oldest one waits for its batch."""
PROGRESS_S = 0.1
END_WAIT_S = 2.0
LINGER_MS = 300
JOIN_WAIT_S = REGISTRY_LOOK_S + 0.2
"""So long after it joined, one beside others takes no requests: until they know of it, they trust what they know of clients'
numbers, and would acknowledge a lower one than a client has sent here."""
NODE_FRAME_MAX_BYTES = 256 << 20


class Addresses(NamedTuple):
    """Where to listen, and the host under which others reach it. Port 0 takes any free one."""

    bind: str
    advertise: str
    port_for_client: int
    port_for_node: int
    allow_plain: bool = False
    key: Key | None = None


class Overlord:
    """One overlord process. Log, registry and writer are opened by the caller, who closes log and registry after `run`.

    `ready` is called once, from `run`, when both doors listen and the registry knows this overlord.
    """

    def __init__(
        self,
        genesis: Genesis,
        ports: Ports,
        *,
        host: str,
        addresses: Addresses,
        heartbeat_s: float = 2.0,
        max_slave_count: int = 2,
        spawn: Callable[[str, Callable[[], None]], threading.Thread] = spawn_thread,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._genesis, self._ports = genesis, ports
        self._log, _, self._clock = ports
        self._host, self._addresses = host, addresses
        self._heartbeat_s, self._max_slave_count = heartbeat_s, max_slave_count
        self._spawn, self._ready = spawn, ready
        self._stopping = False
        self._awake = False
        self._results: deque[tuple[Append, Future[Appended]]] = deque()
        self._news: deque[News] = deque()
        self._nodes: dict[str, Peer] = {}
        self._node_of: dict[Peer, str] = {}
        self._heard_at: dict[str, float] = {}
        self._registered: set[str] = set()
        self._context = Context(addresses.key)
        self._poller = self._context.poller()
        self.client_address = self.node_address = ""
        """Known from when `ready` is called."""

    def stop(self) -> None:
        """From any thread, any time; idempotent."""
        self._stopping = True
        self._poller.wake()

    @property
    def dropped_replies(self) -> int:
        """Replies that were dropped because their client is gone or does not read."""
        return self._clients.dropped_count

    def run(self) -> None:
        """Serve until `stop`. Raises SettingsError if a door cannot listen, LogBroken if the log fails for good."""
        self._clients = self._context.door()
        self._node_door = self._context.door(frame_max_bytes=NODE_FRAME_MAX_BYTES)
        membership: Membership | None = None
        thread: threading.Thread | None = None
        try:
            id, info = self._listen()
            self._writer = BatchWriter(self._log, clock=self._clock, host=self._host, process=id)
            self._writer.open(
                [
                    (CLUSTER_TOPIC, 1),
                    (KV_TOPIC, self._genesis.kv_partitions),
                    (STATUS_TOPIC, self._genesis.status_partitions),
                ]
            )
            self._welcome = Welcome(id, self._writer.incarnation)
            info["writer"] = self._writer.incarnation.hex()
            described = self._log.describe()
            identity = Identity(
                self._writer.incarnation, self._writer.by, described.end_is_linearizable, described.kind, described.durability
            )
            self._core = Core(self._genesis, identity)
            self._poller.add(self._node_door)
            membership = Membership(self._ports, self._genesis, id, info, self._post)
            run = partial(membership.run, heartbeat_s=self._heartbeat_s, max_slave_count=self._max_slave_count)
            thread = self._spawn("cluster", run)
            self._serve(membership)
        finally:
            if membership is not None:
                membership.stop()
            if thread is not None:
                thread.join(END_WAIT_S)
            self._close()

    # --- starting and ending -----------------------------------------------------------------------------------------
    def _listen(self) -> tuple[str, dict[str, Any]]:
        where = self._addresses
        host = f"[{where.advertise}]" if ":" in where.advertise else where.advertise
        ports = []
        for member, port in ((self._clients, where.port_for_client), (self._node_door, where.port_for_node)):
            ports.append(member.bind(where.bind, port, allow_plain=where.allow_plain).rpartition(":")[2])
        self.client_address, self.node_address = (f"tcp://{host}:{port}" for port in ports)
        info = {"client": self.client_address, "node": self.node_address, "pid": os.getpid()}
        return f"{host}:{ports[0]}", info

    def _close(self) -> None:
        if hasattr(self, "_writer"):
            self._writer.close()
        for member in (self._clients, self._node_door):
            self._poller.remove(member)
            member.close(linger_ms=LINGER_MS)
        self._poller.close()
        self._context.close()

    def _serve(self, membership: Membership) -> None:
        now = self._clock.monotonic()
        next_tick = next_progress = now
        open_at: float | None = None
        told = False
        while not self._stopping:
            self._take(GATHER_S if self._core.gathering else TICK_S)
            now = self._clock.monotonic()
            if now >= next_tick:
                next_tick = now + TICK_S
                self._core.tick(now)
            if now >= next_progress:
                next_progress = now + PROGRESS_S
                membership.progress, membership.heard_at = self._core.progress(), dict(self._heard_at)
                self._core.leads = membership.leads
            self._perform(self._core.turn(now), now)
            others = len(self._core.cluster.overlords) - 1
            if open_at is None and others >= 0:
                open_at = now + JOIN_WAIT_S if others else now
            if not told and open_at is not None and now >= open_at:
                told = True
                self._poller.add(self._clients)
                self._ready()
        self._poller.remove(self._clients)
        deadline = self._clock.monotonic() + END_WAIT_S
        while self._core.appending and now < deadline:
            self._take(TICK_S)
            now = self._clock.monotonic()
            self._perform(self._core.turn(now), now)
        self._core.end()
        self._perform(self._core.turn(now), now)

    # --- one turn ----------------------------------------------------------------------------------------------------
    def _take(self, timeout_s: float) -> None:
        """Everything that has come, into the core."""
        self._awake = False  # before looking: what comes later wakes
        ready = self._poller.wait(0.0 if self._results or self._news else timeout_s)
        self._awake = True
        now = self._clock.monotonic()
        core = self._core
        while self._results:
            self._settled(*self._results.popleft(), now)
        while self._news:
            self._learn(self._news.popleft(), now)
        for member in ready:
            if member is self._node_door:
                for message in self._node_door.receive(RECEIVE_MAX):
                    self._from_node(message.peer, message.frame, now)
            else:
                receive = core.receive
                for message in self._clients.receive(RECEIVE_MAX):
                    receive(message.peer, message.frame, now)

    def _perform(self, effects: Effects, now: float) -> None:
        appends, asks, sends, replies, questions = effects
        if appends:
            self._append(appends)
        if asks:
            self._core.ends({partition: self._log.bounds(KV_TOPIC, partition).end for partition in asks})
        for node, message in sends:
            self._node_door.send(self._nodes[node], door.encode(message))
        for peer, question in questions:
            self._node_door.send(peer, door.encode(question))
        send = self._clients.send
        for peer, frame in replies:
            send(peer, frame)
        if asks:
            self._perform(self._core.turn(now), now)

    def _append(self, appends: list[Append]) -> None:
        outgoing = [Outgoing(one.topic, one.partition, one.by, one.events, time_ns=one.time_ns) for one in appends]
        for append, future in zip(appends, self._writer.append(outgoing), strict=True):
            future.add_done_callback(partial(self._on_settled, append))

    def _on_settled(self, append: Append, future: "Future[Appended]") -> None:
        """On a thread of the log, or on this loop's own while it appends."""
        self._results.append((append, future))
        self._wake()

    def _post(self, news: News) -> None:
        """On the membership's thread."""
        self._news.append(news)
        self._wake()

    def _wake(self) -> None:
        """Only while the loop waits, and once: each wake gives up the interpreter's lock, and a commit's thread that had to
        queue for it after every single batch would tell of them far apart."""
        if not self._awake:
            self._awake = True
            self._poller.wake()

    def _settled(self, append: Append, future: "Future[Appended]", now: float) -> None:
        error = future.exception()
        if error is None:
            offset, number = future.result()
            self._core.appended(append, offset, number, now)
        elif isinstance(error, LogBroken):
            raise error
        elif isinstance(error, RequestError):
            self._core.append_failed(append, error)
        elif isinstance(error, RecordTooLarge):
            self._core.append_failed(append, TooLarge(error.message))
        else:
            self._core.append_failed(append, OutcomeUnknown(str(error)))

    def _learn(self, news: News, now: float) -> None:
        core = self._core
        if isinstance(news, Heard):
            for event, log_time_us in news.events:
                core.cluster.view.take(event, log_time_us)
        elif isinstance(news, Record):
            for event in news.events:
                core.record(news.topic, event)
        elif isinstance(news, Seen):
            core.members(*news.members)
            for node in self._registered - news.members.nodes.keys():
                self._forget(node)
            self._registered = set(news.members.nodes)
            if news.assignment is not None:
                core.assigned(news.assignment, now)

    # --- nodes -------------------------------------------------------------------------------------------------------
    def _from_node(self, peer: Peer, frame: bytes | None, now: float) -> None:
        if frame is None:
            return
        try:
            message = door.decode_from_node(frame)
        except ParseError:
            return
        if isinstance(message, Hello):
            if message.generation != self._genesis.generation:
                refused = f"this overlord's log is {self._genesis.generation}, the node's is {message.generation}"
                self._node_door.send(peer, door.encode(Welcome(self._welcome.overlord, self._welcome.writer, refused)))
                return
            self._meet(message.node, peer, now)
            return
        if isinstance(message, Historian | Told):
            self._core.from_historian(peer, message, now)
            return
        if isinstance(message, AskLog):
            self._node_door.send(peer, door.encode(LogPlace(self._log.describe().url, self._genesis.generation)))
            return
        node = self._node_of.get(peer)
        if node is None:
            if not isinstance(message, Progress):
                return
            node = message.node  # its connection broke and came back, which it cannot see
            self._meet(node, peer, now)
        self._heard_at[node] = now
        self._core.from_node(node, message, now)

    def _meet(self, node: str, peer: Peer, now: float) -> None:
        old = self._nodes.get(node)
        if old is not None:
            self._node_of.pop(old, None)
            self._core.node_is_gone(node)
        self._nodes[node] = peer
        self._node_of[peer] = node
        self._core.node_is_there(node, now)
        self._node_door.send(peer, door.encode(self._welcome))

    def _forget(self, node: str) -> None:
        peer = self._nodes.pop(node, None)
        if peer is not None:
            self._node_of.pop(peer, None)
        self._heard_at.pop(node, None)
        self._core.node_is_gone(node)
