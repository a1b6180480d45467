"""The rules of placement, over random lives of a cluster."""

from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.assignment import Assignment
from dimint.door import Replica
from dimint.overlord.placement import Cluster, place


def caught_up(assignment: Assignment, nodes: set[str]) -> dict[str, dict[int, Replica]]:
    return {node: {partition: Replica(partition, 9, 1, 0, True) for partition in assignment.held_by(node)} for node in nodes}


def settle(
    assignment: Assignment | None, nodes: set[str], partitions: int, slaves: int, leaving: Collection[str] = ()
) -> Assignment:
    """Place until nothing moves any more, every replica catching up in between."""
    for _ in range(50):
        progress = {} if assignment is None else caught_up(assignment, nodes)
        after = place(assignment, Cluster(nodes, progress, partitions, slaves, leaving))
        if after is assignment:
            return after
        assignment = after
    raise AssertionError("it never settles")


def check_even(assignment: Assignment, nodes: set[str], partitions: int, slaves: int) -> None:
    assert len(assignment.groups) == -(-len(nodes) // (1 + slaves))
    sizes = [len(group.nodes) for group in assignment.groups]
    assert max(sizes) - min(sizes) <= 1
    counts = [sum(place.group == index for place in assignment.partitions) for index in range(len(sizes))]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == partitions
    assert all(place.moving_to is None for place in assignment.partitions)


def members(assignment: Assignment) -> list[str]:
    return sorted(node for group in assignment.groups for node in group.nodes)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 16), st.integers(0, 3), st.lists(st.tuples(st.sampled_from("+-<."), st.integers(0, 9)), max_size=25))
def test_every_life_of_a_cluster(partitions: int, slaves: int, life: list[tuple[str, int]]) -> None:
    """After any joins, deaths, departures and partial progress: every node once, every partition once, nothing served by
    somebody who is not caught up while the old server is there, nothing new for who leaves, a fixpoint, and an even spread
    over those who stay in the end."""
    assignment: Assignment | None = None
    nodes: set[str] = set()
    leaving: set[str] = set()
    progress: dict[str, dict[int, Replica]] = {}
    for what, number in life:
        name = f"n{number}"
        if what == "+":
            nodes.add(name)
            leaving.discard(name)
        elif what == "-":
            nodes.discard(name)
            leaving.discard(name)
        elif what == "<" and name in nodes:
            leaving.add(name)
        elif assignment is not None and name in nodes:
            progress[name] = caught_up(assignment, nodes)[name]
        held = {node: assignment.held_by(node) if assignment else frozenset() for node in nodes}
        progress = {
            node: {partition: replica for partition, replica in progress.get(node, {}).items() if partition in held[node]}
            for node in nodes
        }
        cluster = Cluster(nodes, progress, partitions, slaves, leaving)
        after = place(assignment, cluster)
        assert place(after, cluster) is after
        stay = nodes - leaving or nodes
        if not nodes:
            assert assignment is None or after is assignment
        else:
            assert len(set(members(after))) == len(members(after))
            assert stay <= set(members(after)) <= nodes
            assert len(after.partitions) == partitions
            assert all(len([node for node in group.nodes if node in stay]) <= 1 + slaves for group in after.groups)
        if assignment is not None and assignment.groups and nodes:
            for partition in range(partitions):
                old, new = assignment.servers_of(partition), after.servers_of(partition)
                if new[0] not in old and nodes & set(old):
                    assert cluster.is_caught_up(new[0], partition)
                if new[0] != old[0] and old[0] in nodes:
                    assert cluster.is_caught_up(new[0], partition)
            others_lead = any(group.master in stay for group in after.groups)
            for node in nodes - stay if others_lead else ():
                assert after.held_by(node) <= assignment.held_by(node)
        if assignment is not None and after is not assignment:
            assert after.epoch > assignment.epoch
        assignment = after
    stay = nodes - leaving or nodes
    if stay:
        settled = settle(assignment, nodes, partitions, slaves, leaving)
        assert members(settled) == sorted(stay)
        check_even(settled, stay, partitions, slaves)


def test_who_leaves_hands_over_to_a_slave_that_has_everything() -> None:
    """The leaving master serves until its slave is caught up in all partitions, then is out; nothing moves."""
    before = settle(None, {"a", "b"}, 4, 1)
    (group,) = before.groups
    (slave,) = group.slaves
    progress = caught_up(before, {"a", "b"})
    progress[slave][3] = Replica(3, 2, 1, 0, False)
    assert place(before, Cluster({"a", "b"}, progress, 4, 1, {group.master})) is before
    progress[slave][3] = Replica(3, 9, 1, 0, True)
    after = place(before, Cluster({"a", "b"}, progress, 4, 1, {group.master}))
    assert [one.nodes for one in after.groups] == [(slave,)]
    assert after.partitions == before.partitions


def test_a_slave_that_leaves_is_out_at_once_and_the_last_nodes_stay() -> None:
    """Nobody misses a slave; and if all leave there is nobody to hand over to."""
    before = settle(None, {"a", "b"}, 4, 1)
    (group,) = before.groups
    progress = caught_up(before, {"a", "b"})
    assert place(before, Cluster({"a", "b"}, progress, 4, 1, group.slaves)).groups[0].nodes == (group.master,)
    assert place(before, Cluster({"a", "b"}, progress, 4, 1, {"a", "b"})) is before


def test_without_slaves_what_a_leaving_node_serves_moves_first() -> None:
    """It serves every partition until its new holder is caught up, and is out when the last one has moved."""
    before = settle(None, {"a", "b"}, 4, 0)
    leaving = before.groups[0].master
    during = place(before, Cluster({"a", "b"}, caught_up(before, {"a", "b"}), 4, 0, {leaving}))
    assert [during.servers_of(p) for p in range(4)] == [before.servers_of(p) for p in range(4)]
    assert [one.moving_to for one in during.partitions].count(None) == 2
    after = settle(during, {"a", "b"}, 4, 0, {leaving})
    assert members(after) == [before.groups[1].master]


def test_a_dead_master_is_followed_by_its_furthest_slave() -> None:
    """The slave that is caught up takes over at once; no partition moves."""
    before = settle(None, {"a", "b", "c"}, 4, 2)
    (group,) = before.groups
    progress = {node: {p: Replica(p, 5, 1, 0, node == group.slaves[1]) for p in range(4)} for node in group.slaves}
    after = place(before, Cluster(set(group.slaves), progress, 4, 2))
    assert after.groups[0].nodes == (group.slaves[1], group.slaves[0])
    assert after.partitions == before.partitions


def test_a_new_node_takes_its_share_and_no_more() -> None:
    """Partitions that move are as few as evenness needs, and are served by their old group until the new one has them."""
    before = settle(None, {"a", "b"}, 8, 0)
    during = place(before, Cluster({"a", "b", "c"}, caught_up(before, {"a", "b"}), 8, 0))
    moving = [partition for partition, one in enumerate(during.partitions) if one.moving_to is not None]
    assert len(moving) == 2
    assert [one.group for one in during.partitions] == [one.group for one in before.partitions]
    after = settle(during, {"a", "b", "c"}, 8, 0)
    changed = [p for p in range(8) if after.servers_of(p) != before.servers_of(p)]
    assert changed == moving
