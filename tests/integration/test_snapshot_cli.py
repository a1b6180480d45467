"""`dimint snapshot`: a running node's store as files, and stores made of them."""

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from dimint.cli import main
from dimint.client import Client
from dimint.events import KV_TOPIC
from dimint.genesis import DEFAULT_KV_PARTITIONS
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.node.replica import META
from dimint.node.store import rows_of_partitions
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter, Outgoing
from tests.support.kv_system import KvSystem, kv_system
from tests.support.replay_log import REAL, made_log, new_location, store_digests
from tests.support.system import wait_until


def test_of_a_running_node_and_a_store_made_of_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """While it serves: a checked folder. With it, trimmed log and all, stores are rebuilt, verified and served again."""
    where = f"--data_dir={tmp_path}"
    with kv_system(tmp_path) as system, Client(system.address) as client:
        client.mset({f"key{number}": number for number in range(300)})
        (directory,) = (tmp_path / "nodes").iterdir()
        wait_until(lambda: len(rows_of_partitions(directory, META)) == DEFAULT_KV_PARTITIONS, 20, "the node has committed")
        assert main(["snapshot", where, "--json"]) == 0
        taken = json.loads(capfd.readouterr().out)
        assert sum(part["keys"] for part in taken["partitions"].values()) == 300
        assert Path(taken["path"]).parent == tmp_path / "snapshots"
        assert main(["snapshot", where, f"--check={taken['path']}"]) == 0
        for count in (1, 2, 2):
            capfd.readouterr()
            assert main(["snapshot", where, "--keep=2", "--json"]) == 0
            again = json.loads(capfd.readouterr().out)
            assert len(list((tmp_path / "snapshots").iterdir())) == min(count + 1, 2)
        assert len(again["removed"]) == 1
        taken = again
        client.mset({f"later{number}": number for number in range(100)})
        with closing(open_log(tmp_path, clock=SystemClock())) as log:
            for partition, part in taken["partitions"].items():
                log.trim("dimint.kv", int(partition), part["next_offset"])
        capfd.readouterr()
        assert main(["rebuild", "node", where]) == 0
        assert capfd.readouterr().out.count("same as before") == DEFAULT_KV_PARTITIONS
        assert client.get("later99", consistency="strong") == 99
        wait_until(lambda: main(["verify", "node", where]) == 0, 20, "verified from the snapshot")
        assert (client.get("key7", consistency="strong"), len(client.mget([f"key{n}" for n in range(300)]))) == (7, 300)

    # all stores are lost, and the log was trimmed: a new node waits for somebody who has the keys
    shutil.rmtree(tmp_path / "nodes")
    lost = KvSystem(tmp_path, overlords=1, nodes=1)
    try:
        for name in ("overlord-1", "node-1"):
            lost.start(name)
        wait_until(lambda: (tmp_path / "nodes" / "1" / "store").exists(), 30, "the node is up")
        assert main(["rebuild", "node", where]) == 0
        lost.wait_ready()
        with Client(lost.address) as client:
            assert (client.get("key7", consistency="strong"), client.get("later99", consistency="strong")) == (7, 99)
    finally:
        for name in list(lost.processes):
            lost.kill(name)
    shutil.rmtree(tmp_path / "snapshots")
    capfd.readouterr()
    assert main(["rebuild", "node", where]) == 1
    assert "and there is no snapshot that reaches there" in capfd.readouterr().err
    assert main(["rebuild", "node", where, f"--snapshot={tmp_path}"]) == 1
    assert "is no snapshot" in capfd.readouterr().err


