"""The node's driver: one thread that applies and serves, a reading thread and a cluster thread that feed it.

A turn takes what has come (news of the cluster, reads, records), applies records, answers what can be answered, sends all
of it, and commits if it is time. Records are taken in small portions, so that reads do not wait long during a rebuild.
Nothing waits while an LMDB transaction is open but the write transaction of at most COMMIT_S.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from dimint.assignment import Assignment
from dimint.curve import Key
from dimint.door import AskOutcomes, Disputed, Due, Fetch, Hello, Progress, Reads
from dimint.errors import OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Record
from dimint.node.ages import Ages
from dimint.node.desk import Desk
from dimint.node.direct import Direct
from dimint.node.ends import Ends
from dimint.node.exchange import Exchange
from dimint.node.feed import Feed
from dimint.node.leaving import Leaving
from dimint.node.links import Link, Links
from dimint.node.membership import Membership, Ports
from dimint.node.membership_view import Seen
from dimint.node.past import Past
from dimint.node.peering import is_peering
from dimint.node.renewing import renew
from dimint.node.store import Store
from dimint.node.watches import Watches
from dimint.service import spawn_thread
from dimint.transport import Context, Dealer, Door, Peer

__all__ = ["Addresses", "Node"]

TURN_S: Final = 0.2
"""Longest wait for something to come: progress is looked for this often."""
RECEIVE_MAX: Final = 2000
RECEIVE_PART: Final = 50
TURN_BYTES: Final = 32 << 20
"""About as many bytes of values are read for clients in one turn."""
DUE_S: Final = 1.0
DUE_MAX: Final = 1000
"""Keys of a partition that are told to be due at once."""
APPLY_BYTES: Final = 1 << 20
"""Records are applied in portions of about so many bytes; reads are answered in between."""
READY_S: Final = 3.0
"""A node without an assignment counts as ready after so long."""
END_WAIT_S: Final = 3.0

logger = logging.getLogger("dimint.node")


class Addresses(NamedTuple):
    """Where to listen for clients, and the host under which others reach it. Port 0 takes any free one."""

    bind: str
    advertise: str
    port: int
    allow_plain: bool = False
    key: Key | None = None


class Node:
    """One node process over an opened store. Log, registry and store are the caller's to open and close.

    `ready` is called once, from `run`, when the node serves (or nobody gave it anything to serve for READY_S).
    """

    def __init__(
        self,
        node: str,
        genesis: Genesis,
        ports: Ports,
        store: Store,
        *,
        host: str,
        addresses: Addresses,
        heartbeat_s: float = 2.0,
        spawn: Callable[[str, Callable[[], None]], threading.Thread] = spawn_thread,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.node = node
        self._genesis, self._ports, self._host = genesis, ports, host
        self._addresses, self._heartbeat_s = addresses, heartbeat_s
        self._spawn, self._ready = spawn, ready
        self._log, _, self._clock = ports
        self._stopping = False
        self._leaving = Leaving(node)
        self._news: deque[Seen] = deque()
        self._assignment: Assignment | None = None
        self._mastered: frozenset[int] = frozenset()
        self._served: frozenset[int] = frozenset()
        self._context = Context(addresses.key)
        self._poller = self._context.poller()
        self._store = store
        self._exchange = Exchange(
            node, genesis, self._log, store, context=self._context, poller=self._poller, moved=self._read_on
        )
        self._holdings = self._exchange.holdings
        self._watches = Watches(self._holdings.replicas)
        self._ages = Ages(self._holdings.replicas)
        self._held: frozenset[int] = frozenset()
        self._ends = Ends(self._log, self._clock, lambda: self._held)
        self._desk: Desk[Link] = Desk(self._holdings.replicas, self._watches, self._ages, lacking=self._holdings.lacking)
        linearizable = self._log.describe().end_is_linearizable
        self._direct: Direct[Peer] = Direct(
            genesis, self._holdings.replicas, self._watches, self._ages, end_is_linearizable=linearizable
        )
        self._feed = Feed(self._log, wake=self._poller.wake)
        self._past = Past(self._log, wake=self._poller.wake)
        self._moved = False
        self._due_at = 0.0
        self.client_address = ""
        """Known from when `ready` is called."""

    def stop(self) -> None:
        """From any thread, any time; idempotent."""
        self._stopping = True
        self._poller.wake()

    def run(self) -> None:
        """Serve until `stop`. Raises SettingsError if the door cannot listen, LogBroken or StoreError if they fail for good."""
        self._door = self._context.door()
        membership: Membership | None = None
        threads: list[threading.Thread] = []
        links: Links | None = None
        try:
            self._listen()
            self._poller.add(self._door)
            links = Links(self._context, self._poller, Hello(self.node, self._genesis.generation, self.client_address))
            info = {"client": self.client_address, "pid": os.getpid(), "host": self._host}
            membership = Membership(self._ports, self._genesis, self.node, info, self._host, self._post)
            threads.append(self._spawn("reader", self._feed.run))
            threads.append(self._spawn("past", self._past.run))
            threads.append(self._spawn("snapshots", self._exchange.run))
            threads.append(self._spawn("ends", self._ends.run))
            threads.append(self._spawn("cluster", partial(membership.run, heartbeat_s=self._heartbeat_s)))
            self._serve(links, membership)
            self._holdings.commit(self._clock.monotonic())
        finally:
            self._feed.stop()
            self._past.stop()
            self._exchange.stop()
            self._ends.stop()
            if membership is not None:
                membership.stop()
            for thread in threads:
                thread.join(END_WAIT_S)
            if links is not None:
                links.close()
            self._exchange.close()
            self._poller.remove(self._door)
            self._door.close()
            self._poller.close()
            self._context.close()

    def _listen(self) -> None:
        where = self._addresses
        port = self._door.bind(where.bind, where.port, allow_plain=where.allow_plain).rpartition(":")[2]
        host = f"[{where.advertise}]" if ":" in where.advertise else where.advertise
        self.client_address = f"tcp://{host}:{port}"

    # --- turns ----------------------------------------------------------------------------------------------------------
    def _serve(self, links: Links, membership: Membership) -> None:
        clock = self._clock
        started = now = clock.monotonic()
        told = more = False
        while not (self._stopping and self._may_end(membership, now)):
            ready = self._poller.wait(0.0 if more else self._patience(now))
            now = self._ages.now = clock.monotonic()
            for known in self._ends.take():
                self._ages.learn(*known)
            while self._news:
                self._learn(self._news.popleft(), links, now)
            self._take_requests(ready, links, now)
            if self._desk.owes_outcomes or self._deadlines():
                self._feed.hurry()
            more = self._take_records(links, now)
            self._exchange.turn(now)
            now = clock.monotonic()
            for read in self._past.take():
                self._watches.was_read(*read)
            self._desk.expire(now)
            self._direct.expire(now)
            self._watches.expire(now)
            self._send()
            if links.progress_is_due(now):
                links.tick(now)
                self._open_door()
                membership.key_count = sum(replica.key_count for replica in self._holdings.replicas.values())
                epoch = 0 if self._assignment is None else self._assignment.epoch
                links.report(Progress(self.node, epoch, self._exchange.states(now)), now)
                if now >= self._due_at:
                    self._due_at = now + DUE_S
                    self._tell_due(links)
                    self._renew(now)
                if not told and (now - started >= READY_S or self._is_serving(links)):
                    told = True
                    logger.info("node %s serves clients at %s", self.node, self.client_address)
                    self._ready()
            self._holdings.end_turn(now)
            if self._moved:
                self._moved = False
                self._feed.assign(self._holdings.positions())

    def _may_end(self, membership: Membership, now: float) -> bool:
        """Told to stop: hand over first."""
        leaving = self._leaving
        if not leaving.began:
            membership.leave()
            leaving.begin(now)
        if not (leaving.may_go(now) or membership.ended):
            return False
        left = leaving.serves_still()
        if left:
            logger.info("node %s ends with %d partitions that nobody else could take over", self.node, left)
        return True

    def _patience(self, now: float) -> float:
        """How long to wait for something to come."""
        waits = [TURN_S]
        waits += [at for at in (self._holdings.next_time(now), self._exchange.next_time(now)) if at is not None]
        waits += [max(0.0, at - now) for at in self._deadlines()]
        return min(waits)

    def _deadlines(self) -> list[float]:
        """Of those who are answered earlier if more of the log has been read."""
        deadlines = (self._desk.next_deadline(), self._direct.next_deadline(), self._watches.next_deadline())
        return [at for at in deadlines if at is not None]

    def _tell_due(self, links: Links) -> None:
        """Tell whose time is over, by this machine's clock: log time is the clocks' too."""
        now_us = self._clock.time_ns() // 1000
        for partition in self._mastered & self._holdings.replicas.keys():
            if self._holdings.caught_up(partition):
                due = self._holdings.replicas[partition].due(now_us, DUE_MAX)
                if due:
                    links.send_all(Due(partition, [(one.key, one.version) for one in due]))

    def _is_serving(self, links: Links) -> bool:
        held = self._holdings.replicas
        return links.welcomed and bool(held) and all(self._holdings.caught_up(partition) for partition in held)

    def _take_requests(self, ready: list[Door | Dealer], links: Links, now: float) -> None:
        for member in ready:
            if member is self._door:
                self._take_from_clients(now)
            elif (received := links.receive(member)) is not None:
                link, messages = received
                for message in messages:
                    if isinstance(message, Reads):
                        self._desk.read(link, message.reads, now)
                    elif isinstance(message, Disputed):
                        self._holdings.dispute(message.partition, message.text, now, agreed=message.agreed)
                    elif isinstance(message, AskOutcomes):
                        self._desk.ask(link, message, now)
                    elif isinstance(message, Fetch):
                        self._desk.fetch(link, message, now)
                    else:
                        self._desk.unfetch(link, message)
            else:
                self._exchange.receive(member, now)
        wanted = self._direct.wants_ends()
        if wanted:
            self._direct.ends({partition: self._log.bounds(KV_TOPIC, partition).end for partition in wanted})

    def _take_from_clients(self, now: float) -> None:
        """Answer clients in parts, so that large values do not pile up; what is too much for a turn waits in the sockets."""
        taken = size = 0
        while taken < RECEIVE_MAX and size < TURN_BYTES:
            messages = self._door.receive(RECEIVE_PART)
            for message in messages:
                peer, frame = message.peer, message.frame
                if frame is None or not is_peering(frame):
                    self._direct.receive(peer, frame, now)
                elif (answer := self._exchange.serve(frame, now)) is not None:
                    size += len(answer)
                    self._door.send(peer, answer)
            for peer, frame in self._direct.take():
                size += len(frame)
                self._door.send(peer, frame)
            taken += len(messages)
            if len(messages) < RECEIVE_PART:
                return

    def _take_records(self, links: Links, now: float) -> bool:
        """Apply one portion of records; whether there may be more."""
        records: list[Record] = []
        size = 0
        taken = self._feed.take()
        while taken is not None:
            if isinstance(taken, OffsetOutOfRange):
                self._apply(records, links, now)
                self._holdings.misread(taken.partition, taken, now)
                return False
            records += taken
            size += sum([len(record.value) for record in taken])
            if size >= APPLY_BYTES:
                break
            taken = self._feed.take()
        self._apply(records, links, now)
        return taken is not None

    def _apply(self, records: list[Record], links: Links, now: float) -> None:
        if not records:
            return
        for partition, reported in self._holdings.apply(records, now).items():
            if reported and partition in self._mastered and self._holdings.caught_up(partition):
                for applied in reported:
                    link = links.of_writer(applied.writer)
                    if link is not None:
                        self._desk.push(link, partition, applied)
                        self._feed.hurry()  # more of them may follow, and their clients wait
            self._desk.came_on(partition)
            self._direct.came_on(partition)
            self._watches.came_on(partition)
        if self._direct.is_behind:
            self._open_door()

    def _send(self) -> None:
        for wanted in self._watches.wants():
            self._past.ask(*wanted)
        for link, message in self._desk.take():
            link.send(message)
        for peer, frame in self._direct.take():
            self._door.send(peer, frame)

    # --- the cluster ----------------------------------------------------------------------------------------------------
    def _post(self, seen: Seen) -> None:
        """On the membership's thread."""
        self._news.append(seen)
        self._poller.wake()

    def _learn(self, seen: Seen, links: Links, now: float) -> None:
        for link in links.follow(seen.overlords, now):
            self._desk.lost(link)
        leaving = self._leaving
        leaving.see(seen, now)
        if leaving.relieved:
            self._served = frozenset()  # what is here is still read by overlords that do not know yet
            self._open_door()
            return
        self._exchange.follow(seen.nodes, self._assignment)
        assignment = seen.assignment
        if assignment is None or assignment == self._assignment or not assignment.groups:
            return  # without groups nobody holds anything, which is no reason to throw away what is here
        if len(assignment.partitions) != self._genesis.kv_partitions:
            logger.error("the assignment has %d partitions, the log %d", len(assignment.partitions), self._genesis.kv_partitions)
            return
        self._assignment = assignment
        self._exchange.follow(seen.nodes, assignment)
        self._mastered = assignment.mastered_by(self.node)
        self._held = assignment.held_by(self.node)
        for partition in self._holdings.hold(self._held, now):
            self._desk.dropped(partition)
            self._ages.forget(partition)
        served = range(len(assignment.partitions))
        self._served = frozenset(partition for partition in served if self.node in assignment.servers_of(partition))
        self._open_door()
        logger.info("epoch %d: this node holds %d partitions", assignment.epoch, len(self._holdings.replicas))

    def _renew(self, now: float) -> None:
        """Go on with a rebuilt store, if somebody has put one beside this one."""
        if renew(self._store, self._holdings, self._held, now):
            for partition in self._held:
                self._ages.forget(partition)
            self._open_door()

    def _open_door(self) -> None:
        served = self._served - self._holdings.disputed()
        self._direct.serve(served, frozenset(partition for partition in served if not self._holdings.caught_up(partition)))

    def _read_on(self) -> None:
        """The positions to read from have changed."""
        self._moved = True
