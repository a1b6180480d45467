"""The metrics of hosts: names, units, and what is left out."""

import re
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.clock import ManualClock
from dimint.consumers.rows import GpuTotal, HostRow, StoredSample, XidCount
from dimint.webapp.as_metrics import HostNow, SystemNow, exposition, host_part, is_stale, system_part
from dimint.webapp.board import Board, BoardRules
from dimint.webapp.cluster import ClusterView, Member, Placed
from dimint.webapp.metric_families import FAMILIES
from dimint.webapp.metrics import Metrics
from tests.support.fleet import MemoryTables, host_id
from tests.support.hosts import H100, MIB, cpu, gpu, sample
from tests.support.samples import Machine

NS = 1_000_000_000
TIME = 1_700_000_000 * NS
_LINE = re.compile(r'([a-z_0-9]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (-?[0-9.e+-]+)')


def _host(content: dict[str, Any] | None, *, name: str = "gpu_01", up: bool = True, **facts: Any) -> HostNow:
    stored = None if content is None else StoredSample(TIME - NS, TIME, b"run", 1, content)
    received = None if stored is None else TIME
    return HostNow(HostRow("ab" * 16, name, "10.0.0.1", facts, False, 1, None, None, received, name), name, stored, up)


def _series(*hosts: HostNow, stale: bool = False) -> dict[str, float]:
    """Series → value; checks on the way that the text is well-formed and no series comes twice."""
    text = exposition([host_part(host, stale=stale) for host in hosts], "1.2.3").decode()
    assert text.endswith("\n")
    series: dict[str, float] = {}
    family = ""
    seen: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen, "all lines of a family stand together"
            seen.add(family)
        elif not line.startswith("# TYPE "):
            match = _LINE.fullmatch(line)
            assert match, line
            assert match[1] == family
            named = f"{match[1]}{{{match[2]}}}"
            assert named not in series
            series[named] = float(match[3])
    return series


def test_units_are_base_units() -> None:
    """Percent become ratios, milli units whole ones, MHz hertz."""
    card = gpu(0, H100, 79_000, 81_559, 87, 71) | {"ecc": {"vc": 3, "au": None}, "remap": {"pend": True}, "ev": 0x44}
    card |= {
        "thr_ns": {"sw_power_cap": 2_500_000_000},
        "pcie_rx": 7,
        "p_inst_mW": 5000,
        "p_mW": 412_500,
        "p_lim_mW": 700_000,
        "sm_MHz": 1980,
        "e_mJ": 1_234_567,
    }
    series = _series(_host(sample([card], [{"g": 0, "pid": 1, "user": "alice", "mem": 5 * MIB}], **cpu(12.5)), driver="550.1"))
    labels = 'host="gpu_01",gpu="0",uuid="GPU-00000000"'
    assert series[f"dimint_gpu_utilization_ratio{{{labels}}}"] == 0.87
    assert series[f"dimint_gpu_memory_used_bytes{{{labels}}}"] == 79_000 * MIB
    assert series[f'dimint_gpu_temperature_celsius{{{labels},sensor="core"}}'] == 71
    assert series[f'dimint_gpu_power_watts{{{labels},kind="average"}}'] == 412.5
    assert series[f'dimint_gpu_power_watts{{{labels},kind="instant"}}'] == 5
    assert series[f'dimint_gpu_ecc_errors_total{{{labels},type="corrected",scope="volatile"}}'] == 3
    assert not any('scope="aggregate"' in name for name in series)
    assert series[f"dimint_gpu_row_remap_pending{{{labels}}}"] == 1
    assert series[f'dimint_gpu_throttle_seconds_total{{{labels},reason="sw_power_cap"}}'] == 2.5
    assert series[f'dimint_gpu_clocks_event_active{{{labels},reason="hw_thermal_slowdown"}}'] == 1
    assert series[f'dimint_gpu_clocks_event_active{{{labels},reason="hw_slowdown"}}'] == 0
    assert series[f'dimint_gpu_pcie_bytes_total{{{labels},direction="receive"}}'] == 7
    assert series[f'dimint_gpu_clock_hertz{{{labels},clock="sm"}}'] == 1.98e9
    assert series[f"dimint_gpu_energy_joules_total{{{labels}}}"] == 1234.567
    assert series[f'dimint_gpu_user_memory_used_bytes{{{labels},user="alice"}}'] == 5 * MIB
    assert series['dimint_host_cpu_utilization_ratio{host="gpu_01"}'] == 0.125
    assert series['dimint_host_load1{host="gpu_01"}'] == 0.5
    assert series['dimint_host_clock_skew_seconds{host="gpu_01"}'] == -1
    assert series['dimint_host_last_sample_timestamp_seconds{host="gpu_01"}'] == TIME / NS - 1
    assert 'dimint_host_info{host="gpu_01",id="' + "ab" * 16 + '",name="gpu_01",ip="10.0.0.1",driver_version="550.1"}' in series


