"""The second judge of histories judges right: made histories with a known order pass, with one changed result they do not."""

import random

import pytest

from tests.support.history import ABSENT, Op
from tests.support.porcupine import NoPorcupine, build, judge


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    try:
        build()
    except NoPorcupine as why:
        pytest.skip(str(why))


def _history(seed: int) -> list[Op]:
    """Twelve clients on two keys. Each operation happens at one moment between its start and its end."""
    rng = random.Random(seed)
    state: dict[str, object] = {}
    free_at = [0.0] * 12
    ops: list[Op] = []
    now = 0.0
    for number in range(3000):
        now += rng.random() / 100
        client = rng.randrange(12)
        if free_at[client] > now:
            continue
        started, ended = max(free_at[client], now - rng.random() / 20), now + rng.random() / 20
        free_at[client] = ended
        key = rng.choice(["c", "r"])
        held = state.get(key, ABSENT)
        kind = rng.choice(["incr", "get"] if key == "c" else ["set", "delete", "absent", "cas", "get", "get"])
        op = Op(str(client), kind, key, started, ended, "ok", level="strong" if kind == "get" else "")
        after = held
        if kind == "get":
            op = op._replace(seen=held)
        elif kind == "incr":
            after = (held if isinstance(held, int) else 0) + 3
            op = op._replace(written=3, seen=after)
        elif kind in ("set", "delete"):
            after = f"v{number}" if kind == "set" else ABSENT
            op = op._replace(written=None if kind == "delete" else after)
        else:
            expected = ABSENT if kind == "absent" or rng.random() < 0.3 else held
            after = f"v{number}" if held == expected else held
            op = op._replace(written=f"v{number}", expected=expected, seen=held == expected)
        if kind != "get" and rng.random() < 0.02:  # nobody was told, and it may not have happened
            op = op._replace(status="unknown", seen=None)
            after = rng.choice([held, after])
        state[key] = after
        ops.append(op)
    return ops


def test_sound_histories_pass() -> None:
    """Windows begin and end in the middle of operations."""
    results, illegal = judge(_history(1), windows=24, seed=1)
    assert not illegal
    assert results["Ok"] > 18


def test_a_stale_read_is_found() -> None:
    """One read in ten sees what a counter was long before."""
    ops = [
        op._replace(seen=op.seen - 90) if op.kind == "get" and op.key == "c" and op.seen != ABSENT and number % 10 == 0 else op
        for number, op in enumerate(_history(2))
    ]
    _, illegal = judge(ops, windows=6, seed=2)
    assert any(group.startswith("c#") for group in illegal)
