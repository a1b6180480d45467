"""The overlord's small parts: lanes, the pending table, merging of pages, cluster history and the view of heartbeats."""

from typing import Any

from dimint import limits
from dimint.assignment import Assignment, Group, PartitionPlace
from dimint.batch import By
from dimint.cluster_view import ClusterView
from dimint.door import Found
from dimint.errors import TimedOut
from dimint.events import KV_TOPIC, problem_of
from dimint.overlord.cluster import Members, Recorded, assigned_event
from dimint.overlord.kv_reads import merge
from dimint.overlord.pending import PendingTable
from dimint.overlord.writes import Lane
from dimint.wire_types import JSON, Get, Set

BY = By(None, "h", "p")


def found(key: str, size: int = 1) -> Found:
    return Found(key, b"J" * size, 1)


def test_merge_makes_pages_without_holes() -> None:
    """The page has the lowest keys of all partitions; `next` is null only when nothing is left."""
    pages = [[found("a"), found("d"), found("e")], [found("b")], [found("c")]]
    items, after = merge(pages, 2)
    assert ([one.key for one in items], after) == (["a", "b"], "b")
    items, after = merge(pages, 5)
    assert ([one.key for one in items], after) == (list("abcde"), None)
    assert merge([[], []], 5) == ([], None)


def test_merge_stops_where_a_replica_may_have_stopped() -> None:
    """A page that was cut by size says nothing of the keys after it, so the merged page ends there."""
    big = limits.SCAN_MAX_BYTES
    items, after = merge([[found("a", big)], [found("b"), found("c")]], 10)
    assert ([one.key for one in items], after) == (["a"], "a")


def test_a_lane_has_one_batch_in_flight_and_groups_the_rest() -> None:
    """What comes while a batch is in flight makes up the next one."""
    lane, table, answered = Lane(KV_TOPIC, 3, BY, generation="g"), PendingTable(), []

    def done(entry: Any, token: str, outcome: Any) -> None:
        answered.append((entry.pending.request.key, token))
        table.finish(entry.pending, b"{}")

    def add(key: str) -> None:
        pending = table.admit("peer", JSON, Set(key=key, value=JSON.encode(1)), 1, 0.0)  # type: ignore[arg-type]
        assert pending is not None
        lane.add(pending, ["kv.set", key, 0, 0, None, b"J1", None, 0], 5, done)

    add("a")
    first = lane.cut()
    assert first is not None
    add("b")
    add("c")
    assert lane.cut() is None
    assert [event[1] for event in first.events] == ["a"]
    assert lane.landed(7) == ("g:3:8", [])
    second = lane.cut()
    assert second is not None
    assert [event[1] for event in second.events] == ["b", "c"]
    lane.landed(9)
    assert answered == [("a", "g:3:8"), ("b", "g:3:10"), ("c", "g:3:10")]
    assert (lane.cut(), len(table), table.bytes) == (None, 0, 0)


def test_what_is_over_before_it_is_handed_over_never_happens() -> None:
    """A write whose deadline is over while it waits leaves the batch."""
    lane, table = Lane(KV_TOPIC, 0, BY), PendingTable()
    pendings = []
    for key in "ab":
        pending = table.admit("peer", JSON, Set(key=key, value=JSON.encode(1), timeout=ord(key) - 96), 1, 0.0)  # type: ignore[arg-type]
        assert pending is not None
        pendings.append(pending)
        lane.add(pending, ["kv.set", key, 0, 0, None, b"J1", None, 0], 5, lambda *_: None)
    assert table.overdue(0.9) == []
    assert table.overdue(1.5) == [pendings[0]]
    table.fail(pendings[0], TimedOut("late"))
    batch = lane.cut()
    assert batch is not None
    assert [event[1] for event in batch.events] == ["b"]


def test_batches_close_at_their_limits() -> None:
    """Neither bytes nor events of a batch pass their limits."""
    lane, table = Lane(KV_TOPIC, 0, BY), PendingTable()
    for _ in range(5):
        pending = table.admit("peer", JSON, Set(key="k", value=JSON.encode(1)), 1, 0.0)  # type: ignore[arg-type]
        assert pending is not None
        lane.add(pending, ["kv.set", "k", 0, 0, None, b"J1", None, 0], limits.BATCH_TARGET_BYTES // 2, lambda *_: None)
    sizes = []
    while (batch := lane.cut()) is not None:
        sizes.append(len(batch.events))
        lane.landed(0)
    assert sizes == [1, 1, 1, 1, 1]


def test_too_many_requests_are_busy_in_their_place() -> None:
    """Above the limits a request is refused in its place of the order, and what waits behind is bounded."""
    table = PendingTable()
    first = table.admit("peer", JSON, Get(key="k"), limits.REQUEST_BYTES_IN_FLIGHT_MAX, 0.0)
    assert first is not None
    assert table.admit("peer", JSON, Get(key="k"), 1, 0.0) is None
    assert table.admit("other", JSON, Get(key="k"), 1, 0.0) is None
    assert [(peer, frame) for peer, frame in table.take_replies()] == [("other", b'{"error":"DIMINT_BUSY"}')]
    table.finish(first, b"{}")
    assert [frame for _, frame in table.take_replies()] == [b"{}", b'{"error":"DIMINT_BUSY"}']
    assert table.bytes == 0


def test_history_records_what_is_missing_once() -> None:
    """Joins, departures and restarts are recorded; what is recorded already is not."""
    recorded = Recorded()
    members = Members({"o": {"pid": 1}}, {"n": {"pid": 2}})
    events = recorded.missing(members)
    assert [event[0] for event in events] == ["overlord.joined", "node.joined"]
    assignment = Assignment(4, (Group("n"),), (PartitionPlace(0),))
    events.append(assigned_event(assignment))
    for event in events:
        assert problem_of(event, "dimint.cluster") is None
        recorded.take(event)
    assert recorded.missing(members) == []
    assert recorded.epoch == 4
    later = recorded.missing(Members({"o": {"pid": 9}}, {}))
    assert [(event[0], event[1]) for event in later] == [("overlord.joined", "o"), ("node.left", "n")]


def test_the_view_shows_live_members_only() -> None:
    """A live member without a heartbeat is there with nulls; a dead one with heartbeats is not."""
    view = ClusterView()
    view.take(["node.heartbeat", "gone", 0, 0, {}, 1], 5)
    view.take(["node.heartbeat", "a", 0, 0, {"name": "x", "extra": 1}, 3], 7)
    view.take(["host.sample", "a", 0, 0], 9)
    assignment = Assignment(1, (Group("a", ("b",)),), (PartitionPlace(0),))
    first, second = view.node_states({"a": {}, "b": {}}, assignment)
    assert (first["role"], first["key_count"], first["name"], "master_node_id" in first) == ("master", 3, "x", False)
    assert (second["role"], second["master_node_id"], second["key_count"], second["name"]) == ("slave", "a", 0, None)
    heard = view.heard("node", "a")
    assert heard is not None
    assert heard.log_time_us == 7
    assert view.overlord_states({}) == []
