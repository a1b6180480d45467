"""Rules as files have them, and what conditions see."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from dimint.cli_alerts import show_rules
from dimint.consumers.alerts.cli import read_rules
from dimint.consumers.alerts.conditions import CONDITIONS, Finding, Observed, defaults_by, gpu_name, parse_comparison
from dimint.consumers.alerts.core import Alerting
from dimint.consumers.alerts.rules import DEFAULT_RULES, Quiet, parse_rules, safe_text
from dimint.errors import SettingsError
from dimint.settings import AlertsSettings, build, settings_of
from dimint.settings_thresholds import THRESHOLDS
from tests.support.hosts import MIB, cpu, gpu, sample

S = 1_000_000_000
NOW = 1_700_000_000 * S


def observed(content: dict[str, Any] | None = None, **given: Any) -> Observed:
    """A host that was heard just now."""
    values: dict[str, Any] = {
        "id": "ab" * 16, "name": "gpu_01", "ip": "10.0.0.1", "facts": {}, "registered_ns": 0, "received_ns": NOW,
        "sample": content, "xids": {}, "now_ns": NOW,
    }  # fmt: skip
    return Observed(**(values | given))


def look(name: str, host: Observed, **parameters: float) -> list[Finding]:
    """What a named condition finds."""
    condition = CONDITIONS[name]
    defaults = {each.name: each.default for each in condition.parameters}
    return list(condition.look(host, defaults | parameters))


def test_gpus_are_called_by_their_numbers() -> None:
    """As pages call them; from the facts where a sample has no GPUs, by the UUID where nobody says."""
    card = gpu(3, "x", 1, 2, 3, 4)
    facts = {"gpus": [{"u": "GPU-5", "i": 5}, {"u": "GPU-odd", "i": "<b>"}]}
    host = observed(sample([card]), facts=facts)
    assert [gpu_name(host, uuid) for uuid in (card["u"], "GPU-5", "GPU-odd", "GPU-gone", "")] == [
        "GPU 3", "GPU 5", "GPU GPU-odd", "GPU GPU-gone", "a GPU",
    ]  # fmt: skip
    (xid,) = parse_rules({"rule": [{"name": "xid", "when": "gpu.xid"}]}, "test")
    alerting = Alerting([xid])
    alerting.look(observed({"int_ms": 5000}, facts=facts, xids={"GPU-5": (79, NOW)}), waiting=True)
    assert [change.text for change in alerting.changes(NOW)] == ["`gpu_01`: GPU 5 reported XID 79"]


def test_default_rules_are_rules() -> None:
    """What is watched where nobody says anything."""
    rules = parse_rules({"rule": [*DEFAULT_RULES]}, "built in")
    assert len(rules) == len(DEFAULT_RULES)
    down = next(rule for rule in rules if rule.name == "down")
    said = down.text(raised=True, host="host1", ip="", subject="", gpu="", value="60")
    assert said == "⬇︎⬇︎⬇︎ ` Down ` Detected - Connection from `host1` has been lost more than 60 sec. Check network and machine."
    assert down.text(raised=False, host="host1", ip="", subject="", gpu="", value="").endswith(
        "Uplink from `host1`. Welcome back!"
    )
    uplink = next(rule for rule in rules if rule.name == "uplink")
    assert uplink.text(raised=True, host="h", ip="", subject="", gpu="", value="").endswith("New uplink from `h`. Hello!")
    assert uplink.text(raised=False, host="h", ip="", subject="", gpu="", value="") == ""


def test_settings_decide_what_is_hot_and_idle() -> None:
    """The defaults of rules are those of the pages; a rule that says something else has its own."""
    thresholds = replace(THRESHOLDS, hot_temperature=70, idle_percent=20)
    entries = [
        {"name": "a", "when": "gpu.hot"},
        {"name": "b", "when": "gpu.idle_held"},
        {"name": "c", "when": "gpu.hot", "above": 60},
    ]
    hot, idle, other = (rule.parameters for rule in parse_rules({"rule": entries}, "test", defaults_by(thresholds)))
    assert (hot["above"], hot["margin"], idle["below"], other["above"]) == (70, 3, 20, 60)
    values = {row.name: row.default for row in settings_of("alerts")}
    given = values | {"data_dir": Path("/nowhere"), "log": "/nowhere", "idle_held": 600.0, "hot_temperature": 75}
    rules = {rule.name: rule for rule in read_rules(build(AlertsSettings, given, ()))}
    assert (rules["idle-while-held"].for_ns, rules["hot"].parameters["above"]) == (600 * 10**9, 75)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "rule number 1: name is missing"),
        ({"name": "a b", "when": "host.down"}, "a name is"),
        ({"name": "a"}, "when is missing"),
        ({"name": "a", "when": "host.don"}, "did you mean host.down?"),
        ({"name": "a", "when": "host.heat > 5"}, "host.heat is not known; there are host.cpu_pct"),
        ({"name": "a", "when": "gpu.temp_c >"}, "is no comparison"),
        ({"name": "a", "when": "host.down", "aftr": "5s"}, "'aftr' is not known; did you mean after?"),
        ({"name": "a", "when": "host.down", "after": 5}, "after is a length of time"),
        ({"name": "a", "when": "gpu.hot", "margin": "5"}, "margin is a number"),
        ({"name": "a", "when": "host.down", "for": "5"}, "is not a length of time"),
        ({"name": "a", "when": "host.down", "severity": "bad"}, "severity is info, warning, critical"),
        ({"name": "a", "when": "host.down", "tell": ["pager"]}, "tell is a list of webhook, mail"),
        ({"name": "a", "when": "host.down", "quiet": ["22-7"]}, "quiet is a list of times of day"),
        ({"name": "a", "when": "host.down", "quiet": ["07:00-07:00"]}, "quiet is a list of times of day"),
        ({"name": "a", "when": "host.down", "message": "{host.__class__}"}, "a message has"),
        ({"name": "a", "when": "host.down", "message": "{"}, "a message has"),
        ({"name": "a", "when": "host.down", "message": "{0} {host!r}"}, "a message has"),
        ({"name": "a", "when": "host.down", "clear": "host.load1 < 3"}, "clear compares the same number"),
        ({"name": "a", "when": "gpu.temp_c > 5", "clear": "gpu.power_w < 3"}, "clear compares the same number"),
        ("down", "is not a map"),
    ],
)
def test_what_is_wrong_is_said(rule: object, says: str) -> None:
    """One line for each mistake, with the file and the rule."""
    with pytest.raises(SettingsError) as refused:
        parse_rules({"rule": [rule, {"name": "fine", "when": "host.down"}]}, "rules.toml")
    assert says in str(refused.value)
    assert str(refused.value).startswith("rules.toml: rule ")
    assert "\n" not in str(refused.value)


def test_every_mistake_is_said_at_once() -> None:
    """Two wrong rules and a double name: three lines."""
    good = {"name": "a", "when": "host.down"}
    with pytest.raises(SettingsError) as refused:
        parse_rules({"rule": [good, good, {"name": "b"}, {"when": "host.down"}]}, "rules.toml")
    assert len(str(refused.value).splitlines()) == 3
    with pytest.raises(SettingsError, match="stand under"):
        parse_rules({"rules": []}, "rules.toml")


def test_quiet_hours_go_over_midnight() -> None:
    """How long it is still quiet, at both ends."""
    night = Quiet(22 * 3600, 7 * 3600)
    assert night.left_s(22 * 3600 - 1) == 0
    assert night.left_s(22 * 3600) == 9 * 3600
    assert night.left_s(3600) == 6 * 3600
    assert night.left_s(7 * 3600) == 0
    assert Quiet(12 * 3600, 0).left_s(86_399) == 1


@pytest.mark.parametrize(
    ("quiet", "at", "hours"),
    [
        (["22:00-07:00"], "2026-07-01T21:59:59", 0),
        (["22:00-07:00"], "2026-07-01T23:00:00", 8),
        (["22:00-07:00"], "2026-03-28T23:00:00", 7),  # 02:00 becomes 03:00 in that night
        (["22:00-07:00"], "2026-10-24T23:00:00", 9),  # and 03:00 becomes 02:00 in this one
        (["01:00-02:30"], "2026-03-29T01:30:00", 1),  # there is no 02:30: what it would have been is 03:30
        (["01:00-02:45"], "2026-10-25T02:30:00", 0.25),
        (["01:00-02:45"], "2026-10-25T02:30:00 again", 0.25),
        (["22:00-00:00", "00:00-06:00"], "2026-07-01T23:00:00", 7),
        (["12:00-13:00"], "2026-07-01T23:00:00", 0),
    ],
)
def test_quiet_hours_are_those_of_the_clock_on_the_wall(quiet: list[str], at: str, hours: float) -> None:
    """Over midnight, over the hour that summer time takes or gives, and over two of them in a row."""
    (rule,) = parse_rules({"rule": [{"name": "a", "when": "host.down", "quiet": quiet}]}, "test")
    time, _, again = at.partition(" ")
    local = datetime.fromisoformat(time).replace(tzinfo=ZoneInfo("Europe/Berlin"), fold=1 if again else 0)
    assert rule.quiet_left_s(local) == hours * 3600


def test_hostile_names_do_nothing_in_a_chat() -> None:
    """No mention, no mark-up, no line of its own."""
    assert safe_text("<!channel>`x`\n\x1b[2J&") == "&lt;!channel&gt;'x'\\n\\u001b[2J&amp;"


def test_silence() -> None:
    """Down after the threshold, late after some intervals; nothing is known of a host that never reported."""
    quiet = observed({"int_ms": 5000}, received_ns=NOW - 20 * S)
    assert [finding.holds for finding in look("host.down", quiet, after=60)] == [False]
    assert [finding.holds for finding in look("host.down", quiet, after=19)] == [True]
    assert [finding.holds for finding in look("host.stale", quiet)] == [True]
    assert look("host.down", observed(received_ns=None)) == []
    assert look("host.stale", observed({"int_ms": None})) == []


def test_gpus() -> None:
    """States, heat by the card's own limit, holding without work and without processes; unreadable numbers are unknown."""
    cards = [gpu(0, "x", 60_000, 80_000, 0, 86), gpu(1, "x", 60_000, 80_000, 90, 86), gpu(2, "x", None, None, None, None)]
    cards[1]["st"] = "lost"
    rows = [{"g": 0, "pid": 1, "user": "alice", "mem": 5 * MIB}]
    facts = {"gpus": [{"u": cards[0]["u"], "t_slow_mC": 87_000}, {"u": cards[1]["u"], "t_slow_mC": 95_000}]}
    host = observed(sample(cards, rows), facts=facts)
    found = {name: [finding.holds for finding in look(name, host)] for name in CONDITIONS if name.startswith("gpu.")}
    assert found == {
        "gpu.gone": [False, True, False],
        "gpu.xid": [],
        "gpu.hot": [True, False, None],
        "gpu.idle_held": [True, False, None],
        "gpu.held_without_process": [False, True, None],
    }
    unread = observed(sample(cards, []) | {"procs_err": {cards[0]["u"]: 999}})
    assert next(look("gpu.held_without_process", unread).__iter__()).holds is None
    assert [finding.holds for finding in look("gpu.xid", observed(xids={"GPU-1": (79, NOW - S), "GPU-2": (13, 0)}))] == [
        True,
        False,
    ]


