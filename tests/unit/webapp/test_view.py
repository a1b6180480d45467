"""From stored samples to what is shown: units, missing values, states, times."""

from datetime import UTC
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from dimint.producers.simulated import SimulatedHost
from dimint.webapp.as_json import gpu_data, states_item
from dimint.webapp.as_lines import LINE_VIEWS, Frame, line_view, tsv
from dimint.webapp.as_terminal import DETAIL_VIEW, GPU_TABLE_VIEW, STATUS_VIEW, TerminalStyle
from dimint.webapp.asked import LAYOUTS, Asked
from dimint.webapp.judge import units, use_of
from dimint.webapp.models import Sampled, Snapshot, Status, Use
from dimint.webapp.nodes import to_html
from dimint.webapp.parts import PageStyle
from dimint.webapp.sent import OF_MANY, SHOWN, Sent, SentGpu, SentProcess, read_doubtful, read_packed
from dimint.webapp.shown import show
from dimint.webapp.times import DateOrder, compact, gpu_stamp, stamp
from dimint.webapp.view import ordered, paged, sampled, sampled_of, status_of, thinned
from tests.support.hosts import GTX, MIB, gpu, host, ns, sample
from tests.support.samples import Machine

SECOND = 1_000_000_000


def test_status_rule() -> None:
    """Not heard since the server's start is waiting, silent for longer than the threshold is down, else running."""
    rule = partial(status_of, started_ns=100 * SECOND, down_after_s=60.0)
    assert rule(None, now_ns=101 * SECOND) is Status.WAITING
    assert rule(99 * SECOND, now_ns=10_000 * SECOND) is Status.WAITING
    assert rule(100 * SECOND, now_ns=160 * SECOND) is Status.RUNNING
    assert rule(100 * SECOND, now_ns=160 * SECOND + 1) is Status.DOWN
    assert rule(200 * SECOND, now_ns=150 * SECOND) is Status.RUNNING


def test_units_of_a_sample() -> None:
    """Bytes become MiB, m°C become °C, mW become W; None stays None."""
    card = gpu(3, GTX, 235, 11169, 7, 36) | {"p_mW": 250_499, "p_lim_mW": None}
    shown = sampled(1, sample([card], [{"g": 3, "pid": 1963, "name": "/usr/bin/X", "user": "root", "mem": 148 * MIB}]))
    (found,) = shown.gpus
    assert (found.key, found.index, found.used_mib, found.total_mib, found.available_mib) == ("gpu:3", 3, 235, 11169, 10934)
    assert (found.temperature_c, found.util_pct, found.power_w, found.power_limit_w, found.memory_pct) == (36, 7, 250, None, 2)
    assert found.processes[0].pid == "1963"
    assert found.processes[0].used_mib == 148


def test_a_split_gpu_that_hangs_counts_itself() -> None:
    """Its instances stand for a GPU while it answers; when it hangs it is the one that is lost, and they are unknown."""
    cards = [gpu(0, GTX, None, None, None, None), gpu(1, GTX, None, None, None, None) | {"parent": "GPU-00000000"}]
    assert [use_of(one) for one in units(sampled(1, sample(cards)).gpus)] == [Use.FREE]
    hung = [cards[0] | {"st": "hung"}, cards[1] | {"st": "unknown"}]
    assert [use_of(one) for one in units(sampled(1, sample(hung)).gpus)] == [Use.LOST, Use.UNKNOWN]


def test_gpus_with_one_index_keep_distinct_keys() -> None:
    """Two entries with the same index do not hide each other in a map by key."""
    shown = sampled(1, sample([gpu(0, "a", 1, 2, 3, 4), gpu(0, "b", 1, 2, 3, 4)]))
    assert [found.key for found in shown.gpus] == ["gpu:0", "gpu:0.1"]


def test_unread_process_list_is_not_an_empty_one() -> None:
    """A GPU in procs_err has an unknown list of processes."""
    card = gpu(0, GTX, 1, 2, 3, 4)
    assert not sampled(1, sample([card], procs_err={card["u"]: 4})).gpus[0].processes_known


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from("gpu proc cpu mem gpu_state procs_err i u st mem_tot load pid g".split())


@given(st.dictionaries(KEYS, JUNK | st.lists(st.dictionaries(KEYS, JUNK, max_size=6), max_size=3), max_size=8))
def test_no_sample_is_an_error(content: dict[str, Any]) -> None:
    """Whatever a sender puts into a sample, it is shown or left out."""
    shown = sampled(5, content)
    assert len({found.key for found in shown.gpus}) == len(shown.gpus)


SENT_KEYS = sorted({*Sent.__struct_fields__, *SentGpu.__struct_fields__, *SentProcess.__struct_fields__, "tot_pm", "n", "vu"})
LIKELY = st.none() | st.integers(-5, 2**64 - 1) | st.floats() | st.text(max_size=3) | st.booleans() | st.lists(st.integers(0, 9))
ENTRY = st.dictionaries(st.sampled_from(SENT_KEYS), LIKELY | st.dictionaries(st.sampled_from(SENT_KEYS), LIKELY), max_size=8)


@given(st.dictionaries(st.sampled_from(SENT_KEYS), LIKELY | ENTRY | st.lists(ENTRY | LIKELY, max_size=3), max_size=8))
def test_the_fast_way_of_reading_reads_the_same(content: dict[str, Any]) -> None:
    """A sample is shown alike from its map, from its bytes, and value by value, as one with wrong types is read."""

    def shown(found: Sampled) -> str:
        named = ((name, getattr(found, name)) for name in Sampled.__struct_fields__ if name not in ("sent", "gpus"))
        return repr((*named, *found.gpus, found.utils, gpu_data(found, UTC)))

    expected = shown(sampled(5, content))
    assert shown(sampled_of(5, read_packed(msgpack.packb([7, b"", 1, content]))[1])) == expected
    assert shown(sampled_of(5, read_doubtful(content))) == expected


