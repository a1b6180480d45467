"""Series summed up by slots, and processes on GPUs from their first sample to their last."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.intervals import joined, processes_of
from dimint.consumers.rows import StoredSample
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, coarser, merge, pack_block, rates, sum_up, unpack_block

SECOND = 1_000_000_000


def taken(second: float, sample: dict[str, Any]) -> StoredSample:
    return StoredSample(int(second * SECOND), int(second * SECOND), b"run", 1, sample)


def gpu(**numbers: Any) -> dict[str, Any]:
    return {"int_ms": 1000, "gpu": [{"i": 0, "u": "GPU-a", **numbers}]}


def test_a_slot_has_min_max_sum_count_and_last() -> None:
    """The numbers of a minute, and the place of the last one in it; counters have no sum."""
    slots = sum_up(
        [taken(60, gpu(util_pct=10, e_mJ=5)), taken(61, gpu(util_pct=90)), taken(65, gpu(util_pct=20, e_mJ=9))], MINUTE_NS
    )
    assert slots == {1: {"GPU-a": {"util_pct": [10, 90, 120, 3, 20, 5 * SECOND], "e_mJ": [5, 9, 0, 2, 9, 5 * SECOND]}}}
    assert unpack_block(pack_block(slots)) == slots
    assert coarser(slots, MINUTE_NS, HOUR_NS)[0]["GPU-a"]["util_pct"] == [10, 90, 120, 3, 20, 65 * SECOND]


def test_rates_go_from_last_to_last_and_start_anew() -> None:
    """A counter's increase a second; one that fell, because its host restarted, gives none."""
    values = [(10, 1000), (70, 7000), (130, 100), (190, 700)]
    slots = sum_up([taken(second, {"net": [{"if": "eth0", "rx": value}]}) for second, value in values], MINUTE_NS)
    assert list(rates(slots, MINUTE_NS, "", "net/eth0/rx")) == [(1, 100.0), (3, 10.0)]


def test_memory_of_users_is_that_of_their_processes() -> None:
    """On all GPUs together; where processes are not known there is no number, and only the largest users of many have one."""
    ada, bob = ({"g": at, "user": name, "mem": 10 * (at + 1)} for at, name in enumerate(("ada", "bob")))
    crowd = [{"g": 0, "uid": number, "mem": number} for number in range(20)]
    slots = sum_up(
        [taken(0, {"proc": [ada, bob, ada]}), taken(1, {"proc": [ada, 5, {"user": "eve"}]}), taken(2, {"proc": None}),
         taken(60, {"proc": crowd})],
        MINUTE_NS,
    )  # fmt: skip
    first, second = slots[0][""], slots[1][""]
    assert {name: summed[:4] for name, summed in first.items()} == {
        "procs": [1, 3, 4, 2], "user/ada": [10, 20, 30, 2], "user/bob": [20, 20, 20, 1],
    }  # fmt: skip
    assert set(second) == {"procs", *(f"user/uid {number}" for number in range(4, 20))}


def test_made_up_numbers_are_left_out_or_bounded() -> None:
    """Whatever a sample holds, a slot can be stored."""
    odd: list[dict[str, Any]] = [
        {"cpu": {"tot_pm": True, "load": ["x"]}, "mem": [], "net": [{"if": 5, "rx": 1}, 7], "gpu": [None, {"u": 5}, {"u": ""}]},
        {"cpu": 3, "mem": {"used": 1.5, "swap_used": 1 << 63}, "gpu": {"u": "x"}, "net": {}},
        {"cpu": {"load": [float("nan")]}},
    ]
    assert sum_up([taken(at, sample) for at, sample in enumerate(odd)], MINUTE_NS) == {0: {}}
    huge = sum_up([taken(at, gpu(p_mW=(1 << 62) - 1)) for at in range(9)], MINUTE_NS)
    assert huge[0]["GPU-a"]["p_mW"][2] == (1 << 63) - 1
    assert unpack_block(pack_block(huge)) == huge


def test_what_came_late_has_its_delay() -> None:
    """What nobody saw at its time: how many samples, the shortest and longest wait, the last of them; else no number."""
    waited = [0, 30, 31, 600, 2]
    slots = sum_up(
        [taken(60 + at, gpu())._replace(received_ns=(60 + at + wait) * SECOND) for at, wait in enumerate(waited)], MINUTE_NS
    )
    assert slots[1][""]["late_ms"] == [31_000, 600_000, 631_000, 2, 600_000, 3 * SECOND]
    assert sum_up([taken(60, gpu(util_pct=1))], MINUTE_NS) == {1: {"GPU-a": {"util_pct": [1, 1, 1, 1, 1, 0]}}}


SAMPLES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 100), st.booleans()), min_size=1, max_size=40, unique_by=lambda s: s[0]
)


@given(SAMPLES, st.integers(0, 1 << 40))
def test_any_two_parts_together_are_the_whole(samples: list[tuple[int, int, bool]], choice: int) -> None:
    """However samples are shared out over two folds, put together they give what one fold gives."""
    rows = [
        taken(
            second, gpu(util_pct=value, e_mJ=value) | {"proc": [{"g": 0, "pid": 7 + shown, "mem": value, "user": "ada"}]}
        )._replace(received_ns=(second + value) * SECOND)
        for second, value, shown in sorted(samples)
    ]
    parts = [row for at, row in enumerate(rows) if choice >> at & 1], [row for at, row in enumerate(rows) if not choice >> at & 1]
    for length_ns in (MINUTE_NS, HOUR_NS):
        assert merge(sum_up(parts[0], length_ns), sum_up(parts[1], length_ns)) == sum_up(rows, length_ns)
    assert coarser(sum_up(rows, MINUTE_NS), MINUTE_NS, HOUR_NS) == sum_up(rows, HOUR_NS)
    assert joined([*processes_of(parts[0]), *processes_of(parts[1])]) == processes_of(rows)


def test_a_process_has_intervals_with_gaps_between_them() -> None:
    """More than three intervals of silence split it; its time on the GPU is that of its samples."""

    def at(second: float, *processes: dict[str, Any]) -> StoredSample:
        return taken(second, gpu() | {"proc": list(processes)})

    ada = {"g": 0, "pid": 5, "t0_ms": 900, "user": "ada", "name": "python3", "mem": 10, "job": "77"}
    bob = {"g": 0, "pid": 6, "uid": 1007}
    rows = [at(1, ada), at(2, ada | {"mem": 30}), at(5, ada), at(9.5, ada, bob), at(10, {"g": 1, "pid": 5})]
    first, second, other = processes_of(rows)
    assert (first.start_ns, first.end_ns, first.samples, first.held_ns) == (SECOND, 5 * SECOND, 3, 3 * SECOND)
    assert (first.peak_memory, first.user, first.created_ms, first.job) == (30, "ada", 900, "77")
    assert (second.key, second.start_ns, second.end_ns) == (first.key, 9.5 * SECOND, 9.5 * SECOND)
    assert (other.pid, other.user, other.created_ms, other.peak_memory, other.held_ns) == (6, "uid 1007", None, None, SECOND)
