"""Hostile text made showable."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.webapp.text import clean, cut, display_name, fit, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"), ("\x1b[2J", "\\x1b[2J"), ("\x9b31m", "\\x9b31m"), ("a\u202eb", "a\\u202eb"), ("\ud800", "\\ud800"),
        ("a\u3000b", "a b"), ("e\u0301", "e\u0301"), ("a" + "\u0301" * 9, "a\u0301\u0301"), ("❤\ufe0f", "❤"), ("\u0301a", "a"),
        ("\U000e0041", "\\U000e0041"),
    ],
)  # fmt: skip
def test_clean(text: str, shown: str) -> None:
    """Controls, bidi and format characters become visible; surplus marks and selectors go."""
    assert clean(text) == shown


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("漢字", 4), ("ｱ", 1), ("Ａ", 2), ("e\u0301", 1), ("🎉", 2), ("한", 2)]
)
def test_width(text: str, columns: int) -> None:
    """East Asian wide and full-width characters take two columns, combining marks none."""
    assert width(text) == columns


def test_cut_and_fit() -> None:
    """One `…` stands for what was cut; a wide character that does not fit leaves a space."""
    assert (cut("abcdef", 4), cut("abcdef", 4, left=True), cut("abcd", 4), cut("ab", 0)) == ("abc…", "…def", "abcd", "")
    assert (fit("漢字漢字", 4), fit("a", 3), fit("a", 3, right_align=True)) == ("漢… ", "a  ", "  a")


@given(st.text(max_size=400), st.integers(0, 60), st.booleans())
def test_anything_fits(text: str, columns: int, left: bool) -> None:
    """Whatever the text: exactly the columns asked for, printable, and UTF-8 can carry it."""
    shown = fit(clean(text), columns, left=left)
    assert width(shown) == columns
    shown.encode()
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)


@given(st.text(max_size=40))
def test_only_simulated_hosts_end_with_the_mark(name: str) -> None:
    """A real host's shown name never ends with the mark of a simulated one."""
    shown, mark = display_name(name, simulated=False)
    assert mark == ""
    assert not shown.rstrip().endswith("(sim)")
    assert display_name(name, simulated=True)[1] == " (sim)"
