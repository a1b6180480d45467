"""Events counted by kind and step."""

from hypothesis import given
from hypothesis import strategies as st

from dimint.webapp.timeline import HOUR_NS, timeline_of


@given(st.integers(0, 10**19), st.integers(1, 10**17), st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 1))))
def test_every_event_is_counted_once_in_its_step(from_ns: int, span_ns: int, found: list[tuple[str, float]]) -> None:
    """Whatever the range: each event in the step that it lies in, whole hours, a bounded number of steps."""
    events = [(kind, from_ns + min(span_ns, int(part * span_ns))) for kind, part in found]
    line = timeline_of(events, from_ns, from_ns + span_ns)
    assert line.step_ns % HOUR_NS == line.from_ns % line.step_ns == 0
    for kind, counts in line.counts.items():
        assert len(counts) <= 242
        for at, count in enumerate(counts):
            begin = line.from_ns + at * line.step_ns
            assert count == sum(one == kind and begin <= time_ns < begin + line.step_ns for one, time_ns in events)
    assert sum(map(sum, line.counts.values())) == len(events)
