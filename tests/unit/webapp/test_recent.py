"""What changed in the last minutes: noticed look by look, and told on the page above the hosts."""

from datetime import UTC

from dimint.webapp.filter import parse_filter
from dimint.webapp.models import Host, Recent, Status
from dimint.webapp.nodes import to_html
from dimint.webapp.parts import PageStyle
from dimint.webapp.recent import LOOK_NS, RECENT_NS, Lookout
from dimint.webapp.recent_panel import recent_panel
from tests.support.hosts import GTX, gpu, host, sample
from tests.unit.webapp.test_changed import held

MINUTE = 60_000_000_000
START = 1_000_000 * MINUTE
STYLE = PageStyle(UTC)
ALL = parse_filter("")


def told(recent: Recent) -> list[tuple[int, str, str]]:
    """(minutes after the start, host, words) of what was noticed on hosts."""
    return [((at - START) // MINUTE, change.host or "", change.words) for at, _, change in recent.noticed]


def test_changes_are_noticed_as_they_happen() -> None:
    """Each with its time, also when it is taken back; gone after a quarter of an hour; users as they differ over all."""
    lookout = Lookout()
    first = [held("a", "alice", "alice"), held("b", None)]
    assert lookout.look(first, START) == Recent(START, (), ())
    lost = [held("a", "alice", "alice", state="lost"), first[1]]
    assert told(lookout.look(lost, START + MINUTE)) == [(1, "a", "GPU 1 ok → lost")]
    back = [held("a", "bob", "bob"), first[1], held("c", "bob")]
    recent = lookout.look(back, START + 2 * MINUTE)
    assert told(recent)[1:] == [(2, "a", "GPU 1 is back (lost before)"), (2, "c", "is new")]
    assert [change.words for change in recent.users] == ["bob: 0 → 3 GPU, now holds the most", "alice: 2 → 0 GPU"]
    recent = lookout.look(back[:2], START + 3 * MINUTE)
    assert told(recent)[-1] == (3, "c", "is not among the hosts any more")
    recent = lookout.look(back[:2], START + RECENT_NS + 2 * MINUTE)
    assert [at for at, *_ in told(recent)] == [2, 2, 3]
    assert recent.since_ns == START + 2 * MINUTE
    assert [change.words for change in recent.users] == ["bob: 3 → 2 GPU"]
    assert lookout.look(back[:2], START + 2 * RECENT_NS) == Recent(START + RECENT_NS, (), ())


def test_looks_are_rare() -> None:
    """Within a few seconds the answer is the one from before; a clock that is set back does not stop the looking."""
    lookout = Lookout()
    lookout.look([held("a", None)], START)
    silent = [held("a", None, status=Status.DOWN)]
    assert told(lookout.look(silent, START + LOOK_NS - 1)) == []
    assert told(lookout.look(silent, START + LOOK_NS)) == [(0, "a", "stopped reporting")]
    again = [held("a", None)]
    assert told(lookout.look(again, START))[-1][1:] == ("a", "reports again")


def test_a_host_that_was_not_heard_yet_changes_nothing() -> None:
    """After a start of the server: whether such a host was down before is not known; who holds its GPUs counts all the while."""
    for later in (Status.RUNNING, Status.DOWN):
        lookout = Lookout()
        lookout.look([held("a", "alice", status=Status.WAITING)], START)
        assert lookout.look([held("a", "alice", status=later)], START + MINUTE)[1:] == ((), ())


def noticed(before: list[Host], after: list[Host]) -> Recent:
    lookout = Lookout()
    lookout.look(before, START)
    return lookout.look(after, START + MINUTE)


def test_the_panel_counts_and_names() -> None:
    """Counts by kind; alike changes of a host are one line, the worst of one moment first; the rest is a click away."""
    before = [held("a", *["alice"] * 8), held("b<b>", None), held("gone", None)]
    cards = [gpu(at, GTX, 1000, 11_169, None, 40) | {"st": "missing"} for at in range(8)]
    gone = host("a", sample(cards), facts={"driver": "580"})
    after = [gone, held("b<b>", "bob")]
    recent = noticed(before, after)
    panel = recent_panel(recent, after, ALL, STYLE)
    assert panel is not None
    page = to_html(panel)
    assert "8 GPUs lost · 1 other driver · 1 host gone · 2 users" in page
    assert "GPU 0 ok → missing and 7 more" in page
    assert page.index("missing") < page.index("driver 570") < page.index("bob: 0 → 1 GPU")
    assert 'href="/changes?from=-15m"' in page
    assert "b<b>" not in page


def test_a_filtered_page_has_the_changes_of_its_hosts() -> None:
    """Of no others, and none of users, whose GPUs may be elsewhere; nothing changed is no panel."""
    before, after = [held("a", None), held("b", None)], [held("a", "x", driver="1"), held("b", "x", driver="2")]
    recent = noticed(before, after)
    panel = recent_panel(recent, after[:1], parse_filter("host==a"), STYLE)
    assert panel is not None
    page = to_html(panel)
    assert "driver 570 → 1" in page
    assert "driver 570 → 2" not in page
    assert "GPU</bdi>" not in page
    assert "/changes?filter=host%3D%3Da&amp;from=-15m" in page
    assert recent_panel(recent, [held("c", None)], parse_filter("host==c"), STYLE) is None


def test_more_than_fits_is_counted() -> None:
    """Six lines, and how many more there are."""
    before = [held(f"h{at}", None) for at in range(20)]
    after = [held(f"h{at}", None, driver="1") for at in range(20)]
    panel = recent_panel(noticed(before, after), after, ALL, STYLE)
    assert panel is not None
    page = to_html(panel)
    assert page.count("<li>") == 6
    assert "and 14 more" in page
