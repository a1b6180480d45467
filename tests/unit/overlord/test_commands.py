"""Every command of the overlord with its exact reply, on a simulated cluster without faults."""

from collections.abc import Iterator
from typing import Any

import msgpack
import msgspec
import pytest

from dimint.door import Due
from tests.support.cluster_sim import Sim

ID32 = "0123456789abcdef" * 2


@pytest.fixture(params=[True, False], ids=["end-offset", "barrier"])
def sim(request: pytest.FixtureRequest) -> Iterator[Sim]:
    """One overlord, two nodes, in a settled state; strong reads by end offset and by barrier."""
    made = Sim(1, nodes=2, linearizable=request.param)
    made.run(0.3)
    yield made
    made.log.close()


def code(sim: Sim, **request: Any) -> str:
    reply = sim.ask(**request)
    assert set(reply) == {"error"}
    return str(reply["error"])


def test_set_get_delete(sim: Sim) -> None:
    """The original's commands give exactly its fields, for every consistency."""
    assert sim.ask(cmd="get", key="k") == {}
    assert sim.ask(cmd="set", key="k", value=[1, {"a": None}]) == {"value": [1, {"a": None}]}
    for consistency in ("weak", "week", "session", "strong", None):
        assert sim.ask(cmd="get", key="k", consistency=consistency) == {"value": [1, {"a": None}]}
    assert sim.ask(cmd="delete", key="k") == {"ok": True}
    assert sim.ask(cmd="delete", key="k") == {"ok": True}
    assert sim.ask(cmd="get", key="k") == {}


def test_new_style_adds_position_version_and_id(sim: Sim) -> None:
    """With an id, a client or a position, the reply has more fields, and only then."""
    done = sim.ask(cmd="set", key="k", value=1, id=7)
    assert set(done) == {"value", "position", "id"}
    assert done["id"] == 7
    got = sim.ask(cmd="get", key="k", min_position=done["position"])
    assert set(got) == {"value", "position", "version", "age"}
    assert set(sim.ask(cmd="get", key="none", id="x")) == {"position", "version", "age", "id"}
    refused = sim.ask(cmd="nope", id="x")
    assert refused == {"error": "DIMINT_NOT_FOUND", "message": refused["message"], "retriable": False, "id": "x"}


def test_incr_cas_and_conditions(sim: Sim) -> None:
    """Outcomes are those of the state, with versions that cas can use."""
    first = sim.ask(cmd="incr", key="n")
    assert (first["value"], set(first)) == (1, {"value", "version"})
    second = sim.ask(cmd="incr", key="n", by=-5)
    assert second["value"] == -4
    assert second["version"] > first["version"]
    missed = sim.ask(cmd="cas", key="n", expected=9, value=1)
    assert missed == {"applied": False, "version": second["version"]}
    assert sim.ask(cmd="cas", key="n", version=second["version"], value="text")["applied"] is True
    assert code(sim, cmd="incr", key="n") == "DIMINT_NOT_INTEGER"
    assert sim.ask(cmd="cas", key="new", version=0, value=None)["applied"] is True
    assert sim.ask(cmd="set", key="new", value=1, if_absent=True)["applied"] is False
    assert sim.ask(cmd="set", key="new", value=1, if_present=True)["applied"] is True
    assert sim.ask(cmd="get", key="new") == {"value": 1}


def test_many_keys(sim: Sim) -> None:
    """mset, mget and scan go over all partitions; pages follow one another without a hole."""
    values = {f"k{n:03}": n for n in range(40)}
    assert sim.ask(cmd="mset", values=values) == {"ok": True, "count": 40}
    assert sim.ask(cmd="mget", keys=[*values, "other"]) == {"values": values}
    new = sim.ask(cmd="mset", values={"a": 1, "b": 2}, id=1)
    assert len(new["positions"]) <= 2
    both = sim.ask(cmd="mget", keys=["a", "b", "a"], min_position=new["positions"])
    assert set(both) == {"values", "versions", "positions", "age"}
    seen: list[Any] = []
    after = None
    while True:
        page = sim.ask(cmd="scan", prefix="k", limit=7, after=after, consistency="strong")
        assert set(page) == {"items", "next"}
        seen += page["items"]
        after = page["next"]
        if after is None:
            break
        assert len(page["items"]) == 7
    assert seen == [[key, value] for key, value in values.items()]
    assert sim.ask(cmd="mset", values={}) == {"ok": True, "count": 0}
    assert sim.ask(cmd="mget", keys=[]) == {"values": {}}


