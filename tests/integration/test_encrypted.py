"""A system with a key: everything goes on as without, encrypted, and nobody else gets in."""

import asyncio
import json
from pathlib import Path

import pytest
import zmq

from dimint.cli import main
from dimint.client import AsyncClient, Client
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.curve import create_key_file
from dimint.errors import DimintError
from tests.support.agent_process import agent
from tests.support.kv_system import kv_system
from tests.support.system import OldClient, wait_until


def test_with_the_key_and_without(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Both clients, direct reads, watches, a second node's snapshots, the past and the commands; strangers hear nothing."""
    key, other = tmp_path / "system.key", tmp_path / "other.key"
    create_key_file(key)
    create_key_file(other)
    with kv_system(tmp_path, nodes=2, slaves=1, consumers=1, flags=[f"--key_file={key}"]) as system:
        with Client(system.address, key_file=key, timeout=10) as client:
            with client.watch(prefix="") as changes:
                client.set("k", "secret")
                assert client.get("k") == "secret"
                assert client.incr("n", 2) == 2
                assert client.get("k", consistency="strong") == "secret"
                change = changes.next(10)
                assert change is not None
                assert (change.key, change.value) == ("k", "secret")
            assert [change.value for change in wait_until(lambda: _history(client), 20, "the history")] == ["secret"]
            wait_until(lambda: _copies(client) == {2}, 20, "the slave has its copies")
        asyncio.run(_ask(system.address, key))

        _expect_a_gpu_host(tmp_path, system.address, key, capfd)

        for stranger in (None, other):
            with Client(system.address, key_file=stranger, timeout=1) as client, pytest.raises(DimintError):
                client.get("k")
        with OldClient(f"tcp://{system.address}", timeout_s=1) as old, pytest.raises(zmq.Again):
            old("get", key="k")

        host, port = system.address.split(":")
        where = [f"--host={host}", f"--port_for_client={port}"]
        assert main(["history", "k", *where, f"--key_file={key}", "--timeout=20"]) == 0
        assert "\tset\t" in capfd.readouterr().out
        assert main(["get", "k", *where, f"--key_file={key}"]) == 0
        assert capfd.readouterr().out == "secret\n"
        assert main(["status", f"--data_dir={tmp_path}", f"--key_file={key}", "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["healthy"] is True
        assert main(["get", "k", *where, "--timeout=1"]) == 1
        errors = capfd.readouterr().err
        assert len(errors.splitlines()) == 1
        assert "key_file" in errors


def _expect_a_gpu_host(tmp_path: Path, address: str, key: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An agent elsewhere, as docs/agent.md has it: doctor, then samples that come to the tables."""
    (tmp_path / "gpu").mkdir()
    way = [f"--to=tcp://{address}", f"--key_file={key}", "--host_name=gpu-01"]
    assert main(["agent", "doctor", f"--data_dir={tmp_path}/gpu", *way, "--json"]) == 0
    assert f"tcp://{address} answers" in capfd.readouterr().out
    with agent(tmp_path / "gpu", *way, "--interval=0.2"), StatusReader(tmp_path / TABLES_FOLDER) as reader:
        (host,) = wait_until(reader.hosts, 20, "the host in the tables")
        wait_until(lambda: len(reader.last(host.id, 3)) == 3, 20, "samples in the tables")
    assert host.name == "gpu_01"


def _history(client: Client) -> list[object]:
    try:
        return list(client.history("k"))
    except DimintError:  # the consumer has just begun
        return []


def _copies(client: Client) -> set[int]:
    return {sum(one["caught_up"] for one in part["replicas"].values()) for part in client.status()["partitions"]}


async def _ask(address: str, key: Path) -> None:
    async with AsyncClient(address, key_file=key) as client:
        assert await client.get("k") == "secret"
