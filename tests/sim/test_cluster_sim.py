"""Random faults on a simulated cluster, and the log as the judge of every answer."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from dimint.door import Change
from dimint.events import KV_TOPIC
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from dimint.positions import Position, format_positions, parse_positions
from dimint.values import to_object
from dimint.wire import parse_token
from tests.support.cluster_sim import PARTITIONS, STEP_S, Faults, Sim

KEYS = [f"k{number}" for number in range(6)]
COUNTERS = [f"n{number}" for number in range(3)]
OPERATIONS = 60
CLIENTS = 4


class Done(NamedTuple):
    """One finished operation: what was asked, the reply, and every partition's acknowledged end when it was begun."""

    request: dict[str, Any]
    reply: dict[str, Any]
    acknowledged: dict[int, int]


class SimClient:
    """One operation at a time; unanswered ones are sent again with their seq, to any overlord."""

    def __init__(self, sim: Sim, name: str, chance: random.Random, acknowledged: dict[int, int]) -> None:
        self.sim, self.name, self.chance, self.acknowledged = sim, name, chance, acknowledged
        self.seq = 0
        self.tokens: dict[int, int] = {}
        self.done: list[Done] = []
        self.request: dict[str, Any] = {}
        self.begun: dict[int, int] = {}
        self.send_at = 0.0
        self.begin()

    def begin(self) -> None:
        chance = self.chance
        kind = chance.choice(["set", "set", "incr", "incr", "get", "get", "strong", "cas", "delete"])
        self.request = {"cmd": kind, "key": chance.choice(KEYS), "client": self.name, "timeout": 0.5}
        if kind in ("get", "strong"):
            self.request |= {"cmd": "get", "consistency": "strong" if kind == "strong" else "session"}
            self.request["min_position"] = self.position()
            self.request["key"] = chance.choice(KEYS + COUNTERS)
        else:
            self.seq += 1
            self.request["seq"] = self.seq
        if kind == "incr":
            self.request["key"] = chance.choice(COUNTERS)
        elif kind in ("set", "cas"):
            self.request["value"] = f"{self.name}-{self.seq}"
        if kind == "cas":
            self.request["version"] = 0
        self.begun = dict(self.acknowledged)
        self.send_at = 0.0

    def position(self) -> list[str]:
        return [f"{self.sim.genesis.generation}:{partition}:{offset}" for partition, offset in self.tokens.items()]

    def turn(self) -> None:
        if len(self.done) >= OPERATIONS or self.sim.now < self.send_at:
            return
        self.send_at = self.sim.now + 0.6
        request = dict(self.request)

        def peer(frame: bytes) -> None:
            self.take(request, msgspec.json.decode(frame))

        self.sim.send(peer, request)

    def take(self, request: dict[str, Any], reply: dict[str, Any]) -> None:
        if request != self.request or len(self.done) >= OPERATIONS:
            return  # late or repeated
        if "error" in reply and reply["retriable"]:
            self.send_at = min(self.send_at, self.sim.now + 0.05)
            return
        self.done.append(Done(request, reply, self.begun))
        if "position" in reply:
            _, partition, offset = parse_token(reply["position"])
            self.tokens[partition] = max(offset, self.tokens.get(partition, 0))
            if request["cmd"] != "get":
                self.acknowledged[partition] = max(offset, self.acknowledged.get(partition, 0))
        self.begin()


