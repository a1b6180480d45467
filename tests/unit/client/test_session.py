"""The client's core against modelled overlords, in simulated time."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.client import operations as ops
from dimint.errors import (
    Busy,
    ClientClosed,
    NodeNotAvailable,
    NotApplied,
    NotInteger,
    OutcomeUnknown,
    Partial,
    TimedOut,
)
from tests.support.fake_overlords import Overlord, Simulation, overlords


def test_a_set_value_is_read_back() -> None:
    """The plain path: set, get, a missing key, delete."""
    simulation = Simulation(overlords(1))
    assert simulation.run(ops.set_value("k", [1, "zwei"])) is True
    assert simulation.run(ops.get("k")) == [1, "zwei"]
    assert simulation.run(ops.get("other", "default")) == "default"
    simulation.run(ops.delete("k"))
    assert simulation.run(ops.get_versioned("k")).value is None


def test_reads_carry_the_positions_that_were_seen() -> None:
    """Session reads ask for at least what this client saw; weak reads ask for nothing."""
    doors = overlords(1)
    key = next(str(n) for n in range(100) if doors[0].store.partition(str(n)) == 0)
    simulation = Simulation(doors)
    simulation.run(ops.set_value(key, 1))
    simulation.run(ops.get(key))
    assert doors[0].seen[-1]["min_position"] == ["gen:0:1"]
    simulation.run(ops.get(key, consistency="weak"))
    assert "min_position" not in doors[0].seen[-1]


def test_without_an_overlord_every_call_ends_by_its_deadline_and_says_what_is_sure() -> None:
    """A write that was never sent did not happen; a read timed out."""
    doors = overlords(1)
    doors[0].is_alive = False
    simulation = Simulation(doors)
    start = simulation.now
    with pytest.raises(NotApplied, match="no overlord answered"):
        simulation.run(ops.set_value("k", 1), timeout_s=0.7)
    with pytest.raises(TimedOut, match="no overlord answered"):
        simulation.run(ops.get("k"), timeout_s=0.7)
    assert simulation.now - start < 1.6


def test_a_dead_overlord_costs_less_than_a_second_when_there_is_another() -> None:
    """Reads and writes go on at another overlord, found through the topology."""
    doors = overlords(2)
    simulation = Simulation(doors)
    simulation.run(ops.incr("n"))
    simulation.kill(doors[0].address)
    start = simulation.now
    assert simulation.run(ops.incr("n")) == 2
    assert simulation.now - start < 0.9
    assert simulation.session.home == doors[1].address
    assert simulation.run(ops.get("n")) == 2


def test_a_write_whose_reply_was_lost_counts_once() -> None:
    """The overlord appended and died before answering: the other one tells the outcome."""
    doors = overlords(2)
    simulation = Simulation(doors)
    simulation.run(ops.incr("n"))
    simulation.latency_s = 0.1
    call = simulation.submit(ops.incr("n", 5))
    simulation.at(0.15, lambda: simulation.kill(doors[0].address))  # the reply is on its way
    simulation.until_done([call])
    assert call.result() == 6
    assert doors[0].store.values["n"] == 6


def test_an_overlord_that_comes_back_is_used_again() -> None:
    """With a single overlord, what was under way when it was killed is settled after its restart."""
    doors = overlords(1)
    simulation = Simulation(doors)
    simulation.run(ops.incr("n"))
    simulation.kill(doors[0].address)
    call = simulation.submit(ops.incr("n"), timeout_s=10)

    def restart() -> None:
        doors[0].is_alive = True

    simulation.at(3.0, restart)
    simulation.until_done([call])
    assert call.result() == 2


def test_an_unknown_outcome_names_its_request_and_result_settles_it() -> None:
    """Time runs out after the send: the error says so, and `result` tells what became of the write."""
    doors = overlords(1)
    simulation = Simulation(doors)
    simulation.run(ops.incr("n"))
    doors[0].silent = {"incr", "result"}
    with pytest.raises(OutcomeUnknown) as caught:
        simulation.run(ops.incr("n"), timeout_s=0.5)
    assert (caught.value.key, caught.value.client, caught.value.seq) == ("n", "me", 2)
    assert [tuple(one) for one in simulation.session.unresolved()] == [("n", "me", 2)]
    doors[0].silent = set()
    assert simulation.run(ops.result(caught.value)).name == "unused"
    assert simulation.session.unresolved() == []


@pytest.mark.parametrize("code", ["DIMINT_NOT_APPLIED", "DIMINT_BUSY", "DIMINT_SUPERSEDED"])
def test_a_write_that_did_not_happen_is_issued_anew(code: str) -> None:
    """Each of these errors is sure that nothing was applied, so a new number repeats the write safely."""
    doors = overlords(1)
    doors[0].refuse = [("incr", code)]
    simulation = Simulation(doors)
    assert simulation.run(ops.incr("n")) == 1
    assert [request["seq"] for request in doors[0].seen if request["cmd"] == "incr"] == [1, 2]


def test_a_write_is_not_repeated_after_a_later_one_of_its_key() -> None:
    """Repeating it would turn the order of the caller's writes."""
    doors = overlords(1)
    simulation = Simulation(doors)
    simulation.run(ops.set_value("k", 0))
    doors[0].refuse = [("set", "DIMINT_NOT_APPLIED")]
    first, second = simulation.submit(ops.set_value("k", 1)), simulation.submit(ops.set_value("k", 2))
    simulation.until_done([first, second])
    with pytest.raises(NotApplied):
        first.result()
    assert second.result() is True
    assert doors[0].store.values["k"] == 2


