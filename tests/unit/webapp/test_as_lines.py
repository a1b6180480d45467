"""Terminal views for many hosts, and how terminal views are written: width, ASCII, colours, tabs."""

from dataclasses import replace
from datetime import UTC

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.errors import BadQuery
from dimint.settings_thresholds import THRESHOLDS
from dimint.webapp.as_lines import LINE_VIEWS, Frame, line_view, tsv
from dimint.webapp.as_terminal import STATUS_VIEW, TerminalStyle
from dimint.webapp.judge import problems
from dimint.webapp.models import Host, Status
from dimint.webapp.terminal_options import as_ascii, read_terminal_options
from dimint.webapp.text import width
from dimint.webapp.trends import CELL_NS, Trends
from dimint.webapp.view import Facts, host_view, sampled
from tests.support.hosts import GTX, MIB, cpu, gpu, host, ns, sample

AT = "2018/12/03 23:16:59"
NOW = ns(AT) + 3_000_000_000


def busy_host(name: str, user: str = "alice", **facts: object) -> Host:
    """Two GPUs: one that a user has kept 87 % busy for the last half hour, one free."""
    process = {"g": 0, "pid": 5, "user": user, "name": "x", "mem": 9000 * MIB}
    trends = Trends()
    newest = None
    for minute in range(30, -1, -1):
        content = sample([gpu(0, GTX, 9000, 11_169, 87, 71), gpu(1, GTX, 0, 11_169, 0, 36)], [process], **cpu())
        newest = sampled(ns(AT) - minute * CELL_NS, content)
        trends.add(newest)
    assert newest is not None
    return host_view(
        name,
        name,
        "10.0.0.1",
        Facts.of(facts, facts.get("simulated") is True),
        Status.RUNNING,
        ns(AT),
        [newest],
        trends.lines(2),
        trends.hour(2),
    )


def text_of(view: str, hosts: list[Host], group: str | None = None, top: int = 0) -> list[str]:
    frame = Frame(hosts, NOW, 90, "data", group, top)
    return [line.text for line in line_view(view, frame)]


def test_cards() -> None:
    """A line a GPU: busy, the last minutes, memory by user and what belongs to nobody, heat; under it who is on it."""
    cards = [
        gpu(0, GTX, 9000, 12_000, 43, 71) | {"p_mW": 200_000, "p_lim_mW": 250_000},
        gpu(1, GTX, None, 12_000, None, None) | {"st": "lost"},
        gpu(2, GTX, 0, 12_000, 0, 30) | {"ev": 0x40},
    ]
    processes = [
        {"g": 0, "pid": 7, "name": "/usr/bin/python3", "user": "alice", "mem": 5000 * MIB, "job": "77", "sm_pct": 40,
         "t0_ms": (NOW - 3 * 3600 * 10**9) // 10**6},
        {"g": 0, "pid": 8, "name": "x", "user": "bob", "mem": 2000 * MIB},
    ]  # fmt: skip
    newest = sampled(NOW, sample(cards, processes, **cpu(64), mono_ns=11 * 3600 * 10**9))
    minutes = (None, 0, 50, 100)
    shown = host_view("a", "a", "10.0.0.1", Facts.of({}, False), Status.RUNNING, NOW, [newest], [minutes] * 3)
    lines = line_view("cards", Frame([shown, host("b", None, status=Status.DOWN)], NOW, 90, "data"))
    assert [line.text for line in lines] == [
        "● a · 10.0.0.1 · 3 × GeForce GTX 1080 Ti · CPU 64 % · RAM 12/64 GiB · load 0.5 · up 11 h",
        "  0   43%                                   ·▁▄█  aaaaabb??···   8.8/11.7 GiB  71°C  200 W",
        "       alice    python3 · job 77                            7    4.9 GiB   40%  3 h",
        "       bob      x                                           8    2.0 GiB    -%",
        "  1  ✖ lost",
        "  2    0%              ·▁▄█  ············   0.0/11.7 GiB  30°C    - W  ▲ thermal slow-down",
        "",
        "✖ b · 127.0.0.1 · down",
        "",
        "2 hosts · 3 GPU · 1 busy · 0 idle-held · 1 free · ✖ 1 lost",
        "data",
    ]
    assert [line.host for line in lines[:7]] == ["a"] * 6 + [None]


def test_rows() -> None:
    """A line a host: bars, free, busy, memory, hottest, CPU, who."""
    hosts = [busy_host("a"), host("b", None, status=Status.DOWN)]
    lines = line_view("rows", Frame(hosts, NOW, 90, "data of now", problems=problems(hosts, NOW)))
    assert [line.text for line in lines] == [
        "✖ b: down",
        "",
        "  host GPUs  free  busy  memory GiB  temp  CPU  users",
        "● a    ▇·     1/2   43%     8/21     71°C  13%  alice 1",
        "✖ b    down",
        "2 hosts · 2 GPU · 1 busy · 0 idle-held · 1 free",
        "data of now",
    ]
    assert [line.host for line in lines] == ["b", None, None, "a", "b", None, None]


def test_rows_of_a_narrow_terminal() -> None:
    """Whole columns go, the least wanted first; no number is cut in two."""
    hosts = [busy_host("a"), host("no_gpu", sample([], **cpu(25)))]
    heads = {}
    for columns in (90, 52, 44, 40):
        lines = [line.text for line in line_view("rows", Frame(hosts, NOW, columns, "now"))]
        assert "…" not in "".join(lines[:3])
        heads[columns] = lines[0].split()[2:]
    assert heads == {
        90: ["free", "busy", "memory", "GiB", "temp", "CPU", "users"],
        52: ["free", "busy", "temp", "CPU", "users"],
        44: ["free", "busy", "CPU", "users"],
        40: ["free", "busy", "CPU", "users"],
    }


def test_grid() -> None:
    """Ten minutes a column with the mean and whose they were; dots where nothing is known."""
    assert text_of("grid", [busy_host("a")]) == [
        "  host GPU    -60m    -50m    -40m    -30m    -20m    -10m     now",
        "● a      0   ···     ···    87 ali  87 ali  87 ali  87 ali  87 ali",
        "         1   ···     ···     0 fre   0 fre   0 fre   0 fre   0 fre",
        "1 host · 2 GPU · 1 busy · 0 idle-held · 1 free",
        "data",
    ]


def test_groups() -> None:
    """A line a group, by the tag asked for."""
    hosts = [busy_host("a", tags={"rack": "r1"}), busy_host("b", tags={"rack": "r2"}), busy_host("c", tags={"rack": "r2"})]
    assert text_of("tiles", hosts, group="rack")[:2] == [
        "r1 2 GPU 1 busy 0 idle-held 1 free median 0%",
        "r2 4 GPU 2 busy 0 idle-held 2 free median 0%",
    ]
    assert len(text_of("tiles", hosts, group="rack", top=1)) == 3


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.sampled_from(LINE_VIEWS), st.integers(1, 200))
def test_no_name_breaks_a_line(name: str, view: str, columns: int) -> None:
    """Whatever a host, user or tag is called: no controls, no line wider than the terminal, ASCII keeps columns."""
    hosts = [busy_host(name or "x", name or "x", tags={"rack": name or "x"})]
    for line in line_view(view, Frame(hosts, NOW, columns, "data")):
        assert width(line.text) <= max(columns, 40)
        assert all(char.isprintable() for char in line.text)
        assert as_ascii(line.text).isascii()
        assert len(as_ascii(line.text)) == width(line.text)