class SimWatcher:
    """Watches all keys with a prefix, one question after the other; unanswered ones are sent again, to any overlord."""

    def __init__(self, sim: Sim, prefix: str) -> None:
        self.sim, self.prefix = sim, prefix
        self.first: str | None = None
        self.token: str | None = None
        self.seen: list[dict[str, Any]] = []
        self.send_at = 0.0
        self.asked = 0

    def turn(self) -> None:
        if self.sim.now < self.send_at:
            return
        self.send_at = self.sim.now + 0.6
        self.asked += 1
        number = self.asked
        request = {"cmd": "watch", "id": number, "prefix": self.prefix, "timeout": 0.5, "from": self.token}

        def peer(frame: bytes) -> None:
            reply = msgspec.json.decode(frame)
            if number != self.asked:
                return  # late or repeated
            if "error" in reply:
                assert reply["retriable"], reply
                return
            self.asked += 1
            self.first = self.first or reply["token"]
            self.token = reply["token"]
            self.seen += reply["changes"]
            self.send_at = 0.0

        self.sim.send(peer, request)

    def check(self, changes: dict[int, list[Change]]) -> None:
        """What it saw is what the log has between its first and its last token, in the order of each partition."""
        assert self.first is not None
        assert self.token is not None
        first, last = parse_positions(self.first)[1], parse_positions(self.token)[1]
        for partition, made in changes.items():
            assert [
                (one["kind"], one["key"], one.get("value"), one["version"], one["position"])
                for one in self.seen
                if parse_positions(one["position"])[1].keys() == {partition}
            ] == [
                (
                    one.kind,
                    one.key,
                    None if one.value is None else to_object(one.value),
                    one.version,
                    format_positions(self.sim.genesis.generation, {partition: Position(one.offset, one.index + 1)}),
                )
                for one in made
                if first[partition] <= (one.offset, one.index) < last[partition] and one.key.startswith(self.prefix)
            ]


def play(seed: int, *, linearizable: bool, prefixes: Sequence[str] = ()) -> tuple[Sim, list[SimClient], list[SimWatcher]]:
    """Let the clients do their operations while things break, then heal everything."""
    chance = random.Random(seed)
    faults = Faults(
        lose=chance.choice([0, 0.02, 0.1]),
        repeat=chance.choice([0, 0.1]),
        delay_s=chance.choice([0.001, 0.01, 0.05]),
        append_fails=chance.choice([0, 0.05]),
        lag=chance.choice([0, 0.5, 0.9]),
    )
    sim = Sim(seed, overlords=chance.choice([1, 2]), nodes=3, faults=faults, linearizable=linearizable)
    acknowledged: dict[int, int] = {}
    clients = [SimClient(sim, f"c{number}", chance, acknowledged) for number in range(CLIENTS)]
    watchers = [SimWatcher(sim, prefix) for prefix in prefixes]
    for step in range(round(200 / STEP_S)):
        for client in clients:
            client.turn()
        for watcher in watchers:
            watcher.turn()
        sim.step()
        if step % 250 == 249:
            what = chance.random()
            if what < 0.15 and len(sim.nodes) > 1:
                sim.kill_node(chance.choice(list(sim.nodes)))
            elif what < 0.3 and len(sim.nodes) < 4:
                sim.start_node()
            elif what < 0.4 and len(sim.overlords) > 1:
                sim.kill_overlord(chance.choice(list(sim.overlords)))
            elif what < 0.5 and len(sim.overlords) < 3:
                sim.start_overlord()
        if all(len(client.done) >= OPERATIONS for client in clients):
            return sim, clients, watchers
    raise AssertionError(f"seed {seed}: not all operations came to an end: {[len(client.done) for client in clients]}")


@pytest.mark.parametrize("seed", range(4))
def test_watchers_see_every_change_once(seed: int) -> None:
    """Nodes and overlords come and go, messages are lost and repeated, replicas lag: no gap, no duplicate, and the end comes."""
    print(f"seed {seed}")
    sim, _, watchers = play(seed, linearizable=seed % 2 == 0, prefixes=("", "k", "n1", "k3"))
    sim.faults = Faults()
    sim.run(6)  # what was under way has come to an end
    ends = {partition: sim.log.bounds(KV_TOPIC, partition).end for partition in range(PARTITIONS)}
    at_end = format_positions(sim.genesis.generation, {partition: Position(end) for partition, end in ends.items()})
    for _ in range(round(20 / STEP_S)):
        for watcher in watchers:
            watcher.turn()
        sim.step()
        if all(watcher.token == at_end for watcher in watchers):
            break
    changes: dict[int, list[Change]] = {}
    for partition, end in ends.items():
        replica = Replica(partition, sim.genesis, MemoryState())
        replica.watched = True
        replica.apply(sim.log.read(KV_TOPIC, partition, 0, max_records=end, max_bytes=1 << 30))
        changes[partition] = replica.take_fresh()
    for watcher in watchers:
        watcher.check(changes)
        assert watcher.token == at_end, f"seed {seed}: stuck"
    assert len(watchers[0].seen) > 50
    sim.log.close()


