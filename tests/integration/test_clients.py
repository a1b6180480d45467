"""Both clients against a real overlord and a real node on an embedded log."""

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dimint.client import Client
from dimint.errors import NotInteger, ParseError, TooLarge
from tests.support.both_clients import KINDS, make_client
from tests.support.kv_system import KvSystem, kv_system


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvSystem]:
    """One overlord and one node for all tests here; each test uses keys of its own."""
    with kv_system(tmp_path_factory.mktemp("kv"), nodes=1) as running:
        yield running


@pytest.fixture(params=[(kind, direct) for kind in KINDS for direct in (True, False)], ids=str)
def client(request: pytest.FixtureRequest, system: KvSystem) -> Iterator[Any]:
    """Either client, reading from the nodes or through the overlord."""
    kind, direct = request.param
    with make_client(kind, system.address, direct_reads=direct) as made:
        yield made


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key of the test's own."""
    return str(request.node.name)


@pytest.mark.parametrize("consistency", ["weak", "session", "strong"])
def test_a_value_comes_back(client: Any, key: str, consistency: str) -> None:
    """Whatever it is, right after it was written."""
    for value in ({"a": [1, None, True, 1.5, "ü"]}, "text", 2**200 + 1, b"\x00\xff", {"b": [b"x", 1]}, None, False, ""):
        assert client.set(key, value) is True
        if consistency == "weak":
            continue
        assert client.get(key, "missing", consistency=consistency) == value
    assert client.get(key + "?", "missing", consistency=consistency) == "missing"


def test_versions_rise_and_start_anew_never(client: Any, key: str) -> None:
    """A version is never used twice, not even after a delete."""
    client.set(key, 1)
    first = client.get_versioned(key)
    client.set(key, 1)
    second = client.get_versioned(key)
    client.delete(key)
    assert client.get_versioned(key) == (None, 0)
    client.set(key, 1)
    third = client.get_versioned(key)
    assert 0 < first.version < second.version < third.version


def test_conditions(client: Any, key: str) -> None:
    """if_absent, if_present and cas say whether they applied."""
    assert client.set(key, 1, if_present=True) is False
    assert client.set(key, 1, if_absent=True) is True
    assert client.set(key, 2, if_absent=True) is False
    assert client.set(key, 2, if_present=True) is True
    assert not client.cas(key, 3, expected=1)
    applied = client.cas(key, 3, expected=2)
    assert applied
    assert client.get_versioned(key) == (3, applied.version)
    assert client.cas(key, b"4", version=applied.version).applied
    assert client.cas(key, 5, expected=b"4").applied
    assert not client.cas(key, 6, version=applied.version).applied
    assert not client.cas(key, 6, version=0).applied
    assert client.cas(key + "new", 6, version=0).applied


def test_counting(client: Any, key: str) -> None:
    """Integers of any size; anything else is refused."""
    assert client.incr(key) == 1
    assert client.incr(key, -5) == -4
    client.set(key, 10**30)
    assert client.incr(key, 1) == 10**30 + 1
    assert client.get(key) == 10**30 + 1
    client.set(key, "text")
    with pytest.raises(NotInteger):
        client.incr(key)


def test_many_keys(client: Any, key: str) -> None:
    """mset, mget and scan over all partitions, binary values and long integers beside each other."""
    values: dict[str, Any] = {f"{key}/{n:03}": n for n in range(250)}
    values[f"{key}/007"] = 2**70
    client.mset(values)
    client.set(f"{key}/100", b"\xff")
    values[f"{key}/100"] = b"\xff"
    assert client.mget([*values, key + "?"]) == values
    assert dict(client.scan(key + "/", page_size=40)) == values
    assert [found for found, _ in client.scan(key + "/", page_size=40)] == sorted(values)
    assert [found for found, _ in client.scan(key + "/", limit=7)] == sorted(values)[:7]
    assert list(client.scan(key + "?")) == []
    client.mset({})
    assert client.mget([]) == {}


