"""Open alerts as they are shown: order, names, what presses, and that hostile text stays text."""

from datetime import UTC

from dimint.clock import ManualClock
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from dimint.webapp.alerts import XID_NS, alert_lines, pressing, xid_problems
from dimint.webapp.as_alerts import alerts_json, alerts_page, alerts_text
from dimint.webapp.as_html import Page
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.asked import Asked
from dimint.webapp.board import Board, BoardRules
from dimint.webapp.happenings import mark_of, told_text
from dimint.webapp.nodes import to_html
from dimint.webapp.parts import PageStyle
from dimint.webapp.shown import show
from tests.support.fleet import MemoryTables, host_id
from tests.support.hosts import GTX, gpu, host, ns, sample
from tests.unit.webapp.test_pages import EVIL, Outline

NOW = ns("2018/12/03 23:17:09")
MINUTE = 60_000_000_000
RULES = BoardRules(down_after_s=60.0, order="name", save_interval_s=0.0, names={})


def alert(of: str, rule: str, severity: str, ago: int, *, subject: str = "", text: str = "something") -> OpenAlert:
    return OpenAlert(of, rule, subject, severity, NOW - ago * MINUTE, NOW - ago * MINUTE, text, True)


def test_the_worst_stand_first_then_the_newest() -> None:
    """Severity, then time; GPUs by their index; an alert of a host that is not shown only on request; infos do not press."""
    card = gpu(3, GTX, 1, 2, 3, 4) | {"u": "GPU-abc"}
    shown = host("h", sample([card]))
    alerts = [
        alert(shown.id, "up", "info", 1), alert(shown.id, "old", "warning", 9), alert(shown.id, "new", "warning", 2),
        alert(shown.id, "gone", "critical", 99, subject="GPU-abc"), alert("stranger", "down", "critical", 100),
    ]  # fmt: skip
    lines = alert_lines(alerts, [shown])
    assert [(line.alert.rule, line.symbol, line.where) for line in lines] == [
        ("gone", "✖", "GPU 3"), ("new", "▲", ""), ("old", "▲", ""), ("up", "·", ""),
    ]  # fmt: skip
    assert [line.alert.rule for line in pressing(lines)] == ["gone", "new", "old"]
    assert [line.name for line in alert_lines(alerts, [shown], strangers=True)][:2] == ["h", "stranger"]
    text = alerts_text(lines, TerminalStyle(UTC))
    assert alerts_text([], TerminalStyle(UTC), past=True) == "no alert was open\n"
    assert text.splitlines()[1].split() == ["✖", "critical", "2018/12/03", "21:38:09", "h", "GPU", "3", "gone", "something"]
    assert alerts_json(lines)["alerts"][0]["since"] == "2018-12-03T21:38:09Z"


def test_hostile_alerts_stay_text() -> None:
    """No text of an alert becomes markup or a control character, on the page and for terminals."""
    evil = EVIL + "\x1b]0;x\x07\u202e"
    lines = alert_lines([alert("h", evil, evil, 1, subject=evil, text=evil)], [], strangers=True)
    plain = alert_lines([alert("h", "x", "x", 1, subject="x", text="x")], [], strangers=True)
    page = Page("/alerts", Asked(), 1, "", None, 0, False)
    style = PageStyle(UTC)
    hostile = alerts_page(page, style, lines)
    assert [tag for tag, _ in Outline(hostile).tags] == [tag for tag, _ in Outline(alerts_page(page, style, plain)).tags]
    for text in (hostile, alerts_text(lines, TerminalStyle(UTC, columns=1000))):
        assert not any((ord(char) < 32 and char != "\n") or char == "\u202e" for char in text)


def test_xids_of_the_last_hour_are_problems() -> None:
    """One line a GPU and number; older ones, and those that are an open alert, are not told again."""
    card = gpu(3, GTX, 1, 2, 3, 4) | {"u": "GPU-abc"}
    shown = host("h", sample([card]))

    def xid(ago_ns: int, number: int) -> HostEvent:
        return HostEvent(shown.id, 1, "gpu.xid", NOW - ago_ns, NOW, {"uuid": "GPU-abc", "xid": number})

    events = [xid(XID_NS, 48), xid(9 * MINUTE, 79), xid(2 * MINUTE, 79), xid(5 * MINUTE, 31)]
    found = xid_problems(events, [shown], [], NOW)
    assert [(one.where, one.text) for one in found] == [("GPU 3", "XID 79, 2 times, 2 min ago"), ("GPU 3", "XID 31, 5 min ago")]
    assert xid_problems(events, [shown], [alert(shown.id, "xid", "warning", 2, subject="GPU-abc")], NOW) == []
    assert xid_problems(events, [], [], NOW) == []


def test_an_alert_is_news_and_stands_above_the_other_problems() -> None:
    """A raised alert makes a snapshot of its own, without a host that changed; the panel begins with it."""
    tables, clock = MemoryTables(), ManualClock()
    tables.register(host_id(1), "h")
    lost = gpu(0, GTX, 1, 2, 3, 4) | {"st": "lost"}
    tables.put(host_id(1), clock.time_ns(), sample([lost]))
    board = Board(tables, RULES, clock)
    first = board.refresh()
    tables.opened = [OpenAlert(host_id(1), "r", "", "warning", 1, 1, "it is warm", True)]
    tables.commit()
    second = board.refresh()
    assert second.sequence > first.sequence
    assert [a is b for a, b in zip(first.hosts, second.hosts, strict=True)] == [True]
    head = Outline(to_html(show(second, Asked(), PageStyle(UTC), now_ns=clock.time_ns(), per_page=8).head)).text
    assert head.index("▲ warning h: it is warm") < head.index("GPU 0: lost")
    tables.opened = []
    tables.commit()
    assert board.refresh().alerts == ()


def test_raised_alerts_carry_the_sign_of_their_severity() -> None:
    """In the log an alert that only informs does not look like a warning; unknown severities neither."""
    events = [
        HostEvent("h", 1, "alert.raised", 1, 1, {"rule": "r", "severity": severity, "text": "t"})
        for severity in ("critical", "warning", "info", ["x"])
    ]
    assert [mark_of(event, {}).symbol for event in events] == ["✖", "▲", "·", "·"]
    assert mark_of(HostEvent("h", 1, "alert.cleared", 1, 1, {"rule": "r", "text": "t"}), {}).words == "alert r is over: t"


def test_what_people_were_told_reads_well_beside_its_host() -> None:
    """Without a chat's marks, and without host and GPU said twice; what nobody marked stays as it is."""
    assert told_text("`gpu_01`: GPU 3 reported XID 79", "GPU 3") == "reported XID 79"
    assert told_text("`gpu_01`: GPU 3: gpu.temp_c &gt; 85 (88)", "GPU 3") == "gpu.temp_c > 85 (88)"
    assert told_text("`gpu_01`: GPU 3 is back", "GPU 1") == "GPU 3 is back"
    assert told_text("New uplink from `gpu_01`. Hello!") == "New uplink from gpu_01. Hello!"
    assert told_text("a &amp;lt; b: c") == "a &lt; b: c"