def test_what_is_not_available_has_no_line() -> None:
    """Neither a missing value nor a list that could not be read is a 0."""
    content = sample([gpu(0, H100, None, None, None, None)]) | {"procs_err": {"GPU-00000000": 999}}
    names = {name.partition("{")[0] for name in _series(_host(content))}
    assert {"dimint_gpu_up", "dimint_gpu_info", "dimint_host_up"} <= names
    assert not {name for name in names if "memory" in name or "utilization" in name or "processes" in name}


def test_stale_and_unheard_hosts_keep_only_what_stays_true() -> None:
    """Old numbers are not given out as of now."""
    silent = _host(sample([gpu(0, H100, 1, 2, 3, 4)], **cpu()), up=False)
    assert {name.partition("{")[0] for name in _series(silent, stale=True)} == {
        "dimint_build_info", "dimint_host_up", "dimint_host_info", "dimint_host_last_sample_timestamp_seconds",
    }  # fmt: skip
    assert _series(_host(None, up=False))['dimint_host_up{host="gpu_01"}'] == 0


def test_sums_of_users_errors_and_lag() -> None:
    """Counters by user and host, errors by GPU and number, and how far the tables are behind; only of hosts that are listed."""
    used = [GpuTotal("a", 'al"ice', 7_200_000_000, 1_500_000), GpuTotal("gone", "bob", 1, 1)]
    xids = [XidCount("a", "GPU-1", 79, 2, TIME), XidCount("a", "", 48, 1, TIME), XidCount("a", "GPU-old", 13, 5, TIME)]
    system = SystemNow({"a": ("gpu_01", {"GPU-1": 3})}, used, xids, {0: 0, 1: 12})
    text = exposition([system_part(system)], "1").decode()
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert {name: float(value) for name, value in series.items() if "build" not in name and "timestamp" not in name} == {
        'dimint_user_gpu_seconds_total{user="al\\"ice",host="gpu_01",kind="held"}': 7200,
        'dimint_user_gpu_seconds_total{user="al\\"ice",host="gpu_01",kind="active"}': 1.5,
        'dimint_gpu_xid_errors_total{host="gpu_01",gpu="3",uuid="GPU-1",xid="79"}': 2,
        'dimint_gpu_xid_errors_total{host="gpu_01",xid="48"}': 1,
        'dimint_gpu_xid_errors_total{host="gpu_01",uuid="GPU-old",xid="13"}': 5,
        'dimint_consumer_lag_events{partition="0"}': 0,
        'dimint_consumer_lag_events{partition="1"}': 12,
    }
    assert float(series['dimint_gpu_xid_last_timestamp_seconds{host="gpu_01",gpu="3",uuid="GPU-1",xid="79"}']) == TIME / NS
    assert "lag" not in exposition([system_part(SystemNow({}))], "1").decode(), "a log that cannot be asked has no lag of 0"


def test_the_store_as_an_overlord_tells_it() -> None:
    """Who is there and which partitions are served; nothing but that it is away while nobody answers."""
    nodes = [Member("n1", "a", None, keys=7), Member("n2", "b", None, connected=False)]
    placed = [Placed(0, "n1", ["n2"], lag=3), Placed(1, None, [], problem="nobody serves it")]
    view = ClusterView(None, 1, [Member("o:1", "c", None)], nodes, placed, [])

    def series(system: SystemNow) -> list[str]:
        lines = exposition([system_part(system)], "1").decode().splitlines()
        return [line for line in lines if not line.startswith("#") and "build_info" not in line]

    assert series(SystemNow({}, store_up=True, store=view)) == [
        "dimint_store_up 1", 'dimint_overlord_up{overlord="o:1"} 1', 'dimint_node_up{node="n1"} 1',
        'dimint_node_up{node="n2"} 0', 'dimint_node_keys{node="n1"} 7', 'dimint_store_partition_served{partition="0"} 1',
        'dimint_store_partition_served{partition="1"} 0', 'dimint_store_lag_events{partition="0"} 3',
    ]  # fmt: skip
    assert series(SystemNow({}, store_up=False)) == ["dimint_store_up 0"]
    assert series(SystemNow({})) == []


