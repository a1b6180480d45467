"""Nodes that vanish alone are dead; most of them together are waited for."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.assignment import LEAVING
from dimint.overlord.absences import GRACE_S, HEARD_S, REMARKABLE_S, Absences


def infos(nodes: str, **more: object) -> dict[str, dict[str, object]]:
    return {node: {"pid": ord(node), **more} for node in nodes}


def test_one_that_vanishes_is_gone_at_once() -> None:
    """Also of two, and of many."""
    for holders in ("ab", "abcdef"):
        absences = Absences()
        assert absences.see(infos(holders), holders, {}, 0.0) == infos(holders)
        assert absences.see(infos(holders[1:]), holders, {}, 1.0) == infos(holders[1:])
        assert absences.waited_for == frozenset()


def test_one_that_still_reports_has_lost_its_session_only() -> None:
    """It counts as there while it is heard, but for GRACE_S at most; silent, it is dead."""
    absences = Absences()
    absences.see(infos("abc"), "abc", {"a": 0.0}, 0.0)
    assert absences.see(infos("bc"), "abc", {"a": 0.9}, 1.0) == infos("abc")
    assert absences.waited_for == {"a"}
    assert absences.see(infos("bc"), "abc", {"a": 0.9}, 1.0 + HEARD_S) == infos("bc")
    assert absences.waited_for == frozenset()
    assert absences.see(infos("bc"), "abc", {"a": 1.0 + GRACE_S}, 1.0 + GRACE_S) == infos("bc")


def test_only_what_lasts_is_remarkable() -> None:
    """A node that ends was heard until a moment before; one that goes on reporting has lost its session."""
    absences = Absences()
    absences.see(infos("a"), "a", {"a": 0.9}, 1.0)
    heard = 1.1  # its last report, taken in late
    for tenths in range(10, 40):
        absences.see({}, "a", {"a": heard}, tenths / 10)
        assert absences.remarkable == frozenset()
    absences.see(infos("a"), "a", {"a": 4.0}, 4.0)
    for tenths in range(50, 80):
        now = tenths / 10
        absences.see({}, "a", {"a": now - 0.5}, now)
        assert absences.remarkable == ({"a"} if now >= 5.0 + REMARKABLE_S else frozenset())


def test_most_of_them_together_are_waited_for() -> None:
    """They count as there with what was known of them, until they are back or GRACE_S is over."""
    absences = Absences()
    absences.see(infos("abc"), "abc", {}, 0.0)
    assert absences.see({}, "abc", {}, 5.0) == infos("abc")
    assert absences.waited_for == {"a", "b", "c"}
    assert absences.see(infos("a"), "abc", {}, 5.0 + GRACE_S - 0.1) == infos("abc")
    assert absences.see(infos("ab"), "abc", {}, 5.0 + GRACE_S - 0.1) == infos("ab")
    assert absences.see(infos("abc"), "abc", {}, 6.0 + GRACE_S) == infos("abc")
    assert absences.see({}, "abc", {}, 20.0 + GRACE_S) == infos("abc")
    assert absences.see({}, "abc", {}, 20.0 + 2 * GRACE_S) == {}


def test_a_new_overlord_waits_for_those_that_it_never_saw() -> None:
    """It has nothing to say of them, but does not give away what they hold."""
    absences = Absences()
    assert absences.see({}, "abc", {}, 0.0) == {}
    assert absences.waited_for == {"a", "b", "c"}
    absences.see({}, "abc", {}, GRACE_S)
    assert absences.waited_for == frozenset()


def test_who_left_in_order_is_not_waited_for() -> None:
    """All of a system that is stopped are leaving."""
    absences = Absences()
    absences.see(infos("abc", **{LEAVING: True}), "abc", {}, 0.0)
    assert absences.see({}, "abc", {}, 1.0) == {}
    assert absences.waited_for == frozenset()


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcde")), st.floats(0, 4)), max_size=20))
def test_who_is_there_counts_and_nobody_is_waited_for_longer(life: list[tuple[set[str], float]]) -> None:
    """Whatever comes and goes: live nodes are always in, and no absence counts as presence for more than GRACE_S."""
    absences, now = Absences(), 0.0
    gone: dict[str, float] = {}
    for live, step in life:
        now += step
        found = absences.see(infos("".join(sorted(live))), "abcde", {}, now)
        for node in "abcde":
            if node in live:
                gone.pop(node, None)
            else:
                gone.setdefault(node, now)
        assert live <= found.keys()
        assert all(now - gone[node] < GRACE_S for node in absences.waited_for)
        assert absences.waited_for.isdisjoint(live)
        assert not absences.waited_for or len(live) <= 2
