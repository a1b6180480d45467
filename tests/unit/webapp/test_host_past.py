"""A host's long past: minutes and hours with their least and most, processes by user, ranges as addresses."""

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from dimint.consumers.intervals import processes_of
from dimint.consumers.rows import StoredSample
from dimint.consumers.tiers import sum_up
from dimint.errors import BadQuery
from dimint.webapp.as_json import host_state
from dimint.webapp.as_lines import data_line
from dimint.webapp.as_processes import processes_section
from dimint.webapp.as_terminal import DETAIL_VIEW, TerminalStyle
from dimint.webapp.cards import card_node
from dimint.webapp.charts import charts_node
from dimint.webapp.happenings import marks_of
from dimint.webapp.history import Come, Series, late_stretches
from dimint.webapp.history_tiers import history_of_slots
from dimint.webapp.host_past import read_history
from dimint.webapp.marks import Mark
from dimint.webapp.nodes import to_html
from dimint.webapp.panels import panels_of
from dimint.webapp.parts import PageStyle
from dimint.webapp.plots import plots
from dimint.webapp.ranges import Range, range_nav, read_span
from dimint.webapp.static_files import load_static_files
from tests.support.fleet import MemoryTables, host_id
from tests.support.hosts import GTX, MIB, cpu, gpu, host, sample

MINUTE = 60_000_000_000
TEN = 10 * MINUTE
DAYS = 2 * 1440 * MINUTE
CARD = gpu(0, GTX, 2048, 11_169, 0, 40)
NAMES = {CARD["u"]: "GPU 0"}


def stored(minute: int, util: int, user: str | None, **more: object) -> StoredSample:
    """One sample a minute; `user` holds 2 GiB of the only GPU."""
    process = [{"g": 0, "pid": 7, "name": "<b>train", "user": user, "mem": 2048 * MIB}] if user else []
    content = sample([CARD | {"util_pct": util}], process, **cpu(), int_ms=60_000, **more)
    return StoredSample(minute * MINUTE, minute * MINUTE, b"run", minute, content)


def samples() -> list[StoredSample]:
    """Two hours, the second of which alice is there; nothing is known of ten minutes."""
    found = []
    for minute in range(120):
        if not 30 <= minute < 40:
            net = [{"if": "eth0", "rx": minute * 60 * 2048, "tx": 0}]
            found.append(stored(minute, minute % 10, "alice" if minute >= 60 else None, net=net))
    return found


def test_steps_have_means_and_bounds() -> None:
    """Each step of ten minutes has mean, least and most; what is not known stays so; users hold what their processes had."""
    slots = sum_up(samples(), TEN)
    found = history_of_slots(
        slots, TEN, 0, 120 * MINUTE - 1, names=NAMES, memory_total=None, gpus_total_mib=11_169,
        processes=processes_of(samples()), made_of=MINUTE,
    )  # fmt: skip
    gap = (None,)
    assert found.steps == 12
    assert found.util == (Series("GPU 0", (4,) * 3 + gap + (4,) * 8, (0,) * 3 + gap + (0,) * 8, (9,) * 3 + gap + (9,) * 8),)
    assert found.known == (True,) * 3 + (False,) + (True,) * 8
    assert found.memory == (Series("alice", (0,) * 3 + gap + (0,) * 2 + (2048,) * 6),)
    assert found.users == (Come(60 * MINUTE, "alice", True, (0,)),)
    assert found.network[0].name == "eth0 in"
    assert set(found.network[0].values) <= {None, 2}


def test_the_page_and_its_script_get_the_same_numbers() -> None:
    """JSON and picture are of the same panels; events that matter are marked on both, users' comings on neither."""
    slots = sum_up(samples(), TEN)
    history = history_of_slots(
        slots, TEN, 0, 120 * MINUTE - 1, names=NAMES, memory_total=1, gpus_total_mib=1, processes=(), made_of=MINUTE
    )
    marks = [Mark(5 * MINUTE, "▲", "warn", "XID \x1b 79"), Mark(6 * MINUTE, "→", "plain", "alice came")]
    told = plots(history, marks, ZoneInfo("Europe/Berlin"))
    assert [chart["id"] for chart in told["charts"]] == [panel.id for panel in panels_of(history)]
    assert told["charts"][0]["series"][0]["low"] == history.util[0].low
    assert (told["step"], told["steps"], told["zone"], told["offset"]) == (600, 12, "Europe/Berlin", 3600)
    assert told["gaps"] == [(3, 4)]
    assert [mark["at"] for mark in told["marks"]] == [300]
    assert "\x1b" not in str(told["marks"])
    page = to_html(charts_node(history, marks, UTC, refresh=None))
    assert page.count('class="event warn"') == len(told["charts"])
    assert '<svg viewBox="0 0 12 100"' in page
    assert 'class="plot"' in page
    assert 'class="plot"' not in to_html(charts_node(history, [], UTC, refresh=None, drawn=True))