def test_counters_do_not_fall_while_tables_are_made_anew() -> None:
    """Tables that have read less of the log than those before them give no sums, until they have read as much."""
    tables = MemoryTables()
    tables.register(host_id(1), "gpu-01")
    clock = ManualClock()
    board = Board(tables, BoardRules(60, "name", 0, {}), clock)
    metrics = Metrics(clock)
    tables.totals = [GpuTotal(host_id(1), "alice", 5_000_000, 0)]
    tables.read_to = {0: 10, 1: 10}

    def counted() -> bool:
        return b'kind="held"} 5\n' in metrics.text(metrics.read(board, board.refresh(), {0: 12, 1: 10}))

    assert counted()
    tables.read_to = {0: 11, 1: 2}
    assert not counted()
    assert b'dimint_consumer_lag_events{partition="1"} 8\n' in metrics.text(metrics.read(board, board.refresh(), {0: 12, 1: 10}))
    tables.read_to = {0: 11, 1: 10}
    assert counted()


def test_whether_all_could_be_read() -> None:
    """One failed call, or a driver that does not answer, is no success; a host without a GPU is."""

    def success(**more: Any) -> float:
        return _series(_host(sample([gpu(0, H100, 1, 2, 3, 4)]) | more))['dimint_agent_last_collect_success{host="gpu_01"}']

    assert success(gpu_state="ok") == success(gpu_state="no_gpu") == 1
    assert not [name for name in _series(_host(sample([]) | {"gpu_state": "starting"})) if "success" in name]
    assert success(gpu_state="hung") == success(gpu_state="ok", procs_err={"GPU-00000000": 999}) == 0
    assert success(gpu_state="ok", gpu=[{"i": 0, "u": "x", "err": {"memory": 15}}]) == 0


def test_staleness_follows_the_hosts_own_interval() -> None:
    """Three intervals of silence, and at least what a sample may need on its way."""
    slow = _host(sample([]) | {"int_ms": 60_000})
    assert not is_stale(slow, TIME + 179 * NS)
    assert is_stale(slow, TIME + 181 * NS)
    fast = _host(sample([]) | {"int_ms": 100})
    assert not is_stale(fast, TIME + 14 * NS)
    assert is_stale(fast, TIME + 16 * NS)
    assert is_stale(_host(None), TIME)


def test_hostile_names_stay_inside_their_labels() -> None:
    """Quotes, newlines and control characters of other people's text."""
    content = sample([gpu(0, 'x"} 1\ndimint_host_up 0', 1, 2, 3, 4)], [{"g": 0, "pid": 1, "user": 'a"\\\n\x1b[2J', "mem": MIB}])
    content |= {"net": [{"if": "eth0", "rx": 1, "tx": 2}, {"if": "eth0", "rx": 3, "tx": 4}, {"if": 7, "rx": 1, "tx": 1}]}
    series = _series(_host(content, name="\ud800\u202e<b>"), _host(sample([]), name="other"))
    assert series['dimint_host_up{host="other"}'] == 1
    assert [value for name, value in series.items() if name.startswith("dimint_host_network_receive")] == [1]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
_entry = st.dictionaries(
    st.sampled_from("i u st g pid mem user name if rx tx util_pct t_mC err fan_pct ecc remap thr_ns ev p_mW profile".split()),
    _json,
    max_size=8,
)
_content = st.fixed_dictionaries(
    {},
    optional={
        "gpu": st.lists(_entry, max_size=4) | _json, "proc": st.lists(_entry, max_size=4) | _json,
        "net": st.lists(_entry) | _json,
        "cpu": _json, "mem": _json, "disk": _json, "temp_mC": _json, "int_ms": _json, "procs_err": _json,
        "dur_us": _json, "tier_us": _json, "spool": _json,
    },
)  # fmt: skip


