"""What a node answers to overlords and to clients, and when."""

import json
from typing import Any

import pytest

from dimint.batch import By, encode
from dimint.door import Answer, Answers, AskOutcomes, Found, Outcome, Outcomes, Read
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Record
from dimint.node.desk import Desk
from dimint.node.direct import Direct
from dimint.node.pending import Pending
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from dimint.node.watches import Watches
from dimint.values import from_object

W = b"w" * 16
GENESIS = Genesis("g", 63, 2, 1)
"""So that a, b, c and n are in partition 0."""


class Partitions:
    """Two replicas in memory that somebody writes to."""

    def __init__(self) -> None:
        self.replicas = {partition: Replica(partition, GENESIS, MemoryState()) for partition in range(2)}
        self.numbers = [0, 0]

    def append(self, partition: int, *events: list[Any]) -> int:
        """The number of the batch."""
        self.numbers[partition] += 1
        number = self.numbers[partition]
        record = encode(W, number, 0, (By(None, "h", "p"),), events)
        self.replicas[partition].apply([Record(KV_TOPIC, partition, number - 1, 1_000_000_000 * number, record)])
        return number

    def set(self, key: str, value: object) -> int:
        """The partition that the key is in."""
        partition = GENESIS.partition_of_key(key.encode())
        self.append(partition, ["kv.set", key, 0, 0, None, from_object(value), None, 0])
        return partition


@pytest.fixture
def partitions() -> Partitions:
    return Partitions()


def test_pending_forgets_nothing_and_keeps_nothing() -> None:
    """Items come back once: reached, expired or dropped; answered ones do not pile up."""
    pending = Pending[int](most=5000)
    for number in range(5000):
        assert pending.add(number % 2, number, 10.0 + number, number)
    assert not pending.add(0, 0, 0.0, -1)
    assert pending.reached(0, 4) == [0, 2, 4]
    assert [expired.item for expired in pending.expire(13.0)] == [1, 3]
    assert pending.next_deadline() == 15.0
    assert pending.drop(1)[:2] == [5, 7]
    assert len(pending) == 2500 - 3
    assert len(pending.expire(4000.0)) > 1000
    assert sum(map(len, pending._by_offset.values())) <= len(pending) + 1001
    assert len(pending.reached(0, 1 << 60)) + len(pending.expire(1e9)) > 0
    assert len(pending) == 0
    assert pending.next_deadline() is None


def test_the_desk_answers_reads_in_one_message(partitions: Partitions) -> None:
    """Gets leave missing keys out, scans page, and all answers of a turn go together, per link."""
    partitions.append(0, *[["kv.set", key, 0, 0, None, b"J1", None, 0] for key in "abc"])
    desk = Desk[str](partitions.replicas, Watches(partitions.replicas))
    reads = [Read(1, 0, "get", ["b", "x", "a"]), Read(2, 0, "scan", [""], after="a", limit=1), Read(3, 7, "get", ["a"])]
    desk.read("one", reads, 0.0)
    desk.read("two", reads[:1], 0.0)
    b = Found("b", b"J1", 1_000_000)
    first = Answer(1, 1, [b, Found("a", b"J1", 1_000_000)])
    assert desk.take() == [
        ("one", Answers([first, Answer(2, 1, [b]), Answer(3, 0, [], "moved")])),
        ("two", Answers([first])),
    ]
    assert desk.take() == []


def test_reads_wait_for_their_position(partitions: Partitions) -> None:
    """A strict one fails at its deadline, another is served what is there, a dropped partition is said to have moved."""
    desk = Desk[str](partitions.replicas, Watches(partitions.replicas))
    desk.read("one", [Read(1, 0, "get", ["a"], 1, 500, True), Read(2, 0, "get", ["a"], 2, 500, True)], 10.0)
    desk.read("one", [Read(3, 0, "get", ["a"], 2, 500, False), Read(4, 0, "get", ["a"], 2, 0, False)], 10.0)
    desk.read("one", [Read(5, 0, "get", ["a"], 2, 0, True), Read(6, 0, "get", ["a"], 9, 9000, True)], 10.0)
    assert desk.take() == [("one", Answers([Answer(4, 0, []), Answer(5, 0, [], "DIMINT_TIMEOUT")]))]
    partitions.append(0, ["kv.set", "a", 0, 0, None, b"J1", None, 0])
    desk.came_on(0)
    a = Found("a", b"J1", 1_000_000)
    assert desk.take() == [("one", Answers([Answer(1, 1, [a])]))]
    desk.expire(10.49)
    assert desk.take() == []
    desk.expire(10.5)
    assert desk.take() == [("one", Answers([Answer(2, 1, [], "DIMINT_TIMEOUT"), Answer(3, 1, [a])]))]
    del partitions.replicas[0]
    desk.dropped(0)
    assert desk.take() == [("one", Answers([Answer(6, 0, [], "moved")]))]