def test_a_repeated_request_has_its_first_outcome(sim: Sim) -> None:
    """client and seq count once, also over another overlord; what was overtaken says so."""
    once = sim.ask(cmd="incr", key="n", client="c", seq=1)
    assert sim.ask(cmd="incr", key="n", client="c", seq=1)["value"] == once["value"] == 1
    sim.start_overlord()
    sim.run(0.2)
    assert sim.ask(cmd="incr", key="n", client="c", seq=1)["value"] == 1
    assert sim.ask(cmd="set", key="n", value=10, client="c", seq=5)["value"] == 10
    assert sim.ask(cmd="set", key="n", value=3, client="c", seq=4)["error"] == "DIMINT_SUPERSEDED"
    assert sim.ask(cmd="get", key="n") == {"value": 10}


def test_result_settles_a_request_for_ever(sim: Sim) -> None:
    """What was applied is told; what was not takes its seq and never will be."""
    sim.ask(cmd="incr", key="n", by=3, client="c", seq=1)
    settled = sim.ask(cmd="result", key="n", client="c", seq=1)
    assert (settled["outcome"], settled["value"]) == ("applied", 3)
    assert sim.ask(cmd="result", key="n", client="c", seq=2)["outcome"] == "unused"
    assert sim.ask(cmd="set", key="n", value=0, client="c", seq=2)["error"] == "DIMINT_SUPERSEDED"
    assert sim.ask(cmd="get", key="n") == {"value": 3}


def test_msgpack_gets_msgpack(sim: Sim) -> None:
    """The reply has its request's form; what a form cannot carry has its own error."""

    def ask(**request: Any) -> Any:
        return msgpack.unpackb(sim.ask_frame(msgpack.packb(request)))

    assert ask(cmd="set", key="k", value={"a": 1}) == {"value": {"a": 1}}
    assert sim.ask(cmd="get", key="k") == {"value": {"a": 1}}
    assert ask(cmd="set", key="b", value=b"\x00\xff") == {"value": b"\x00\xff"}
    assert ask(cmd="get", key="b") == {"value": b"\x00\xff"}
    assert code(sim, cmd="get", key="b") == "DIMINT_NOT_JSON"
    assert code(sim, cmd="mget", keys=["b", "k"]) == "DIMINT_NOT_JSON"
    assert sim.ask_frame(b'{"cmd":"set","key":"i","value":' + b"9" * 40 + b"}") == b'{"value":' + b"9" * 40 + b"}"
    assert ask(cmd="get", key="i") == {"error": "DIMINT_NOT_MSGPACK"}


def test_publish(sim: Sim) -> None:
    """Sound events are in the log when the reply comes; one that is not refuses the request."""

    def publish(*events: list[Any]) -> Any:
        return msgpack.unpackb(sim.ask_frame(msgpack.packb({"cmd": "publish", "events": events})))

    now = sim.clock.time_ns()
    sample = ["host.sample", ID32, now, b"r" * 8, 1, {"gpu_state": "no_gpu"}]
    assert publish(sample, ["gpu.lost", ID32, now - 5, "GPU-1", "lost"]) == {"accepted": 2}
    for bad in (
        ["node.heartbeat", ID32, now, {}, 1],
        ["host.sample", "short", now, b"", 1, {}],
        ["host.sample"],
        ["gpu.lost", ID32, -1, "", ""],
        ["host.sample", ID32, now, b"short", 1, {}],
        ["host.sample", ID32, now, b"r" * 8, 0, {}],
        ["host.gap", ID32, now, b"r" * 8, 5, 4, "backwards"],
    ):
        assert publish(sample, bad) == {"error": "DIMINT_PARSE_ERROR"}
    too_large = ["host.sample", ID32, now, b"r" * 8, 1, {"x": "y" * 600_000}]
    assert publish(too_large) == {"error": "DIMINT_TOO_LARGE"}


