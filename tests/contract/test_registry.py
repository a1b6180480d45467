"""What every registry backend promises. A backend is one parameter of `make`."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dimint.errors import Fenced, LogMismatch, RegistryError, RegistryLost, VersionConflict
from dimint.registry.memory import MemoryHub, MemoryRegistry
from dimint.registry.opening import bind_log
from dimint.registry.port import Registry
from tests.support.registry_member import open_at
from tests.support.registry_place import find_place
from tests.support.system import wait_until

Make = Callable[[], Registry]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=["memory", "embedded", "zookeeper"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Opens sessions with one registry, each as if it were a process of its own."""
    hub = MemoryHub()
    opened: list[Registry] = []
    place = None if request.param == "memory" else find_place(request.param, request, tmp_path)

    def open_session() -> Registry:
        registry: Registry = MemoryRegistry(hub) if place is None else open_at(place.where)
        opened.append(registry)
        return registry

    yield open_session
    for registry in opened:
        registry.close()


def test_members_are_seen_by_everybody_with_their_info(make: Make) -> None:
    """What one session joins, the other lists, until it leaves."""
    one, two = make(), make()
    member = one.join("node", "ab", {"pid": 1, "host": "gpu–01"})
    other = two.join("overlord", "[::1]:5556", {})
    assert two.members("node") == {"ab": {"pid": 1, "host": "gpu–01"}} == one.members("node")
    assert one.members("overlord") == {"[::1]:5556": {}}
    member.update({"pid": 2})
    assert two.members("node") == {"ab": {"pid": 2}}
    member.leave()
    member.leave()
    other.leave()
    assert two.members("node") == {} == one.members("overlord")
    with pytest.raises(RegistryError):
        member.update({})


def test_an_id_is_taken_once(make: Make) -> None:
    """A second live member with the id is refused, in another role it is not, and after a leave it is free."""
    one, two = make(), make()
    member = one.join("node", "ab", {})
    with pytest.raises(RegistryError):
        two.join("node", "ab", {})
    with pytest.raises(RegistryError):
        one.join("node", "ab", {})
    two.join("webapp", "ab", {})
    member.leave()
    two.join("node", "ab", {"n": 2})
    assert one.members("node") == {"ab": {"n": 2}}


def test_members_of_a_closed_session_are_gone(make: Make) -> None:
    """Closing leaves everything, and a closed session says so."""
    one, two = make(), make()
    member = one.join("node", "ab", {})
    candidacy = one.elect("overlord", "a")
    wait_until(lambda: candidacy.fence() is not None, 2, "it leads")
    one.close()
    one.close()
    assert two.members("node") == {}
    assert candidacy.fence() is None
    member.leave()
    candidacy.resign()
    for act in (lambda: one.members("node"), lambda: one.get("x"), lambda: one.clear(), lambda: one.join("node", "x", {})):
        with pytest.raises(RegistryLost):
            act()


def test_watchers_hear_of_every_kind_of_change(make: Make) -> None:
    """Members, leadership and values: each change calls the watchers of other sessions soon."""
    one, two = make(), make()
    heard = threading.Event()
    cancel = two.watch(heard.set)

    def changes(act: Callable[[], object]) -> None:
        while heard.wait(0.25):  # until what came before is through
            heard.clear()
        act()
        assert heard.wait(1)
        heard.clear()

    member = one.join("node", "ab", {})
    assert heard.wait(1)
    heard.clear()
    changes(lambda: member.update({"n": 1}))
    changes(member.leave)
    changes(lambda: one.put("a/b", b"1", version=0))
    candidacy = one.elect("overlord", "a")
    assert heard.wait(1)
    changes(candidacy.resign)
    cancel()
    time.sleep(0.05)
    heard.clear()
    one.join("node", "cd", {})
    assert not heard.wait(0.3)


def test_at_most_one_leads_and_the_next_takes_over(make: Make) -> None:
    """Terms rise with every takeover; a resigned or closed leader leads no more."""
    sessions = [make() for _ in range(3)]
    candidacies = [session.elect("overlord", str(number)) for number, session in enumerate(sessions)]
    terms = []
    for _ in range(3):
        wait_until(lambda: any(candidacy.fence() for candidacy in candidacies), 2, "somebody leads")
        leaders = [number for number, candidacy in enumerate(candidacies) if candidacy.fence() is not None]
        assert len(leaders) == 1
        fence = candidacies[leaders[0]].fence()
        assert fence is not None
        terms.append(fence.term)
        if len(terms) == 2:
            sessions[leaders[0]].close()
        else:
            candidacies[leaders[0]].resign()
        assert candidacies[leaders[0]].fence() is None
    assert terms == sorted(set(terms))


def test_elections_are_independent(make: Make) -> None:
    """Two elections have two leaders with different terms."""
    one, two = make(), make()
    a, b = one.elect("overlord", "1"), two.elect("trimmer", "2")
    wait_until(lambda: a.fence() is not None and b.fence() is not None, 2, "somebody leads")
    assert a.fence() != b.fence()


