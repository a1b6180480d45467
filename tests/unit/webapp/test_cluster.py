"""The cluster's past: folded from its events."""

from typing import Any

from dimint.assignment import Assignment, Group, PartitionPlace
from dimint.overlord.cluster import assigned_event
from dimint.webapp.cluster import ClusterEvent, cluster_at, with_status

A = Assignment(1, (Group("n1", ("n2",)),), (PartitionPlace(0), PartitionPlace(0)))
B = Assignment(2, (Group("n2"), Group("n3")), (PartitionPlace(0, 1), PartitionPlace(1)))


def event(time_us: int, kind: str, key: str | None, *fields: Any) -> ClusterEvent:
    return ClusterEvent(kind, key, fields, time_us)


def assigned(time_us: int, assignment: Assignment) -> ClusterEvent:
    return event(time_us, "cluster.assigned", None, *assigned_event(assignment)[4:])


EVENTS = [
    event(1, "overlord.joined", "o1", {"client": "tcp://o1"}),
    event(2, "node.joined", "n1", {"client": "tcp://n1"}),
    event(3, "node.joined", "n2", {}),
    assigned(4, A),
    event(5, "node.left", "n1"),
    event(6, "node.joined", "n3", {}),
    assigned(7, B),
    assigned(8, A),  # late, from a deposed leader: an older epoch
]


def test_as_of_any_moment() -> None:
    """Members and placement follow the events; an assignment of an older epoch changes nothing."""
    view = cluster_at([one for one in EVENTS if one.log_time_us <= 4], 4)
    assert [(one.id, one.address, one.since_us) for one in view.nodes] == [("n1", "tcp://n1", 2), ("n2", "", 3)]
    assert [(one.master, list(one.slaves)) for one in view.partitions] == [("n1", ["n2"])] * 2
    last = cluster_at(EVENTS, 9)
    assert last.epoch == 2
    assert [one.id for one in last.nodes] == ["n2", "n3"]
    assert [(one.master, list(one.slaves), list(one.moving_to)) for one in last.partitions] == [
        ("n2", [], ["n3"]), ("n3", [], [])]  # fmt: skip
    assert [one.time_us for one in last.happened] == [8, 7, 6, 5, 4, 3, 2, 1]
    nothing = cluster_at([], 0)
    assert (nothing.overlords, nothing.nodes, nothing.partitions, nothing.happened) == ([], [], [], [])


def test_the_present_is_what_overlords_tell() -> None:
    """Lags and problems come from the replicas that serve; members know from the log since when."""
    replica = {"lag": 3, "problem": None}
    status = {
        "overlords": [{"overlord_id": "o1", "client": "tcp://o1", "cpu_percent": 1.5}],
        "nodes": [{"node_id": "n2", "key_count": 7, "connected": True}, {"node_id": "n4", "connected": False}],
        "partitions": [
            {"partition": 0, "master": "n2", "slaves": ["n4"], "end": 9,
             "replicas": {"n2": replica, "n4": {"lag": 8, "problem": "full"}, "n5": {"lag": 99, "problem": "old"}}},
            {"partition": 1, "master": None, "slaves": [], "end": 4, "replicas": {}},
        ],
    }  # fmt: skip
    view = with_status(cluster_at(EVENTS, 9), status)
    assert [(one.id, one.since_us, one.keys, one.connected) for one in view.nodes] == [
        ("n2", 3, 7, True),
        ("n4", None, None, False),
    ]
    assert [(one.lag, one.problem, list(one.moving_to)) for one in view.partitions] == [
        (8, "full", ["n3"]), (None, "nobody serves it", [])]  # fmt: skip
