"""How far a topic may be trimmed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.errors import NotSafe
from dimint.log.port import Bounds
from dimint.trim_plan import Cut, Needs, check_safe, plan, taking

offsets = st.integers(0, 50)
positions = st.dictionaries(st.integers(0, 3), offsets)


@given(st.lists(st.tuples(offsets, offsets), min_size=4, max_size=4), positions, st.lists(positions, max_size=4))
def test_nothing_goes_that_anybody_needs(
    pairs: list[tuple[int, int]], wanted: dict[int, int], needs: list[dict[int, int]]
) -> None:
    """Of any needs: never past one, past the end or past what was asked for, and as much of that as they allow."""
    bounds = {partition: Bounds(min(pair), max(pair)) for partition, pair in enumerate(pairs)}
    cuts = plan(bounds, wanted, [Needs(f"reader {number}", first) for number, first in enumerate(needs)])
    assert [cut.partition for cut in cuts] == sorted(wanted)
    for cut in cuts:
        start, end = bounds[cut.partition]
        limits = [end, wanted[cut.partition], *(first[cut.partition] for first in needs if cut.partition in first)]
        assert (cut.start, cut.before) == (start, max(start, min(limits)))
        assert bool(cut.kept_for) == (cut.before < cut.wanted)
    assert [cut.partition for cut in taking(cuts)] == [cut.partition for cut in cuts if cut.before > cut.start]
    if not any(cut.kept_for for cut in cuts):
        check_safe("t", cuts)


def test_a_refusal_names_what_is_unsafe() -> None:
    """The position that was asked for, who needs more, and from where."""
    cuts = plan(
        {2: Bounds(5, 100)}, {2: 80}, [Needs("node 1234", {2: 70}), Needs("the tables", {2: 30, 1: 0}), Needs("x", {2: 31})]
    )
    assert cuts == [Cut(2, 5, 30, 80, "the tables")]
    with pytest.raises(NotSafe, match=r"dimint.kv/2@80 cannot be trimmed to: the tables needs what stands from 30 on; trim less"):
        check_safe("dimint.kv", cuts)
