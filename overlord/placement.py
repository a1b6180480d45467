"""Who holds what: the next assignment out of the one before. [S]

`place` is a pure function. Its rules:

- With N nodes there are ceil(N / (1 + max_slave_count)) replica groups, of sizes that differ by at most one.
- Partitions are spread over the groups evenly (±1). A partition that is to move has `moving_to` and is served by its old
  group until the new group's master is caught up.
- A dead master's place goes to its group's slave that is furthest. A group without nodes is gone; its partitions go
  straight to other groups. Without any node all stays as it was: who comes back has it still.
- A group too many is emptied: its slaves go at once, its master serves until its partitions have moved.
- A node that is leaving gets nothing new while there is a group that another one leads. As a slave it goes at once; as a
  master it serves until a slave has all that it serves, or, without a slave, until its partitions have moved. If all are
  leaving nobody is: they have no one to hand over to.
- As little as possible moves, and when nothing has changed nothing changes: `place` is at a fixpoint of its own steps.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from dimint.assignment import Assignment, Group, PartitionPlace
from dimint.door import Replica

__all__ = ["Cluster", "place"]

STEPS_MAX = 64


class Cluster(NamedTuple):
    """What a placement is made for. `progress` is node → partition → what the node says of its replica.

    `leaving` are those of `nodes` that are about to end.
    """

    nodes: Collection[str]
    progress: Mapping[str, Mapping[int, Replica]]
    partition_count: int
    max_slave_count: int
    leaving: Collection[str] = ()

    def is_caught_up(self, node: str, partition: int) -> bool:
        replica = self.progress.get(node, {}).get(partition)
        return replica is not None and replica.caught_up and replica.problem is None


def place(before: Assignment | None, cluster: Cluster, *, epoch_above: int = 0) -> Assignment:
    """The next assignment; `before` itself if nothing is to change. Epochs go up by one, and above `epoch_above`."""
    old = before or Assignment(0, (), ())
    new = old
    for _ in range(STEPS_MAX):
        after = _step(new, cluster)
        if after == new:
            break
        new = after
    if before is not None and new == old:
        return before
    return new._replace(epoch=max(old.epoch, epoch_above) + 1)


class _Draft:
    """An assignment while it is made. Group numbers stay what they were until `finished` renumbers them."""

    def __init__(self, before: Assignment, cluster: Cluster) -> None:
        alive = set(cluster.nodes).difference(cluster.leaving) or set(cluster.nodes)
        self.cluster = cluster
        self.leaving = set(cluster.nodes) - alive
        self.wanted = -(-len(alive) // (1 + cluster.max_slave_count))
        self.served_by: list[int | None] = [one.group for one in before.partitions]
        self.goes_to: list[int | None] = [
            place.group if place.moving_to is None else place.moving_to for place in before.partitions
        ]
        missing = cluster.partition_count - len(self.served_by)
        self.served_by.extend([None] * missing)
        self.goes_to.extend([None] * missing)
        self.groups: dict[int, list[str]] = {}
        seen: set[str] = set()
        for index, group in enumerate(before.groups):
            nodes = [node for node in group.nodes if node in alive and node not in seen]
            seen.update(nodes)
            if nodes and nodes[0] != group.master:
                nodes.sort(key=lambda node: self._fitness(node, index), reverse=True)
            if group.master in self.leaving and not (nodes and self._can_lead(nodes[0], index)):
                nodes.insert(0, group.master)
            if nodes:
                self.groups[index] = nodes
        self.free = sorted(alive - seen)
        self.draining: set[int] = set()

    def _fitness(self, node: str, group: int) -> tuple[int, int]:
        """How much of a group's partitions the node has: caught up ones, then applied records."""
        mine = self._served(group)
        replicas = self.cluster.progress.get(node, {})
        caught_up = sum(self.cluster.is_caught_up(node, partition) for partition in mine)
        return caught_up, sum(replicas[partition].next_offset for partition in mine if partition in replicas)

    def _served(self, group: int) -> list[int]:
        return [partition for partition, served in enumerate(self.served_by) if served == group]

    def _can_lead(self, node: str, group: int) -> bool:
        """Whether nobody misses the old master when the node follows it."""
        return all(self.cluster.is_caught_up(node, partition) for partition in self._served(group))

    def size(self, group: int) -> int:
        """Nodes of the group that stay."""
        return sum(node not in self.leaving for node in self.groups[group])

    def count(self, group: int) -> int:
        """Partitions that are, or will be, the group's."""
        return self.goes_to.count(group)

    def staying(self) -> list[int]:
        """Groups that are not being emptied."""
        return [index for index in self.groups if index not in self.draining]


