"""A model of several overlords over one log, and a simulated network to it: what a client's core is tested against.

Only what a client can see is modelled: batches of one request each, the (client, seq) rule of docs/protocol.md, plain
writes that are acknowledged without looking at their outcome, and requests and replies that get lost.
"""

import heapq
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dimint.client.calls import Call
from dimint.client.content import decode
from dimint.client.network import Drop, Send
from dimint.client.operations import Operation
from dimint.client.session import Session
from dimint.slots import partition_of

PARTITIONS = 4
HASH_RANGE = 100


@dataclass
class Store:
    """The log and its one projection."""

    values: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    highest: dict[tuple[int, str], int] = field(default_factory=dict)
    outcomes: dict[tuple[int, str, int], dict[str, Any]] = field(default_factory=dict)
    offset: int = 0
    applied: list[dict[str, Any]] = field(default_factory=list)

    def partition(self, key: str) -> int:
        return partition_of(key.encode(), HASH_RANGE, PARTITIONS)

    def write(self, request: dict[str, Any], *keys: str) -> dict[str, Any]:
        """Apply to keys of one partition, once; the outcome of (client, seq) for ever."""
        self.offset += 1
        place = (self.partition(keys[0]), request["client"])
        name = (*place, request["seq"])
        if name in self.outcomes:
            return self.outcomes[name]
        if request["seq"] <= self.highest.get(place, 0):
            return {"outcome": "superseded"}
        self.highest[place] = request["seq"]
        for key in keys:
            self.outcomes[name] = self._apply(request, key)
        return self.outcomes[name]

    def _apply(self, request: dict[str, Any], key: str) -> dict[str, Any]:
        cmd, version = request["cmd"], self.versions.get(key, 0)
        if cmd == "result":
            return {"outcome": "unused"}
        if cmd == "incr":
            old = self.values.get(key, 0)
            if type(old) is not int:
                return {"outcome": "not_integer"}
            value = old + request["by"]
        else:
            held = not request.get("if_absent") or key not in self.values
            if cmd == "cas":
                held = request["version"] == version if "version" in request else request["expected"] == self.values.get(key)
            if not held:
                return {"outcome": "condition", "version": version}
            value = request["values"][key] if cmd == "mset" else request.get("value")
        self.applied.append({"key": key, "seq": request["seq"], "value": value})
        self.versions[key] = version + 1
        if cmd == "delete":
            self.values.pop(key, None)
        else:
            self.values[key] = value
        return {"outcome": "applied", "value": value, "version": version + 1}


@dataclass
class Overlord:
    """One overlord's door. `refuse`: command → error code that it answers with, once each; `silent`: commands it swallows."""

    address: str
    store: Store
    overlords: list[str]
    is_alive: bool = True
    nodes: dict[str, str] = field(default_factory=dict)
    refuse: list[tuple[str, str]] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    seen: list[dict[str, Any]] = field(default_factory=list)

    def handle(self, frame: bytes) -> dict[str, Any] | None:
        """The reply to a frame; None for none."""
        request = decode(frame)
        self.seen.append(request)
        cmd = request["cmd"]
        if cmd in self.silent:
            return None
        for at, (refused, code) in enumerate(self.refuse):
            if refused == cmd:
                del self.refuse[at]
                return {"id": request["id"], "error": code, "message": "as told", "retriable": True}
        answer = self._answer(cmd, request)
        return {"id": request["id"], "position": f"gen:0:{self.store.offset}", **answer}

    def _answer(self, cmd: str, request: dict[str, Any]) -> dict[str, Any]:
        store = self.store
        if cmd == "topology":
            replicas = [list(self.nodes)] * PARTITIONS
            where = {"hash_range": HASH_RANGE, "partitions": PARTITIONS, "overlords": [a[6:] for a in self.overlords]}
            return {**where, "generation": "gen", "epoch": 1, "nodes": self.nodes, "replicas": replicas}
        if cmd == "get":
            key = request["key"]
            return {"value": store.values[key], "version": store.versions[key]} if key in store.values else {"version": 0}
        if cmd == "scan":
            keys = sorted(key for key in store.values if key.startswith(request["prefix"]) and key > request.get("after", ""))
            page = keys[: request["limit"]]
            return {"items": [[key, store.values[key]] for key in page], "next": page[-1] if keys != page else None}
        if cmd == "state":
            return {"state": [{"node_id": "n1", "role": "master", "key_count": len(store.values), "cpu_percent": 1.25}]}
        if cmd == "overlord_state":
            return {"overlord_state": [{"overlord_id": "10.0.0.1:5556", "name": "evil\x1b[2J", "is_running": True}]}
        if cmd == "mget":
            return {"values": {key: store.values[key] for key in request["keys"] if key in store.values}}
        if cmd == "mset":
            for partition in range(PARTITIONS):
                keys = [key for key in request["values"] if store.partition(key) == partition]
                if keys:
                    store.write(request, *keys)
            return {"ok": True, "count": len(request["values"])}
        outcome = store.write(request, request["key"])
        if cmd == "result":
            return outcome
        is_plain = cmd == "delete" or (cmd == "set" and "if_absent" not in request)
        if is_plain:  # acknowledged by the log; nobody looked at the outcome
            return {"ok": True, "value": request.get("value")}
        if outcome["outcome"] == "superseded":
            return {"error": "DIMINT_SUPERSEDED"}
        if outcome["outcome"] == "not_integer":
            return {"error": "DIMINT_NOT_INTEGER"}
        return {**outcome, "applied": outcome["outcome"] == "applied"}


