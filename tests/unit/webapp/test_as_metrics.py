"""The metrics of hosts: names, units, and what is left out."""

import re
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.rows import HostRow, StoredSample
from dimint.webapp.as_metrics import HostNow, exposition, host_part, is_stale
from dimint.webapp.metric_families import FAMILIES
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
    text = exposition([host_part(_host(machine.step() | cpu(), **machine.facts), stale=False)], "1.2.3")
    found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


def test_names_follow_the_rules() -> None:
    """One prefix; counters, and nothing else, end in _total; help ends as a sentence."""
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"dimint_[a-z0-9_]+", family.name)
        assert (family.type == "counter") == family.name.endswith("_total"), family.name
        assert family.help.endswith(".")