@pytest.mark.parametrize("backend", REAL)
def test_damage_is_found_and_named(backend: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One bit anywhere, a cut, another log, a store that lacks partitions: one line, and nothing is made of it."""
    location = new_location(backend, tmp_path)
    log = made_log(location, 60, 1)
    digests = store_digests(log, tmp_path / "expected")
    log.close()
    where = [f"--data_dir={tmp_path / 'data'}", f"--log={location}"]
    assert main(["snapshot", *where]) == 2
    assert "no store here has partition 0, 1, 2; build one with dimint rebuild" in capfd.readouterr().err
    assert not (tmp_path / "data" / "snapshots").exists() or not os.listdir(tmp_path / "data" / "snapshots")
    assert main(["rebuild", "node", *where, f"--into={tmp_path / 'built'}"]) == 0
    there = f"--data_dir={tmp_path / 'built'}"
    assert main(["snapshot", there, where[1], f"--out={tmp_path / 'shot'}"]) == 0
    assert main(["snapshot", there, where[1], f"--out={tmp_path / 'shot'}"]) == 2
    assert "shot exists; name another folder" in capfd.readouterr().err
    rebuild = ["rebuild", "node", *where, f"--snapshot={tmp_path / 'shot'}"]
    assert main([*rebuild, f"--into={tmp_path / 'from-it'}"]) == 0
    assert [f"digest {digest:032x}, " in capfd.readouterr().out for _, digest in digests[:1]] == [True]
    assert main(["verify", "node", f"--data_dir={tmp_path / 'from-it'}", where[1]]) == 0

    file = tmp_path / "shot" / "dimint.kv-0001.dms"
    sound = file.read_bytes()
    for damaged in (
        sound[:40] + bytes([sound[40] ^ 1]) + sound[41:],
        sound[:-1],
        sound + b"x",
        b"",
        (tmp_path / "shot" / "dimint.kv-0002.dms").read_bytes(),
    ):
        file.write_bytes(damaged)
        assert main(["snapshot", there, where[1], f"--check={tmp_path / 'shot'}"]) == 1
        problem = capfd.readouterr().err
        assert "dimint.kv-0001.dms" in problem
        assert len(problem.splitlines()) == 1
    assert main([*rebuild, f"--into={tmp_path / 'damaged'}"]) == 1
    assert "dimint.kv-0001.dms" in capfd.readouterr().err


def test_partitions_that_nothing_was_written_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They are in no snapshot, and nothing is missing without them; what they get later is not trimmed by that snapshot."""
    where = f"--data_dir={tmp_path}"
    log = open_log(tmp_path, clock=SystemClock())
    found = genesis(log, wanted=GenesisSettings(hash_range=100, kv_partitions=3), clock=SystemClock(), host="h", process="t")
    key = next(key for key in map(str, range(99)) if found.partition_of_key(key.encode()) == 1)
    late = next(key for key in map(str, range(99)) if found.partition_of_key(key.encode()) == 2)
    writer = BatchWriter(log, clock=SystemClock(), host="h", process="t")

    def write(key: str) -> None:
        event = ["kv.set", key, 0, 0, None, b"J1", None, 0]
        writer.append_and_wait(Outgoing(KV_TOPIC, found.partition_of_key(key.encode()), (writer.by,), [event]), 20)

    write(key)
    assert main(["rebuild", "node", where, f"--into={tmp_path / 'built'}"]) == 0
    os.rename(tmp_path / "built" / "nodes", tmp_path / "nodes")
    for _ in range(2):
        assert main(["snapshot", where]) == 0
    (first, second) = sorted((tmp_path / "snapshots").iterdir())
    assert sorted(path.name for path in second.iterdir()) == ["dimint.kv-0001.dms", "snapshot.json"]
    write(late)
    assert main(["rebuild", "node", where, f"--snapshot={first}", f"--into={tmp_path / 'from-it'}"]) == 0
    assert capfd.readouterr().out.count(" 1 keys,") == 3
    assert main(["trim", KV_TOPIC, where, f"--before={KV_TOPIC}/2@1"]) == 1
    assert "needs what stands from 0 on" in capfd.readouterr().err
    assert main(["trim", KV_TOPIC, where, f"--before={KV_TOPIC}/1@1", "--yes"]) == 0
    writer.close()
    log.close()
