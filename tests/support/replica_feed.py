"""A process that feeds a store from made-up records and kills itself at a chosen point, to see what is left."""

import os
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from dimint.batch import By, encode
from dimint.events import KV_TOPIC
from dimint.log.port import Record
from dimint.node.replica import Replica
from dimint.node.state import State, Table
from dimint.node.store import Store
from tests.support.placing import ONE

STEP = 5
"""Records between two calls of `apply`; every fourth is followed by a commit."""


def make_records(count: int = 200) -> list[Record]:
    """The same records every time."""
    chance = random.Random(7)
    made = []
    for number in range(1, count + 1):
        events: list[list[object]] = [
            ["kv.set", f"key {chance.randrange(300)}", 0, 0, number, b"J%d" % number, chance.choice([None, 50]), 0],
            ["kv.incr", f"count {chance.randrange(3)}", 0, 1, number, 1],
            ["kv.delete", f"key {chance.randrange(300)}", 0, 1, None],
        ]
        people = (By("ann", "h", "p"), By("bob", "h", "p"))
        made.append(Record(KV_TOPIC, 0, number - 1, number * 10**6, encode(b"w" * 16, number, 0, people, events)))
    return made


class _Killing:
    """Counts points; at the chosen one the process is gone."""

    def __init__(self, point: int) -> None:
        self._left = point

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


class _Table:
    """A table with a point before and after each save."""

    def __init__(self, table: Table, point: Callable[[], None]) -> None:
        self._table, self._point = table, point
        self.get, self.load, self.scan = table.get, table.load, table.scan

    def save(self, changes: Mapping[bytes, bytes | None]) -> None:
        self._point()
        self._table.save(changes)
        self._point()


class _State:
    def __init__(self, state: State, point: Callable[[], None]) -> None:
        self.data = _Table(state.data, point)
        self.side = _Table(state.side, point)


def main() -> None:
    """FEED_DIRECTORY is the store's, FEED_POINT counts from 1."""
    point = _Killing(int(os.environ["FEED_POINT"]))
    store = Store(Path(os.environ["FEED_DIRECTORY"]))
    replica = Replica(0, ONE, _State(store.partition(0), point))
    records = make_records()
    for at in range(0, len(records), STEP):
        replica.apply(records[at : at + STEP])
        if (at // STEP) % 4 == 3:
            store.commit()
            point()


if __name__ == "__main__":
    main()