def test_expiry(client: Any, key: str) -> None:
    """A value with a time to live goes, one without stays."""
    client.set(key, 1, ttl=0.3)
    client.set(key + "stays", 1, ttl=0.3)
    client.set(key + "stays", 2)
    assert client.get(key) == 1
    deadline = time.monotonic() + 10
    while client.get(key, consistency="strong") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get(key + "stays") == 2


def test_keys(client: Any) -> None:
    """Numbers, booleans and None are text; too long, empty and other things are refused."""
    client.set(1.5, "number")
    assert client.get("1.5") == "number"
    client.set(None, "nothing")
    assert client.get("None") == "nothing"
    client.set("ü" * 255 + "x", 1)
    assert client.get("ü" * 255 + "x") == 1
    for bad in ("", [1], "\ud800", math.nan):
        with pytest.raises(ParseError):
            client.get(bad)
    with pytest.raises(TooLarge):
        client.set("x" * 512, 1)


def test_calls_at_once_keep_the_order_of_a_key(client: Any, key: str) -> None:
    """What was sent later is applied later."""
    client.together(*[("set", key, n) for n in range(500)])
    assert client.get(key) == 499
    assert client.together(*[("incr", key + "n") for _ in range(500)]) == list(range(1, 501))


def test_a_result_is_settled_for_ever(client: Any, key: str) -> None:
    """An unused number is taken by the question; an applied one gives its outcome."""
    assert client.result(key, "somebody", 5).name == "unused"
    assert client.result(key, "somebody", 5).name == "unused"
    assert client.incr(key) == 1
    seq = next(seq for seq in range(1, 50) if client.result(key, client.client_id, seq).name == "applied")
    outcome = client.result(key, client.client_id, seq)
    assert outcome.applied
    assert outcome.value == 1


def test_questions_about_the_system(client: Any, system: KvSystem) -> None:
    """state, overlord_state, overlords, topology and status."""
    (node,) = client.state()
    assert node["role"] == "master"
    assert node["key_count"] >= 0
    (overlord,) = client.overlord_state()
    assert overlord["overlord_id"] == system.address
    assert client.overlords() == [system.address]
    topology = client.topology()
    assert topology["overlords"] == [system.address]
    assert len(topology["replicas"]) == topology["partitions"] == len(client.status()["partitions"])


def test_one_client_reads_what_another_saw(system: KvSystem, key: str) -> None:
    """Given its tokens."""
    with Client(system.address) as one, Client(system.address) as two:
        for n in range(50):
            one.set(key, n)
            with Client(system.address, tokens=one.tokens()) as three:
                assert three.get(key) == n
            assert two.get(key, consistency="strong") == n


def test_strong_reads_are_never_old(system: KvSystem, key: str) -> None:
    """While one thread writes rising numbers, a strong read by another gives at least what was acknowledged before it."""
    acknowledged = [0]
    stopping = threading.Event()

    def write() -> None:
        with Client(system.address) as client:
            number = 0
            while not stopping.is_set():
                number += 1
                client.set(key, number)
                acknowledged[0] = number

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with Client(system.address, consistency="strong") as client:
            for _ in range(200):
                at_least = acknowledged[0]
                assert client.get(key, 0) >= at_least
    finally:
        stopping.set()
        writer.join(20)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.lists(KEYS, min_size=1, max_size=5, unique=True), value=VALUES)
def test_any_key_and_value_round_trip(system: KvSystem, keys: list[str], value: Any) -> None:
    """Through the real wire, log and store."""
    client = _shared(system)
    client.mset({key: [key, value] for key in keys})
    assert client.mget(keys) == {key: [key, value] for key in keys}


_clients: dict[Path, Client] = {}


def _shared(system: KvSystem) -> Client:
    if system.directory not in _clients:
        _clients[system.directory] = Client(system.address)
    return _clients[system.directory]


@pytest.fixture(scope="module", autouse=True)
def _close_shared() -> Iterator[None]:
    yield
    for client in _clients.values():
        client.close()
    _clients.clear()