def states_by_offset(sim: Sim) -> dict[int, list[dict[str, Any]]]:
    """partition → the values of all keys after each record, by folding the log anew."""
    states: dict[int, list[dict[str, Any]]] = {}
    for partition in range(PARTITIONS):
        replica = Replica(partition, sim.genesis, MemoryState())
        states[partition] = [{}]
        end = sim.log.bounds(KV_TOPIC, partition).end
        for offset in range(end):
            replica.apply(sim.log.read(KV_TOPIC, partition, offset, max_records=1))
            found = replica.get(KEYS + COUNTERS)
            states[partition].append({one.key: to_object(one.value) for one in found})
    return states


@pytest.mark.parametrize("seed", range(8))
def test_every_answer_agrees_with_the_log(seed: int) -> None:
    """Acknowledged writes are in the log and count once; reads are prefixes, at or past what they must have seen."""
    print(f"seed {seed}")
    sim, clients, _ = play(seed, linearizable=seed % 2 == 0)
    sim.faults = Faults()
    states = states_by_offset(sim)
    increments = dict.fromkeys(COUNTERS, 0)
    seen: dict[str, set[int]] = {key: set() for key in COUNTERS}
    for client in clients:
        before: dict[int, int] = {}
        for request, reply, acknowledged in client.done:
            assert "error" not in reply or reply["error"] == "DIMINT_SUPERSEDED", (seed, request, reply)
            assert reply.get("error") is None, f"seed {seed}: nothing overtakes a client that waits for each answer: {request}"
            _, partition, offset = parse_token(reply["position"])
            assert offset <= len(states[partition]) - 1
            if request["cmd"] == "get":
                state = states[partition][offset]
                assert reply.get("value") == state.get(request["key"]), (seed, request, reply)
                assert offset >= before.get(partition, 0), "session reads never go back"
                if request["consistency"] == "strong":
                    assert offset >= acknowledged.get(partition, 0), (seed, request, reply)
            elif request["cmd"] == "incr":
                increments[request["key"]] += 1
                assert reply["value"] not in seen[request["key"]], (seed, "an increment was answered twice", request)
                seen[request["key"]].add(reply["value"])
            before[partition] = max(offset, before.get(partition, 0))
    final = {key: value for partition in range(PARTITIONS) for key, value in states[partition][-1].items()}
    unfinished = {key: sum(client.request.get("key") == key for client in clients) for key in COUNTERS}
    for key, count in increments.items():
        assert count <= final.get(key, 0) <= count + unfinished[key], (seed, key)
    sim.run(2)
    for partition in range(PARTITIONS):
        held = [node.replicas[partition] for node in sim.nodes.values() if partition in node.replicas]
        assert held
        assert len({(one.next_offset, one.digest) for one in held}) == 1, f"seed {seed}: replicas of {partition} differ"
    for overlord in sim.overlords.values():
        sim.run(1)
        assert overlord.core.busy == 0, f"seed {seed}: every request ends"
    sim.log.close()