def test_times_are_in_the_servers_zone() -> None:
    """The integer, the shown and the GPU's time are the zone's, across a change to summer time."""
    tokyo, berlin = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")
    at = ns("2018/11/30 14:29:47.115")
    assert compact(at, tokyo) == 20181130232947
    assert gpu_stamp(at, tokyo) == "2018/11/30 23:29:47.115"
    assert [compact(ns(text), berlin) for text in ("2024/03/31 00:59:59", "2024/03/31 01:00:00")] == [
        20240331015959,
        20240331030000,
    ]
    assert stamp(at, UTC, DateOrder.MDY) == "11/30/2018 14:29:47"
    assert stamp(None, UTC) == "no entry received."


@given(st.integers(-(2**70), 2**70))
def test_any_time_can_be_shown(time_ns: int) -> None:
    """A sender's broken clock gives a date at the edge, never an error."""
    for zone in (UTC, ZoneInfo("Pacific/Kiritimati"), ZoneInfo("Pacific/Niue")):
        assert len(str(compact(time_ns, zone))) == 14
        assert len(stamp(time_ns, zone)) == 19


def test_order_and_pages() -> None:
    """By name, or by address with numbers compared as numbers; pages count from 1, 0 is all, past the end is empty."""
    hosts = [host("c", None, ip="10.0.0.2"), host("a", None, ip="10.0.0.10"), host("b", None, ip="fe80::1")]
    assert [shown.name for shown in ordered(hosts, "name")] == ["a", "b", "c"]
    by_address = ordered(hosts, "address")
    assert [shown.name for shown in by_address] == ["c", "a", "b"]
    assert [len(paged(by_address, page, 2)) for page in (0, 1, 2, 3)] == [3, 2, 1, 0]


def test_thinning_keeps_the_newest() -> None:
    """Entries closer than the save interval go, counted from the newest one."""
    samples = [sampled(second * SECOND, {}) for second in range(0, 100, 5)]
    assert [kept.time_ns // SECOND for kept in thinned(samples, 30.0, 3)] == [35, 65, 95]
    assert [kept.time_ns // SECOND for kept in thinned(samples, 0.0, 2)] == [90, 95]


def test_what_is_shown_is_all_that_is_read() -> None:
    """A sample of which only SHOWN was read out of its chunk looks as the whole one does."""
    whole = Machine(3).step()
    more = {"cmd": "x", "seen_ms": 5, "ctr": "c" * 20, "rt": "docker", "foreign": True, "orphan": True}
    whole["proc"] += [{"g": 0, "pid": 7, **more}]
    whole["gpu"][0] |= {"ecc": {"vu": 3, "vc": 1}, "remap": {"pend": True, "c": 1}, "mem_free": 5, "mem_other": 1, "at": "now"}
    whole |= {"procs_err": {whole["gpu"][1]["u"]: 999}}
    machines = [SimulatedHost(7, number, interval_ms=5000) for number in range(4)]
    simulated = [dict(machine.sample(at, at)) for machine in machines for at in (10**18, 10**18 + 900 * SECOND)]
    for content in (whole, *simulated):
        assert sampled(1, SHOWN.of(content)) == sampled(1, content)
    assert "util_pct" not in SHOWN.of(whole)["cpu"]


def test_a_clock_that_is_off_and_how_long_the_host_is_up() -> None:
    """Told by agents, of samples that came at once; senders have neither, and what waited on a disk tells no clock."""
    content = sample([]) | {"mono_ns": 7_300_000_000_000}
    shown = sampled(10_000_000_000, content, received_ns=3_000_000_000)
    assert (shown.up_s, shown.skew_ms) == (7300, 7000)
    assert sampled(10, content | {"late": True}, received_ns=3).skew_ms is None
    assert sampled(10, sample([]), received_ns=3).skew_ms is None


def test_views_of_many_hosts_show_what_is_read_for_them() -> None:
    """With OF_MANY alone every view but the cards looks as with the whole sample."""
    machines = [SimulatedHost(11, number, interval_ms=5000) for number in range(6)]
    whole = [dict(machine.sample(10**18 + 900 * SECOND, 10**18 + 900 * SECOND)) for machine in machines]
    assert any(OF_MANY.of(content) != SHOWN.of(content) for content in whole)
    contents = ([OF_MANY.of(content) for content in whole], whole)
    less, more = ([host(f"h{at}", content) for at, content in enumerate(of)] for of in contents)
    for layout in LAYOUTS:
        if layout != "cards":
            pages = []
            for hosts in (less, more):
                snapshot = Snapshot(1, tuple(hosts), {one.id: 1 for one in hosts}, 1, None)
                shown = show(snapshot, Asked(layout=layout), PageStyle(UTC), now_ns=10**18, per_page=9)
                pages.append([to_html(shown.head), *(to_html(part.make()) for part in shown.parts)])
            assert pages[0] == pages[1], layout
    for view in (STATUS_VIEW, DETAIL_VIEW, GPU_TABLE_VIEW):
        assert view.text(less, TerminalStyle(UTC)) == view.text(more, TerminalStyle(UTC))
    for name in LINE_VIEWS[1:]:
        assert line_view(name, Frame(less, 10**18, 100, "")) == line_view(name, Frame(more, 10**18, 100, ""))
    assert tsv(less) == tsv(more)
    assert [states_item(one, UTC) for one in less] == [states_item(one, UTC) for one in more]