def test_comparisons_read_the_units_they_name() -> None:
    """‰, m°C and bytes of a sample in %, °C and MiB."""
    host = observed(sample([gpu(0, "x", 60_000, 80_000, 0, 86)], **cpu(95)))
    for text, value in (("gpu.temp_c > 85", "86"), ("gpu.memory_pct >= 75", "75"), ("host.cpu_pct == 95", "95"),
                        ("gpu.memory_used_mib != 1", "60000"), ("host.load1 <= 0.5", "0.5")):  # fmt: skip
        (finding,) = parse_comparison(text).look(host, {})
        assert (finding.holds, finding.value) == (True, value), text


@pytest.mark.parametrize(
    "content", [{}, {"gpu": 3, "proc": {}, "cpu": [], "mem": 1, "disk": [1]}, {"gpu": [{"u": 1}, {"u": "x", "i": []}]}]
)
def test_hostile_samples_are_unknown(content: dict[str, Any]) -> None:
    """No sample of another machine makes a condition fail."""
    host = observed(content, facts={"gpus": [{"u": []}, 3]})
    for name in CONDITIONS:
        look(name, host)
    for number in ("host.cpu_pct", "host.load1", "host.memory_pct", "host.disk_pct", "gpu.temp_c", "gpu.memory_pct"):
        assert all(finding.holds is None for finding in parse_comparison(f"{number} > 1").look(host, {}))