def test_writes_of_one_key_that_were_lost_together_are_repeated_in_order() -> None:
    """The overlord died with all of them: none took effect, so repeating all of them turns nothing."""
    doors = overlords(2)
    simulation = Simulation(doors)
    simulation.run(ops.set_value("k", 0))
    simulation.kill(doors[0].address)
    calls = [simulation.submit(ops.set_value("k", value)) for value in range(1, 6)]
    calls.append(simulation.submit(ops.incr("k")))
    simulation.until_done(calls)
    assert calls[-1].result() == 6
    assert [row["value"] for row in doors[0].store.applied] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("code", ["DIMINT_OUTCOME_UNKNOWN", "DIMINT_NODE_NOT_AVAILABLE", "DIMINT_TIMEOUT"])
def test_an_unsure_answer_is_settled_before_anything_new_is_sent(code: str) -> None:
    """`result` comes first, and what was unused is done again."""
    doors = overlords(1)
    doors[0].refuse = [("incr", code)]
    simulation = Simulation(doors)
    calls = [simulation.submit(ops.incr("n"))]
    simulation.until_done(calls[:0])
    calls[0].on_done = lambda _: None
    simulation.until_done(calls)
    assert calls[0].result() == 1
    assert [request["cmd"] for request in doors[0].seen if request["cmd"] != "topology"] == ["incr", "result", "incr"]


def test_a_plain_write_is_trusted_only_if_its_number_was_not_voided() -> None:
    """Asked for the result of a silent write, the client ignores a late acknowledgement of the first copy."""
    doors = overlords(1)
    simulation = Simulation(doors)
    simulation.run(ops.set_value("k", 0))
    doors[0].silent = {"set"}
    call = simulation.submit(ops.set_value("k", 1))

    def arrive_late() -> None:
        late = next(request for request in doors[0].seen if request["cmd"] == "set" and request["value"] == 1)
        if doors[0].seen[-1]["cmd"] != "result":
            simulation.at(0.0005, arrive_late)
            return
        doors[0].silent = set()
        reply = doors[0].handle(json.dumps(late).encode())
        assert reply is not None
        assert "error" not in reply
        simulation.session.received(doors[0].address, json.dumps(reply).encode(), simulation.now)
        assert not call.done

    simulation.at(1.9, arrive_late)
    simulation.until_done([call])
    assert call.result() is True
    assert doors[0].store.values["k"] == 1
    assert doors[0].store.applied[-1]["seq"] == 3


def test_final_errors_come_at_once() -> None:
    """What would come again for the same request is not repeated."""
    doors = overlords(1)
    simulation = Simulation(doors)
    simulation.run(ops.set_value("k", "text"))
    with pytest.raises(NotInteger):
        simulation.run(ops.incr("k"))
    doors[0].refuse = [("get", "DIMINT_WRONG_LOG")]
    with pytest.raises(Exception, match="as told"):
        simulation.run(ops.get("k"))


def test_retriable_errors_of_reads_are_repeated_until_the_deadline() -> None:
    """Once is survived; for ever ends as the server's own error."""
    doors = overlords(1)
    doors[0].refuse = [("get", "DIMINT_NODE_NOT_AVAILABLE")]
    simulation = Simulation(doors)
    assert simulation.run(ops.get("k", 7)) == 7
    doors[0].refuse = [("get", "DIMINT_NODE_NOT_AVAILABLE")] * 1000
    with pytest.raises(NodeNotAvailable):
        simulation.run(ops.get("k"), timeout_s=1)


def _with_node() -> tuple[list[Overlord], Overlord]:
    doors = overlords(1)
    node = Overlord("tcp://10.0.1.1:7000", doors[0].store, [])
    doors[0].nodes = {"n1": node.address}
    return doors, node


def test_reads_go_straight_to_a_node() -> None:
    """Weak and session reads do not pass the overlord; strong ones do."""
    doors, node = _with_node()
    simulation = Simulation([*doors, node])
    simulation.run(ops.set_value("k", 1))
    assert simulation.run(ops.get("k")) == 1
    assert simulation.run(ops.mget(["k", "missing"])) == {"k": 1}
    assert simulation.run(ops.get("k", consistency="strong")) == 1
    assert [request["cmd"] for request in node.seen] == ["get", "mget"]
    assert [request["cmd"] for request in doors[0].seen] == ["topology", "set", "get"]