@given(content=_content, facts=st.dictionaries(st.sampled_from(["gpus", "os", "driver"]), _json))
def test_no_sample_breaks_the_text(content: dict[str, Any], facts: dict[str, Any]) -> None:
    """Whatever a host sends, a scrape can read the whole text."""
    host = _host(content, **facts)
    _series(host, _host(sample([gpu(0, H100, 1, 2, 3, 4)]), name="other"))
    is_stale(host, TIME)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine (Debian: apt install prometheus)")
def test_promtool_finds_nothing() -> None:
    """Prometheus' own check of names, types and text."""
    machine = Machine()
    system = SystemNow(
        {"a": ("gpu_01", {"GPU-1": 3})},
        [GpuTotal("a", "alice", 10, 5)],
        [XidCount("a", "GPU-1", 79, 2, TIME)],
        {0: 1},
        True,
        ClusterView(None, 1, [Member("o", "", None)], [Member("n", "", None, 1)], [Placed(0, "n", [], lag=0)], []),
    )
    parts = [host_part(_host(machine.step() | cpu(), **machine.facts), stale=False), system_part(system)]
    text = exposition(parts, "1.2.3")
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


def test_names_follow_the_rules() -> None:
    """One prefix; counters, and nothing else, end in _total; help ends as a sentence."""
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"dimint_[a-z0-9_]+", family.name)
        assert (family.type == "counter") == family.name.endswith("_total"), family.name
        assert family.help.endswith(".")


def test_failed_calls_are_counted_by_gpu_call_and_code() -> None:
    """The agent's own counts; a GPU without any has no series."""
    cards = [gpu(0, H100, 1, 2, 3, 4) | {"errs": {"temperature": {"10": 3, "999": 1}}}, gpu(1, H100, 1, 2, 3, 4)]
    series = {name: value for name, value in _series(_host(sample(cards))).items() if "collect_errors" in name}
    labels = 'host="gpu_01",gpu="0",uuid="GPU-00000000",call="temperature"'
    assert series == {
        f'dimint_agent_collect_errors_total{{{labels},code="10"}}': 3,
        f'dimint_agent_collect_errors_total{{{labels},code="999"}}': 1,
    }


@pytest.mark.parametrize(
    "change",
    [{"gpu_state": "hung", "proc": None}, {"gpu": [gpu(0, H100, None, None, None, None) | {"st": "lost"}]}],
    ids=["no list", "a lost GPU"],
)
def test_processes_that_nobody_could_list_are_not_none(change: dict[str, Any]) -> None:
    """A count of 0 says that somebody looked."""
    content = sample([gpu(0, H100, 1, 2, 3, 4)]) | change
    assert not [name for name in _series(_host(content)) if name.startswith("dimint_gpu_processes")]


def test_a_split_gpu_has_its_processes_on_its_instances() -> None:
    """A MIG instance is a GPU of its own, with its parent and shape; the whole GPU has no count of processes."""
    whole, part = gpu(0, H100, 1, 2, None, 4), gpu(1, H100, 1, 2, None, None) | {"parent": "GPU-00000000", "profile": "1g.10gb"}
    series = _series(_host(sample([whole, part], [{"g": 1, "pid": 1, "user": "alice", "mem": MIB}])))
    assert {name: value for name, value in series.items() if name.startswith("dimint_gpu_processes")} == {
        'dimint_gpu_processes{host="gpu_01",gpu="1",uuid="GPU-00000001"}': 1
    }
    assert any('parent_uuid="GPU-00000000",mig_profile="1g.10gb"' in name for name in series)


def test_power_of_a_gpu_that_does_not_say_what_it_is() -> None:
    """Older drivers give one number of either kind: it is given out, and not named what it may not be."""
    card = gpu(0, H100, 1, 2, 3, 4) | {"p_mW": 99_000, "t_margin_mC": 12_000}
    series = _series(_host(sample([card]), gpus=[{"u": "GPU-00000000", "p_kind": None}]))
    labels = 'host="gpu_01",gpu="0",uuid="GPU-00000000"'
    assert series[f'dimint_gpu_power_watts{{{labels},kind="unknown"}}'] == 99
    assert series[f"dimint_gpu_temperature_margin_celsius{{{labels}}}"] == 12