def test_what_a_replica_lacks_is_not_taken_for_deleted(partitions: Partitions) -> None:
    """One that is built anew answers only reads that wait for what they need, until it has been at the end."""
    lacking = {0}
    desk = Desk[str](partitions.replicas, Watches(partitions.replicas), lacking=lacking)
    desk.read("one", [Read(1, 0, "get", ["a"]), Read(2, 0, "get", ["a"], 1, 500, True), Read(3, 1, "get", ["a"])], 0.0)
    assert desk.take() == [("one", Answers([Answer(1, 0, [], "moved"), Answer(3, 0, [])]))]
    lacking.clear()
    desk.read("one", [Read(4, 0, "get", ["a"], 1, 100)], 0.0)
    lacking.add(0)  # while it waits
    desk.expire(0.1)
    assert desk.take() == [("one", Answers([Answer(4, 0, [], "moved")]))]
    partitions.append(0, ["kv.set", "a", 0, 0, None, b"J1", None, 0])
    desk.came_on(0)
    assert desk.take() == [("one", Answers([Answer(2, 1, [Found("a", b"J1", 1_000_000)])]))]


def test_outcomes_are_told_as_soon_as_they_are_known(partitions: Partitions) -> None:
    """A question for a batch that is not applied yet waits; one without outcomes has none; a lost link gets nothing."""
    desk = Desk[str](partitions.replicas, Watches(partitions.replicas))
    desk.ask("one", AskOutcomes(0, W, 1), 0.0)
    desk.ask("gone", AskOutcomes(0, W, 1), 0.0)
    desk.ask("one", AskOutcomes(0, W, 2), 0.0)
    assert desk.take() == []
    partitions.append(0, ["barrier", None, 0, 0], ["kv.incr", "n", 0, 0, None, 1])
    desk.came_on(0)
    desk.lost("gone")
    assert desk.take() == [("one", Outcomes(0, W, 1, 0, {1: Outcome("applied", "1", 1_000_000)}))]
    partitions.append(0, ["barrier", None, 0, 0])
    desk.came_on(0)
    assert desk.take() == [("one", Outcomes(0, W, 2, -1, {}))]
    desk.ask("one", AskOutcomes(0, b"?" * 16, 1), 0.0)
    desk.expire(31.0)
    assert not desk._asks


class Door:
    """A client of a Direct core."""

    def __init__(self, partitions: Partitions, *, linearizable: bool = True) -> None:
        self.core = Direct[str](GENESIS, partitions.replicas, Watches(partitions.replicas), end_is_linearizable=linearizable)
        self.core.serve(frozenset({0, 1}))
        self.now = 0.0

    def __call__(self, cmd: str, *, peer: str = "p", **fields: Any) -> list[Any]:
        self.core.receive(peer, json.dumps({"cmd": cmd, **fields}).encode(), self.now)
        return self.replies()

    def replies(self) -> list[Any]:
        return [json.loads(frame) for _, frame in self.core.take()]


def test_clients_read_at_the_nodes_door(partitions: Partitions) -> None:
    """get, mget and scan have the overlord's replies; everything else is no command here."""
    places = [partitions.set(key, number) for number, key in enumerate("abcdef")]
    assert set(places) == {0, 1}
    door = Door(partitions)
    tokens = [f"g:{partition}:{places.count(partition)}" for partition in range(2)]
    assert door("get", key="a") == [{"value": 0}]
    assert door("get", key="none") == [{}]
    (reply,) = door("get", key="b", id=1)
    assert reply == {"value": 1, "position": tokens[places[1]], "version": reply["version"], "age": None, "id": 1}
    (reply,) = door("mget", keys=["f", "none", "a", "f"], id=2)
    assert (reply["values"], sorted(reply["versions"]), reply["positions"]) == ({"f": 5, "a": 0}, ["a", "f"], tokens)
    assert door("mget", keys=[]) == [{"values": {}}]
    assert door("scan", limit=4) == [{"items": [["a", 0], ["b", 1], ["c", 2], ["d", 3]], "next": "d"}]
    assert door("scan", limit=4, after="d") == [{"items": [["e", 4], ["f", 5]], "next": None}]
    (reply,) = door("scan", partitions=[places[0]])
    assert [key for key, _ in reply["items"]] == [key for key, place in zip("abcdef", places, strict=True) if place == places[0]]
    assert door("set", key="a", value=1) == [{"error": "DIMINT_NOT_FOUND"}]
    assert door("scan", partitions=[2]) == [{"error": "DIMINT_PARSE_ERROR"}]
    door.core.receive("p", None, 0.0)
    assert door.replies() == [{"error": "DIMINT_PARSE_ERROR"}]
    partitions.append(
        0, ["kv.set", next(k for k in "abcdef" if places["abcdef".index(k)] == 0), 0, 0, None, b"M\xc4\x01x", None, 0]
    )
    assert door("mget", keys=list("abcdef")) == [{"error": "DIMINT_NOT_JSON"}]


