"""Who holds which partition: the value that the elected overlord stores in the registry under ASSIGNMENT_PATH. [S]

Nodes stand in replica groups: one master and up to `max_slave_count` slaves. Every partition belongs to one group, and
all nodes of a group hold all its partitions. While a partition moves, the nodes of the group that it moves to hold it
too (they catch up), but do not serve it.
"""

from typing import NamedTuple

import msgspec

__all__ = ["ASSIGNMENT_PATH", "LEAVING", "Assignment", "Group", "PartitionPlace", "decode", "encode"]

ASSIGNMENT_PATH = "assignment"
LEAVING = "leaving"
"""A node's info in the registry has this set to true while it waits for others to take over what it serves."""


class Group(NamedTuple):
    """One replica group: node ids."""

    master: str
    slaves: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.master, *self.slaves)


class PartitionPlace(NamedTuple):
    """Index of the group that serves a partition, and of the one that it moves to, if it moves."""

    group: int
    moving_to: int | None = None


class Assignment(NamedTuple):
    """`epoch` counts assignments of one log; receivers ignore an older one. `partitions[i]` places partition i."""

    epoch: int
    groups: tuple[Group, ...]
    partitions: tuple[PartitionPlace, ...]

    def held_by(self, node: str) -> frozenset[int]:
        """Partitions that the node keeps a store of."""
        mine = {index for index, group in enumerate(self.groups) if node in group.nodes}
        return frozenset(p for p, place in enumerate(self.partitions) if place.group in mine or place.moving_to in mine)

    def holders(self) -> frozenset[str]:
        """Every node in a group."""
        return frozenset(node for group in self.groups for node in group.nodes)

    def mastered_by(self, node: str) -> frozenset[int]:
        """Partitions that the node is master of: it reports their outcomes."""
        return frozenset(p for p, place in enumerate(self.partitions) if self.groups[place.group].master == node)

    def servers_of(self, partition: int) -> tuple[str, ...]:
        """Nodes that serve the partition, the master first; empty if there is none."""
        return self.groups[self.partitions[partition].group].nodes if self.groups else ()

    def master_node_of(self, node: str) -> str | None:
        """The master of the node's group (itself for a master); None for a node without a group."""
        return next((group.master for group in self.groups if node in group.nodes), None)


def encode(assignment: Assignment) -> bytes:
    """JSON, so that an operator can read it in ZooKeeper."""
    return msgspec.json.encode(assignment)


def decode(data: bytes) -> Assignment:
    """Raises msgspec.DecodeError for anything else than `encode` made."""
    return msgspec.json.decode(data, type=Assignment)