def test_a_card_that_tells_only_its_margin_is_judged_by_it() -> None:
    """Newer cards do not say at how many degrees they slow down, but how many are left."""
    near, far = gpu(0, "x", 1, 2, 99, 70) | {"t_margin_mC": 2_000}, gpu(1, "x", 1, 2, 99, 89) | {"t_margin_mC": 9_000}
    assert [finding.holds for finding in look("gpu.hot", observed(sample([near, far])))] == [True, False]


def test_a_gpu_split_into_mig_instances_is_not_held_without_a_process() -> None:
    """Its processes stand with its instances, of which each is judged by itself."""
    whole, part = gpu(0, "x", 60_000, 80_000, None, 50), gpu(1, "x", 9_000, 10_000, None, None)
    part["parent"] = whole["u"]
    rows = [{"g": 1, "pid": 1, "user": "alice", "mem": 5 * MIB}]
    found = {
        finding.subject: finding.holds for finding in look("gpu.held_without_process", observed(sample([whole, part], rows)))
    }
    assert found == {whole["u"]: None, part["u"]: False}


def test_a_driver_that_does_not_answer_says_nothing_about_its_version() -> None:
    """An alert of a mismatch neither begins nor ends by it."""
    states = ("driver_mismatch", "ok", "unknown", "starting")
    assert [finding.holds for state in states for finding in look("host.driver_mismatch", observed({"gpu_state": state}))] == [
        True, False, None, None,
    ]  # fmt: skip


