"""Names of hosts: cleaned, unique, independent of the order in which partitions were read."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.names import Claim, clean_name, share_names
from dimint.limits import HOST_NAME_MAX_CHARS
from tests.support.samples import host_id


def test_forbidden_characters_become_underscores() -> None:
    """The documented characters and whatever cannot be printed are replaced, letter for letter."""
    assert clean_name("gpu-01.lab") == "gpu_01_lab"
    assert clean_name("a.b,c-d@e[f]g:h;i") == "a_b_c_d_e_f_g_h_i"
    assert clean_name("x\x1b[2J\u202ey\n/z") == "x__2J_y__z"
    assert clean_name("Gerät 7") == "Gerät 7"


def test_first_come_has_the_plain_name() -> None:
    """Later claims get the first 32 bits of their own id, longer parts of it where even that is taken."""
    first, second, third = (letter * 32 for letter in "abc")
    names = share_names([Claim(2, second, "n"), Claim(1, first, "n"), Claim(1, third, "n_bbbbbbbb")])
    assert names == {first: "n", second: "n_" + second, third: "n_bbbbbbbb"}
    assert share_names([Claim(1, first, "n"), Claim(2, second, "n")])[second] == "n_bbbbbbbb"
    assert share_names([Claim(1, first, "")]) == {first: first}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "", "a_0", "x" * HOST_NAME_MAX_CHARS])), max_size=20))
def test_names_are_unique_whatever_the_order(wishes: list[tuple[int, str]]) -> None:
    """Claims in any order give the same names, each once and none too long."""
    claims = [Claim(since, host_id(at), name) for at, (since, name) in enumerate(wishes)]
    names = share_names(claims)
    assert len(set(names.values())) == len(claims)
    assert all(0 < len(name) <= HOST_NAME_MAX_CHARS for name in names.values())
    random.Random(1).shuffle(claims)
    assert share_names(claims) == names
