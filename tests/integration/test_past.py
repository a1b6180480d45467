"""The past of keys through a running system: both clients, both kinds of log, and what becomes of it when processes die."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from dimint.client import Client
from dimint.errors import BadTime, NodeNotAvailable, ParseError
from tests.support.both_clients import KINDS, make_client
from tests.support.kv_system import KvSystem, kv_system
from tests.support.replay_log import new_location


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvSystem]:
    """A running store with a consumer."""
    folder = tmp_path_factory.mktemp(request.param)
    flags = ["--log", new_location("kafka", folder)] if request.param == "kafka" else []
    with kv_system(folder, flags=flags, consumers=1) as running:
        yield running


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, system: KvSystem) -> Iterator[Any]:
    with make_client(request.param, system.address, timeout=30) as made:
        yield made


def moment() -> float:
    """Now, with nothing else at the same time."""
    time.sleep(0.02)
    now = time.time()
    time.sleep(0.02)
    return now


def test_any_past_state(client: Any, request: pytest.FixtureRequest) -> None:
    """A key, keys, every change and every difference as they were, whatever the values are."""
    own = f"{request.node.name}:"
    binary, long = {"b": [b"\x00\xff", 1]}, 2**200
    client.set(own + "a", "one")
    client.set(own + "b", binary)
    client.set(own + "n", long)
    assert client.incr(own + "count", 5) == 5
    then = moment()
    client.incr(own + "count", 2)
    client.set(own + "a", "two")
    client.delete(own + "b")
    assert not client.cas(own + "a", "never", version=1)
    client.set(own + "new", None)

    past = client.at(then)
    assert [past.get(own + name, "missing") for name in ("a", "b", "n", "count", "new")] == ["one", binary, long, 5, "missing"]
    assert dict(past.scan(own)) == {own + "a": "one", own + "b": binary, own + "count": 5, own + "n": long}
    assert [key for key, _ in past.scan(own, limit=2)] == [own + "a", own + "b"]
    assert past.contains(own + "a")
    assert not client.at("2001-01-01").contains(own + "a")
    change = past.get_change(own + "count")
    assert (change.kind, change.value, change.by.client) == ("incr", 5, client.client_id)
    assert change.log_time_us <= then * 1e6
    assert change.position.startswith("dimint.kv/")

    assert client.at(change.position).get(own + "count") == 5
    changes = list(client.history(own + "a"))
    assert client.at(changes[0].position).get(own + "a") == "one"
    assert dict(client.at(f"{changes[1].position}").scan(own + "a")) == {own + "a": "two"}
    assert list(client.history(own + "a", end=changes[0].position)) == changes[:1]
    assert [each.key for each in client.diff(changes[0].position, changes[1].position, prefix=own + "a")] == [own + "a"]
    assert [(each.kind, each.value) for each in changes] == [("set", "one"), ("set", "two")]
    assert list(client.history(own + "a", newest_first=True)) == changes[::-1]
    assert list(client.history(own + "a", end=then)) == changes[:1]
    assert list(client.history(own + "a", start=then, end="now")) == changes[1:]
    assert [each.removed for each in client.history(own + "b")] == [False, True]
    assert list(client.history(own + "nobody")) == []

    found = {each.key[len(own) :]: (each.before and each.before.value, each.after and each.after.value)
             for each in client.diff(then, prefix=own)}  # fmt: skip
    assert found == {"a": ("one", "two"), "b": (binary, None), "count": (5, 7), "new": (None, None)}
    assert list(client.diff("2001-01-01", "2002-01-01", prefix=own)) == []


def test_pages(client: Any, request: pytest.FixtureRequest) -> None:
    """Everything comes once, however many pages it takes, by number or by size."""
    own = f"{request.node.name}:"
    start = moment()
    client.mset({f"{own}{number:04}": number for number in range(450)})
    for _ in range(3):
        client.mset({f"{own}large{number}": "x" * 700_000 for number in range(5)})
    client.together(*[("incr", own + "n")] * 420)
    keys = sorted([*(f"{own}{number:04}" for number in range(450)), *(f"{own}large{number}" for number in range(5)), own + "n"])
    assert [key for key, _ in client.at("now").scan(own)] == keys
    assert [each.key for each in client.diff(start, prefix=own)] == keys
    assert len(list(client.history(own + "large1"))) == 3
    changes = list(client.history(own + "n"))
    assert len(changes) == 420
    assert list(client.history(own + "n", newest_first=True, limit=250)) == changes[::-1][:250]


def test_bad_questions(client: Any) -> None:
    """What cannot be asked is refused by name, here or there."""
    with pytest.raises(BadTime, match="is not a time"):
        client.at("soon")
    with pytest.raises(BadTime, match="not between 1970 and 9999"):
        client.at(-5)
    with pytest.raises(ParseError):
        client.at("now").get([])
    with pytest.raises(ParseError, match="is not a position"):
        client.at("dimint.kv/first").get("k")
    with pytest.raises(ParseError, match="is none of its partitions"):
        client.at("dimint.status/0@0").get("k")
    with pytest.raises(ParseError, match=r"there is no dimint\.kv/0@99999"):
        dict(client.at("dimint.kv/0@99999").scan())


def test_nothing_acknowledged_is_missing(system: KvSystem) -> None:
    """A write that was acknowledged is in the answer to the next question, every time."""
    with Client(system.address, timeout=30) as client, Client(system.address, timeout=30) as other:
        for number in range(30):
            client.set("latest", number)
            assert next(iter(other.history("latest", newest_first=True))).value == number


def test_consumers_that_die(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a consumer the answer is a named error; with one that was killed in the middle, the same history as before."""
    with kv_system(tmp_path_factory.mktemp("dies")) as running, Client(running.address, timeout=1) as client:
        for number in range(600):
            client.incr("n") if number % 100 == 0 else client.mset({f"k{number}": number, "all": number})
        with pytest.raises(NodeNotAvailable, match="does `dimint consumer start` run"):
            list(client.history("n"))
        for _ in range(3):  # killed while the index is made for the first time
            running.start("consumer-1")
            with Client(running.address, timeout=0.5) as hasty:
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:
                    try:
                        next(iter(hasty.history("n")), None)
                        break
                    except NodeNotAvailable:
                        continue
                    except Exception:  # noqa: BLE001 - it was asked: that is all that is wanted here
                        break
            running.kill("consumer-1")
        running.start("consumer-1")
        with Client(running.address, timeout=30) as patient:
            assert [each.value for each in patient.history("n")] == list(range(1, 7))
            assert len(list(patient.history("all"))) == 594
