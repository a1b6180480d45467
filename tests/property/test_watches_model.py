"""Whatever happens to replicas and watchers, each answer has exactly the changes between two positions."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.door import Change
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from dimint.node.watches import Found, Limits, Watch, Watches
from dimint.positions import Position
from tests.support.kv_model import Step, fold, steps
from tests.support.placing import ONE

SMALL = Limits(recent_bytes=400, reply_bytes=300)
"""So small that most watchers fall out of the memory, and answers are cut in the middle of records."""


class _Node:
    """A replica that can fall back to an older state, its watches, and a log that is read when somebody wants it."""

    def __init__(self, made: list[Step]) -> None:
        self.records = [step.record(offset) for offset, step in enumerate(made)]
        self.state = MemoryState()
        self.replicas = {0: Replica(0, ONE, self.state)}
        self.watches = Watches(self.replicas, SMALL)
        self.now = 0.0
        self.committed = self.copy()

    def copy(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        return dict(self.state.data.rows), dict(self.state.side.rows)

    def apply(self, count: int) -> None:
        at = self.replicas[0].next_offset
        self.replicas[0].apply(self.records[at : at + count])
        self.watches.came_on(0)

    def fall_back(self) -> None:
        """As after a full disk: what was not committed is applied again, by another replica."""
        self.state = MemoryState()
        self.state.data.rows, self.state.side.rows = (dict(rows) for rows in self.committed)
        self.replicas[0] = Replica(0, ONE, self.state)

    def read(self) -> None:
        for partition, offset in self.watches.wants():
            self.watches.was_read(partition, offset, self.records[offset : offset + 2])

    def expire(self) -> None:
        self.now += 2.0
        self.watches.expire(self.now)


class _Watcher:
    """Asks, and checks each answer."""

    def __init__(self, key: str | None, prefix: str, every: list[Change]) -> None:
        self.key, self.prefix, self.every = key, prefix, every
        self.position: Position | None = None
        self.is_asking = False
        self.seen = 0

    def ask(self, node: _Node) -> None:
        if not self.is_asking:
            self.is_asking = True
            node.watches.start(Watch(self._found, self.key, self.prefix, {0: self.position}, node.now + 1.0), node.now)

    def _found(self, found: Found) -> None:
        self.is_asking = False
        assert found.error is None
        before, self.position = self.position, found.positions[0]
        got = found.changes.get(0, [])
        self.seen += len(got)
        if before is None:
            assert not got
            return
        assert got == [
            change
            for change in self.every
            if before <= (change.offset, change.index) < self.position
            and (change.key == self.key if self.key is not None else change.key.startswith(self.prefix))
        ]


_actions = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("ask"), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.sampled_from(["read", "expire", "commit", "fall back"]), st.integers(0, 1), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(made=steps(max_size=30), actions=_actions)
def test_an_answer_has_what_lies_between_two_positions(made: list[Step], actions: list[tuple[str, int, int]]) -> None:
    """Over two replicas, in any order of applying, asking, reading and falling back: no gap, no duplicate, and all comes."""
    every = fold(made).changes
    nodes = [_Node(made), _Node(made)]
    watchers = [_Watcher("a", "", every), _Watcher(None, "", every), _Watcher(None, "l", every)]
    acts: dict[str, Any] = {
        "apply": lambda node, n: node.apply(n),
        "ask": lambda node, n: watchers[n].ask(node),
        "read": lambda node, _: node.read(),
        "expire": lambda node, _: node.expire(),
        "fall back": lambda node, _: node.fall_back(),
    }
    for name, which, n in actions:
        if name == "commit":
            nodes[which].committed = nodes[which].copy()
        else:
            acts[name](nodes[which], n)
    started = [watcher.position for watcher in watchers]
    for node in nodes:
        node.apply(len(made))
        node.read()
        node.expire()
    for _ in range(5 * len(every) + 5):
        for number, watcher in enumerate(watchers):
            watcher.ask(nodes[number % 2])
        for node in nodes:
            node.read()
            node.expire()
    for watcher, start in zip(watchers, started, strict=True):
        assert watcher.position == Position(len(made)), f"stuck, begun at {start}"
