"""The past of keys from the shell, through a real system: history, get and scan at a time, diff, restore."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.client import Client
from tests.support.kv_system import KvSystem, kv_system
from tests.support.replay_log import new_location


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KvSystem, list[str]]]:
    """A running store, and the flags that name its log."""
    folder = tmp_path_factory.mktemp(request.param)
    where = ["--data_dir", str(folder)]
    if request.param == "kafka":
        where += ["--log", new_location("kafka", folder)]
    with kv_system(folder, flags=where[2:], consumers=1) as running:
        yield running, where


def test_past_and_restore(system: tuple[KvSystem, list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    """Who changed what and when, any value as it was, and back again by new events."""
    running, where = system

    def dimint(*arguments: str, code: int = 0) -> str:
        """What a command prints; what it complains of where it is to fail."""
        assert main(arguments) == code, capfd.readouterr().err
        found = capfd.readouterr()
        return found.err if code else found.out

    port = ["--port_for_client", running.address.rpartition(":")[2]]
    with Client(running.address) as client:
        client.set("user:1", {"name": "ann"})
        client.incr("visits", 5)
        client.set("user:2", "bob")
        time.sleep(0.05)
        then = f"@{time.time():.6f}"
        time.sleep(0.05)
        client.incr("visits", 2)
        client.delete("user:2")
        client.set("user:1", {"name": "eve"})
        client.cas("user:1", "never", version=1)
        client.set("user:3", "\x1b[2Jmallory")

    lines = [json.loads(line) for line in dimint("history", "user:1", "--json", *where).splitlines()]
    assert [(line["kind"], line["value"]) for line in lines] == [("set", {"name": "ann"}), ("set", {"name": "eve"})]
    assert all(line["by"]["host"] and line["position"].startswith("dimint.kv/") for line in lines)
    assert dimint("history", "visits", *where).count("\n") == 2
    assert dimint("history", "user:1", "--from", then, "--json", *where).count("\n") == 1
    assert dimint("history", "nobody", *where) == ""

    assert dimint("get", "user:2", "--at", then, *where) == "bob\n"
    assert dimint("get", "visits", "--at", then, "--json", *where).startswith('{"key":"visits","value":5,')
    assert "there was no key 'user:3'" in dimint("get", "user:3", "--at", then, *where, code=1)
    assert dimint("scan", "user:", "--at", then, *where) == 'user:1\t{"name":"ann"}\nuser:2\t"bob"\n'
    assert dimint("scan", "user:", "--keys", "--limit", "1", "--at", then, *where) == "user:1\n"
    assert "is not a time" in dimint("get", "x", "--at", "soon", *where, code=2)
    first, last = (line["position"] for line in lines)
    assert dimint("get", "user:1", "--at", first, *where) == '{"name":"ann"}\n'
    assert dimint("history", "user:1", "--from", last, "--to", last, "--json", *where).count("\n") == 1
    assert dimint("diff", "user:1", "--from", first, "--to", last, *where).startswith("~\tuser:1\t")
    assert "is none of its partitions" in dimint("get", "user:1", "--at", "dimint.status/0@1", *where, code=2)
    for at in ("dimint.kv/3@9999999", "dimint.kv/900@0"):
        assert "dimint.kv/" in dimint("scan", "--at", at, *where, code=1)
        assert "dimint.kv/" in dimint("scan", "--at", at, *port, code=1)

    shown = dimint("diff", "user:", "--from", then, *where).splitlines()
    assert [line.split("\t")[:2] for line in shown] == [["~", "user:1"], ["-", "user:2"], ["+", "user:3"]]
    assert "\x1b" not in "".join(shown)

    for command in (
        ("history", "user:1", "--json"),
        ("history", "visits", "--to", then, "--limit", "1"),
        ("get", "user:2", "--at", then),
        ("get", "user:1", "--at", first),
        ("scan", "--at", first, "--json"),
        ("history", "user:1", "--from", first, "--to", last),
        ("diff", "--from", first),
        ("restore", "--to", first, "--key", "user:1", "--dry_run"),
        ("scan", "user:", "--at", then),
        ("diff", "user:", "--from", then, "--json"),
        ("restore", "--to", then, "--prefix", "user:", "--dry_run"),
    ):
        assert dimint(*command, *port, "--timeout", "30") == dimint(*command, *where), command

    plan = dimint("restore", "--to", then, "--prefix", "user:", "--dry_run", *where, *port)
    assert [line.split("\t")[:2] for line in plan.splitlines()] == [["~", "user:1"], ["+", "user:2"], ["-", "user:3"]]
    assert "add --yes" in dimint("restore", "--to", then, "--prefix", "user:", *where, *port, code=2)
    dimint("restore", "--to", then, "--prefix", "user:", "--yes", *where, *port)
    with Client(running.address) as client:
        assert dict(client.scan("user:", consistency="strong")) == {"user:1": {"name": "ann"}, "user:2": "bob"}
        assert client.get("visits", consistency="strong") == 7
    dimint("restore", "--to", then, "--key", "visits", "--yes", *where, *port)
    assert dimint("diff", "--from", then, *where) == ""
    assert len(dimint("history", "user:1", *where).splitlines()) == 3


def test_the_whole_store_into_a_new_cluster(
    system: tuple[KvSystem, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Killed again and again on the way, a new cluster then has what the store had, key by key, and goes on from there."""
    running, where = system
    with Client(running.address, timeout=20) as client:
        for number in range(40):
            client.mset({f"w{number}:{index}": [number, index] for index in range(25)})
            client.incr("w:count")
        time.sleep(0.05)
        then = f"@{time.time():.6f}"
        time.sleep(0.05)
        client.incr("w:count")
        client.mset({f"w{number}:0": "later" for number in range(40)})
        client.delete("w1:1")
    command = ["restore", "--to", then, "--into", str(tmp_path), *where]
    assert main([*command, "--dry_run"]) == 0
    assert "events would be copied" in capfd.readouterr().out
    assert not list(tmp_path.iterdir())
    for delay_s in (0.3, 0.45, 0.6):
        process = subprocess.Popen(
            [sys.executable, "-m", "dimint", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay_s)
        process.kill()
        process.wait(20)
    assert main(command) == 0
    assert "start a cluster on that log" in capfd.readouterr().err
    assert main(["scan", "w", "--at", then, "--limit", "100000", *where]) == 0
    expected = capfd.readouterr().out
    assert expected.count("\n") == 1001
    with kv_system(tmp_path) as restored, Client(restored.address, timeout=20) as client:
        assert main(["scan", "w", "--limit", "100000", "--port_for_client", restored.address.rpartition(":")[2]]) == 0
        assert capfd.readouterr().out == expected
        assert client.incr("w:count") == 41
    assert main(["restore", "--to", then, "--into", str(tmp_path), "--key", "x", *where]) == 2