def test_who_was_here_is_told_by_user() -> None:
    """A line a process under its user, hours within the range only, hostile names as text; nobody gives no section."""
    section = processes_section(processes_of(samples()), NAMES, 90 * MINUTE, 120 * MINUTE, UTC)
    assert section is not None
    page = to_html(section)
    assert "0.5 GPU-hours · 1 process on GPU 0" in page
    assert "&lt;b&gt;train" in page
    assert "still there" in page
    assert processes_section([], {}, 0, 1, UTC) is None


@pytest.mark.parametrize("text", ["6", "-1h", "1s", "9000d", "<b>"])
def test_a_bad_span_is_told(text: str) -> None:
    """One clear line."""
    with pytest.raises(BadQuery, match="last"):
        read_span(text)


def test_ranges_are_addresses() -> None:
    """Live spans stay live; of a past range the same spans end where it ends, and it can be moved."""
    now = 1_000_000 * MINUTE
    live = to_html(range_nav("/hosts/a/", Range(now - 60 * MINUTE, now, live=True), now))
    assert '<a href="/hosts/a/?last=1h" aria-current="true">1 h</a>' in live
    assert "later" not in live
    past = to_html(range_nav("/hosts/a/", Range(now - 180 * MINUTE, now - 120 * MINUTE, live=False), now))
    assert "last=" not in past
    assert "later" in past


def test_uplot_is_served_as_it_was_released() -> None:
    """Both files of the installed package are uPlot's own; without the package the pages do without."""
    assert load_static_files()["uplot.js"].body.startswith(b"/*! https://github.com/leeoniya/uPlot (v1.6.31) */")
    assert {"uplot.js", "uplot.css"}.isdisjoint(load_static_files("no-such-package"))


@pytest.mark.parametrize(
    ("every", "first", "last", "told"),
    [(1, 10, 29, " 00:29"), (60, 600, 1740, " 04 05:00"), (720, 7200, 20_880, " 17 12:00")],
)
def test_what_came_late_is_marked(every: int, first: int, last: int, told: str) -> None:
    """Samples that waited on an agent's disk are a band in the lane, with the time when they end: of an hour, days, weeks."""
    tables = MemoryTables()
    tables.register(host_id(1), "h")
    for minute in range(0, 60 * every, every):
        content = sample([CARD | {"util_pct": minute % 100}], **cpu(), int_ms=every * 60_000)
        received = max(minute, last + every) if first <= minute <= last else minute
        tables.put(host_id(1), DAYS + minute * MINUTE, content, received_ns=DAYS + received * MINUTE)
    shown = host("h", sample([CARD]))
    history = read_history(tables, replace(shown, id=host_id(1)), DAYS, DAYS + 60 * every * MINUTE)
    ((begin_ns, end_ns),) = history.backfilled
    assert end_ns == DAYS + last * MINUTE
    assert 0 <= DAYS + first * MINUTE - begin_ns < history.step_ns
    marks = marks_of(shown, [], history, UTC)
    ((time_ns, symbol, words),) = [(mark.time_ns, mark.symbol, mark.words.partition(": ")[0]) for mark in marks]
    assert (time_ns, symbol) == (begin_ns, "◌")
    assert words.startswith("backfilled until ")
    assert words.endswith(told)
    assert 'class="late"' in to_html(charts_node(history, marks, UTC, refresh=None))


def test_late_stretches_end_where_somebody_saw() -> None:
    """One sample that came in time, or a silence, parts them; none is none."""
    late = [(at, at, kind == "l") for at, kind in enumerate("lslll.....ls") if kind != "."]
    assert late_stretches(late, 3) == ((0, 0), (2, 4), (10, 10))
    assert late_stretches([], 3) == ()


def test_a_backfilled_moment_says_so_everywhere() -> None:
    """The card, both terminal views and the JSON of a host whose sample nobody saw at its time."""
    late = replace(host("h", sample([CARD], **cpu())), backfilled=True)
    assert host_state(late, UTC, with_data=True)["backfilled"] is True
    assert "backfilled" not in host_state(replace(late, backfilled=False), UTC, with_data=True)
    assert "backfilled" in to_html(card_node(late, PageStyle(UTC)))
    style = TerminalStyle(UTC, 80)
    assert "1 host backfilled" in data_line(1, 2, [late], style)
    assert "(backfilled)" in DETAIL_VIEW.block(late, style)
