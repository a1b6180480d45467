"""A client that does not wait for its replies sees its own writes, on a simulated cluster with a slow log."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster_sim import Faults, Sim


@pytest.fixture(params=[True, False], ids=["end-offset", "barrier"])
def sim(request: pytest.FixtureRequest) -> Iterator[Sim]:
    """One overlord, two nodes; an append takes up to 40 ms to land and 40 more to be acknowledged."""
    made = Sim(7, nodes=2, linearizable=request.param, faults=Faults(delay_s=0.04))
    made.run(0.5)
    yield made
    made.log.close()


def at_once(sim: Sim, *requests: dict[str, Any]) -> list[Any]:
    """Requests of one connection that arrive together; the replies in the order in which they leave."""
    (overlord,) = sim.overlords.values()
    replies: list[bytes] = []

    def peer(frame: bytes) -> None:
        replies.append(frame)

    for request in requests:
        overlord.core.receive(peer, json.dumps(request).encode(), sim.now)
    sim.over_network = lambda act: act()  # type: ignore[method-assign, assignment]
    for _ in range(5000):
        if len(replies) == len(requests):
            return [json.loads(reply) for reply in replies]
        sim.step()
    raise AssertionError(f"{len(replies)} of {len(requests)} replies")


@pytest.mark.parametrize("consistency", ["weak", "strong"])
def test_a_read_behind_a_write(sim: Sim, consistency: str) -> None:
    """Every read sees what was sent before it, whatever else the batches hold; replies keep their order."""
    requests: list[dict[str, Any]] = []
    for number in range(150):
        key = f"k{number % 7}"
        requests.append({"cmd": "set", "key": key, "value": number})
        requests.append({"cmd": "get", "key": key, "consistency": consistency})
    found = at_once(sim, *requests)
    assert [reply["value"] for reply in found[::2]] == list(range(150))
    for number, reply in enumerate(found[1::2]):  # a later write of its key may be in the same batch
        assert reply["value"] >= number
        assert reply["value"] % 7 == number % 7


def test_every_kind_of_write_and_read(sim: Sim) -> None:
    """incr, cas, delete and mset are seen by get, mget and scan right behind them."""
    replies = at_once(
        sim,
        {"cmd": "incr", "key": "n", "by": 5},
        {"cmd": "get", "key": "n"},
        {"cmd": "mset", "values": {"a": 1, "b": 2, "c": 3}},
        {"cmd": "mget", "keys": ["a", "b", "c", "n"]},
        {"cmd": "scan"},
    )
    assert [reply.get("value") for reply in replies[:2]] == [5, 5]
    assert replies[3] == {"values": {"a": 1, "b": 2, "c": 3, "n": 5}}
    assert replies[4] == {"items": [["a", 1], ["b", 2], ["c", 3], ["n", 5]], "next": None}
    replies = at_once(sim, {"cmd": "delete", "key": "a"}, {"cmd": "get", "key": "a"}, {"cmd": "scan"})
    assert replies[1:] == [{}, {"items": [["b", 2], ["c", 3], ["n", 5]], "next": None}]


def test_a_read_behind_a_write_that_fails(sim: Sim) -> None:
    """The write is refused; the read is answered all the same, with what is there."""
    assert sim.ask(cmd="set", key="k", value="old") == {"value": "old"}
    sim.faults = sim.faults._replace(append_fails=1.0)
    (refused, read) = at_once(sim, {"cmd": "set", "key": "k", "value": "new"}, {"cmd": "get", "key": "k"})
    assert refused == {"error": "DIMINT_NOT_APPLIED"}
    assert read == {"value": "old"}
