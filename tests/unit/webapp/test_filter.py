"""The filter language: what it means, what it refuses and in which words, and that no text breaks it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.errors import BadQuery
from dimint.webapp.asked import read_asked, selected
from dimint.webapp.fields import FIELDS
from dimint.webapp.filter import parse_filter
from dimint.webapp.models import Host, Status
from tests.support.hosts import GTX, H100, MIB, cpu, gpu, host, ns, sample

AT = "2018/12/03 23:16:59"
NOW = ns(AT) + 10_000_000_000


def two_gpus() -> Host:
    """GPU 0 is free and cool, alice has held GPU 1 for 40 minutes; tagged, at 12.5 % CPU."""
    process = {"g": 1, "pid": 77, "user": "Alice", "name": "/usr/bin/python3", "cmd": "python3 train.py", "mem": 1000 * MIB}
    process["t0_ms"] = (NOW - 40 * 60 * 1_000_000_000) // 1_000_000
    content = sample([gpu(0, GTX, 0, 11_169, 0, 36), gpu(1, H100, 10_000, 81_559, 90, None)], [process], **cpu())
    return host("gpu-01", content, at=AT, facts={"tags": {"rack": "r7", "lab": "lab1"}, "driver": "570.1"})


MATCHES = [
    "", "gpu.util<5", "util < 5", "gpu.util>=90", "gpu.free", "free or lost", "user==alice", "user=ALICE", "held>30m", "held<1h",
    "user==alice and held>30m", "user==alice held>30m", "gpu.name~h100", "gpu.name~'hbm3 with'", 'gpu.name=="GeForce GTX*"',
    "program==python3", "program==/usr/bin/python3", "program~train.py", "pid==77", "tag:lab1", "tag:lab=lab1", "tag:rack=*",
    "not tag:lab2", "host==gpu-01", "gpu-01 alice", "host==gpu* and not (state==down or cpu>50)", "cpu<13 and ram<20", "gpus==2",
    "gpu.left>60GiB", "mem<=12%", "gpu.temp<40", "age<=10s", "not simulated", "driver==570.*", "!(gpu.temp>90) and gpu.index==0",
]  # fmt: skip
MISSES = [
    "gpu.util>95", "gpu.free and user==alice", "user==bob", "held>1h", "gpu.temp>=0 and gpu.index==1", "tag:lab2", "state==down",
    "not gpu.temp>90 and gpu.index==1", "gpu.index==0 and held>1s", "nobody", "simulated", "gpu.lost",
    "user!=alice and gpu.index==1",
]  # fmt: skip


@pytest.mark.parametrize("text", MATCHES)
def test_matches(text: str) -> None:
    """Fields, operators, words, joins: all of these hold for the host or one of its GPUs."""
    assert parse_filter(text).matches(two_gpus(), NOW)


@pytest.mark.parametrize("text", MISSES)
def test_does_not_match(text: str) -> None:
    """Terms about GPUs must hold for one and the same GPU; what is not known never matches, also after `not`."""
    assert not parse_filter(text).matches(two_gpus(), NOW)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu.utli<5", "there is no field 'gpu.utli'; did you mean"),
        ("util<", "a value is missing after gpu.util<"),
        ("util<five", "gpu.util is compared with a number, not with 'five'"),
        ("held>5", "held is compared with a time such as 30s, 30m, 2h or 1d, not with '5'"),
        ("user<bob", "user is text: compare it with ==, !=, ~ (contains) or !~, not <"),
        ("util~5", "gpu.util is a number: compare it with ==, !=, <, <=, > or >=, not ~"),
        ("free==1", "gpu.free is yes or no: write it alone, or after not"),
        ("(util<5", "a ( has no ) after it"),
        ("util<5)", "')' has no ( before it"),
        ("util<5 and", "a term such as gpu.util<5 is missing before the end"),
        ("or alice", "a term such as gpu.util<5 is missing before 'or'"),
        ("(" * 50 + "a" + ")" * 50, "the filter is nested deeper than 32"),
        ("a" * 1001, "the filter is longer than 1000 characters"),
    ],
)
def test_errors_say_what_is_wrong(text: str, words: str) -> None:
    """One line each, that says what is wrong and what could stand there."""
    with pytest.raises(BadQuery) as caught:
        parse_filter(text)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


WORDS = [*FIELDS, *"( ) and or not ! < <= == ~ : 5 30m alice ' \"".split()]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_a_filter_or_one_clear_line(text: str) -> None:
    """Nothing else comes out of the parser, and what parses can be asked."""
    try:
        found = parse_filter(text)
    except BadQuery:
        return
    assert found.matches(two_gpus(), NOW) in (True, False)
    assert found.matches(host("h", None), NOW) in (True, False)


NUMBERS = st.one_of(st.none(), st.integers(0, 100))
OPERATORS = st.sampled_from("< <= > >= == !=".split())
TERMS = st.builds(lambda op, value: f"gpu.util{op}{value}", OPERATORS, st.integers(0, 100))


@given(TERMS, TERMS, NUMBERS)
def test_joins_are_those_of_logic(one: str, other: str, util: int | None) -> None:
    """and, or, not over terms against the plain evaluation of these terms; unknown is unknown in all of them."""
    asked = host("h", sample([gpu(0, GTX, 1, 2, util, 3)]))

    def holds(text: str) -> bool:
        return parse_filter(text).matches(asked, NOW)

    def plain(text: str) -> bool:
        return bool(eval(text.replace("gpu.util", str(util))))

    if util is None:
        assert not any(holds(text) for text in (one, f"not {one}", f"{one} and {other}", f"{one} or {other}"))
    else:
        assert holds(one) is plain(one)
        assert holds(f"not {one}") is not plain(one)
        assert holds(f"{one} and {other}") is (plain(one) and plain(other))
        assert holds(f"{one} or {other}") is (plain(one) or plain(other))
        assert holds(f"not ({one} or {other})") is holds(f"not {one} and not {other}")


@given(st.lists(NUMBERS, max_size=8), st.booleans())
def test_order(utils: list[int | None], down: bool) -> None:
    """By a field either way; hosts that are equal stay as they were, what is not known comes last."""
    hosts = [host(f"h{at}", sample([gpu(0, GTX, 1, 2, util, 3)])) for at, util in enumerate(utils)]
    asked = read_asked({"sort": "-util" if down else "util"}.get)
    found = [one.newest.gpus[0].util_pct for one in selected(hosts, asked, NOW) if one.newest is not None]
    known = sorted((util for util in utils if util is not None), reverse=down)
    assert found == known + [None] * (len(utils) - len(known))
    names = [one.name for one in selected(hosts, asked, NOW)]
    assert names == sorted(names, key=lambda name: rank(utils[int(name[1:])], down))


def rank(util: int | None, down: bool) -> float:
    return float("inf") if util is None else -util if down else util


def test_address_is_read_and_written() -> None:
    """What a query says comes back from the same view's address; words that mean nothing are refused."""
    words = {"page": "2", "view": "grid", "filter": "user==alice", "sort": "-gpu.util,host", "group": "rack", "at": "-2h"}
    asked = read_asked(words.get)
    assert asked.query() == "?page=2&view=grid&filter=user%3D%3Dalice&sort=-gpu.util%2Chost&group=rack&at=-2h"
    assert asked.query(page=0, at="", sort=(), group=None) == "?view=grid&filter=user%3D%3Dalice"
    for wrong in ({"view": "pie"}, {"sort": "colour"}, {"sort": ",".join(["host"] * 9)}, {"filter": "("}):
        with pytest.raises(BadQuery):
            read_asked(wrong.get)


def test_state_decides_what_words_find() -> None:
    """Users and programs of a host that is down are history: they do not match, its name does."""
    content = sample([gpu(0, GTX, 1, 2, 3, 4)], [{"g": 0, "pid": 1, "user": "alice", "name": "x"}])
    down = host("h1", content, status=Status.DOWN)
    assert not parse_filter("alice").matches(down, NOW)
    assert parse_filter("h1 down").matches(down, NOW)