def test_put_is_conditional_on_the_version(make: Make) -> None:
    """Version 0 creates, the stored version replaces, anything else is a conflict."""
    one, two = make(), make()
    assert one.get("assignment") is None
    assert one.put("assignment", b"a\nb\0", version=0) == 1
    assert two.get("assignment") == (b"a\nb\0", 1)
    assert two.put("assignment", b"", version=1) == 2
    for version in (0, 1, 3):
        with pytest.raises(VersionConflict):
            one.put("assignment", b"x", version=version)
    assert one.get("assignment") == (b"", 2)


def test_a_put_with_an_old_fence_is_refused(make: Make) -> None:
    """After a takeover, after a resignation and with an invented fence nothing is written."""
    one, two = make(), make()
    first = one.elect("overlord", "1")
    wait_until(lambda: first.fence() is not None, 2, "somebody leads")
    old = first.fence()
    assert old is not None
    assert one.put("assignment", b"1", version=0, fence=old) == 1
    with pytest.raises(Fenced):
        one.put("assignment", b"x", version=1, fence=old._replace(term=old.term + 1))
    with pytest.raises(Fenced):
        one.put("assignment", b"x", version=1, fence=old._replace(generation="other"))
    first.resign()
    with pytest.raises(Fenced):
        one.put("assignment", b"x", version=1, fence=old)
    second = two.elect("overlord", "2")
    wait_until(lambda: second.fence() is not None, 2, "somebody leads")
    with pytest.raises(Fenced):
        one.put("assignment", b"x", version=1, fence=old)
    new = second.fence()
    assert new is not None
    assert new.term > old.term
    assert two.put("assignment", b"2", version=1, fence=new) == 2


def test_concurrent_puts_lose_no_update(make: Make) -> None:
    """Four sessions add 25 each with read, put, retry: the sum is there and so is every version."""

    def add(registry: Registry) -> None:
        for _ in range(25):
            while True:
                stored = registry.get("n")
                value, version = (int(stored.value), stored.version) if stored else (0, 0)
                try:
                    registry.put("n", b"%d" % (value + 1), version=version)
                    break
                except VersionConflict:
                    continue

    threads = [threading.Thread(target=add, args=(make(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make().get("n") == (b"100", 100)


def test_clear_removes_what_nobody_uses(make: Make) -> None:
    """Values stay while an overlord or node lives and go when none does; live members always stay."""
    one, two = make(), make()
    one.put("assignment", b"1", version=0)
    one.put("deep/er", b"1", version=0)
    one.put("needs/of/others", b"1", version=0)
    node = one.join("node", "ab", {})
    agent = one.join("agent", "cd", {})
    assert two.clear() == 0
    assert two.get("assignment") is not None
    node.leave()
    assert two.clear(keep=["needs/of/others", "not/there"]) == 2
    assert two.get("assignment") is None
    assert two.get("deep/er") is None
    assert two.get("needs/of/others") == (b"1", 1)
    assert two.clear() == 1
    assert two.members("agent") == {"cd": {}}
    assert two.clear() == 0
    assert one.put("assignment", b"2", version=0) == 1
    agent.leave()


def test_a_registry_has_one_log(make: Make) -> None:
    """The first log stays the one that all processes must have, until it is cleared away with nobody left."""
    one, two = make(), make()
    bind_log(one, "a" * 32, "here")
    bind_log(two, "a" * 32, "here")
    with pytest.raises(LogMismatch, match="work on another log"):
        bind_log(two, "b" * 32, "here")
    node = one.join("node", "ab", {})
    two.clear()
    with pytest.raises(LogMismatch):
        bind_log(two, "b" * 32, "here")
    node.leave()
    two.clear()
    bind_log(two, "b" * 32, "here")


@pytest.mark.parametrize("path", ["", "/", "a/", "/a", "a//b", "../a", "a/..", ".", "a b", "a\0", "a\n", "ä", "x" * 300, ".lock"])
def test_hostile_paths_are_refused(make: Make, path: str) -> None:
    """A path cannot lead out of the registry or clash with its own files."""
    registry = make()
    with pytest.raises(RegistryError):
        registry.put(path, b"", version=0)
    with pytest.raises(RegistryError):
        registry.get(path)


def test_hostile_names_and_infos_are_refused(make: Make) -> None:
    """Ids cannot be paths; an info is JSON of bounded size."""
    registry = make()
    for name in ("", "..", "a/b", "a\0", "\n", "x" * 300):
        with pytest.raises(RegistryError):
            registry.join("node", name, {})
        with pytest.raises(RegistryError):
            registry.join(name, "a", {})
        with pytest.raises(RegistryError):
            registry.elect(name, "a")
    for info in ({"x": b"bytes"}, {"x": float("nan")}, {"x": "y" * (600 << 10)}, {"x": "\ud800"}):
        with pytest.raises(RegistryError):
            registry.join("node", "a", info)
    with pytest.raises(RegistryError):
        registry.put("a", b"x" * (600 << 10), version=0)
    assert registry.members("node") == {}
