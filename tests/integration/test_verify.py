"""`dimint verify` on a running system, and on one in which something is wrong."""

import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from dimint.cli import main
from dimint.client import Client
from dimint.consumers.folder import TablesFolder
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.events import STATUS_TOPIC
from dimint.genesis import DEFAULT_KV_PARTITIONS
from dimint.node.replica import META
from dimint.node.rows import HEAD
from dimint.node.store import Store, rows_of_partitions
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter, Outgoing
from tests.support.hosts import gpu, sample
from tests.support.kv_system import kv_system
from tests.support.senders import consuming, opening
from tests.support.system import wait_until

HOST = "ab" * 16


def verify(capfd: pytest.CaptureFixture[str], folder: Path, what: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and the findings by name (of a node by partition)."""
    code = main(["verify", what, "--json", "--data_dir", str(folder)])
    found = {}
    for line in capfd.readouterr().out.splitlines():
        row = json.loads(line)
        found[row["name"] if row["what"] != "node" else row["text"].partition("dimint.kv/")[2].partition("@")[0]] = row
    return code, found


def test_stores_and_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All is well while the node serves; a changed value and a changed record are found, with key and position."""
    with kv_system(tmp_path) as system:
        with Client(system.address) as client:
            client.mset({f"key{number}": number for number in range(500)})
            client.incr("count", 3)
            client.get("count", consistency="strong")
        (directory,) = (tmp_path / "nodes").iterdir()
        wait_until(lambda: len(rows_of_partitions(directory, META)) == DEFAULT_KV_PARTITIONS, 20, "the node has committed")
        code, found = verify(capfd, tmp_path, "all")
        assert (code, {row["problem"] for row in found.values()}) == (0, {None})
        assert {"dimint.kv", "dimint.cluster", "0", str(DEFAULT_KV_PARTITIONS - 1)} <= found.keys()
        with Client(system.address) as client:
            assert client.get("count", consistency="strong") == 3

    store = Store(directory)
    data = store.partition(3).data
    (key, row), *_ = data.scan(b"key", b"key", 1)
    data.save({key: row[: HEAD.size] + b'J"\x1b[2J"'})
    store.commit()
    store.close()
    code, found = verify(capfd, tmp_path, "node")
    # the digest that the store keeps still is the log's: only who reads every row sees it
    assert code == 1
    assert found["3"]["problem"].startswith(f"key '{key.decode()}': the store has '\"\\x1b[2J\"' at version ")
    assert [name for name, row in found.items() if row["problem"] is not None] == ["3"]

    log = apsw.Connection(str(tmp_path / "log" / "dimint.kv.sqlite"))
    offset, value = next(log.execute("select offset, value from p2 order by offset limit 1"))
    log.execute("update p2 set value = ? where offset = ?", (value[:-1] + bytes([value[-1] ^ 1]), offset))
    log.close()
    code, found = verify(capfd, tmp_path, "log")
    assert code == 1
    assert f"dimint.kv/2@{offset}" in found["dimint.kv"]["problem"]
    assert found["dimint.cluster"]["problem"] is None
    code, found = verify(capfd, tmp_path, "node")
    assert code == 1
    assert "cannot be read up to there" in found["2"]["problem"]


def test_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Tables are compared row by row while the consumer goes on; the first row that differs is shown."""
    log, genesis = opening(tmp_path)
    writer = BatchWriter(log, clock=SystemClock(), host="test", process="agent")
    partition = genesis.status_partition(HOST)
    for seq in range(1, 20):
        event = ["host.sample", HOST, 0, 0, b"run", seq, sample([gpu(0, "x", 1, 2, 3, 40)])]
        writer.append([Outgoing(STATUS_TOPIC, partition, (writer.by,), [event])])[0].result(10)
    writer.close()
    log.close()
    with consuming(tmp_path), StatusReader(tmp_path / TABLES_FOLDER) as reader:
        wait_until(lambda: len(reader.last(HOST, 100)) == 19, 20, "samples")
        code, found = verify(capfd, tmp_path, "status")
        assert (code, found["tables"]["problem"]) == (0, None)
    live = TablesFolder(tmp_path / TABLES_FOLDER).live()
    assert live is not None
    tables = apsw.Connection(str(live))
    tables.execute("update machines set ip = ?", ("\x1b[2J",))
    tables.close()
    code, found = verify(capfd, tmp_path, "status")
    assert code == 1
    assert "row 1: the tables have ['host'," in found["tables"]["problem"]
    assert "\\x1b[2J" in found["tables"]["problem"]