def test_the_command_shows_rules_and_whether_anybody_is_told(tmp_path: Path) -> None:
    """`dimint alerts rules`: the file's rules, what could be watched, and that no way to people is set."""
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "warm"\nwhen = "gpu.temp_c > 85"\nfor = "5m"\ntell = ["mail"]\n')
    arguments = [f"--data_dir={tmp_path}", f"--alert_rules={tmp_path}/rules.toml"]
    shown = CliRunner().invoke(show_rules, arguments)
    rows = shown.stdout.splitlines()
    assert rows[0].split() == "warm warning gpu.temp_c > 85 for 300 s on * told by mail".split()
    assert sum(row.split()[0] in CONDITIONS for row in rows if row) == len(CONDITIONS)
    assert "neither webhook nor mail_server is set" in shown.stderr
    with_mail = CliRunner().invoke(show_rules, [*arguments, "--mail_server=localhost", "--mail_from=a@lab", "--mail_to=b@lab"])
    assert (with_mail.exit_code, with_mail.stderr) == (0, "")


_HELD = gpu(0, "x", 60_000, 80_000, 0, 40)
_ROWS = [{"g": 0, "pid": 1, "user": "alice", "mem": 5 * MIB}]
EITHER_WAY: dict[str, tuple[Observed, Observed]] = {
    "host.registered": (observed(registered_ns=NOW - S), observed(registered_ns=NOW - 3600 * S)),
    "host.down": (observed(received_ns=NOW - 61 * S), observed(received_ns=NOW - 59 * S)),
    "host.stale": (observed({"int_ms": 5000}, received_ns=NOW - 16 * S), observed({"int_ms": 5000}, received_ns=NOW - 14 * S)),
    "host.driver_mismatch": (observed({"gpu_state": "driver_mismatch"}), observed({"gpu_state": "ok"})),
    "host.spool_filling": (
        observed({"spool": {"events": 9, "bytes": 51, "max": 100}}), observed({"spool": {"events": 9, "bytes": 50, "max": 100}}),
    ),
    "gpu.gone": (observed(sample([_HELD | {"st": "missing"}])), observed(sample([_HELD | {"st": "suspended"}]))),
    "gpu.xid": (observed(xids={"G": (79, NOW - 599 * S)}), observed(xids={"G": (79, NOW - 601 * S)})),
    "gpu.hot": (observed(sample([_HELD | {"t_mC": 89_000}])), observed(sample([_HELD | {"t_mC": 88_000}]))),
    "gpu.idle_held": (observed(sample([_HELD], _ROWS)), observed(sample([_HELD | {"util_pct": 5}], _ROWS))),
    "gpu.held_without_process": (observed(sample([_HELD])), observed(sample([_HELD], _ROWS))),
}  # fmt: skip
"""Of every condition a host for which it just holds, and one for which it just does not."""


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_at_its_edge(name: str) -> None:
    """With the numbers that it has by default."""
    assert [[finding.holds for finding in look(name, host)] for host in EITHER_WAY[name]] == [[True], [False]]
