"""Places in a log as text: what is written is read again, and everything else is refused in one line."""

import contextlib
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.errors import BadPosition, BadTime
from dimint.log.port import TopicPartition
from dimint.replay.positions import format_positions, parse_bound, parse_positions, places_of

NOW_NS = 1_700_000_000_000_000_000
_places = st.builds(TopicPartition, st.sampled_from(["dimint.kv", "a", "b-c_d.e"]), st.integers(0, 1023))


@given(st.dictionaries(_places, st.integers(0, 10**18 - 1), min_size=1, max_size=5))
def test_round_trip(positions: dict[TopicPartition, int]) -> None:
    """A set of positions survives its text, as a bound too."""
    text = format_positions(positions)
    assert parse_positions(text) == positions
    assert parse_bound(f" {text.replace(',', ' , ')} ", now_ns=NOW_NS, zone=UTC) == positions


@given(st.text(max_size=40))
def test_any_text_is_a_bound_or_refused(text: str) -> None:
    """No other error than the named ones."""
    with contextlib.suppress(BadPosition, BadTime):
        parse_bound(text, now_ns=NOW_NS, zone=UTC)


def test_times_are_bounds_too() -> None:
    """Whatever dimint/when.py reads; what is neither names both forms."""
    assert parse_bound("-2h", now_ns=NOW_NS, zone=UTC) == NOW_NS - 7200 * 10**9
    assert parse_bound("@1543620587", now_ns=NOW_NS, zone=UTC) == 1543620587 * 10**9
    with pytest.raises(BadTime, match=r"-2h, .* or give positions like dimint.kv/3@1234"):
        parse_bound("soon", now_ns=NOW_NS, zone=UTC)


@pytest.mark.parametrize(
    "text", ["dimint.kv/3", "dimint.kv/3@", "dimint.kv/x@1", "/3@1", "t/1024@0", "t/1@-1", "t/1@2,,", "t/1@1_0"]
)
def test_what_is_no_position(text: str) -> None:
    """One line that shows how it is written."""
    with pytest.raises(BadPosition, match=r"is not a position; write it like dimint.kv/3@1234"):
        parse_bound(text, now_ns=NOW_NS, zone=UTC)


def test_sets_name_partitions() -> None:
    """A partition once; two bounds leave what both name."""
    with pytest.raises(BadPosition, match=r"t/1 stands in the positions twice"):
        parse_positions("t/1@5,t/1@6")
    one, two = parse_positions("t/0@1,t/1@1"), parse_positions("t/1@9")
    assert places_of((one, two)) == frozenset({TopicPartition("t", 1)})
    assert places_of((one, 5)) == frozenset({TopicPartition("t", 0), TopicPartition("t", 1)})
    assert places_of((None, 5)) is None
    with pytest.raises(BadPosition, match=r"no partition in common"):
        places_of((two, parse_positions("t/0@1")))
