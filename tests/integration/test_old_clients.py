"""Clients that know nothing of this project: plain ZeroMQ sockets and JSON, exactly the fields of the original protocol."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from dimint.limits import WEAK_WAIT_MS
from tests.support.kv_system import KvSystem, kv_system
from tests.support.system import OldClient


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvSystem]:
    """One overlord and one node."""
    with kv_system(tmp_path_factory.mktemp("kv")) as running:
        yield running


@pytest.fixture(scope="module")
def context() -> Iterator["zmq.Context[Any]"]:
    """One ZeroMQ context."""
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ], ids=["dealer", "req"])
def test_the_original_commands(system: KvSystem, kind: int) -> None:
    """Replies have exactly the original's fields."""
    with OldClient(f"tcp://{system.address}", kind=kind) as client:
        assert client("get_overlords") == {"overlords": [system.address]}
        assert client("get", key="never") == {}
        for value in (1, "text", [1, {"a": None}], 2**80, 1.5, None):
            assert client("set", key="k", value=value) == {"value": value}
            for consistency in ("week", "weak", "strong", None):
                fields = {} if consistency is None else {"consistency": consistency}
                assert client("get", key="k", **fields) == {"value": value}
        (node,) = client("state")["state"]
        assert {"node_id", "role", "key_count", "cpu_percent", "memory_info"} <= set(node)
        (overlord,) = client("overlord_state")["overlord_state"]
        names = "overlord_id cwd name cmdline create_time cpu_percent memory_percent memory_info is_running"
        assert set(overlord) == set(names.split())


def test_keys_are_what_python_makes_of_them(system: KvSystem) -> None:
    """`get 1` finds what `set "1"` wrote."""
    with OldClient(f"tcp://{system.address}") as client:
        for stored, asked in (("1", 1), ("1.5", 1.5), ("True", True), ("None", None)):
            client("set", key=stored, value=stored)
            assert client("get", key=asked) == {"value": stored}


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"", "DIMINT_PARSE_ERROR"),
        (b"{", "DIMINT_PARSE_ERROR"),
        (b"[1]", "DIMINT_PARSE_ERROR"),
        (b"\xff\xfe", "DIMINT_PARSE_ERROR"),
        (b"{}", "DIMINT_PARSE_ERROR"),
        (b'{"cmd":"get"}', "DIMINT_PARSE_ERROR"),
        (b'{"cmd":"get","key":""}', "DIMINT_PARSE_ERROR"),
        (b'{"cmd":"get","key":[1]}', "DIMINT_PARSE_ERROR"),
        (b'{"cmd":"set","key":"k"}', "DIMINT_PARSE_ERROR"),
        (b'{"cmd":"set","key":"k","value":NaN}', "DIMINT_PARSE_ERROR"),
        (b'{"cmd":"nonsense"}', "DIMINT_NOT_FOUND"),
    ],
)
def test_bad_requests_get_a_named_error(system: KvSystem, frame: bytes, error: str) -> None:
    """And the connection goes on."""
    with OldClient(f"tcp://{system.address}") as client:
        client.socket.send(frame)
        assert json.loads(client.socket.recv()) == {"error": error}
        assert client("set", key="after", value=1) == {"value": 1}


def test_replies_keep_the_order_of_requests(system: KvSystem) -> None:
    """Many requests at once on one connection, slow strong reads among fast ones."""
    with OldClient(f"tcp://{system.address}") as client:
        for number in range(50):
            client("set", key=f"there{number}", value=number)
        for number in range(300):
            client.socket.send_json({"cmd": "set", "key": f"order{number}", "value": number})
            consistency = "strong" if number % 3 == 0 else "weak"
            client.socket.send_json({"cmd": "get", "key": f"there{number % 50}", "consistency": consistency})
        for number in range(300):
            assert client.socket.recv_json() == {"value": number}
            assert client.socket.recv_json() == {"value": number % 50}


def test_msgpack_gets_msgpack(system: KvSystem) -> None:
    """Binary values too; a JSON client that reads one is told."""
    with OldClient(f"tcp://{system.address}") as client:
        client.socket.send(msgpack.packb({"cmd": "set", "key": "binary", "value": b"\xff"}))
        assert msgpack.unpackb(client.socket.recv()) == {"value": b"\xff"}
        client.socket.send(msgpack.packb({"cmd": "get", "key": "binary"}))
        assert msgpack.unpackb(client.socket.recv()) == {"value": b"\xff"}
        assert client("get", key="binary") == {"error": "DIMINT_NOT_JSON"}


@pytest.mark.timeout(300)
def test_five_thousand_keys_one_request_at_a_time(system: KvSystem) -> None:
    """Every key is set, read at once, and read strongly; none is wrong or missing, and no answer waits for a clock's tick."""
    took: list[float] = []
    with OldClient(f"tcp://{system.address}") as client:
        for number in range(5000):
            key = f"loop{number}"
            start = time.monotonic()
            assert client("set", key=key, value=number) == {"value": number}
            took.append(time.monotonic() - start)
            start = time.monotonic()
            found = client("get", key=key)
            # a weak read waits so long for a replica that a busy machine holds up, then says what is there
            assert found == {"value": number} or (found == {} and time.monotonic() - start >= WEAK_WAIT_MS / 1000)
            if number % 25 == 0:
                assert client("get", key=key, consistency="strong") == {"value": number}
    assert sorted(took)[len(took) // 4] < 0.005, "also on a busy machine a quarter of them finds it idle"


def test_a_hundred_clients_at_once(context: Any, system: KvSystem) -> None:
    """Each reads its own writes."""
    problems: list[str] = []

    def use(name: int) -> None:
        with OldClient(f"tcp://{system.address}", context=context) as client:
            for number in range(10):
                written = client("set", key=f"client{name}", value=[name, number])
                read = client("get", key=f"client{name}")
                if not written == read == {"value": [name, number]}:
                    problems.append(f"{name}: {written} {read}")

    threads = [threading.Thread(target=use, args=(name,)) for name in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not problems