@pytest.mark.parametrize("trouble", ["dead", "moved", "behind"])
def test_a_node_that_cannot_serve_is_passed_by(trouble: str) -> None:
    """A dead node, one that lost the partition and one that lags cost a detour through the overlord, no error."""
    doors, node = _with_node()
    simulation = Simulation([*doors, node])
    simulation.run(ops.set_value("k", 1))
    if trouble == "dead":
        node.is_alive = False
    else:
        node.refuse = [("get", "DIMINT_NODE_NOT_AVAILABLE" if trouble == "moved" else "DIMINT_TIMEOUT")]
    start = simulation.now
    assert simulation.run(ops.get("k")) == 1
    assert simulation.now - start < 0.5
    if trouble == "dead":
        start = simulation.now
        simulation.run(ops.get("k"))
        assert simulation.now - start < 0.1, "a dead node is not asked again at once"


def test_an_mset_that_failed_in_part_says_which_keys() -> None:
    """Keys whose partition refused are repeated; what stays unknown is named."""
    doors = overlords(1)
    simulation = Simulation(doors)
    simulation.run(ops.mset({str(n): n for n in range(20)}))
    assert len(doors[0].store.values) == 20
    doors[0].silent = {"mset", "result"}
    with pytest.raises(OutcomeUnknown):
        simulation.run(ops.mset({"a": 1, "b": 2}), timeout_s=0.4)
    doors[0].silent = set()
    answer = doors[0]._answer

    def partly(cmd: str, request: dict[str, Any]) -> dict[str, Any]:
        if cmd == "mset" and len(request["values"]) > 1:
            first, *rest = request["values"]
            answer(cmd, {**request, "values": {first: request["values"][first]}})
            return {"error": "DIMINT_PARTIAL", "failed": dict.fromkeys(rest, "DIMINT_NOT_APPLIED")}
        return answer(cmd, request)

    doors[0]._answer = partly  # type: ignore[method-assign]
    simulation.run(ops.mset({"c": 1, "d": 2}))
    assert doors[0].store.values["d"] == 2
    doors[0].silent = set()
    doors[0].refuse = [("mset", "DIMINT_TOO_LARGE")]
    with pytest.raises(Partial) as caught:
        simulation.run(ops.mset({"e": 1, "f": 2}))
    assert caught.value.failed == {"e": "DIMINT_TOO_LARGE", "f": "DIMINT_TOO_LARGE"}


def test_no_partition_has_more_writes_under_way_than_outcomes_are_kept() -> None:
    """Beyond the window writes wait; all of them arrive."""
    doors = overlords(1)
    simulation = Simulation(doors)
    calls = [simulation.submit(ops.incr("n")) for _ in range(1000)]
    simulation.until_done(calls)
    assert [call.result() for call in calls] == list(range(1, 1001))


def test_closing_ends_what_waits() -> None:
    """Calls under way end with a named error; later ones are refused."""
    simulation = Simulation(overlords(1))
    call = simulation.submit(ops.get("k"))
    simulation.session.close()
    with pytest.raises(ClientClosed):
        call.result()
    with pytest.raises(ClientClosed):
        simulation.submit(ops.get("k"))


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32), loss=st.sampled_from([0.0, 0.02, 0.2]), kills=st.lists(st.floats(0, 3), max_size=4))
def test_every_write_counts_once_under_any_loss(seed: int, loss: float, kills: list[float]) -> None:
    """Messages get lost, overlords die and return: an acknowledged increment is there once, a refused one never."""
    doors = overlords(3)
    simulation = Simulation(doors, seed=seed, loss=loss, seeds=3)
    for at in kills:
        victim = simulation.random.choice(doors)
        simulation.at(at, lambda victim=victim: simulation.kill(victim.address))  # type: ignore[misc]
        simulation.at(at + 0.8, lambda victim=victim: setattr(victim, "is_alive", True))  # type: ignore[misc]
    calls = []
    for number in range(40):
        simulation.at(number * 0.05, lambda: calls.append(simulation.submit(ops.incr("n"), timeout_s=6)))
        simulation.at(number * 0.05, lambda n=number: calls.append(simulation.submit(ops.set_value(f"k{n}", n), timeout_s=6)))  # type: ignore[misc]
    guard = simulation.submit(ops.get("n"), timeout_s=20)
    while len(calls) < 80 or not all(call.done for call in calls):
        if guard.done:
            guard = simulation.submit(ops.get("n"), timeout_s=20)
        simulation._step()
    store = doors[0].store
    increments = [call for call in calls if call.op.cmd == "incr"]
    good = sum(call.error is None for call in increments)
    unknown = sum(isinstance(call.error, OutcomeUnknown) for call in increments)
    assert good <= store.values.get("n", 0) <= good + unknown
    assert all(call.error is None or isinstance(call.error, OutcomeUnknown | NotApplied | Busy) for call in calls)
    values = [call.value for call in increments if call.error is None]
    assert len(set(values)) == len(values)
    for call in calls:
        if call.op.cmd == "set" and call.error is None:
            assert call.op.keys[0] in store.values, "acknowledged and not there"
        if call.op.cmd == "set" and isinstance(call.error, NotApplied):
            assert call.op.keys[0] not in store.values, "refused and yet there"