def test_the_cluster_itself(sim: Sim) -> None:
    """get_overlords, topology, state, overlord_state and status name every live member."""
    view = sim.overlords["o1"].core.cluster.view
    view.take(["node.heartbeat", "n2", 0, 0, {"cpu_percent": 1.5, "more": 1}, 4], 0)
    assert sim.ask(cmd="get_overlords") == {"overlords": ["o1"]}
    topology = sim.ask(cmd="topology")
    assert set(topology) == {"generation", "hash_range", "partitions", "epoch", "overlords", "nodes", "replicas"}
    assert sorted(topology["replicas"][0]) == ["n2", "n3"]
    first, second = sim.ask(cmd="state")["state"]
    assert (first["node_id"], first["key_count"], first["cpu_percent"], "more" in first) == ("n2", 4, 1.5, False)
    roles = {first["role"], second["role"]}
    assert roles == {"master", "slave"}
    (overlord,) = sim.ask(cmd="overlord_state")["overlord_state"]
    assert set(overlord) == {
        "overlord_id", "cwd", "name", "cmdline", "create_time", "cpu_percent", "memory_percent", "memory_info", "is_running",
    }  # fmt: skip
    status = sim.ask(cmd="status")
    assert set(status) == {"generation", "log", "durability", "log_answers", "overlords", "nodes", "partitions"}
    assert all(set(one["replicas"]) == {"n2", "n3"} for one in status["partitions"])


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"cmd": "nope"}, "DIMINT_NOT_FOUND"),
        ({"key": "k"}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "get"}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "get", "key": []}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "get", "key": ""}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "get", "key": "x" * 512}, "DIMINT_TOO_LARGE"),
        ({"cmd": "get", "key": "k", "consistency": "none"}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "get", "key": "k", "timeout": 31}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "set", "key": "k"}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "set", "key": "k", "value": 1, "ttl": 0}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "set", "key": "k", "value": "x" * (1 << 20)}, "DIMINT_TOO_LARGE"),
        ({"cmd": "set", "key": "k", "value": 1, "if_absent": True, "if_present": True}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "incr", "key": "k", "by": 1 << 63}, "DIMINT_PARSE_ERROR"),
        *(
            ({"cmd": "incr", "key": "k", "client": "c", "seq": seq}, "DIMINT_PARSE_ERROR")
            for seq in (0, -1, 1 << 53, 1 << 63, 1 << 64, 10**400, "1", 1.5, True)
        ),
        *(
            ({"cmd": "incr", "key": "k", "client": client, "seq": 1}, "DIMINT_PARSE_ERROR")
            for client in ("", "x" * 65, "\u00e9" * 33, 5, None, ["c"])
        ),
        ({"cmd": "set", "key": "k", "value": "x" * ((1 << 20) - 1)}, "DIMINT_TOO_LARGE"),
        ({"cmd": "mset", "values": {str(number): 1 for number in range(10_001)}}, "DIMINT_TOO_LARGE"),
        ({"cmd": "scan", "limit": 1001}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "scan", "prefix": "x" * 2000}, "DIMINT_TOO_LARGE"),
        ({"cmd": "cas", "key": "k", "value": 1}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "mget", "keys": "k"}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "mget", "keys": ["k"] * 10_001}, "DIMINT_TOO_LARGE"),
        ({"cmd": "scan", "limit": 0}, "DIMINT_PARSE_ERROR"),
        ({"cmd": "publish", "events": [1]}, "DIMINT_PARSE_ERROR"),
    ],
)  # fmt: skip
def test_bad_requests_have_named_errors(request_: dict[str, Any], error: str) -> None:
    """Whatever is wrong with a request is said by name, in the form of the request."""
    sim = Sim()
    sim.run(0.1)
    reply = sim.ask(**request_)
    assert reply["error"] == error
    assert len(reply) == (3 if request_.get("client") is not None or "seq" in request_ else 1)
    sim.log.close()


def test_tokens_of_another_log_or_partition(sim: Sim) -> None:
    """A position is refused if it cannot be of this log."""
    assert sim.ask(cmd="get", key="k", min_position="ff:0:1")["error"] == "DIMINT_WRONG_LOG"
    assert sim.ask(cmd="get", key="k", min_position=f"{sim.genesis.generation}:99:1")["error"] == "DIMINT_PARSE_ERROR"
    assert sim.ask(cmd="get", key="k", min_position="rubbish")["error"] == "DIMINT_PARSE_ERROR"


def test_a_position_that_does_not_come_times_out(sim: Sim) -> None:
    """A strict read ends by its deadline."""
    tokens = [f"{sim.genesis.generation}:{partition}:1000" for partition in range(4)]
    assert sim.ask(cmd="get", key="k", min_position=tokens, timeout=0.5)["error"] == "DIMINT_TIMEOUT"


def test_without_a_node_reads_fail_and_writes_go_on() -> None:
    """Writes need the log only; reads say that nobody serves the key."""
    sim = Sim(nodes=0)
    sim.run(0.1)
    assert sim.ask(cmd="set", key="k", value=1) == {"value": 1}
    assert sim.ask(cmd="get", key="k") == {"error": "DIMINT_NODE_NOT_AVAILABLE"}
    assert sim.ask(cmd="incr", key="n", timeout=0.5) == {"error": "DIMINT_OUTCOME_UNKNOWN"}
    sim.start_node()
    sim.run(0.5)
    assert sim.ask(cmd="get", key="k") == {"value": 1}
    assert sim.ask(cmd="get", key="n") == {"value": 1}
    sim.log.close()


