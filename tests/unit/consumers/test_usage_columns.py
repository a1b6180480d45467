"""GPU time added up column by column is GPU time added up sample by sample."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from dimint.consumers.opened import OpenedChunk
from dimint.consumers.rows import StoredSample, seal
from dimint.consumers.usage import use_between
from dimint.consumers.usage_columns import use_of_chunks
from dimint.producers.simulated import SimulatedHost
from tests.support.samples import Machine

SECOND = 1_000_000_000
START = 1_000 * SECOND
ODD: st.SearchStrategy[Any] = st.sampled_from([None, True, 1, 1.0, "1", [], {}, -1, 101])
PERCENT = st.integers(0, 100) | ODD
PROCESS = st.fixed_dictionaries(
    {"g": st.sampled_from([0, 1, 2]) | ODD},
    optional={
        "user": st.sampled_from(["ada", "bob"]) | ODD, "uid": st.just(7) | ODD, "mem": st.integers(0, 9) | ODD, "sm_pct": PERCENT,
    },
)  # fmt: skip
GPU = st.fixed_dictionaries(
    {"util_pct": PERCENT},
    optional={
        "i": st.integers(0, 2) | ODD, "u": st.sampled_from(["a", "b"]) | ODD, "parent": st.just("a") | ODD,
        "st": st.sampled_from(["ok", "lost"]) | ODD,
    },
)  # fmt: skip
SAMPLE = st.fixed_dictionaries(
    {"int_ms": st.sampled_from([1000, 5000])},
    optional={
        "gpu": st.lists(GPU | ODD, max_size=3) | ODD, "proc": st.lists(PROCESS | ODD, max_size=3) | ODD,
        "procs_err": st.just({"a": 4}) | ODD,
    },
)  # fmt: skip


def both(samples: list[dict[str, Any]], from_s: int, to_s: int, chunk: int) -> tuple[Any, Any]:
    """By columns and by samples: the samples are 5 s apart, all but the last `chunk`s of them sealed."""
    stored = [StoredSample(START + at * 5 * SECOND, START, b"run", at, sample) for at, sample in enumerate(samples)]
    placed = list(enumerate(stored))
    from_ns, to_ns = START + from_s * SECOND, START + to_s * SECOND
    sealed = len(placed) // chunk * chunk
    chunks = [OpenedChunk(seal(placed[at : at + chunk])) for at in range(0, sealed, chunk)]
    return (
        use_of_chunks(chunks, [one for _, one in placed[sealed:]], from_ns, to_ns),
        use_between(placed, from_ns, to_ns, began=False),
    )


@given(st.lists(SAMPLE, min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(2, 9))
@example([{"int_ms": 1000, "gpu": [{"util_pct": 5}], "proc": [{"g": 0, "sm_pct": value}]} for value in (1, True)], [0, 1] * 5, 4)
@example([{"int_ms": 1000, "gpu": [{"i": 1, "util_pct": 5}], "proc": [{"g": place}]} for place in (1, True)], [0, 1] * 5, 4)
def test_columns_come_to_the_same_as_samples(kinds: list[dict[str, Any]], order: list[int], chunk: int) -> None:
    """Whatever samples tell, and in whatever chunks they stand."""
    by_columns, by_samples = both([kinds[at % len(kinds)] for at in order], 0, 200, chunk)
    assert by_columns == by_samples


def test_real_samples_come_to_the_same() -> None:
    """A busy machine's and a simulated host's, in a part of their time."""
    machine, host = Machine(4), SimulatedHost(7, 3, interval_ms=5000)
    hosts = [dict(host.sample(10**18 + at * 5 * SECOND, at * 5 * SECOND)) for at in range(300)]
    for samples in ([machine.step() for _ in range(300)], hosts):
        by_columns, by_samples = both(samples, 333, 1200, 120)
        assert by_columns == by_samples
        assert by_columns[0] > 0


def test_time_that_is_not_stated_is_left_to_the_order() -> None:
    """A sample that does not say for how long it stands is not added up here."""
    assert both([{"int_ms": 1000}, {}, {"int_ms": 1000}], 0, 100, 2)[0] is None
