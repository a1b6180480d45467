"""A running overlord and the worst clients: real sockets, real threads, a log in memory."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from dimint.door import (
    Answer,
    Answers,
    Due,
    Found,
    Hello,
    Outcome,
    Outcomes,
    Progress,
    Replica,
    Welcome,
    decode_from_overlord,
    encode,
)
from dimint.errors import SettingsError
from dimint.events import CLUSTER_TOPIC
from dimint.limits import REPLIES_QUEUED_MAX, REQUEST_MAX_BYTES
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.opening import GenesisSettings, genesis
from dimint.log.reading import Counted, Intake
from dimint.overlord.loop import Addresses, Overlord
from dimint.overlord.membership import Ports
from dimint.registry.memory import MemoryHub, MemoryRegistry
from dimint.system_clock import SystemClock

CLOCK = SystemClock()


class Running:
    """One overlord on a thread of its own."""

    def __init__(self, broker: MemoryBroker, hub: MemoryHub, *, port: int = 0) -> None:
        self.log = MemoryLog(broker)
        self.registry = MemoryRegistry(hub)
        made = genesis(self.log, wanted=GenesisSettings(kv_partitions=2), clock=CLOCK, host="h", process="p")
        self.ready = threading.Event()
        self.errors: list[BaseException] = []
        self.overlord = Overlord(
            made,
            Ports(self.log, self.registry, CLOCK),
            host="h",
            addresses=Addresses("127.0.0.1", "127.0.0.1", port, 0),
            heartbeat_s=0.5,
            ready=self.ready.set,
        )
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            self.overlord.run()
        except SettingsError as error:
            self.errors.append(error)
            self.ready.set()

    def stop(self) -> None:
        self.overlord.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.registry.close()
        self.log.close()


@pytest.fixture
def world() -> tuple[MemoryBroker, MemoryHub]:
    """An empty log and an empty registry."""
    return MemoryBroker(clock=CLOCK), MemoryHub()


@pytest.fixture
def running(world: tuple[MemoryBroker, MemoryHub]) -> Iterator[Running]:
    """One overlord that answers."""
    made = Running(*world)
    assert made.ready.wait(10)
    yield made
    made.stop()


Connect = Callable[..., "zmq.Socket[bytes]"]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes a client of an overlord; all are closed at the end."""
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 4096
    made: list[zmq.Socket[bytes]] = []

    def new(running: Running, kind: int = zmq.DEALER, address: str = "", name: bytes = b"") -> "zmq.Socket[bytes]":
        client: zmq.Socket[bytes] = context.socket(kind)
        if name:
            client.setsockopt(zmq.IDENTITY, name)
        made.append(client)
        for option, value in ((zmq.RCVTIMEO, 10_000), (zmq.SNDHWM, 200_000), (zmq.RCVHWM, 1), (zmq.LINGER, 0)):
            client.setsockopt(option, value)
        client.connect(address or running.overlord.client_address)
        return client

    yield new
    for client in made:
        client.close()
    context.term()


def ask(client: "zmq.Socket[bytes]", **request: Any) -> Any:
    client.send(json.dumps(request).encode())
    return json.loads(client.recv())


def test_frames_of_every_number(connect: Connect, running: Running) -> None:
    """REQ gets its delimiter back; messages of no or too many frames are parse errors, in order."""
    client = connect(running)
    client.send(b"")
    client.send_multipart([b"a", b"b"])
    client.send_multipart([b"", b"", b"{}"])
    client.send_multipart([b"", b'{"cmd":"get_overlords"}'])
    client.send(b'{"cmd":"set","key":"k","value":1}')
    assert client.recv_multipart() == [b'{"error":"DIMINT_PARSE_ERROR"}']
    assert client.recv_multipart() == [b'{"error":"DIMINT_PARSE_ERROR"}']
    assert client.recv_multipart() == [b"", b'{"error":"DIMINT_PARSE_ERROR"}']
    assert client.recv_multipart()[0] == b""
    assert client.recv_multipart() == [b'{"value":1}']
    req = connect(running, zmq.REQ)
    assert ask(req, cmd="set", key="k", value=2) == {"value": 2}
    assert ask(req, cmd="nope") == {"error": "DIMINT_NOT_FOUND"}


def test_a_frame_too_large_ends_its_connection_only(connect: Connect, running: Running) -> None:
    """Whoever sends too much is dropped; everybody else is served."""
    bad, good = connect(running), connect(running)
    bad.send(b"x" * (REQUEST_MAX_BYTES + 1))
    assert ask(good, cmd="set", key="k", value=1) == {"value": 1}
    assert not bad.poll(200)


def test_many_idle_connections(connect: Connect, running: Running) -> None:
    """Connections that say nothing cost nothing."""
    idle = [connect(running) for _ in range(300)]
    client = connect(running)
    assert ask(client, cmd="set", key="k", value=1) == {"value": 1}
    for other in idle:
        other.close()
    assert ask(client, cmd="set", key="k", value=2) == {"value": 2}


def test_two_connections_with_one_identity(connect: Connect, running: Running) -> None:
    """The first one keeps it and gets its own replies only; when it is gone another may have it."""
    first = connect(running, name=b"me")
    assert ask(first, cmd="set", key="k", value=1) == {"value": 1}
    second = connect(running, name=b"me")
    second.send(b'{"cmd":"set","key":"k","value":2}')
    assert not second.poll(300)
    assert ask(first, cmd="set", key="k", value=3) == {"value": 3}
    first.close()
    deadline = time.monotonic() + 10
    while True:
        third = connect(running, name=b"me")
        third.send(b'{"cmd":"set","key":"k","value":4}')
        if third.poll(500):
            assert third.recv() == b'{"value":4}'
            return
        assert time.monotonic() < deadline
        third.close()