def test_replies_keep_the_order_of_requests(sim: Sim) -> None:
    """Without an id replies come in request order, whatever takes longer; with one they may overtake."""
    replies: list[Any] = []

    def peer(frame: bytes) -> None:
        replies.append(msgspec.json.decode(frame))

    sim.send(peer, {"cmd": "incr", "key": "n"}, "o1")
    sim.send(peer, b"rubbish", "o1")
    sim.send(peer, {"cmd": "get_overlords"}, "o1")
    sim.send(peer, {"cmd": "get_overlords", "id": "free"}, "o1")
    sim.send(peer, {"cmd": "set", "key": "a", "value": 1}, "o1")
    sim.run(1)
    assert [next(iter(reply)) for reply in replies] == ["overlords", "value", "error", "overlords", "value"]
    assert replies[0]["id"] == "free"


def test_an_append_that_fails_is_not_applied() -> None:
    """The log's refusal is final and says that trying again is safe."""
    sim = Sim()
    sim.run(0.2)
    sim.faults = sim.faults._replace(append_fails=1.0)
    assert sim.ask(cmd="set", key="k", value=1) == {"error": "DIMINT_NOT_APPLIED"}
    assert sim.ask(cmd="mset", values={"a": 1, "b": 2, "c": 3}) == {"error": "DIMINT_NOT_APPLIED"}
    sim.faults = sim.faults._replace(append_fails=0.0)
    assert sim.ask(cmd="get", key="k") == {}
    sim.log.close()


def test_the_elected_overlord_expires_what_is_due(sim: Sim) -> None:
    """Masters tell every overlord; only the elected one appends, and what moved on meanwhile stays."""
    version = sim.ask(cmd="set", key="k", value=1, ttl=1, if_absent=True)["version"]
    (overlord,) = sim.overlords.values()
    partition = sim.genesis.partition_of_key(b"k")
    overlord.core.from_node("node", Due(partition, [("k", version)]), sim.now)
    sim.run(0.3)
    assert sim.ask(cmd="get", key="k") == {"value": 1}
    overlord.core.leads = True
    overlord.core.from_node("node", Due(partition, [("k", version - 1)]), sim.now)
    sim.run(0.3)
    assert sim.ask(cmd="get", key="k", consistency="strong") == {"value": 1}
    overlord.core.from_node("node", Due(partition, [("k", version)]), sim.now)
    sim.run(0.3)
    assert sim.ask(cmd="get", key="k", consistency="strong") == {}


def test_sizes_and_depths_at_their_limits(sim: Sim) -> None:
    """The largest value, the deepest one and the highest seq are taken; one more is refused and changes nothing."""
    largest = "x" * ((1 << 20) - 2)
    assert sim.ask(cmd="set", key="k", value=largest) == {"value": largest}
    for depth, taken in ((128, True), (129, False), (100_000, False)):
        reply = sim.ask_frame(b'{"cmd":"set","key":"deep","value":' + b"[" * depth + b"]" * depth + b"}")
        assert reply.startswith(b'{"value":[[') is taken
    assert sim.ask_frame(b'{"cmd":"get","key":"deep"}') == b'{"value":' + b"[" * 128 + b"]" * 128 + b"}"
    assert sim.ask(cmd="incr", key="n", client="c" * 64, seq=(1 << 53) - 1)["value"] == 1


def test_names_that_stand_twice(sim: Sim) -> None:
    """Of a field or key given twice the last one counts; inside a value both are kept, as they were sent."""
    assert sim.ask_frame(b'{"cmd":"set","key":"a","key":"b","value":1,"value":2}') == b'{"value":2}'
    assert sim.ask(cmd="mget", keys=["a", "b"]) == {"values": {"b": 2}}
    assert sim.ask_frame(b'{"cmd":"mset","values":{"a":1,"a":2}}') == b'{"ok":true,"count":1}'
    assert sim.ask(cmd="get", key="a") == {"value": 2}
    sim.ask_frame(b'{"cmd":"set","key":"a","value":{"x":1,"x":2}}')
    assert sim.ask_frame(b'{"cmd":"get","key":"a"}') == b'{"value":{"x":1,"x":2}}'


def test_a_seq_with_another_body_changes_nothing(sim: Sim) -> None:
    """The number names the first request that was applied: what is sent under it later is not applied."""
    name: dict[str, Any] = {"client": "c", "seq": 5}
    assert sim.ask(cmd="set", key="k", value=1, **name)["value"] == 1
    sim.ask(cmd="set", key="k", value=2, **name)
    sim.ask(cmd="cas", key="k", version=0, value=3, **name)
    sim.ask(cmd="mset", values={"k": 4}, **name)
    sim.ask(cmd="delete", key="k", **name)
    refused = sim.ask(cmd="incr", key="k", **name)
    assert refused["error"] == "DIMINT_PARSE_ERROR"
    assert sim.ask(cmd="get", key="k", consistency="strong") == {"value": 1}
