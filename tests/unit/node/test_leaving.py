"""When a node that was told to stop may end."""

from dimint.assignment import Assignment, Group, PartitionPlace
from dimint.node.leaving import HANDOVER_S, LINGER_S, Leaving
from dimint.node.membership_view import NodeInfo, OverlordInfo, Seen

OVERLORDS = {"o": OverlordInfo("tcp://127.0.0.1:1", "w")}


def seen(*groups: Group, nodes: dict[str, NodeInfo] | None = None, overlords: dict[str, OverlordInfo] = OVERLORDS) -> Seen:
    there = {node: NodeInfo("") for group in groups for node in group.nodes} if nodes is None else nodes
    return Seen(overlords, Assignment(1, groups, (PartitionPlace(0), PartitionPlace(0))), there)


def test_it_serves_until_others_do_and_a_little_longer() -> None:
    """Not before it is out of every group; LINGER_S after that."""
    leaving = Leaving("a")
    leaving.see(seen(Group("a", ("b",))), 0.0)
    assert not leaving.may_go(100.0)
    leaving.begin(100.0)
    assert (leaving.may_go(100.0), leaving.serves_still()) == (False, 2)
    leaving.see(seen(Group("b"), nodes={"a": NodeInfo("", True), "b": NodeInfo("")}), 101.0)
    assert leaving.relieved
    assert (leaving.may_go(101.0), leaving.may_go(101.0 + LINGER_S)) == (False, True)
    assert leaving.serves_still() == 0


def test_it_goes_at_once_where_nobody_takes_over() -> None:
    """No assignment, no overlord, no other node, or only such as leave too."""
    for there in (
        Seen(OVERLORDS, None, {}),
        seen(Group("a", ("b",)), overlords={}),
        seen(Group("a")),
        seen(Group("a", ("b",)), nodes={"a": NodeInfo("", True), "b": NodeInfo("", True)}),
    ):
        leaving = Leaving("a")
        leaving.see(there, 0.0)
        leaving.begin(0.0)
        assert leaving.may_go(0.0), there


def test_it_does_not_wait_for_ever() -> None:
    """Where the others do not catch up in time it goes, and says how much nobody took."""
    leaving = Leaving("a")
    leaving.see(seen(Group("a", ("b",))), 0.0)
    leaving.begin(1.0)
    leaving.begin(3.0)
    assert (leaving.may_go(0.9 + HANDOVER_S), leaving.may_go(1.0 + HANDOVER_S)) == (False, True)
    assert leaving.serves_still() == 2
