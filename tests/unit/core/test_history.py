"""The judge of histories finds what is wrong: one small sound history, and the same with one lie each."""

from collections.abc import Callable
from typing import Any

import pytest

from dimint.batch import By, encode
from dimint.events import KV_TOPIC
from dimint.log.port import Record
from tests.support.history import ABSENT, Op, Replay, check

W = b"w" * 16
BY = (By(None, "h", "p"), By("c", "h", "p"))


def replay() -> Replay:
    """k: a, then b, then deleted; n: counted to 2 and 5, the second one sent twice; a late copy of the first batch."""
    made = Replay()
    batches: list[tuple[int, list[list[Any]]]] = [
        (1, [["kv.set", "k", 0, 0, None, b'J"a"', None, 0], ["kv.incr", "n", 0, 0, None, 2]]),
        (2, [["kv.set", "k", 0, 0, None, b'J"b"', None, 0], ["kv.incr", "n", 0, 1, 7, 3]]),
        (1, [["kv.set", "k", 0, 0, None, b'J"late"', None, 0]]),
        (3, [["kv.incr", "n", 0, 1, 7, 3], ["kv.delete", "k", 0, 1, 8], ["kv.set", "k", 0, 0, None, b'J"c"', None, 2]]),
    ]
    for offset, (number, events) in enumerate(batches):
        made.take(Record(KV_TOPIC, 0, offset, (100 + offset) * 1000, encode(W, number, 0, BY, events)))
    return made


SOUND = [
    Op("s1", "set", "k", 1.0, 2.0, "ok", "a"),
    Op("s1", "incr", "n", 1.0, 2.0, "ok", 2, 2, 100),
    Op("s2", "get", "k", 2.5, 3.0, "ok", seen="a", level="strong", state_at=1),
    Op("s1", "set", "k", 3.5, 4.0, "ok", "b"),
    Op("c", "incr", "n", 3.5, 6.0, "ok", 3, 5, 101, client="c", seq=7),
    Op("s2", "get", "n", 4.5, 4.6, "ok", seen=5, level="session"),
    Op("s2", "get", "k", 4.7, 4.8, "ok", seen="a", level="weak"),
    Op("c", "delete", "k", 6.5, 7.0, "ok", client="c", seq=8),
    Op("s2", "get", "k", 7.5, 8.0, "ok", seen=ABSENT, version=0, level="strong"),
    Op("s1", "set", "k", 7.0, 8.0, "unknown", "c"),
    Op("s1", "set", "k", 7.0, 8.0, "refused", "never"),
]


def test_a_sound_history_has_no_problems() -> None:
    """Copies, repeated requests, unknown and refused writes and stale weak reads are all right."""
    made = replay()
    assert made.items == {"n": (5, 101)}
    assert check([made], lambda key: 0, SOUND) == []


@pytest.mark.parametrize(
    ("number", "lie"),
    [
        (2, {"seen": ABSENT, "state_at": None}),  # a strong read that misses an acknowledged write
        (2, {"seen": "b"}),  # not what its position says
        (5, {"seen": 2, "session": "c", "started": 6.1, "ended": 6.2}),  # a session that goes back
        (6, {"seen": "late"}),  # a value that never was
        (3, {"written": "lost"}),  # acknowledged and not there
        (4, {"seen": 8}),  # another sum than was counted to
        (1, {"version": 99}),
        (7, {"started": 0.1, "ended": 0.2, "seq": 9}),
        (9, {"status": "ok"}),  # its condition did not hold
        (10, {"written": "a"}),  # refused and there all the same
        (3, {"started": 0.1, "ended": 0.2, "written": "a"}),  # two operations, one event
    ],
)
def test_a_lie_is_found(number: int, lie: dict[str, Any]) -> None:
    """One operation says something else than the log."""
    ops = [*SOUND]
    ops[number] = ops[number]._replace(**lie)
    place: Callable[[str], int] = lambda key: 0  # noqa: E731
    assert len(check([replay()], place, ops)) >= 1
