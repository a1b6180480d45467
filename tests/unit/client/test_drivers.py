"""What only the drivers do: sockets, threads, tasks, closing. Against a modelled overlord behind a real door."""

import asyncio
import inspect
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dimint.client import AsyncClient, Client
from dimint.errors import ClientClosed, NotApplied, NotInteger, OutcomeUnknown, SettingsError, TimedOut, WrongLog
from tests.support.both_clients import KINDS, make_client
from tests.support.fake_doors import FakeDoor, fake_door


@pytest.fixture
def door() -> Iterator[FakeDoor]:
    """A modelled overlord."""
    with fake_door() as made:
        yield made


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, door: FakeDoor) -> Iterator[Any]:
    """Either client, connected to the door."""
    with make_client(request.param, door.address) as made:
        yield made


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    """Whoever knows one knows the other; only the mapping and the pipeline are of the synchronous one alone."""

    def methods(cls: type) -> dict[str, list[str]]:
        public = {name: value for name, value in vars(cls).items() if not name.startswith("_") and callable(value)}
        return {name: list(inspect.signature(value).parameters) for name, value in public.items()}

    mine = methods(Client)
    del mine["pipeline"]
    assert methods(AsyncClient) == mine
    assert inspect.signature(AsyncClient.__init__) == inspect.signature(Client.__init__)


def test_calls_one_after_the_other(client: Any) -> None:
    """Set, read, count, compare, delete."""
    assert client.set("k", {"a": [1, 2]}) is True
    assert client.get("k") == {"a": [1, 2]}
    assert client.get_versioned("k") == ({"a": [1, 2]}, 1)
    assert client.incr("n") == 1
    assert client.incr("n", -3) == -2
    assert client.cas("k", 2, version=1).applied
    assert not client.cas("k", 3, expected="other")
    client.delete("k")
    assert client.get("k", "none") == "none"
    assert not client.contains("k")
    client.mset({"a": 1, "b": 2})
    assert client.mget(["b", "missing", "a"]) == {"b": 2, "a": 1}


def test_many_calls_at_once(client: Any) -> None:
    """More than the window holds, in order."""
    assert client.together(*[("incr", "n")] * 600) == list(range(1, 601))
    assert client.together(*[("get", "n")] * 300) == [600] * 300


def test_a_silent_server_ends_in_a_named_error_by_the_deadline(client: Any, door: FakeDoor) -> None:
    """Reads time out, writes are unknown until `result` settles them."""
    client.set("k", 1)
    door.overlord.silent = {"get", "set", "result"}
    start = time.monotonic()
    with pytest.raises(TimedOut):
        client.get("k", timeout=0.2)
    with pytest.raises(OutcomeUnknown) as caught:
        client.set("k", 2, timeout=0.2)
    assert time.monotonic() - start < 2
    assert len(client.unresolved()) == 1
    door.overlord.silent = set()
    assert client.result(caught.value).name == "unused"
    assert client.unresolved() == []


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_there(kind: str) -> None:
    """The errors say that nothing was sent."""
    with make_client(kind, "127.0.0.1:1", timeout=0.2) as client:
        with pytest.raises(TimedOut, match="no overlord answered"):
            client.get("k")
        with pytest.raises(NotApplied, match="nothing was sent"):
            client.incr("k")


@pytest.mark.parametrize("kind", KINDS)
def test_after_close_every_call_is_refused(kind: str, door: FakeDoor) -> None:
    """By name, and closing twice is nothing."""
    client: Any = Client(door.address) if kind == "sync" else AsyncClient(door.address)

    async def use() -> None:
        await client.set("k", 1)
        await client.close()
        await client.close()
        with pytest.raises(ClientClosed):
            await client.get("k")

    if kind == "asyncio":
        asyncio.run(use())
    else:
        client.set("k", 1)
        client.close()
        client.close()
        with pytest.raises(ClientClosed):
            client.get("k")


@pytest.mark.parametrize("address", ["", ":5556", "host:0", "host:99999", "host:port"])
def test_wrong_addresses_are_refused_at_once(address: str) -> None:
    """With a line that says how to write them."""
    with pytest.raises(SettingsError):
        Client(address)
    with pytest.raises(SettingsError):
        AsyncClient(address)


def test_tokens_go_from_client_to_client(door: FakeDoor) -> None:
    """What one has seen the other asks for; tokens of another log are refused by name until they are forgotten."""
    with Client(door.address) as one:
        one.set("k", 1)
        tokens = one.tokens()
    with Client(door.address, tokens=tokens) as two:
        assert two.tokens() == tokens
        assert two.get("k") == 1
        door.overlord.refuse = [("get", "DIMINT_WRONG_LOG")]
        with pytest.raises(WrongLog):
            two.get("k")
        two.forget_tokens()
        assert two.tokens() == []


def test_the_client_is_a_mapping(door: FakeDoor) -> None:
    """Brackets, `in` and `del`; a missing key is a KeyError."""
    with Client(door.address) as client:
        client["n"] = 1
        assert client["n"] == 1
        assert "n" in client
        del client["n"]
        assert "n" not in client
        assert object() not in client
        with pytest.raises(KeyError):
            client["n"]


def test_threads_share_a_client(door: FakeDoor) -> None:
    """Their calls take turns."""
    with Client(door.address) as client:
        threads = [threading.Thread(target=lambda: [client.incr("n") for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get("n") == 200


def test_a_pipeline_raises_the_first_error_after_all_have_ended(door: FakeDoor) -> None:
    """And each handle keeps its own."""
    with Client(door.address) as client:
        client.set("text", "x")
        pipeline = client.pipeline()
        bad, good = pipeline.incr("text"), pipeline.incr("n")
        with pytest.raises(NotInteger):
            pipeline.results()
        assert good.result() == 1
        with pytest.raises(NotInteger):
            bad.result()


def test_a_cancelled_write_is_unresolved(door: FakeDoor) -> None:
    """The task ends at once; what became of the write can be asked."""

    async def use() -> None:
        async with AsyncClient(door.address) as client:
            await client.set("k", 0)
            door.overlord.silent = {"incr"}
            task = asyncio.create_task(client.incr("n"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (unresolved,) = client.unresolved()
            assert (await client.result(*unresolved)).name == "unused"

    asyncio.run(use())


def test_closing_ends_tasks_that_wait(door: FakeDoor) -> None:
    """Each with ClientClosed."""

    async def use() -> None:
        client = AsyncClient(door.address)
        await client.set("k", 0)
        door.overlord.silent = {"get"}
        task = asyncio.create_task(client.get("k"))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(ClientClosed):
            await task

    asyncio.run(use())
