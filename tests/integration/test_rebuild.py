"""`dimint rebuild`: the same digests and rows again, from the log alone."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from dimint.consumers.digest import table_digest
from dimint.consumers.reading import StatusReader
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.genesis import DEFAULT_KV_PARTITIONS
from dimint.node.replica import META
from dimint.node.store import Store, rows_of_partitions
from tests.support import forked
from tests.support.forked import Forked
from tests.support.replay_log import REAL, kill_now_and_then, made_log, new_location, store_digests, write_big_sets
from tests.support.system import System, wait_until, writing

pytestmark = pytest.mark.timeout(150)


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "dimint", "rebuild", *arguments])


def rebuild(what: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return run([what, f"--data_dir={directory}"])


def samples(system: System) -> list[int]:
    with urlopen(f"{system.pages}/states/?fetch_num=100", timeout=10) as answer:
        (host,) = json.loads(answer.read()).values()
    return [entry["timestamp"] for entry in host["data"]]


def test_stores_and_tables_are_rebuilt_the_same(tmp_path: Path) -> None:
    """Stopped: every partition's digest as before, the tables' digest twice the same, and all is there afterwards."""
    directory = tmp_path / "data"
    with System(directory, "--nodes=2") as system:
        with system.old_client() as client:
            for number in range(100):
                client("set", key=f"k{number}", value={"n": number})
            client("delete", key="k7")
        before = samples(system)
        assert system.stop() == 0
    first = rebuild("all", directory)
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert len(lines) == 2 * DEFAULT_KV_PARTITIONS + 1
    assert all(line.endswith(", same as before") for line in lines[:-1])
    assert sum(int(line.split(" keys,")[0].split()[-1]) for line in lines[:-1]) == 2 * 99
    again = rebuild("status", directory)
    assert re.findall(r"\d+ events, digest \w+", again.stdout) == re.findall(r"\d+ events, digest \w+", lines[-1])
    with System(directory, "--nodes=2") as system:
        with system.old_client() as client:
            assert client("get", key="k99", consistency="strong") == {"value": {"n": 99}}
            assert client("get", key="k7", consistency="strong") == {}
        assert samples(system)[: len(before)] == before


def test_while_all_is_running(tmp_path: Path) -> None:
    """Tables and a node's store are switched under the running processes, which go on, and nothing is lost or answered old."""
    with System(tmp_path / "data") as system:
        node = system.children()["node-1"].pid
        before = samples(system)
        done = rebuild("status", tmp_path / "data")
        assert (done.returncode, done.stderr) == (0, "")
        wait_until(lambda: len(samples(system)) > len(before) + 1, 20, "samples go on")
        assert samples(system)[: len(before)] == before
        store = tmp_path / "data" / "nodes" / "1" / "store" / "data.mdb"
        with writing(system, "k") as acknowledged:
            wait_until(lambda: len(acknowledged) == 10, 20, "writes")
            wait_until(lambda: rows_of_partitions(store.parents[1], META), 20, "a store to be compared with")
            for _ in range(2):
                old = store.stat().st_ino
                count = max(acknowledged.values())
                done = rebuild("node", tmp_path / "data")
                assert (done.returncode, done.stderr) == (0, "")
                assert done.stdout.count(", same as before\n") == len(done.stdout.splitlines()) > 0
                assert store.stat().st_ino != old
                wait_until(lambda count=count: max(acknowledged.values()) > count + 10, 20, "writes go on")
        with system.old_client() as client:
            for key, value in acknowledged.items():
                assert client("get", key=key, consistency="strong")["value"] >= value
        assert system.children()["node-1"].pid == node
        assert not {"rebuild", "rebuilt", "store.old"} & set(os.listdir(tmp_path / "data" / "nodes" / "1"))


