"""Who uses GPUs: the panel, the page, days of a zone; and what is wrong is told once."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from dimint.consumers.accounting import Used, account, question
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.rows import HostEvent
from dimint.webapp.alerts import what_is_wrong
from dimint.webapp.as_changes import changes_text
from dimint.webapp.as_html import Page
from dimint.webapp.as_lines import Frame, line_view
from dimint.webapp.as_terminal import TerminalStyle
from dimint.webapp.as_users import users_json, users_page, users_text_table
from dimint.webapp.asked import Asked
from dimint.webapp.filter import parse_filter
from dimint.webapp.many import grid_node
from dimint.webapp.marks import Mark
from dimint.webapp.models import Change, Host, Snapshot, Status, UserDay
from dimint.webapp.nodes import to_html
from dimint.webapp.parts import PageStyle
from dimint.webapp.today import day_start
from dimint.webapp.users import held_now, users_panel
from tests.support.hosts import GTX, MIB, gpu, host, sample

HOUR_US = 3600 * 1_000_000
SECOND = 1_000_000_000
HOSTILE = 'eve"</a><b>\x1b[2J'
STYLE = PageStyle(UTC)


def busy(name: str, *users: str | None, status: Status = Status.RUNNING, **more: object) -> Host:
    """A host with a GPU for each user, who leaves it idle; None is a free one."""
    cards = [gpu(at, GTX, 1000, 11_169, 0, 40) | more for at in range(len(users))]
    processes = [{"g": at, "pid": at, "user": user, "mem": 900 * MIB} for at, user in enumerate(users) if user]
    return host(name, sample(cards, processes), status=status)


def test_panel_joins_now_and_today() -> None:
    """Who holds the most first, then who held the most today; names are text, and their links' filter finds them."""
    hosts = [busy("a", "alice", "alice", HOSTILE), busy("b", None)]
    today = [UserDay("bob", 3 * HOUR_US, HOUR_US), UserDay("alice", HOUR_US, 0)]
    panel = users_panel(hosts, today, STYLE)
    assert panel is not None
    page = to_html(panel)
    assert page.index("alice") < page.index("eve") < page.index("bob")
    assert "<b>" not in page.replace("<b></b>", "")
    assert '<td class="right">3.0</td><td class="right">1.0</td>' in page
    assert parse_filter('user=="eve?</a><b>\x1b[2J"').matches(hosts[0], 0)
    assert users_panel([busy("b", None)], [], STYLE) is None
    assert "today" not in to_html(users_panel(hosts, [], STYLE) or panel)


def test_page_table_and_json_say_the_same() -> None:
    """Hours of the range beside what is held now, for browsers, terminals and programs."""
    asked = question(0, 10 * 3600 * SECOND, "user", "full")
    answer = account(asked, [Used("alice", "a", 5 * HOUR_US, 2 * HOUR_US, HOUR_US), Used(HOSTILE, "a", 1, 1, 0)], 80 * HOUR_US, 0)
    held, idle = held_now([busy("a", "alice", None)])
    page = users_page(Page("/users", Asked(), 1, "", None, 0, False), STYLE, answer, held, idle, busy_hours=6)
    for words in ("5.0", "2.0", "1.0", "Somebody held 6 %", "format=csv"):
        assert words in page
    assert "</a><b>" not in page
    table = users_text_table(answer, held, idle, TerminalStyle(UTC, 80))
    assert table.splitlines()[1].split()[:4] == ["alice", "1", "1", "5.0"]
    assert "\x1b" not in table
    alice = users_json(answer, held, idle)["users"][0]
    assert alice == {"user": "alice", "gpus": 1, "idle": 1, "held": 5.0, "active": 2.0, "wasted": 2.0, "unknown": 1.0}
    assert "nobody" in users_text_table(account(asked, [], 0, 0), held, idle, TerminalStyle(UTC, 80))


def test_a_day_begins_at_midnight_of_the_zone() -> None:
    """Also on the day that has 25 hours."""
    zone = ZoneInfo("Europe/Berlin")
    at_ns = int(datetime(2026, 10, 25, 9, tzinfo=zone).timestamp()) * SECOND
    assert (at_ns - day_start(at_ns, zone)) // (3600 * SECOND) == 10
    assert day_start(day_start(at_ns, zone), zone) == day_start(at_ns, zone)
    assert day_start(SECOND, UTC) == 0


def test_what_an_alert_says_is_not_said_again() -> None:
    """A host that is down and a GPU that is gone are one line each; other faults of them stay; XIDs are in terminals too."""
    down, lost, fine = busy("a", status=Status.DOWN), busy("b", None, st="lost"), busy("c", None)
    uuid = gpu(0, GTX, 0, 1, 0, 0)["u"]
    alerts = (
        OpenAlert(down.id, "uplink", "", "critical", 1, 1, "a is silent", told=True),
        OpenAlert(lost.id, "gone", uuid, "critical", 1, 1, "GPU is lost", told=True),
    )
    xid = HostEvent(fine.id, 1, "gpu.xid", 5 * SECOND, 5 * SECOND, {"xid": 79, "uuid": uuid})
    hosts = (down, lost, fine)
    bare = Snapshot(1, hosts, {}, 0, None, "", (), (xid,))
    told = Snapshot(1, hosts, {}, 0, None, "", alerts, (xid,))
    assert [problem.text for problem in what_is_wrong(bare, hosts, 9 * SECOND)[1]] == ["down", "lost", "XID 79, 0 min ago"]
    lines, problems = what_is_wrong(told, hosts, 9 * SECOND)
    assert len(lines) == 2
    assert [problem.text for problem in problems] == ["XID 79, 0 min ago"]
    shown = line_view("rows", Frame(hosts, 9 * SECOND, 80, "", None, 0, lines, problems))
    assert any("XID 79" in line.text for line in shown)


def test_simulated_hosts_are_marked_in_every_list() -> None:
    """Also where only a host's name is at hand: alerts and problems in terminals, changes, events."""
    made = replace(busy("sim", None, st="lost"), simulated=True)
    alert = OpenAlert(made.id, "hot", "", "warning", 1, 1, "90 °C", told=True)
    lines, problems = what_is_wrong(Snapshot(1, (made,), {}, 0, None, "", (alert,)), (made,), SECOND)
    shown = line_view("rows", Frame((made,), SECOND, 80, "", None, 0, lines, problems))
    assert [line.text for line in shown[:2]] == ["▲ warning sim (sim): 90 °C", "✖ sim (sim) GPU 0: lost"]
    marks = [("sim", "gpu.xid", Mark(1, "▲", "warn", "XID 79")), ("real", "gpu.xid", Mark(1, "▲", "warn", "XID 79"))]
    text = changes_text([Change("gpu.lost", "✖", "sim", "GPU 0 is gone")], marks, ("a", "b"), TerminalStyle(UTC, 80), {"sim"})
    assert text.count("sim (sim) ") == 2
    assert "real (sim)" not in text


def test_a_past_grid_of_many_hosts_shows_the_moment() -> None:
    """Where no hour was read there is a square a GPU, not an hour of nothing."""
    page = to_html(grid_node(busy("a", "alice", None), STYLE))
    assert 'viewBox="0 0 2 1"' in page
