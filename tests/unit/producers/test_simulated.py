"""Simulated hosts: the same seed shows the same fleet, values are possible, and nobody can take them for real ones."""

from collections.abc import Iterator

import pytest

from dimint.producers.simulated import SimulatedHost
from dimint.sample import Sample

START_NS = 1_700_000_000_000_000_000


def samples(seed: int, number: int, count: int, *, step_s: int = 5) -> Iterator[Sample]:
    """The first samples of one host."""
    host = SimulatedHost(seed, number, interval_ms=step_s * 1000)
    for step in range(count):
        yield host.sample(START_NS + step * step_s * 10**9, step * step_s * 10**9)


def test_the_seed_decides() -> None:
    """Two runs with one seed are equal, another seed is another fleet, hosts of one fleet differ."""
    assert list(samples(1, 0, 20)) == list(samples(1, 0, 20))
    assert list(samples(1, 0, 2)) != list(samples(2, 0, 2))
    assert [SimulatedHost(1, 0, interval_ms=1).facts()] == [SimulatedHost(1, 0, interval_ms=9).facts() | {"interval_ms": 1}]
    uuids = [gpu["u"] for number in range(30) for gpu in next(samples(1, number, 1))["gpu"]]
    assert len(set(uuids)) == len(uuids) > 100


@pytest.mark.parametrize("number", range(12))
def test_values_are_possible(number: int) -> None:
    """Shares within 0…100, memory within the GPU, counters that never fall, processes on GPUs that have them."""
    energy: dict[str, int] = {}
    for sample in samples(7, number, 200):
        assert 0 <= (sample["cpu"]["tot_pm"] or 0) <= 1000
        assert sample["mem"]["used"] <= sample["mem"]["tot"]
        places = {gpu["i"] for gpu in sample["gpu"] if gpu["st"] == "ok"}
        for gpu in sample["gpu"]:
            if gpu["st"] == "lost":
                assert "util_pct" not in gpu
                continue
            assert 0 <= (gpu["util_pct"] or 0) <= 100
            assert 0 < (gpu["mem_used"] or 0) <= (gpu["mem_tot"] or 0)
            assert 20_000 < (gpu["t_mC"] or 0) < 95_000
            assert 0 < (gpu["p_mW"] or 0) <= (gpu["p_lim_mW"] or 0) * 1.05
            assert (gpu["e_mJ"] or 0) >= energy.get(gpu["u"], 0)
            energy[gpu["u"]] = gpu["e_mJ"] or 0
        for process in sample.get("proc", []):
            assert process["g"] in places
            assert process["user"]


def test_a_fleet_has_a_bit_of_everything() -> None:
    """Busy, idle and held GPUs, hosts without GPUs, several users, and now and then a lost GPU."""
    kinds, users, lost = set(), set(), 0
    for number in range(20):
        for sample in samples(3, number, 100, step_s=120):
            users |= {process["user"] for process in sample.get("proc", [])}
            for gpu in sample["gpu"]:
                lost += gpu["st"] == "lost"
                if gpu["st"] == "ok":
                    kinds.add(((gpu["util_pct"] or 0) > 50, (gpu["mem_used"] or 0) > 1 << 30))
    assert kinds == {(False, False), (False, True), (True, True)}
    assert len(users) > 8
    assert lost > 0
    assert {len(next(samples(3, number, 1))["gpu"]) for number in range(10)} == {0, 1, 2, 4, 8}


def test_nothing_is_hidden() -> None:
    """Facts, name and address say that the host is simulated."""
    host = SimulatedHost(1, 41, interval_ms=5000)
    assert host.facts()["simulated"] is True
    assert (host.name, host.ip) == ("sim-042", "198.18.0.42")
