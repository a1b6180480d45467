"""How far a server is before it can answer: in words, as a number of seconds, and from what a reply says."""

import msgspec
import pytest

from dimint.so_far import SoFar, so_far_of


def test_in_words() -> None:
    """A share that is 100 only when it is, and seconds as soon as anything was read."""
    assert str(SoFar.after(0, 1000, 0, 5.0)) == "0 % of the log is read, ask again"
    assert str(SoFar.after(250, 1000, 50, 2.0)) == "25 % of the log is read, ask again in about 30 s"
    assert str(SoFar.after(9999, 10_000, 9999, 0.1)) == "99 % of the log is read, ask again in about 1 s"
    assert (SoFar(0, 0).ask_again_s, SoFar(1, 2, 0.2).ask_again_s, SoFar(1, 2, 2.1).ask_again_s) == (1, 1, 3)


def test_from_a_reply() -> None:
    """As it was sent; anything else says nothing."""
    so_far = SoFar(1, 20, 3.5)
    assert so_far_of(msgspec.json.decode(msgspec.json.encode(so_far))) == so_far


@pytest.mark.parametrize("fields", [None, 7, "1 %", {}, {"done": 1}, {"done": "1", "total": 2}])
def test_nothing_of_the_kind(fields: object) -> None:
    """Replies come from elsewhere."""
    assert so_far_of(fields) is None