def test_scans_of_large_values_lose_nothing(partitions: Partitions) -> None:
    """Pages that are cut by size go on where they were cut."""
    keys = [f"{number:02d}" for number in range(16)]
    for key in keys:
        partitions.set(key, "x" * 700_000)
    door = Door(partitions)
    seen: list[str] = []
    after = None
    pages = 0
    while pages == 0 or after is not None:
        (reply,) = door("scan", limit=1000, **({"after": after} if after else {}))
        seen += [key for key, _ in reply["items"]]
        after = reply["next"]
        pages += 1
    assert seen == keys
    assert pages > 2


def test_session_reads_wait_and_replies_keep_their_order(partitions: Partitions) -> None:
    """Behind a read that waits, those without id wait too; one with an id does not, nor does another connection."""
    partition = partitions.set("a", 1)
    door = Door(partitions)
    ahead = f"g:{partition}:2"
    assert door("get", key="a", min_position=ahead, timeout=5) == []
    assert door("get", key="a") == []
    assert door("nonsense") == []
    assert door("get", key="a", id="x")[0]["value"] == 1
    assert door("get", key="a", peer="q") == [{"value": 1}]
    partitions.set("a", 2)
    door.core.came_on(partition)
    first, second, third = door.replies()
    assert (first["value"], first["position"]) == (2, ahead)
    assert (second, third) == ({"value": 1}, {"error": "DIMINT_NOT_FOUND"})
    assert door("get", key="a", min_position="h:0:1")[0]["error"] == "DIMINT_WRONG_LOG"
    assert door("get", key="a", min_position="g:9:1")[0]["error"] == "DIMINT_PARSE_ERROR"
    assert door("mget", keys=["a"], min_position=[f"g:{partition}:9"], timeout=0.5, id=1) == []
    door.core.expire(0.4)
    assert door.replies() == []
    assert door.core.next_deadline() == 0.5
    door.core.expire(0.5)
    (late,) = door.replies()
    assert (late["error"], late["retriable"], late["id"]) == ("DIMINT_TIMEOUT", True, 1)


def test_strong_reads_wait_for_the_logs_end(partitions: Partitions) -> None:
    """The end is asked after the request; where it proves nothing, strong reads are refused."""
    partition = partitions.set("a", 1)
    door = Door(partitions)
    assert door("get", key="a", consistency="strong") == []
    assert door.core.wants_ends() == {partition}
    door.core.ends({partition: 2})
    assert door.replies() == []
    partitions.set("a", 2)
    door.core.came_on(partition)
    assert door.replies() == [{"value": 2}]
    assert door.core.wants_ends() == set()
    kafka = Door(partitions, linearizable=False)
    assert kafka("get", key="a", consistency="strong") == [{"error": "DIMINT_NODE_NOT_AVAILABLE"}]


def test_partitions_that_are_not_served_have_moved(partitions: Partitions) -> None:
    """Clients learn it at once, also when they are waiting."""
    partition = partitions.set("a", 1)
    door = Door(partitions)
    assert door("get", key="a", min_position=f"g:{partition}:9") == []
    door.core.serve(frozenset({1 - partition}))
    (reply,) = door.replies()
    assert (reply["error"], reply["moved"], reply["retriable"]) == ("DIMINT_NODE_NOT_AVAILABLE", True, True)
    assert door("get", key="a") == [{"error": "DIMINT_NODE_NOT_AVAILABLE", "moved": True}]
    assert door("scan", partitions=[partition]) == [{"error": "DIMINT_NODE_NOT_AVAILABLE", "moved": True}]


def test_a_replica_that_is_behind_answers_only_reads_with_a_position(partitions: Partitions) -> None:
    """A read that gives no position must not find keys missing only because they did not come yet."""
    partition = partitions.set("a", 1)
    door = Door(partitions)
    door.core.serve(frozenset({0, 1}), behind=frozenset({partition}))
    assert door("get", key="a") == [{"error": "DIMINT_NODE_NOT_AVAILABLE", "moved": True}]
    (reply,) = door("get", key="a", min_position=f"g:{partition}:1")
    assert reply["value"] == 1
    assert door("get", key="a", min_position=f"g:{partition}:2") == []
    partitions.set("a", 2)
    door.core.came_on(partition)
    assert door.replies()[0]["value"] == 2
    door.core.serve(frozenset({0, 1}))
    assert door("get", key="a") == [{"value": 2}]
