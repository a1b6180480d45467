"""Text of others on a terminal."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dimint.visible import visible


def test_harmless_text_stays() -> None:
    """Letters of any script, wide ones, every kind of space."""
    for text in ("", "plain", "größe 大きい", "a\u00a0b\u3000c", "\\"):
        assert visible(text) == text


def test_what_is_kept_is_the_callers_choice() -> None:
    """Tabs and line ends are escaped unless a caller can stand them."""
    assert visible("a\tb\n") == "a\\tb\\n"
    assert visible("a\tb\n", keep="\t\n") == "a\tb\n"


@given(st.text(), st.text())
def test_json_stays_the_same_json(key: str, value: str) -> None:
    """Whatever stands in its strings, and nothing that a terminal acts on is left."""
    text = visible(json.dumps({key: value}, ensure_ascii=False))
    assert json.loads(text) == {key: value}
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u200e\u202e\u2066" for char in text)
