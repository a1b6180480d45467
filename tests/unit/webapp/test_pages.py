"""The pages: everything escaped, nothing that a name can break, the same tree for the first page and its updates."""

import json
from datetime import UTC
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dimint.webapp.as_html import Page, hosts_page, message_page
from dimint.webapp.asked import LAYOUTS, Asked, Layout
from dimint.webapp.cards import card_node
from dimint.webapp.fields import FIELDS
from dimint.webapp.filter import parse_filter
from dimint.webapp.groups import load_of
from dimint.webapp.judge import problems, use_of
from dimint.webapp.models import Cell, Host, Snapshot, Status, Use
from dimint.webapp.nodes import Node, dump_json, node, to_html, to_json
from dimint.webapp.parts import PageStyle, trend
from dimint.webapp.shown import Kept, show
from dimint.webapp.view import sampled
from tests.support.hosts import GTX, MIB, cpu, gpu, host, ns, sample

STYLE = PageStyle(UTC, title="<DiMint>", description="a & b")
NOW = ns("2018/12/03 23:17:09")


class Outline(HTMLParser):
    """Every tag with its attributes, and whether tags are closed as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def whole_page(hosts: list[Host], layout: Layout) -> str:
    snapshot = Snapshot(1, tuple(hosts), dict.fromkeys((one.id for one in hosts), 1), 1, NOW)
    wanted = Asked(layout=layout)
    shown = show(snapshot, wanted, STYLE, now_ns=NOW, per_page=8)
    page = Page("/", wanted, 3, "2018/12/03 23:16:59", "/events?view=cards&page=0", 5, bool(wanted.at))
    kept = Kept()
    return hosts_page(page, STYLE, shown, [kept.html(layout, part) for part in shown.parts])


def test_every_page_explains_the_filter() -> None:
    """At its foot: every field with its words, and examples that are filters and lead to what they show."""
    page = message_page(STYLE, "x", "y")
    assert all(f"<code>{name}</code></dt><dd>" in page for name in FIELDS)
    examples = [dict(attributes)["href"] for tag, attributes in Outline(page).tags if tag == "a" and "filter=" in str(attributes)]
    assert len(examples) == 5
    for href in examples:
        assert href is not None
        assert parse_filter(parse_qs(href.partition("?")[2])["filter"][0]).test is not None


EVIL = "</script><img src=x onerror=alert(1)>\"'&"
NAMES = st.one_of(st.text(max_size=300), st.sampled_from([EVIL, "\x1b]0;x\x07", "\u202eexe", "\ud800", "<bdi>", "\x00parts\x00"]))


@settings(max_examples=40)
@given(NAMES, NAMES, st.sampled_from(list(Status)), st.booleans())
def test_no_name_becomes_markup(name: str, other: str, status: Status, simulated: bool) -> None:
    """A page with hostile names has the tags and attributes of one with harmless names, and no control characters."""

    def hosts(first: str, second: str) -> list[Host]:
        card = gpu(0, first, 1, 2, 3, 4) | {"u": "u"}
        content = sample([card], [{"g": 0, "pid": 1, "name": second, "user": first, "mem": MIB}], **cpu())
        lost = sample([card | {"st": "lost"}])
        return [
            host("h", content, status=status, simulated=simulated), host("i", lost), host("j", sample([], gpu_state="hung")),
        ]  # fmt: skip

    def pages(first: str, second: str) -> list[str]:
        shown = [
            Host(**{**fields(one), "name": first, "ip": second, "id": f"{at:032x}"})
            for at, one in enumerate(hosts(first, second))
        ]
        pages = [whole_page(shown, layout) for layout in LAYOUTS if layout != "tiles"]
        return [*pages, whole_page(shown[:1], "tiles"), message_page(STYLE, first or "x", second)]

    for hostile, harmless in zip(pages(name or "x", other or "x"), pages("x", "x"), strict=True):
        hostile.encode()
        assert [(tag, sorted(names)) for tag, names in Outline(hostile).tags] == [
            (tag, sorted(names)) for tag, names in Outline(harmless).tags
        ]
        assert not any((ord(char) < 32 and char != "\n") or 0x7F <= ord(char) < 0xA0 or char == "\u202e" for char in hostile)


def fields(shown: Host) -> dict[str, Any]:
    return {name: getattr(shown, name) for name in Host.__struct_fields__}


def test_pages_need_no_inline_script_or_style() -> None:
    """What the content policy forbids is not there: no inline script, style or handler."""
    hosts = [host("h", sample([gpu(0, GTX, 1, 2, 3, 4)], **cpu()))]
    pages = [whole_page(hosts, layout) for layout in LAYOUTS]
    for tag, attributes in (found for text in pages for found in Outline(text).tags):
        assert tag != "style"
        assert tag != "script" or attributes["src"] == "/static/live.js"
        assert not any(name == "style" or name.startswith("on") for name in attributes)


def test_state_is_symbol_word_and_class() -> None:
    """Colour never stands alone."""
    for status, words in ((Status.RUNNING, "● running"), (Status.WAITING, "◌ waiting"), (Status.DOWN, "✖ down")):
        assert words in Outline(whole_page([host("h", None, status=status)], "cards")).text


def test_everything_asked_of_a_card_is_there() -> None:
    """Utilisation, memory, temperature, power, processes with user and memory, CPU and memory of the host, the badge."""
    card = gpu(0, GTX, 10_000, 11_169, 57, 71) | {"p_mW": 212_000, "p_lim_mW": 250_000}
    content = sample([card], [{"g": 0, "pid": 77, "name": "train", "user": "alice", "mem": 512 * MIB, "orphan": True}], **cpu())
    shown = host("h", content, simulated=True)
    text = Outline(whole_page([shown], "cards")).text
    for words in (GTX, "57 %", "9.8 / 10.9 GiB", "71 °C", "212 / 250 W", "alice", "train", "77", "512 MiB", "13 %",
                  "12.0 / 64.0 GiB", "simulated", "orphan", "2018/12/03 23:16:59", "load 0.50 1.25 2.00"):  # fmt: skip
        assert words in text, words
    for layout in ("gpus", "rows"):
        text = Outline(whole_page([shown], layout)).text
        for words in ("simulated", "13 %", "18 %", "alice", "71 °C"):
            assert words in text, words


def test_json_of_a_tree_is_the_tree() -> None:
    """What the browser builds from is the same tree that became HTML."""

    def back(value: Any) -> Node | str:
        return value if isinstance(value, str) else Node(value[0], value[1], tuple(map(back, value[2:])))

    tree = card_node(host("<h>", sample([gpu(0, GTX, 1, 2, 3, 4)], **cpu())), STYLE)
    assert back(json.loads(dump_json(to_json([tree])))[0]) == tree


def test_trend_has_gaps_and_words() -> None:
    """Nothing known is a gap in the line; the line says its median and highest value."""
    line = trend((None, 10, 20, None, 30), "GPU 0")
    assert line is not None
    assert line.children[0] == node("path", d="M25.0 20.8L50.0 18.6M100.0 16.4")
    assert line.attributes["aria-label"] == "GPU 0: median 20 %, highest 30 %"
    assert trend((None, 10), "GPU 0") is None


def test_processes_stand_by_user_and_orphans_first() -> None:
    """Who holds the most stands first; memory that belongs to no process has a row of its own; places are named."""
    card = gpu(0, GTX, 9000, 11_169, 50, 40) | {"mem_other": 3000 * MIB}
    processes = [
        {"g": 0, "pid": 1, "name": "a", "user": "small", "mem": 100 * MIB, "job": "77"},
        {"g": 0, "pid": 2, "name": "b", "user": "big", "mem": 3000 * MIB, "ns": "lab", "pod": "train-0"},
        {"g": 0, "pid": 3, "name": "c", "user": "big", "mem": 2900 * MIB, "ctr": "0123456789abcdef", "rt": "docker"},
    ]
    text = Outline(whole_page([host("h", sample([card], processes))], "cards")).text
    places = [text.index(words) for words in ("memory of no process", "pod lab/train-0", "docker 0123456789ab", "job 77")]
    assert places == sorted(places)
    assert "3000 MiB belong to no process" in text


def test_a_card_says_for_how_long_and_how_right_its_clock_is() -> None:
    """Up time, clock, and for each process its share and its age."""
    rows = [{"g": 0, "pid": 7, "user": "ada", "name": "train", "mem": MIB, "sm_pct": 37, "t0_ms": (NOW - 7200 * 10**9) // 10**6}]
    content = sample([gpu(0, GTX, 1, 2, 93, 40)], rows, **cpu()) | {"mono_ns": 3 * 86_400 * 10**9}
    for late_s, words in ((0.2, "clock −0.2 s"), (0.01, "clock 0.0 s"), (-7, "▲ clock +7.0 s")):
        taken = sampled(NOW, content, received_ns=NOW + int(late_s * 10**9))
        shown = replace(host("a", None, at="2018/12/03 23:17:09"), samples=(taken,))
        text = Outline(to_html(card_node(shown, STYLE))).text
        for part in ("up 3 days", words, "37 %", "2 h"):
            assert part in text, part
        found = [problem.text for problem in problems([shown], NOW)]
        assert found == ([] if late_s > 0 else ["its clock is 7 s ahead of the log's"])


def test_mig_instances_stand_for_their_gpu() -> None:
    """A split GPU is neither free nor counted; its instances are, and say their shape."""
    whole, part = gpu(0, GTX, 4, 80_000, None, 40), gpu(1, GTX, 1, 10_000, None, None)
    part |= {"parent": whole["u"], "profile": "1g.10gb"}
    shown = host("a", sample([whole, part]))
    assert [use_of(one) for one in shown.samples[0].gpus] == [Use.SPLIT, Use.FREE]
    text = Outline(to_html(card_node(shown, STYLE))).text
    assert "split into MIG instances" in text
    assert "1g.10gb" in text
    assert "GPUs1free GPUs1" in Outline(whole_page([shown], "rows")).text
    assert "1 of 1" in Outline(whole_page([shown], "rows")).text
    assert load_of([shown]).gpus == 1


def test_an_overview_leads_to_what_changed_just_now() -> None:
    """Whatever the layout is."""
    shown = host("a", sample([gpu(0, GTX, 1, 2, 3, 40)]))
    for layout in LAYOUTS:
        assert 'href="/changes?from=-15m"' in whole_page([shown], layout)


def test_states_of_gpus_have_their_symbols() -> None:
    """What is gone is bad; what sleeps is well, and what is not known is not said to be bad."""
    for state, sign in (("lost", "✖"), ("hung", "✖"), ("missing", "✖"), ("suspended", "◌"), ("unknown", "?")):
        shown = host("a", sample([gpu(0, GTX, None, None, None, None) | {"st": state}]))
        layouts: tuple[Layout, ...] = ("cards", "rows", "gpus")
        for layout in layouts:
            text = Outline(whole_page([shown], layout)).text
            assert f"{sign} {state}" in text, layout
            assert ("✖" in text) == (sign == "✖"), layout


def test_idle_is_what_was_seen_to_be_idle() -> None:
    """Minutes of which nothing is known are no idle ones; as soon as half of them were seen it is a problem."""
    rows = [{"g": 0, "pid": 7, "user": "ada", "mem": MIB, "t0_ms": (NOW - 7200 * 10**9) // 10**6}]
    shown = host("a", sample([gpu(0, GTX, 1, 2, 0, 40)], rows), at="2018/12/03 23:17:09")
    for seen, idle in ((1, False), (14, False), (15, True), (30, True)):
        cells = (Cell(None, Use.UNKNOWN, None),) * (60 - seen) + (Cell(0, Use.IDLE, "ada"),) * seen
        found = [problem.text for problem in problems([replace(shown, hour=(cells,))], NOW)]
        assert found == (["held for 2 h and idle, by ada"] if idle else []), seen
