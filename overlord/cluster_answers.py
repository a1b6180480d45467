"""Requests about the cluster itself: get_overlords, topology, state, overlord_state, status. [S]

Who is alive is what the registry says; how each one is doing comes from the heartbeat events (dimint/cluster_view.py) and
from what the nodes report of their partitions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dimint.assignment import Assignment
from dimint.cluster_view import ClusterView
from dimint.door import Building
from dimint.genesis import Genesis
from dimint.overlord.pending import Pending, PendingTable
from dimint.overlord.reads import ReadTable
from dimint.overlord.writes import Lane
from dimint.wire import reply

__all__ = ["ClusterAnswers"]


class ClusterAnswers:
    """`overlords` and `nodes` are the live members as the driver read them from the registry: id → info."""

    def __init__(
        self, table: PendingTable, genesis: Genesis, log: str, durability: str, reads: ReadTable, lanes: Sequence[Lane]
    ) -> None:
        self.overlords: Mapping[str, Mapping[str, Any]] = {}
        self.nodes: Mapping[str, Mapping[str, Any]] = {}
        self.assignment: Assignment | None = None
        self.view = ClusterView()
        self._table, self._genesis, self._reads, self._lanes = table, genesis, reads, lanes
        self._log, self._durability = log, durability
        self._status: list[Pending] = []
        self._ends: dict[int, int] = {}

    def get_overlords(self, pending: Pending) -> None:
        self._finish(pending, {"overlords": sorted(self.overlords)})

    def topology(self, pending: Pending) -> None:
        assignment, genesis = self.assignment, self._genesis
        self._finish(
            pending,
            {
                "generation": genesis.generation,
                "hash_range": genesis.hash_range,
                "partitions": genesis.kv_partitions,
                "epoch": assignment.epoch if assignment else 0,
                "overlords": sorted(self.overlords),
                "nodes": {id: str(info.get("client", "")) for id, info in sorted(self.nodes.items())},
                "replicas": [list(self._servers(index)) for index in range(genesis.kv_partitions)],
            },
        )

    def state(self, pending: Pending) -> None:
        self._finish(pending, {"state": self.view.node_states(self.nodes, self.assignment)})

    def overlord_state(self, pending: Pending) -> None:
        self._finish(pending, {"overlord_state": self.view.overlord_states(self.overlords)})

    def status(self, pending: Pending) -> None:
        """Answered when the partitions' end offsets are known."""
        self._status.append(pending)

    def asks(self) -> Sequence[int]:
        """Partitions whose end offset is wanted."""
        return range(self._genesis.kv_partitions) if self._status else ()

    def ends(self, ends: Mapping[int, int]) -> None:
        """End offsets; whoever waits for them is answered."""
        self._ends.update(ends)
        if self._status and len(ends) == self._genesis.kv_partitions:
            waiting, self._status = self._status, []
            for pending in waiting:
                self._finish(pending, self._status_fields())

    def overdue(self, pending: Pending) -> None:
        """Its deadline is over, and the log has not told its end offsets: answered with those that are known."""
        self._status.remove(pending)
        self._finish(pending, self._status_fields() | {"log_answers": False})

    def _finish(self, pending: Pending, fields: dict[str, Any]) -> None:
        self._table.finish(pending, reply(pending.form, pending.request, fields))

    def _servers(self, partition: int) -> tuple[str, ...]:
        return self.assignment.servers_of(partition) if self.assignment else ()

    def _status_fields(self) -> dict[str, Any]:
        overlords = {str(one["overlord_id"]): one for one in self.view.overlord_states(self.overlords)}
        nodes = {str(one["node_id"]): one for one in self.view.node_states(self.nodes, self.assignment)}
        return {
            "generation": self._genesis.generation,
            "log": self._log,
            "durability": self._durability,
            "log_answers": True,
            "overlords": [{**info, "overlord_id": id, **overlords.get(id, {})} for id, info in sorted(self.overlords.items())],
            "nodes": [
                {**info, "node_id": id, **nodes.get(id, {}), "connected": id in self._reads.connected()}
                for id, info in sorted(self.nodes.items())
            ],
            "partitions": [self._partition(index) for index in range(self._genesis.kv_partitions)],
        }

    def _partition(self, index: int) -> dict[str, Any]:
        end = max(self._ends.get(index, 0), self._lanes[index].acknowledged_end)
        servers = self._servers(index)
        replicas = {}
        for node in sorted(self._reads.connected()):
            replica = self._reads.replicas(node).get(index)
            if replica is not None:
                replicas[node] = {
                    "next_offset": replica.next_offset,
                    "lag": max(0, end - replica.next_offset),
                    "keys": replica.key_count,
                    "digest": replica.digest,
                    "digest_at": replica.digest_at,
                    "caught_up": replica.caught_up,
                    "problem": replica.problem,
                    "dead_letters": replica.dead_letters,
                    "building": None if replica.building is None else _building(replica.building),
                }
        return {
            "partition": index,
            "master": servers[0] if servers else None,
            "slaves": list(servers[1:]),
            "end": end,
            "replicas": replicas,
        }


def _building(building: Building) -> dict[str, Any]:
    return {
        "from": building.how,
        "node": building.source or None,
        "percent": round(building.percent, 1),
        "rate": round(building.rate, 1),
        "unit": "bytes/s" if building.how == "peer" else "records/s",
    }
