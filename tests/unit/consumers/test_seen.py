"""Numbers seen of a run."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.seen import RANGES_MAX, SeenNumbers


@given(st.lists(st.integers(1, 40)))
def test_it_is_a_set(numbers: list[int]) -> None:
    """It says of every number what a set says, also after being stored and read back."""
    seen, model = SeenNumbers(), set[int]()
    for number in numbers:
        assert seen.add(number) == (number not in model)
        model.add(number)
        seen = SeenNumbers(seen.ranges())
    edges = seen.ranges()
    assert {number for first, last in zip(edges[::2], edges[1::2], strict=True) for number in range(first, last + 1)} == model


def test_it_is_bounded() -> None:
    """With too many gaps the lowest one is closed; numbers in it count as seen."""
    seen = SeenNumbers()
    for number in range(1, 2 * RANGES_MAX + 200, 2):
        assert seen.add(number)
    assert len(seen.ranges()) == 2 * RANGES_MAX
    assert not seen.add(2)
    assert seen.add(2 * RANGES_MAX + 100)