class Simulation:
    """A session, its overlords and nodes, and the time between them."""

    def __init__(self, doors: Sequence[Overlord], *, seed: int = 0, loss: float = 0.0, seeds: int = 1, **options: Any) -> None:
        self.doors = {door.address: door for door in doors}
        self.now = 1000.0
        self.random = random.Random(seed)
        self.loss = loss
        self.latency_s = 0.001
        addresses = [door.address for door in doors][:seeds]
        self.session = Session(addresses, client="me", choose=self.random.choice, **options)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._connections: dict[str, int] = {}

    def submit(self, op: Operation[Any], timeout_s: float = 5.0, on_done: Callable[[Call], None] | None = None) -> Call:
        call = self.session.submit(op, self.now, timeout_s, on_done)
        self._perform()
        return call

    def run(self, op: Operation[Any], timeout_s: float = 5.0) -> Any:
        """Submit and wait; its result."""
        call = self.submit(op, timeout_s)
        self.until_done([call])
        return call.result()

    def until_done(self, calls: Sequence[Call]) -> None:
        while not all(call.done for call in calls):
            self._step()

    def at(self, after_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + after_s, self._count, action))

    def kill(self, address: str) -> None:
        self.doors[address].is_alive = False
        self._connections[address] = self._connections.get(address, 0) + 1

    def _step(self) -> None:
        wake = self.session.next_wake()
        assert wake is not None
        if self._events and self._events[0][0] <= wake:
            self.now, _, action = heapq.heappop(self._events)
            action()
        else:
            self.now = max(self.now, wake)
        self.session.tick(self.now)
        self._perform()

    def _perform(self) -> None:
        for effect in self.session.take_effects():
            if isinstance(effect, Drop):
                self._connections[effect.address] = self._connections.get(effect.address, 0) + 1
            else:
                self._carry(effect)

    def _carry(self, send: Send) -> None:
        connection = self._connections.get(send.address, 0)

        def arrive() -> None:
            door = self.doors.get(send.address)
            if door is None or not door.is_alive or self.random.random() < self.loss:
                return
            reply = door.handle(send.frame)
            if reply is not None and self.random.random() >= self.loss:
                self.at(self.latency_s, lambda: back(json.dumps(reply).encode()))

        def back(frame: bytes) -> None:
            if self._connections.get(send.address, 0) == connection:
                self.session.received(send.address, frame, self.now)

        self.at(self.latency_s, arrive)


def overlords(count: int) -> list[Overlord]:
    """So many overlords of one system."""
    store = Store()
    addresses = [f"tcp://10.0.0.{number}:5556" for number in range(1, count + 1)]
    return [Overlord(address, store, addresses) for address in addresses]