def _step(before: Assignment, cluster: Cluster) -> Assignment:
    if not cluster.nodes:
        return before
    draft = _Draft(before, cluster)
    _form_groups(draft)
    _even_sizes(draft)
    _spread_partitions(draft)
    return _finished(draft, before.epoch)


def _form_groups(draft: _Draft) -> None:
    """As many groups as wanted: new ones from free nodes, or the least used ones too many emptied."""
    while len(draft.groups) < draft.wanted:
        if not draft.free:
            donor = max(draft.groups, key=lambda index: (draft.size(index), -index))
            draft.free.append(draft.groups[donor].pop())
        draft.groups[max(draft.groups, default=-1) + 1] = [draft.free.pop(0)]
    # one that only a leaving node is left of goes first: it must be emptied anyway
    spare = sorted(draft.groups, key=lambda index: (draft.size(index) > 0, draft.count(index), draft.size(index), -index))
    for index in spare[: len(draft.groups) - draft.wanted]:
        nodes = draft.groups[index]
        draft.free.extend(nodes[1:])
        del nodes[1:]
        if index not in draft.served_by:
            draft.free.extend(node for node in draft.groups.pop(index) if node not in draft.leaving)
        else:
            draft.draining.add(index)
    draft.free.sort()


def _even_sizes(draft: _Draft) -> None:
    """Free nodes become slaves of the smallest groups; then slaves of the largest go to the smallest."""
    staying = draft.staying()
    for node in draft.free:
        draft.groups[min(staying, key=lambda index: (draft.size(index), index))].append(node)
    draft.free = []
    while True:
        largest = max(staying, key=lambda index: (draft.size(index), -index))
        smallest = min(staying, key=lambda index: (draft.size(index), index))
        if draft.size(largest) - draft.size(smallest) <= 1:
            return
        draft.groups[smallest].append(draft.groups[largest].pop())


def _spread_partitions(draft: _Draft) -> None:
    """Where every partition goes, and who serves it meanwhile."""
    staying = draft.staying()
    takers = [index for index in staying if draft.groups[index][0] not in draft.leaving] or staying
    served_by, goes_to = draft.served_by, draft.goes_to
    for partition, group in enumerate(goes_to):
        if group not in staying:
            stays = served_by[partition]
            goes_to[partition] = stays if stays in staying else None
    for partition, group in enumerate(goes_to):
        if group is None:
            goes_to[partition] = min(takers, key=lambda index: (draft.count(index), index))
    while True:
        fullest = max(staying, key=lambda index: (draft.count(index), -index))
        emptiest = min(takers, key=lambda index: (draft.count(index), index))
        if draft.count(fullest) - draft.count(emptiest) <= 1:
            break
        mine = [partition for partition, group in enumerate(goes_to) if group == fullest]
        # one that the emptiest still serves costs nothing, one that is on its way anyway costs little
        best = max(mine, key=lambda partition: (served_by[partition] == emptiest, served_by[partition] != fullest, partition))
        goes_to[best] = emptiest
    for partition, group in enumerate(goes_to):
        assert group is not None
        if served_by[partition] not in draft.groups or draft.cluster.is_caught_up(draft.groups[group][0], partition):
            served_by[partition] = group


def _finished(draft: _Draft, epoch: int) -> Assignment:
    order = sorted(draft.groups)
    number = {index: position for position, index in enumerate(order)}
    groups = tuple(Group(draft.groups[index][0], tuple(draft.groups[index][1:])) for index in order)
    places = []
    for served_by, goes_to in zip(draft.served_by, draft.goes_to, strict=True):
        assert served_by is not None
        assert goes_to is not None
        places.append(PartitionPlace(number[served_by], None if served_by == goes_to else number[goes_to]))
    return Assignment(epoch, groups, tuple(places))