def test_tabs() -> None:
    """A heading, a line a GPU, nothing where nothing is known; hostile tabs stay in their field."""
    found = [line.split("\t") for line in tsv([busy_host("a\tb", "eve\n"), host("c", None, status=Status.DOWN)]).splitlines()]
    assert len({len(fields) for fields in found}) == 1
    assert found[1][0] == "a\\x09b"
    assert dict(zip(found[0], found[1], strict=True)) | {"users": ""} == {
        "host": "a\\x09b", "ip": "10.0.0.1", "status": "running", "time": str(ns(AT) // 1_000_000_000), "gpu": "0", "name": GTX,
        "uuid": "GPU-00000000", "state": "ok", "util_pct": "87", "used_mib": "9000", "total_mib": "11169", "temp_c": "71",
        "power_w": "", "users": "",
    }  # fmt: skip
    assert found[3][:4] == ["c", "127.0.0.1", "down", ""]


def test_colours_and_ascii_on_demand() -> None:
    """Nothing by default; ASCII in the same columns; colours for what is high or wrong, after everything is cut."""
    text = STATUS_VIEW.text([busy_host("a")], TerminalStyle(UTC))
    plain = read_terminal_options(dict[str, str]().get)
    assert plain.finished(text) == text
    ascii_ = read_terminal_options({"ascii": "1"}.get).finished(text)
    assert ascii_.isascii()
    assert [len(line) for line in ascii_.splitlines()] == [80] * len(ascii_.splitlines())
    coloured = read_terminal_options({"color": "1"}.get).finished(text)
    assert "\x1b[33m87 %\x1b[0m" in coloured
    strict = read_terminal_options({"color": "1"}.get, replace(THRESHOLDS, much_percent=50, hot_temperature=40))
    assert strict.finished("50 %  40 °C") == "\x1b[31m50 %\x1b[0m  \x1b[31m40 °C\x1b[0m"
    assert read_terminal_options({"watch": "2"}.get).colour
    assert not read_terminal_options({"watch": "2", "color": "0"}.get).colour


@pytest.mark.parametrize("word", [{"w": "x"}, {"w": "0"}, {"color": "blue"}, {"format": "xml"}, {"watch": "0"}, {"top": "-1"}])
def test_wrong_words(word: dict[str, str]) -> None:
    """Each is one clear line."""
    with pytest.raises(BadQuery):
        read_terminal_options(word.get)
