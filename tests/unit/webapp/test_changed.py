"""What changed between two instants, and a host's history in series and words."""

from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from dimint.consumers.rows import HostEvent
from dimint.webapp.changed import changes
from dimint.webapp.charts import charts_node
from dimint.webapp.happenings import marks_of
from dimint.webapp.history import POINTS, Come, Series, history_of, summary
from dimint.webapp.models import Host, Status
from dimint.webapp.nodes import Node, to_html
from dimint.webapp.view import sampled
from tests.support.hosts import GTX, MIB, cpu, gpu, host, sample

MINUTE = 60_000_000_000


def held(name: str, *users: str | None, state: str = "ok", status: Status = Status.RUNNING, driver: str = "570") -> Host:
    """A host with a GPU for each of these users; None is a free one. The last GPU is in `state`."""
    cards = [gpu(at, GTX, 1000, 11_169, 50 if user else 0, 40) for at, user in enumerate(users)]
    processes = [{"g": at, "pid": at, "user": user, "mem": 900 * MIB} for at, user in enumerate(users) if user]
    cards[-1]["st"] = state
    return host(name, sample(cards, processes), status=status, facts={"driver": driver})


def lines(before: list[Host], after: list[Host]) -> list[str]:
    return [f"{change.symbol} {change.host or ''}: {change.words}" for change in changes(before, after)]


def test_nothing_changes_between_equal_instants() -> None:
    """Two instants with the same state differ in nothing."""
    assert changes([held("a", "alice")], [held("a", "alice")]) == []


def test_each_kind_of_change_is_one_line() -> None:
    """Hosts come, go, fall silent; a GPU is lost and comes back; the driver; users, and who holds the most now."""
    before = [held("a", "alice", "alice"), held("b", "bob", state="lost"), held("c", None), held("gone", None), held("d", None)]
    after = [
        held("a", "alice", "alice", state="lost"), held("b", "carol", driver="580"), held("c", None, status=Status.DOWN),
        held("d", "carol"), held("new", "carol"),
    ]  # fmt: skip
    assert lines(before, after) == [
        "✖ a: GPU 1 ok → lost",
        "✖ c: stopped reporting",
        "▲ b: driver 570 → 580",
        "● b: GPU 0 is back (lost before)",
        "→ : carol: 0 → 3 GPU, now holds the most",
        "→ new: is new",
        "← gone: is not among the hosts any more",
        "· : alice: 2 → 1 GPU",
    ]


def test_a_gpu_that_sleeps_is_not_lost() -> None:
    """Asleep, awake, or not known for a moment: a change, and nothing to be alarmed about."""
    for before, after in (("ok", "suspended"), ("suspended", "ok"), ("ok", "unknown"), ("unknown", "ok")):
        found = lines([held("a", None, state=before)], [held("a", None, state=after)])
        assert found == [f"· a: GPU 0 {before} → {after}"]


def test_of_silent_hosts_nobody_knows_who_held_what() -> None:
    """A host that stopped reporting takes nobody's GPUs away, and one that is back gives nobody any."""
    silent, heard = held("a", "alice", status=Status.DOWN), held("a", "alice")
    for before, after in ((heard, silent), (silent, heard)):
        found = lines([before, held("b", "bob")], [after, held("b", "bob")])
        assert [line for line in found if "GPU" in line] == []


def test_mig_layout() -> None:
    """Instances that come and go are the GPU's new layout."""
    whole = gpu(0, GTX, 0, 100, 0, 40)
    first = gpu(1, "MIG 1g", 0, 10, None, None) | {"parent": whole["u"]}
    second = gpu(2, "MIG 2g", 0, 20, None, None) | {"parent": whole["u"]}
    found = lines([host("a", sample([whole, first]))], [host("a", sample([whole, second]))])
    assert found == ["▲ a: MIG instance 1 is gone", "▲ a: MIG instance 2 is new"]


def test_history_has_gaps_users_and_words() -> None:
    """Steps without a sample are unknown unless two samples are as close as usual; users come and leave; words tell."""
    samples = []
    for minute in [*range(60), *range(120, 180)]:
        user = None if minute < 30 else "alice"
        process = [{"g": 0, "pid": 1, "user": user, "mem": 2048 * MIB}] if user else []
        content = sample([gpu(0, GTX, 2048, 11_169, 80 if user else 0, 40)], process, **cpu())
        samples.append(sampled(minute * MINUTE, content))
    found = history_of(samples, 0, 180 * MINUTE, longest_ns=3 * MINUTE)
    assert found.known == (True,) * 60 + (False,) * 60 + (True,) * 60
    assert found.util[0].values[:31] == (0,) * 30 + (80,)
    assert found.memory[0] == Series("alice", (0,) * 30 + (2048,) * 30 + (None,) * 60 + (2048,) * 60)
    assert found.users == (Come(30 * MINUTE, "alice", True, (0,)),)
    assert summary(found.util[0], "%", found.step_ns, idle=True) == "GPU 0: median 80 %, max 80 %, 30 min idle"
    assert summary(found.util[0]._replace(values=(None,) * POINTS), "%", 1) == "GPU 0: not known"


def minute_of(point: tuple[int, int | None]) -> int:
    return point[0]


@given(st.lists(st.tuples(st.integers(-10, 200), st.none() | st.integers(0, 100)), max_size=30))
def test_charts_of_any_samples_are_whole(points: list[tuple[int, int | None]]) -> None:
    """Late samples, gaps, nothing at all: every value is a known one, and the charts are made."""
    points = sorted(points, key=minute_of)
    samples = [sampled(at * MINUTE, sample([gpu(0, GTX, 5, 10, util, 4)], **cpu())) for at, util in points]
    found = history_of(samples, 0, 180 * MINUTE, longest_ns=MINUTE)
    values = {value for series in found.util for value in series.values} - {None}
    assert values <= {util for _, util in points}
    assert "<figure" in to_html(charts_node(found, [], UTC, refresh=None))


def test_events_in_words() -> None:
    """Each kind of event is a line with a symbol; hostile text of an agent stays text."""
    card = gpu(3, GTX, 1, 2, 3, 4)
    shown = host("h", sample([card]))

    def event(kind: str, **fields: object) -> HostEvent:
        return HostEvent("h", 1, kind, 5, 6, fields)

    events = [
        event("gpu.lost", uuid=card["u"], state="hung"), event("gpu.back", uuid="GPU-other-0123456789"),
        event("gpu.xid", uuid=None, xid=79), event("driver.changed", before="570", now=None),
        event("host.gap", run=b"r", first_seq=3, last_seq=9, reason="<b>full</b>"), event("clock.stepped", by_ms=-1500),
        event("agent.started", run=b"r", version="1.0", clean=False), event("agent.stopped", run=b"r", last_seq=4),
    ]  # fmt: skip
    history = history_of([], 0, 10 * MINUTE, longest_ns=0)
    marks = marks_of(shown, events, history, UTC)
    assert {mark.words for mark in marks} == {
        "GPU 3 hung", "GPU GPU-other-01 is back", "a GPU: XID 79", "driver 570 → none",
        "samples 3 to 9 are lost: <b>full</b>", "the clock was set by -1500 ms",
        "agent 1.0 started; the run before did not end cleanly", "agent stopped",
    }  # fmt: skip
    tree: Node = charts_node(history, marks, UTC, refresh=None)
    assert "<b>full" not in to_html(tree)
