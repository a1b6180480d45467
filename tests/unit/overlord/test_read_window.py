"""Reads of large values: bounded under way, refused above what can be carried, and no hindrance to others."""

from collections import deque
from typing import Any

from dimint.door import Answer, Found, Reads
from dimint.errors import Busy, NodeNotAvailable, RequestError, TimedOut
from dimint.overlord.pending import Pending
from dimint.overlord.reads import ANSWER_S, CROWD_S, SLOW_ANSWER_S, WINDOW_BYTES, WINDOW_KEYS, Part, ReadTable, Want
from dimint.wire_types import JSON

MIB = 1 << 20


class Table:
    """A ReadTable with one node, and what became of each read."""

    def __init__(self) -> None:
        self.table = ReadTable()
        self.table.node_is_there("n")
        self.table.place((("n",),))
        self.done: dict[str, Answer | RequestError] = {}
        self.sent: dict[int, list[str]] = {}
        self.now = 0.0

    def ask(self, key: str, line: "deque[Pending] | None" = None) -> None:
        pending = Pending("peer", JSON, None, 0, line)
        if line is not None:
            line.append(pending)
        self.table.add(Want(0, 1, True), Part(pending, [key], self._done))

    def _done(self, part: Part, answer: Answer | RequestError, found: dict[str, Found]) -> None:
        part.pending.reply = b"done"
        self.done[part.keys[0]] = answer

    def turn(self, seconds: float = 0.001) -> int:
        """How many keys went to the node."""
        self.now += seconds
        self.table.tick(self.now)
        before = sum(map(len, self.sent.values()))
        for _, message in self.table.turn(self.now):
            assert isinstance(message, Reads)
            self.sent.update({read.id: read.keys for read in message.reads})
        return sum(map(len, self.sent.values())) - before

    def answer(self, size: int, count: int = 1000) -> None:
        """The node answers its oldest reads with values of this size."""
        for id in list(self.sent)[:count]:
            found = [Found(key, bytes(size), 1) for key in self.sent.pop(id)]
            self.table.answered("n", [Answer(id, 5, found)], self.now)


def test_a_read_that_no_node_answers_says_so() -> None:
    """As soon as every server was asked in vain; one that answers that it has to wait is no such case."""
    table = ReadTable()
    for node in ("m", "s"):
        table.node_is_there(node)
    table.place((("m", "s"),))
    pending = Pending("peer", JSON, None, 0, None)
    table.add(Want(0, 1, True), Part(pending, ["k"], lambda part, answer, found: None))
    now = 0.0
    asked: list[str] = []
    for _ in range(2):
        assert isinstance(table.overdue_error(pending), TimedOut), asked
        asked += [node for node, _ in table.turn(now)]
        now += ANSWER_S + 0.1
        table.tick(now)
    assert set(asked) == {"m", "s"}
    error = table.overdue_error(pending)
    assert isinstance(error, NodeNotAvailable)
    assert str(error) == "no node that serves partition 0 answers"
    ((node, message),) = table.turn(now)
    assert isinstance(message, Reads)
    table.answered(node, [Answer(message.reads[0].id, 0, [], TimedOut.code)], now)
    assert isinstance(table.overdue_error(pending), TimedOut)


def test_a_flood_of_large_reads_is_bounded_and_then_refused() -> None:
    """Only so many bytes are under way; what waits too long behind them is refused, but for clients with few requests."""
    made = Table()
    flood: deque[Any] = deque()
    for number in range(1000):
        made.ask(f"big{number}", flood)
    assert made.turn() <= WINDOW_BYTES / (256 << 10) + 32
    made.answer(MIB)
    assert made.turn() * MIB <= WINDOW_BYTES + 32 * MIB
    made.ask("polite", deque())
    made.turn(CROWD_S + 0.1)
    made.answer(MIB)
    made.turn()
    refused = [key for key, answer in made.done.items() if isinstance(answer, Busy)]
    assert len(refused) > 700
    for _ in range(10):
        made.answer(MIB)
        made.turn()
    assert isinstance(made.done["polite"], Answer)
    assert len(made.done) == 1001


def test_small_values_are_not_held_back() -> None:
    """Once values are known to be small all reads but an extreme number go at once, and none is refused."""
    made = Table()
    made.ask("first")
    made.turn()
    for number in range(40):
        made.answer(100)
        made.ask(f"k{number}")
        made.turn()
    made.answer(100)
    for number in range(WINDOW_KEYS + 500):
        made.ask(f"m{number}", deque())
    assert made.turn() >= WINDOW_KEYS
    made.answer(100)
    assert made.turn() > 0
    made.answer(100)
    assert len(made.done) == 41 + WINDOW_KEYS + 500
    assert not any(isinstance(answer, RequestError) for answer in made.done.values())


def test_a_node_at_work_is_not_asked_twice() -> None:
    """A late answer is asked for again only if its node is silent, or much later."""
    made = Table()
    made.ask("slow")
    made.turn()
    for number in range(5):
        made.ask(f"other{number}")
        made.turn(ANSWER_S / 2)
        made.answer(100, 0)
        last = max(made.sent)
        made.table.answered("n", [Answer(last, 5, [])], made.now)
        del made.sent[last]
    assert list(made.sent.values()) == [["slow"]]
    assert made.turn(SLOW_ANSWER_S) + made.turn(0.05) == 1
    assert list(made.sent.values()) == [["slow"], ["slow"]]
