"""Snapshots between this node and others: given at the own door, taken from the others' doors."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from dimint.assignment import Assignment
from dimint.door import Building, Replica
from dimint.errors import ParseError
from dimint.genesis import Genesis
from dimint.log.port import Log
from dimint.node import peering
from dimint.node.building import SnapshotBuilder
from dimint.node.giving import Giving
from dimint.node.holdings import Holdings
from dimint.node.membership_view import NodeInfo
from dimint.node.peers import Peers
from dimint.node.store import Store
from dimint.node.taking import Taking
from dimint.transport import Context, Dealer, Door, Poller

__all__ = ["Exchange"]


class Exchange:
    """Belongs to the node's own thread, but for `run`, which writes the snapshots for others."""

    def __init__(
        self, node: str, genesis: Genesis, log: Log, store: Store, *, context: Context, poller: Poller, moved: Callable[[], None]
    ) -> None:
        self.holdings = Holdings(
            store, log, genesis, moved_positions=moved, has_peers=lambda partition: bool(self._peers_of(partition))
        )
        self._node = node
        self._peers = Peers(context, poller)
        self._giving = Giving(store, genesis, has=self._lacks)
        self._taking = Taking(genesis.generation, genesis.kv_partitions, SnapshotBuilder(store, log, self.holdings))
        self._assignment: Assignment | None = None
        self.run = self._giving.run

    def follow(self, nodes: Mapping[str, NodeInfo], assignment: Assignment | None) -> None:
        """The cluster as it is now."""
        self._peers.follow(nodes)
        self._assignment = assignment

    def serve(self, frame: bytes, now: float) -> bytes | None:
        """The answer to another node's frame at this node's door; None for none."""
        try:
            message = peering.decode_from_taker(frame)
        except ParseError as error:
            return peering.encode(peering.Refused(-1, str(error)))
        answer = self._giving.answer(message, now)
        return None if answer is None else peering.encode(answer)

    def receive(self, member: Door | Dealer, now: float) -> bool:
        """Take what a ready dealer has; whether it was one of these."""
        received = self._peers.receive(member)
        if received is None:
            return False
        node, messages = received
        for message in messages:
            self._taking.received(node, message, now)
        return True

    def turn(self, now: float) -> None:
        """Go on with what is under way."""
        self._taking.tick(now, self._peers_of)
        for node, message in self._taking.take():
            self._peers.send(node, message)
        self._peers.keep_only(self._taking.peer)
        self._giving.tick(now)

    def next_time(self, now: float) -> float | None:
        """Seconds until `turn` has something to do; None if it has nothing."""
        return self._taking.next_time(now)

    def states(self, now: float) -> list[Replica]:
        """The state of every partition held or to be held."""
        states = self.holdings.states(now)
        for index, state in enumerate(states):
            way = self._taking.way(state.partition, now)
            if way is not None:
                building = Building("peer", way.peer, round(way.percent, 1), round(way.bytes_per_s))
                states[index] = msgspec.structs.replace(state, building=building)
        return states

    def stop(self) -> None:
        """Let `run` return. From any thread; idempotent."""
        self._giving.stop()

    def close(self) -> None:
        """After `run` has returned. Idempotent."""
        self._peers.close()
        self._giving.close()

    def _peers_of(self, partition: int) -> Sequence[str]:
        """Other holders: slaves, which have less to do, then the master, then those that it moves to."""
        assignment = self._assignment
        if assignment is None or not assignment.groups:
            return ()
        holders = [*reversed(assignment.servers_of(partition))]
        moving_to = assignment.partitions[partition].moving_to
        if moving_to is not None:
            holders += [node for node in assignment.groups[moving_to].nodes if node not in holders]
        return [node for node in holders if node != self._node and self._peers.there(node)]

    def _lacks(self, partition: int) -> str | None:
        """Why no snapshot of a partition can be given."""
        replica = self.holdings.replicas.get(partition)
        if replica is None:
            return "it does not have the partition"
        if replica.problem is not None or partition in self.holdings.disputed():
            return "its own replica has a problem"
        return None if self.holdings.caught_up(partition) else "it is not caught up itself"
