"""Registries that processes share: what is promised when one of them is killed, starts programs or forks."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from dimint.errors import Fenced, RegistryLost
from dimint.registry.embedded import EmbeddedRegistry
from tests.support.registry_member import open_at
from tests.support.registry_place import Place, find_place
from tests.support.system import wait_until

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=["embedded", "zookeeper"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A registry that processes share."""
    return find_place(request.param, request, tmp_path)


def start(where: str, what: str, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.registry_member", where, what, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("here")
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def test_a_killed_process_is_gone_in_time(place: Place) -> None:
    """kill -9 of a member: watchers are told, nobody lists it any more, and its id is free."""
    registry = open_at(place.where)
    process = start(place.where, "join", "ab")
    changed = threading.Event()
    try:
        assert registry.members("node") == {"ab": {"who": "child"}}
        registry.watch(changed.set)
    finally:
        kill(process)
    deadline = time.monotonic() + place.gone_within_s
    while registry.members("node"):
        assert changed.wait(deadline - time.monotonic())
        changed.clear()
    registry.join("node", "ab", {"who": "me"})
    assert registry.members("node") == {"ab": {"who": "me"}}
    registry.close()


def test_a_process_that_starts_again_takes_its_place_at_once(place: Place) -> None:
    """Whoever comes after a killed process on the same machine need not wait until the others know of its death."""
    process = start(place.where, "join", "ab")
    kill(process)
    with closing(open_at(place.where)) as registry:
        began = time.monotonic()
        registry.join("node", "ab", {"who": "me"})
        assert registry.members("node") == {"ab": {"who": "me"}}
        assert time.monotonic() - began < 0.5


def test_a_killed_leader_is_replaced_and_fenced(place: Place) -> None:
    """kill -9 of a leader: the candidate leads in time, in a higher term; the old one is refused."""
    registry = open_at(place.where)
    process = start(place.where, "lead", "ab")
    try:
        candidacy = registry.elect("overlord", "me")
        time.sleep(0.3)
        assert candidacy.fence() is None
    finally:
        kill(process)
    wait_until(lambda: candidacy.fence() is not None, place.gone_within_s, "the candidate leads")
    fence = candidacy.fence()
    assert fence is not None
    assert fence.term >= 2
    with pytest.raises(Fenced):
        registry.put("a", b"", version=0, fence=fence._replace(term=fence.term - 1))
    registry.close()


def test_a_started_program_does_not_hold_the_membership(tmp_path: Path) -> None:
    """A child program outlives its parent's membership, and a forked child does not hold it either."""
    registry = EmbeddedRegistry(tmp_path)
    member = registry.join("node", "ab", {})
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    other = EmbeddedRegistry(tmp_path)
    member.leave()
    assert other.members("node") == {}
    other.join("node", "ab", {})
    child.communicate(b"\n")
    other.close()
    registry.close()


def test_a_forked_child_does_not_hold_the_membership(tmp_path: Path) -> None:
    """When the member is killed it is gone, though a forked child of it lives on."""
    code = (
        "import os, sys, time; from pathlib import Path; from dimint.registry.embedded import EmbeddedRegistry;"
        "registry = EmbeddedRegistry(Path(sys.argv[1])); member = registry.join('node', 'ab', {}); child = os.fork();"
        "child and print(child, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    registry = EmbeddedRegistry(tmp_path)
    try:
        assert registry.members("node") == {"ab": {}}
        kill(process)
        wait_until(
            lambda: registry.members("node") == {}, 1, "the member is gone"
        )  # the child closes its copies as soon as it runs
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
    registry.close()


def test_a_removed_directory_is_a_lost_registry(tmp_path: Path) -> None:
    """When the files go away under it, the session says so instead of showing an empty cluster."""
    registry = EmbeddedRegistry(tmp_path / "r")
    os.rename(tmp_path / "r", tmp_path / "gone")
    for act in (lambda: registry.put("a", b"", version=0), lambda: registry.members("node"), lambda: registry.get("a")):
        with pytest.raises(RegistryLost):
            act()
    registry.close()