@pytest.fixture(scope="module", params=REAL)
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a log is with 60,000 writes and some samples."""
    folder = tmp_path_factory.mktemp("big")
    location = str(folder) if request.param == "embedded" else new_location(request.param, folder)
    log = made_log(location, 5, 600)
    write_big_sets(log, 60_000)
    log.close()
    return location


def digests(output: str) -> list[str]:
    return re.findall(r"digest (\w+)", output)


def test_killed_at_any_time_it_goes_on_and_comes_out_the_same(big: str, tmp_path: Path) -> None:
    """Into a folder and over a live store: after any kills the digests are those of an undisturbed rebuild."""
    (tmp_path / "data").mkdir()
    where = [f"--data_dir={tmp_path / 'data'}", f"--log={big}"]
    begun = time.monotonic()
    whole = run(["all", *where, f"--into={tmp_path / 'whole'}"])
    longest_s = 0.8 * (time.monotonic() - begun)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert sum(map(int, re.findall(r"(\d+) keys", whole.stdout))) > 14_000
    chance = random.Random(len(big))
    command = [sys.executable, "-m", "dimint", "rebuild", "all", *where, f"--into={tmp_path / 'killed'}"]
    already = "holds tables already"
    read, write = os.pipe()
    first = Forked(command, stdout=write)
    os.close(write)
    with open(read) as said:
        said.readline()  # a partition is done, the others are not
    first.kill()
    first.wait()
    kill_now_and_then(command, chance=chance, longest_s=longest_s, kills=2, already=already)
    (tables,) = (tmp_path / "killed" / "tables").glob("*.db")
    assert table_digest(tables) == digests(whole.stdout)[-1]
    assert run(["node", *where, f"--into={tmp_path / 'killed'}"]).stdout.count("not comparable") == 3

    (tmp_path / "data" / "nodes").mkdir()
    os.rename(tmp_path / "killed" / "nodes" / "1", tmp_path / "data" / "nodes" / "1")
    command = [sys.executable, "-m", "dimint", "rebuild", "node", *where]
    kill_now_and_then(command, chance=chance, longest_s=longest_s, kills=2)
    again = run(["node", *where])
    assert digests(again.stdout) == digests(whole.stdout)[:-1]
    assert again.stdout.count("same as before") == 3


def test_interrupted_it_says_that_it_goes_on(big: str, tmp_path: Path) -> None:
    """Ctrl-C: exit status 130, one line, and what is there is gone on with; progress as JSON lines says how far it is."""
    command = [sys.executable, "-m", "dimint", "rebuild", "all", "--json"]
    command += [f"--data_dir={tmp_path / 'data'}", f"--log={big}", f"--into={tmp_path / 'look'}"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout is not None
    program.stdout.readline()  # a partition is done
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 130
    assert errors.rstrip().splitlines()[-1] == "dimint: stopped; the same command goes on where it was"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["what"], row.get("partition")) for row in rows] == [("node", 0), ("node", 1), ("node", 2), ("status", None)]
    told = [json.loads(line) for line in done.stderr.splitlines()]
    ends = {line["progress"]: line for line in told if line["finished"]}
    assert ends.keys() == {"rebuild node", "rebuild status"}
    assert all(line["done"] == line["total"] for line in ends.values())
    assert ends["rebuild node"]["events"] < 60_000, "the first partition was there"


def test_up_to_a_position_or_a_time_into_a_folder(tmp_path: Path) -> None:
    """What the log said then is built and kept beside, the live ones stay; another end needs another folder only to go back."""
    log = made_log(str(tmp_path / "data"), 60, 20)
    ends = {partition: log.bounds(KV_TOPIC, partition).end // 2 for partition in range(3)}
    samples = next(at for at in range(4) if log.bounds(STATUS_TOPIC, at).end > 4)
    middle = log.read(STATUS_TOPIC, samples, 3)[0]
    expected = store_digests(log, tmp_path / "expected", ends)
    log.close()
    where = f"--data_dir={tmp_path / 'data'}"
    to = ",".join(f"dimint.kv/{partition}@{end}" for partition, end in ends.items())
    done = run(["all", where, f"--to={to}"])
    assert (done.returncode, done.stderr) == (0, "")
    assert digests(done.stdout) == [f"{digest:032x}" for _, digest in expected]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["log", "past"]
    assert sorted(path.name for path in (tmp_path / "data" / "past").iterdir()) == ["nodes"]
    further = run(["node", where, "--into", str(tmp_path / "data" / "past")])
    assert further.returncode == 0
    back = run(["node", where, f"--to={to}"])
    assert (back.returncode, back.stdout) == (2, "")
    assert re.fullmatch(r"dimint: the store in \S+ has read partition \d to \d+ already; name another folder.*\n", back.stderr)

    by_time = run(
        ["status", where, f"--to=@{middle.timestamp_ns // 10**9}.{middle.timestamp_ns % 10**9:09}", f"--into={tmp_path / 'then'}"]
    )
    assert (by_time.returncode, by_time.stderr) == (0, "")
    with StatusReader(tmp_path / "then" / "tables") as reader:
        assert reader.positions()[samples] == middle.offset
        (host,) = reader.hosts()
        assert len(reader.last(host.id, 100)) < 20
    assert not (tmp_path / "data" / "tables").exists()


def test_what_it_refuses(tmp_path: Path) -> None:
    """One line, exit status 2, and nothing is touched."""
    made_log(str(tmp_path / "data"), 10, 2).close()
    where = f"--data_dir={tmp_path / 'data'}"
    (tmp_path / "other" / "nodes").mkdir(parents=True)
    Store(tmp_path / "other" / "nodes" / "1").close()
    for arguments, problem in (
        (["node", f"--into={tmp_path / 'data'}"], "--into names the data directory itself"),
        (["node", f"--into={tmp_path / 'other'}"], "was not made by a rebuild of this log"),
        (["node", "--to=dimint.status/0@1"], "--to names no partition of what is to be rebuilt"),
        (["node", "--to=dimint.kv/0@99999"], "offset 99999"),
        (["node", "--to=sometime"], "--to: "),
        (["node", "--to=dimint.kv/99@0"], "there is no dimint.kv/99"),
    ):
        done = run([arguments[0], where, *arguments[1:]])
        assert done.returncode != 0, arguments
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert problem in done.stderr, done.stderr
    assert (tmp_path / "other" / "nodes" / "1" / "store" / "data.mdb").exists()


def test_a_mistyped_directory_becomes_no_log(tmp_path: Path) -> None:
    """There is nothing to rebuild from, and nothing is made."""
    done = rebuild("all", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith(f"dimint: there is no log in {tmp_path}/nothing; ")
    assert not list(tmp_path.iterdir())
