"""The edges of watches at a node: limits, cancelling, replicas that vanish, memory that is given up."""

from dimint.batch import By, encode
from dimint.errors import OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.log.port import Record
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from dimint.node.watches import KEEP_S, Found, Limits, Watch, Watches
from dimint.positions import Position
from tests.support.placing import ONE


class Node:
    """One partition with its watches, and what they answered."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.replicas = {0: Replica(0, ONE, MemoryState())}
        self.watches = Watches(self.replicas, limits or Limits())
        self.answers: list[Found] = []
        self.records: list[Record] = []

    def write(self, *keys: str) -> None:
        events = [["kv.set", key, 0, 0, None, b"J1", None, 0] for key in keys]
        offset = len(self.records)
        value = encode(b"w" * 16, offset + 1, 0, [By(None, "h", "p")], events)
        self.records.append(Record(KV_TOPIC, 0, offset, offset * 10**6, value))
        self.replicas[0].apply(self.records[-1:])
        self.watches.came_on(0)

    def watch(self, key: str | None, position: Position | None, *, prefix: str = "", until: float = 1.0) -> Watch:
        watch = Watch(self.answers.append, key, prefix, {0: position}, until)
        self.watches.start(watch, 0.0)
        return watch


def test_one_more_than_may_wait_is_refused() -> None:
    """Others are not disturbed by it, and there is room again when one is answered."""
    node = Node(Limits(waiting=2))
    node.watch("a", Position(0))
    node.watch("b", Position(0))
    node.watch("c", Position(0))
    assert [found.error for found in node.answers] == ["DIMINT_BUSY"]
    node.write("b")
    assert len(node.answers) == 2
    node.watch("c", Position(1))
    assert len(node.answers) == 2


def test_an_end_and_a_deadline_answer_with_where_it_stands() -> None:
    """Positions have moved on although nothing that was watched changed."""
    node = Node()
    first, _ = node.watch("a", Position(0)), node.watch("a", Position(0), until=5.0)
    node.write("b")
    node.watches.end(first)
    node.watches.end(first)
    node.watches.expire(4.9)
    assert node.answers == [Found({0: Position(1)}, {})]
    assert node.watches.next_deadline() is not None
    node.watches.expire(5.0)
    assert node.answers == 2 * [Found({0: Position(1)}, {})]
    assert node.watches.next_deadline() is None


def test_one_that_is_ahead_waits_until_its_position_is_there() -> None:
    """It saw more at another replica: nothing comes twice."""
    node = Node()
    node.watch(None, Position(1, 1))
    node.write("a")
    node.write("b", "c", "d")
    (found,) = node.answers
    assert [change.key for change in found.changes[0]] == ["c", "d"]
    assert found.positions == {0: Position(2)}


def test_a_replica_that_vanishes_while_the_log_is_read() -> None:
    """The answer of the log comes too late for anybody here; who waited is told that the partition moved, or asks again."""
    node = Node()
    node.write("a")
    node.watch("a", None)
    node.watch("a", Position(0))
    assert node.watches.wants() == [(0, 0)]
    replica = node.replicas.pop(0)
    node.watches.was_read(0, 0, node.records)
    node.watch("a", Position(0))
    assert node.answers[-1].error == "moved"
    node.replicas[0] = replica
    node.watches.drop(0)
    assert [found.error for found in node.answers] == [None, "moved", "moved"]
    node.watches.came_on(0)


def test_a_log_that_has_lost_it_says_from_where_on_there_is_something() -> None:
    """The first offset that is left, in the error."""
    node = Node()
    node.write("a")
    node.watch("a", None)
    node.watch("a", Position(0))
    node.watches.was_read(0, 0, OffsetOutOfRange(KV_TOPIC, 0, 0, 7, 9))
    assert node.answers[-1] == Found({}, {}, "DIMINT_POSITION_GONE", (0, 7))


def test_what_nobody_asked_for_in_a_while_is_forgotten() -> None:
    """Changes are kept in memory only while somebody watches."""
    node = Node()
    node.watch("a", None)
    node.write("a")
    node.watch("a", Position(0))
    assert node.answers[-1].changes[0][0].key == "a"
    kept = []
    for now in (KEEP_S - 1, KEEP_S + 1):
        node.watches.expire(now)
        kept.append(node.replicas[0].watched)
    assert kept == [True, False]
    node.watch("a", Position(0))
    assert node.watches.wants() == [(0, 0)]


def test_many_watchers_cost_a_change_only_those_that_it_concerns() -> None:
    """Keys and prefixes of all lengths side by side: each is told of its own, once."""
    node = Node()
    for number in range(300):
        node.watch(f"k{number}", Position(0))
        node.watch(None, Position(0), prefix=f"k{number}")
    node.watch(None, Position(0), prefix="")
    node.write("k12")
    assert len(node.answers) == 1 + 2 + 1  # the key, the prefixes k1 and k12, and all
    node.write("other")
    assert len(node.answers) == 4
