"""The registry on ZooKeeper when processes hang, networks break and servers die."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dimint.errors import Fenced, RegistryError
from dimint.registry.port import Candidacy, Fence
from dimint.registry.zookeeper import ZooKeeperRegistry
from tests.support.proxy import Proxy
from tests.support.registry_member import SESSION_S, options_at
from tests.support.services.zookeeper import ZooKeeperEnsemble

ROOT = Path(__file__).parent.parent.parent
TICK_S = 0.2
STEPS_DOWN_S = SESSION_S * 2 / 3
EXPIRED_S = SESSION_S + 2 * TICK_S + 1.0
"""Longest until the servers have ended a silent session and somebody else leads."""


def within(seconds: float, condition: Callable[[], object]) -> bool:
    """Whether the condition becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def won(candidacy: Candidacy, seconds: float = 10.0) -> Fence:
    """The fence of a candidate that leads in time."""
    assert within(seconds, candidacy.fence)
    fence = candidacy.fence()
    assert fence is not None
    return fence


@pytest.fixture
def server() -> Iterator[ZooKeeperEnsemble]:
    """A server that may be killed."""
    with ZooKeeperEnsemble(tick_ms=round(TICK_S * 1000)) as ensemble:
        yield ensemble


def open_at(hosts: str, root: str, **more: object) -> ZooKeeperRegistry:
    return ZooKeeperRegistry(options_at(f"zookeeper://{hosts}/{root}", **more))


def answers(registry: ZooKeeperRegistry) -> bool:
    try:
        registry.members("node")
    except RegistryError:
        return False
    return True


def ask(process: subprocess.Popen[str]) -> str:
    """What the leader in another process says of itself and of a put with its first fence."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_leader_that_was_stopped_for_too_long_writes_nothing(zookeeper: ZooKeeperEnsemble) -> None:
    """SIGSTOP past the session's end: another one leads, in a higher term; the old one wakes up, is refused, and joins again."""
    where = f"zookeeper://{zookeeper.hosts}/stopped"
    with (
        closing(open_at(zookeeper.hosts, "stopped")) as registry,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.registry_member", where, "lead", "ab"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            term = int(process.stdout.readline().split()[1])
            assert ask(process) == "leads stored"
            candidacy = registry.elect("overlord", "me")
            process.send_signal(signal.SIGSTOP)
            fence = won(candidacy)
            assert fence.term > term
            assert registry.members("node") == {}
            version = registry.put("assignment", b"mine", version=1, fence=fence)
            process.send_signal(signal.SIGCONT)
            answers = [ask(process)]
            assert answers[0].startswith("waits ")
            assert within(10, lambda: registry.members("node") == {"ab": {"who": "child"}})
            while "Fenced" not in answers[-1]:  # before that it has not heard that its session is over
                assert answers[-1].startswith("waits ")
                assert len(answers) < 100
                answers.append(ask(process))
            assert registry.get("assignment") == (b"mine", version)
            assert candidacy.fence() == fence
            candidacy.resign()
            assert within(10, lambda: ask(process).startswith("leads "))
            assert ask(process) == "leads Fenced"
        finally:
            process.kill()


def test_a_leader_that_is_cut_off_steps_down_before_another_one_leads(zookeeper: ZooKeeperEnsemble) -> None:
    """No way to the servers: no fence after two thirds of the session's time, the next one leads later, and it heals."""
    with (
        Proxy(zookeeper.servers[0].port) as proxy,
        closing(open_at(f"127.0.0.1:{proxy.port}", "cut")) as cut_off,
        closing(open_at(zookeeper.hosts, "cut")) as other,
    ):
        told = threading.Event()
        member = cut_off.join("node", "ab", {"n": 1})
        candidacy = cut_off.elect("overlord", "a")
        old = won(candidacy)
        waiting = other.elect("overlord", "b")
        time.sleep(0.3)
        proxy.cut()
        began = time.monotonic()
        while True:
            second, first = waiting.fence(), candidacy.fence()
            assert first is None or second is None
            if first is None:
                break
            time.sleep(0.002)
        assert time.monotonic() - began < STEPS_DOWN_S + 0.3
        cut_off.watch(told.set)
        taken = other.join("node", "ab", {"n": 3})  # waits for the session to end
        new = won(waiting)
        assert time.monotonic() - began > STEPS_DOWN_S
        assert new.term > old.term
        with pytest.raises(RegistryError):
            cut_off.members("node")
        with pytest.raises(RegistryError):
            cut_off.put("a", b"", version=0, fence=old)
        member.update({"n": 2})
        told.clear()
        proxy.mend()
        assert told.wait(10)
        assert within(10, lambda: answers(cut_off))
        assert cut_off.members("node") == {"ab": {"n": 3}}  # the name is taken now
        taken.leave()
        assert within(10, lambda: other.members("node") == {"ab": {"n": 2}})
        with pytest.raises(Fenced):
            cut_off.put("a", b"", version=0, fence=old)
        waiting.resign()
        assert won(candidacy).term > new.term


def test_a_connection_that_falls_silent_is_replaced(zookeeper: ZooKeeperEnsemble) -> None:
    """Answers stop coming without any error: a new connection is made before the session ends, and the term goes on."""
    with (
        Proxy(zookeeper.servers[0].port) as proxy,
        closing(open_at(f"127.0.0.1:{proxy.port}", "silence", session_s=3.0)) as registry,
        closing(open_at(zookeeper.hosts, "silence")) as other,
    ):
        registry.join("node", "ab", {})
        candidacy = registry.elect("overlord", "a")
        fence = won(candidacy)
        waiting = other.elect("overlord", "b")
        time.sleep(0.3)
        proxy.hold()
        assert not within(3.0 + EXPIRED_S - SESSION_S, waiting.fence)
        assert candidacy.fence() == fence
        assert registry.members("node") == {"ab": {}}
        assert registry.put("assignment", b"1", version=0, fence=fence) == 1


def test_everybody_is_there_again_after_a_restart_of_the_servers(server: ZooKeeperEnsemble) -> None:
    """Killed and started again with its data: members, values and elections are as before, watchers are told."""
    with closing(open_at(server.hosts, "restart")) as one, closing(open_at(server.hosts, "restart")) as two:
        told = threading.Event()
        one.watch(told.set)
        one.join("node", "ab", {"n": 1})
        two.join("overlord", "cd", {})
        candidacy = one.elect("overlord", "a")
        fence = won(candidacy)
        one.put("assignment", b"1", version=0, fence=fence)
        server.servers[0].server.kill()
        assert within(STEPS_DOWN_S + 0.1, lambda: candidacy.fence() is None)
        with pytest.raises(RegistryError):
            one.members("node")
        with pytest.raises(RegistryError):  # refused, not queued
            two.join("webapp", "x", {})
        told.clear()
        server.servers[0].start()
        server.servers[0].wait()
        assert won(candidacy, 10).term >= fence.term
        assert told.wait(10)
        assert within(10, lambda: answers(two))
        assert two.members("node") == {"ab": {"n": 1}}
        assert one.members("overlord") == {"cd": {}}
        assert one.get("assignment") == (b"1", 1)