def test_a_client_that_never_reads(connect: Connect, running: Running) -> None:
    """Its replies are dropped above a bound; others are served all the while, and nothing stays in memory."""
    deaf, good = connect(running), connect(running)
    text = json.dumps({"cmd": "set", "key": "k", "value": "x" * 2000}).encode()
    for number in range(4 * REPLIES_QUEUED_MAX):
        deaf.send(text)
        if number % 10_000 == 0:
            assert ask(good, cmd="set", key="g", value=number) == {"value": number}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not running.overlord.dropped_replies:
        assert ask(good, cmd="set", key="g", value=1) == {"value": 1}
        time.sleep(0.05)
    assert running.overlord.dropped_replies
    deaf.close()
    assert ask(good, cmd="set", key="g", value=2) == {"value": 2}


def test_the_overlord_shows_itself_within_a_second(connect: Connect, running: Running) -> None:
    """Its first heartbeat is written at once and answered from the log."""
    client = connect(running)
    deadline = time.monotonic() + 5
    while (state := ask(client, cmd="overlord_state")["overlord_state"][0])["cmdline"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert state["overlord_id"] == running.overlord.client_address.removeprefix("tcp://")
    assert state["is_running"] is True
    assert len(state["memory_info"]) > 2


def test_two_overlords_and_their_history(connect: Connect, world: tuple[MemoryBroker, MemoryHub], running: Running) -> None:
    """Each knows of the other; when the elected one ends, the other writes the history on."""
    second = Running(*world)
    assert second.ready.wait(10)
    client = connect(running)
    both = sorted(one.overlord.client_address.removeprefix("tcp://") for one in (running, second))
    deadline = time.monotonic() + 5
    while ask(client, cmd="get_overlords")["overlords"] != both:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    gone = second.overlord.client_address.removeprefix("tcp://")
    while [event[:2] for event in history(running)].count(["overlord.joined", gone]) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second.stop()
    deadline = time.monotonic() + 5
    while ["overlord.left", gone] not in [event[:2] for event in history(running)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def history(running: Running) -> list[Any]:
    """The events of the cluster topic."""
    intake = Intake(CLUSTER_TOPIC, 0)
    taken = [intake.take(record) for record in running.log.read(CLUSTER_TOPIC, 0, 0)]
    return [event for one in taken if isinstance(one, Counted) for event in one.events]


def test_a_hostile_node_door(connect: Connect, running: Running) -> None:
    """Garbage, foreign logs, unknown nodes, claims beyond the log and two with one id change nothing for clients."""
    node_door = running.overlord.node_address
    client, one, two = connect(running), connect(running, address=node_door), connect(running, address=node_door)
    generation = running.log.describe().generation

    def hello(node: "zmq.Socket[bytes]", id: str, generation: str) -> Welcome:
        node.send(encode(Hello(id, generation, "tcp://127.0.0.1:1")))
        welcome = decode_from_overlord(node.recv())
        assert isinstance(welcome, Welcome)
        return welcome

    for frame in (b"", b"x", b"\xff" * 5000, b"\x91" * 100_000, b"{}", encode(Progress("never said hello", 1, []))[:-1]):
        one.send(frame)
    one.send_multipart([b"a", b"b"])
    refused = hello(one, "n" * 32, "another log").refused
    assert refused is not None
    assert "another log" in refused
    assert hello(one, "n" * 32, generation).refused is None
    assert hello(two, "n" * 32, generation).refused is None
    lies = [Replica(at, 1 << 60, -5, -1, True, "d", 1 << 62) for at in (-1, 0, 1, 2, 1 << 40)]
    for node in (one, two, one):
        node.send(encode(Progress("n" * 32, 1 << 60, lies)))
        node.send(encode(Answers([Answer(1, 5, [Found("k", b"Jtrue", 1)]), Answer(-1, 0, [], "nonsense")])))
        node.send(encode(Outcomes(1 << 40, b"w", -1, -1, {-1: Outcome("what")})))
        node.send(encode(Due(99, [("k", 1)])))
        node.send(encode(Due(0, [("k", 1)] * 5000)))
    assert ask(client, cmd="set", key="k", value=1) == {"value": 1}
    assert ask(client, cmd="get", key="k", timeout=0.3)["error"] in ("DIMINT_NODE_NOT_AVAILABLE", "DIMINT_TIMEOUT")
    assert ask(client, cmd="state") == {"state": []}
    assert len(ask(client, cmd="status")["partitions"]) == 2
    assert ask(client, cmd="topology")["nodes"] == {}


def test_a_port_in_use_is_one_clear_line(world: tuple[MemoryBroker, MemoryHub], running: Running) -> None:
    """A second overlord on the same port says so and ends."""
    port = int(running.overlord.client_address.rpartition(":")[2])
    second = Running(*world, port=port)
    assert second.ready.wait(10)
    second.stop()
    (error,) = second.errors
    assert f"port {port}" in str(error)
    assert "\n" not in str(error)


def test_stop_answers_what_is_under_way(connect: Connect, world: tuple[MemoryBroker, MemoryHub]) -> None:
    """A read that waits for a node is answered when the overlord ends."""
    running = Running(*world)
    assert running.ready.wait(10)
    client = connect(running)
    client.send(b'{"cmd":"get","key":"k","timeout":30}')
    time.sleep(0.2)
    running.stop()
    assert b"error" in client.recv()
