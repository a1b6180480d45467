"""The original's way to start overlord and node: each by itself, with its config file, in fore- and background."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.client import Client
from dimint.errors import SettingsError
from dimint.load import load
from dimint.node.finding import with_log_of_overlord
from dimint.registry.embedded import EmbeddedRegistry
from dimint.settings import NodeSettings

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def programs() -> Iterator[list["subprocess.Popen[str]"]]:
    """What a test starts in the foreground; nothing of it outlives the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(entry: str, *arguments: str) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; from dimint.cli import {entry}; sys.exit({entry}())", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "PYTHONPATH": str(ROOT)},
    )


def member(directory: Path, role: str) -> dict[str, str]:
    """Info of the only member of a role, as soon as there is one."""
    registry = EmbeddedRegistry(directory / "registry")
    deadline = time.monotonic() + 20
    try:
        while not (members := registry.members(role)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return next(iter(members.values()))
    finally:
        registry.close()


def test_an_old_node_config_finds_the_log_through_the_overlord(programs: list["subprocess.Popen[str]"], tmp_path: Path) -> None:
    """dimint_overlord and dimint_node in the foreground; the node knows host and port of the overlord, nothing else."""
    overlord = start("overlord_main", f"--data_dir={tmp_path / 'a'}", "--port_for_client=0", "--port_for_node=0")
    programs.append(overlord)
    assert overlord.stdout is not None
    assert overlord.stdout.readline().startswith("ip : ")
    info = member(tmp_path / "a", "overlord")
    config = tmp_path / "dimint_node.config"
    ports = {"pull_port": 15558, "push_to_slave_port": 15557, "receive_slave_port": 15556, "transfer_port": 15555}
    config.write_text(json.dumps({"host": "127.0.0.1", "port": int(info["node"].rpartition(":")[2]), **ports}))
    node = start("node_main", f"--config_path={config}", f"--data_dir={tmp_path / 'b'}")
    programs.append(node)
    assert node.stdout is not None
    assert node.stdout.readline().startswith("ip : ")
    member(tmp_path / "a", "node")
    with Client(info["client"].removeprefix("tcp://"), timeout=15) as client:
        client.set("a", 1)
        assert client.get("a", consistency="strong") == 1
    assert (tmp_path / "b/nodes/1/store").is_dir()
    assert not (tmp_path / "b/log").exists()
    said = []
    for process in (node, overlord):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "")
        said.append(err)
    ignored = "pull_port, push_to_slave_port, receive_slave_port, transfer_port of an older system: not needed any more, ignored"
    assert said == [f"dimint: {config}: {ignored}\n", ""]


def test_a_node_whose_overlord_does_not_answer_says_so(tmp_path: Path) -> None:
    """One line with the address, also for the flags of the original's node."""
    settings = load(NodeSettings, flags={"overlord_host": "127.0.0.1", "overlord_port": "1"}, environ={"HOME": str(tmp_path)})
    with pytest.raises(
        SettingsError, match=r"^no overlord answers at tcp://127\.0\.0\.1:1; check host and port of its node door, and the"
    ):
        with_log_of_overlord(settings, timeout_s=0.3)


def test_a_log_has_one_hash_range(programs: list["subprocess.Popen[str]"], tmp_path: Path) -> None:
    """Another --hash_range than the log was made with is refused in one line; the same or none is fine."""
    first = start("overlord_main", f"--data_dir={tmp_path}", "--port_for_client=0", "--port_for_node=0", "--hash_range=500")
    programs.append(first)
    member(tmp_path, "overlord")
    second = start("overlord_main", f"--data_dir={tmp_path}", "--port_for_client=0", "--port_for_node=0", "--hash_range=501")
    programs.append(second)
    _, err = second.communicate(timeout=20)
    assert second.returncode != 0
    assert err.count("\n") == 1
    assert "500" in err
    third = start("overlord_main", f"--data_dir={tmp_path}", "--port_for_client=0", "--port_for_node=0")
    programs.append(third)
    assert third.stdout is not None
    assert third.stdout.readline().startswith("ip : ")
    time.sleep(1)
    assert third.poll() is None
