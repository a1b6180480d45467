"""State machines of alerts against a dumb model, and what is told of them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.alerts.core import Alerting, AlertKey, Change
from dimint.consumers.alerts.rules import Rule, parse_rules
from tests.support.hosts import gpu, sample
from tests.unit.consumers.test_alert_rules import NOW, S, observed

HOST = "ab" * 16


def rule(**more: Any) -> Rule:
    """A rule on heat."""
    (made,) = parse_rules({"rule": [{"name": "hot", "when": "gpu.temp_c > 85", **more}]}, "test")
    return made


def warm(heat: int | None, at_s: int, *, index: int = 0) -> Any:
    """A host whose one GPU is that hot."""
    return observed(sample([gpu(index, "x", 1, 2, 3, heat)]), now_ns=NOW + at_s * S)


def told(changes: list[Change]) -> list[tuple[bool, int]]:
    """Raised or over, and since when."""
    return [(change.raised, (change.since_ns - NOW) // S) for change in changes]


def test_hysteresis() -> None:
    """It must last to be raised, and must be below the lower bound for a while to be over; unknown changes nothing."""
    alerting = Alerting([rule(clear="gpu.temp_c < 75", clear_for="10s", **{"for": "10s"})])
    seen = []
    for at_s, heat in [(0, 86), (5, 80), (10, 86), (15, None), (20, 86), (25, 80), (40, 74), (45, 76), (50, 74), (60, 74)]:
        alerting.look(warm(heat, at_s), waiting=False)
        seen += [(at_s, *change) for change in told(alerting.changes(NOW + at_s * S))]
    assert seen == [(20, True, 10), (60, False, 50)]


def test_only_the_net_change_is_told() -> None:
    """A backlog that rises and falls tells nothing; one that rises tells once."""
    alerting = Alerting([rule()])
    for at_s, heat in enumerate([86, 70, 90, 60]):
        alerting.look(warm(heat, at_s), waiting=False)
    assert alerting.changes(NOW) == []
    for at_s, heat in enumerate([86, 70, 90]):
        alerting.look(warm(heat, 10 + at_s), waiting=False)
    assert told(alerting.changes(NOW)) == [(True, 12)]
    assert alerting.open == {AlertKey("hot", HOST, "GPU-00000000")}


def test_a_successor_goes_on_where_the_log_says() -> None:
    """What is open is not told again, and is over when it is seen to be; also of GPUs and rules that are no more."""
    open_ = [AlertKey("hot", HOST, "GPU-00000000"), AlertKey("hot", HOST, "GPU-gone"), AlertKey("old", HOST, "")]
    alerting = Alerting([rule()], open_)
    assert [(change.key.rule, change.text) for change in alerting.changes(NOW)] == [("old", "the rule is no more")]
    alerting.look(warm(90, 0), waiting=False)
    assert [change.key.subject for change in alerting.changes(NOW)] == ["GPU-gone"]
    alerting.look(warm(60, 1), waiting=False)
    assert told(alerting.changes(NOW)) == [(False, 1)]
    assert not alerting.open


def test_a_driver_that_does_not_answer_ends_no_alert() -> None:
    """What it does not list then, a MIG instance say, may still be there; what it does not list when it answers is gone."""
    part = gpu(1, "x", 1, 2, None, 90) | {"parent": "GPU-00000000"}
    whole = gpu(0, "x", 1, 2, 3, 40)
    alerting = Alerting([rule()])
    seen = []
    for at_s, cards in enumerate(([whole, part], [whole | {"st": "unknown"}], None, [whole | {"st": "hung"}], [whole])):
        alerting.look(observed(sample(cards) if cards else {"gpu_state": "ok"}, now_ns=NOW + at_s * S), waiting=False)
        seen += [(at_s, change.raised) for change in alerting.changes(NOW + at_s * S)]
    assert seen == [(0, True), (4, False)]


def test_a_forgotten_host_is_over() -> None:
    """Nothing stays open of it."""
    alerting = Alerting([rule()])
    alerting.look(warm(90, 0), waiting=False)
    assert len(alerting.changes(NOW)) == 1
    alerting.forget(HOST, NOW + S)
    assert [change.text for change in alerting.changes(NOW + S)] == ["the host was forgotten"]


def test_rules_are_for_the_hosts_they_name() -> None:
    """A pattern of names."""
    alerting = Alerting([rule(hosts="cpu-*")])
    alerting.look(warm(90, 0), waiting=False)
    assert alerting.changes(NOW) == []


@given(
    heats=st.lists(st.sampled_from([None, 60, 80, 90]), max_size=40),
    lasting=st.integers(0, 4),
    clear=st.integers(0, 4),
    cuts=st.sets(st.integers(0, 40)),
)
def test_as_a_dumb_model_says(heats: list[int | None], lasting: int, clear: int, cuts: set[int]) -> None:
    """However often changes are asked for, what is raised in the end is what a look at the whole history says."""
    alerting = Alerting([rule(clear_for=f"{clear}s", **{"for": f"{lasting}s"})])
    open_ = False
    for at_s, heat in enumerate(heats):
        alerting.look(warm(heat, at_s), waiting=False)
        if at_s in cuts:
            for change in alerting.changes(NOW):
                assert change.raised is not open_
                open_ = change.raised
    for change in alerting.changes(NOW):
        assert change.raised is not open_
    assert bool(alerting.open) is _model(heats, lasting, clear)


def _model(heats: list[int | None], lasting: int, clear: int) -> bool:
    """Whether it is raised at the end, by the words of the documentation."""
    raised, since = False, None
    for at_s, heat in enumerate(heats):
        if heat is None:
            continue
        if (heat > 85) is raised:
            since = None
            continue
        since = at_s if since is None else since
        if at_s - since >= (clear if raised else lasting):
            raised, since = not raised, None
    return raised