@pytest.mark.parametrize("seed", range(6))
def test_an_acknowledged_write_was_applied_even_if_requests_overtake(seed: int) -> None:
    """Clients that send many numbered writes at once, to one or two overlords: what is answered with success was applied, what
    is answered as superseded never was."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    faults = Faults(lose=0.05, repeat=0.1, delay_s=0.03, append_fails=0.1, lag=0.3)
    sim = Sim(seed, overlords=1 + seed % 2, nodes=2, faults=faults)
    sim.run(0.2)
    answers: dict[tuple[str, int], dict[str, Any]] = {}
    asked: dict[tuple[str, int], dict[str, Any]] = {}
    for client in ("a", "b"):
        for seq in range(1, 41):
            key = f"{client}{seq}"
            asked[client, seq] = {"cmd": "set", "key": key, "value": 1, "client": client, "seq": seq}
    for _ in range(40):
        for name, request in asked.items():
            if name not in answers and chance.random() < 0.5:

                def peer(frame: bytes, name: tuple[str, int] = name) -> None:
                    reply = msgspec.json.decode(frame)
                    if not reply.get("retriable"):
                        answers.setdefault(name, reply)

                sim.send(peer, {**request, "timeout": 0.5})
        sim.run(0.3)
    sim.faults = Faults()
    sim.run(2)
    applied: set[str] = set()
    for partition in range(PARTITIONS):
        replica = Replica(partition, sim.genesis, MemoryState())
        replica.apply(sim.log.read(KV_TOPIC, partition, 0, max_records=100_000, max_bytes=1 << 30))
        applied |= {one.key for one in replica.get([request["key"] for request in asked.values()])}
    assert len(answers) > 60
    for name, reply in answers.items():
        key = asked[name]["key"]
        if "error" in reply:
            assert reply["error"] in ("DIMINT_SUPERSEDED", "DIMINT_OUTCOME_FORGOTTEN"), (seed, reply)
            assert key not in applied, (seed, name, reply)
        else:
            assert key in applied, (seed, name, reply)
    sim.log.close()


def test_a_number_below_one_of_an_earlier_overlord_is_never_acknowledged() -> None:
    """The overlord that took the higher number is dead; its successor asks the state, however many lower ones come."""
    sim = Sim(1, nodes=2)
    sim.run(0.2)
    assert sim.ask(cmd="set", key="k", value=10, client="c", seq=10)["value"] == 10
    sim.kill_overlord("o1")
    sim.start_overlord()
    sim.run(0.5)
    for seq in (5, 6, 7):
        assert sim.ask(cmd="set", key="k", value=seq, client="c", seq=seq)["error"] == "DIMINT_SUPERSEDED"
    assert sim.ask(cmd="set", key="k", value=11, client="c", seq=11)["value"] == 11
    core = next(iter(sim.overlords.values())).core
    assert sim.ask(cmd="set", key="k", value=12, client="c", seq=12)["value"] == 12
    assert len(core.outcomes) == 0
    assert sim.ask(cmd="set", key="k", value=8, client="c", seq=8)["error"] == "DIMINT_SUPERSEDED"
    assert sim.ask(cmd="get", key="k", consistency="strong") == {"value": 12}
    sim.log.close()


@pytest.mark.parametrize("seed", range(5))
def test_replies_keep_their_order_whatever_takes_longer(seed: int) -> None:
    """Every connection gets one reply a request, in order, from any mix of commands, errors and delays."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    sim = Sim(seed, nodes=2, faults=Faults(delay_s=0.02, append_fails=0.1, lag=0.5), linearizable=seed % 2 == 0)
    sim.run(0.2)
    core = sim.overlords["o1"].core
    expected: dict[str, list[str]] = {"one": [], "two": []}
    replies: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}

    class Peer:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, frame: bytes) -> None:
            raise AssertionError("replies are taken from the core, before the network reorders them")

    peers = {name: Peer(name) for name in expected}
    kinds: dict[str, dict[str, Any]] = {
        "value": {"cmd": "set", "key": "k", "value": 1},
        "version": {"cmd": "incr", "key": "n"},
        "values": {"cmd": "mget", "keys": KEYS},
        "items": {"cmd": "scan", "consistency": "strong"},
        "overlords": {"cmd": "get_overlords"},
        "count": {"cmd": "mset", "values": dict.fromkeys(KEYS, 1)},
        "ok": {"cmd": "delete", "key": "k"},
        "error": {"cmd": "nope"},
    }
    real_turn = core.turn

    def turn(now: float) -> Any:
        effects = real_turn(now)
        for peer, frame in effects.replies:
            replies[peer.name].append(msgspec.json.decode(frame))
        return effects._replace(replies=[])

    core.turn = turn  # type: ignore[method-assign]
    for _ in range(150):
        name, kind = chance.choice(list(expected)), chance.choice(list(kinds))
        expected[name].append(kind)
        core.receive(peers[name], msgspec.json.encode(kinds[kind]), sim.now)
        if chance.random() < 0.3:
            sim.run(0.01)
    sim.run(8)
    for name, wanted in expected.items():
        got = replies[name]
        assert len(got) == len(wanted), (seed, name)
        for kind, reply in zip(wanted, got, strict=True):
            assert kind in reply or reply["error"] in ("DIMINT_NOT_APPLIED", "DIMINT_PARTIAL"), (seed, kind, reply)
    sim.log.close()
