"""Who used GPUs for how long: what a sample says, hours added up, rules of sharing, and forms that cannot be abused."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dimint.cli_accounting import accounting as command
from dimint.consumers.accounting import Question, Span, Used, WholeHours, account, as_csv, as_json, coverage, question
from dimint.consumers.digest import table_digest
from dimint.consumers.reading import CURRENT, TABLES_FOLDER, StatusReader
from dimint.consumers.usage import HOUR_US, span_us, use_of
from dimint.errors import BadQuery
from dimint.progress import Progress
from tests.support.samples import START_NS, host_id, registered, sample_event
from tests.support.status_log import StatusLog, feed

ONE, TWO = host_id(1), host_id(2)
SECOND = 1_000_000_000
HOUR_NS = HOUR_US * 1000
BEGIN = START_NS // HOUR_NS * HOUR_NS + HOUR_NS


def working(*processes: dict[str, Any], util: int | None = 50, interval_s: int = 60, **more: Any) -> dict[str, Any]:
    """A sample of a host with two GPUs; every process is on the first."""
    gpus = [{"i": 0, "u": "GPU-a", "st": "ok", "util_pct": util}, {"i": 1, "u": "GPU-b", "st": "ok", "util_pct": 0}]
    return {"int_ms": interval_s * 1000, "gpu": gpus, "proc": [{"g": 0, "pid": 1, **process} for process in processes], **more}


def test_a_gpu_is_shared_by_the_rule() -> None:
    """All of it to each, an equal part, or a part by memory; active is never more than held."""
    use = use_of(working({"user": "ada", "mem": 30, "sm_pct": 80}, {"user": "bob", "mem": 10}), 1000)
    assert (use.gpus, use.known_us) == (2, 2000)
    assert use.users == {"ada": [1000, 800, 0, 500, 500, 0, 750, 750, 0], "bob": [1000, 500, 0, 500, 250, 0, 250, 125, 0]}
    assert use_of(working({"user": "ada"}, {"uid": 7}), 10).users["uid 7"][6] == 5, "memory that is not known is shared equally"
    assert use_of(working({"user": "ada"}, {"user": "ada"}), 10).users == {"ada": [10, 5, 0] * 3}, "two of one user are one"
    assert use_of(working({"user": "ada"}, util=None), 10).users == {"ada": [10, 0, 10] * 3}


def test_what_cannot_be_read_is_unknown() -> None:
    """A lost GPU, an unreadable list, no list at all: no time is known, and no time is used."""
    assert use_of(working(procs_err={"GPU-a": 999}), 10)[:2] == (2, 10)
    lost = working({"user": "ada"})
    lost["gpu"][0]["st"] = "lost"
    assert use_of(lost, 10) == (2, 10, {})
    assert use_of({"gpu": lost["gpu"]}, 10) == (2, 0, {})
    split = working({"user": "ada"})
    split["gpu"] = [{"i": 0, "u": "MIG-1", "parent": "GPU-b"}, split["gpu"][1]]
    assert use_of(split, 10) == (1, 10, {"ada": [10, 0, 10] * 3}), "a GPU with MIG instances counts through these"
    assert use_of({"gpu": 5, "proc": 6}, 10) == use_of({"gpu": [None], "proc": [None, {"g": "0"}]}, 10) == (0, 0, {})
    assert use_of({"gpu": [{"u": [], "parent": {}}], "proc": [{"g": 0, "uid": []}]}, 10)[:2] == (1, 10)


def test_the_time_that_a_sample_stands_for() -> None:
    """The interval its sender states; else the time since the last sample, at most a minute."""
    assert span_us({"int_ms": 5000}, None) == 5_000_000
    assert [span_us({}, since) for since in (None, 7 * SECOND, 900 * SECOND, -1)] == [0, 7_000_000, 60_000_000, 0]


def _hour(number: int, gpus: int, known_us: int) -> Span:
    return Span(number * HOUR_US, (number + 1) * HOUR_US, gpus, known_us)


def test_time_without_samples_is_unknown() -> None:
    """Before, between and after the hours with samples a host has as many GPUs as it had before; nothing of it is use."""
    rows = [_hour(10, 2, 2 * HOUR_US), _hour(11, 2, HOUR_US), _hour(14, 4, 4 * HOUR_US)]
    assert coverage(rows, 0, 10 * HOUR_US, 15 * HOUR_US) == (2 * 4 * HOUR_US + 4 * HOUR_US, HOUR_US + 2 * 2 * HOUR_US)
    assert coverage([], 8, 3 * HOUR_US, 5 * HOUR_US) == (16 * HOUR_US, 16 * HOUR_US)
    assert coverage([_hour(3, 1, HOUR_US)], 0, 3 * HOUR_US + 1, 4 * HOUR_US - 1) == (HOUR_US - 2, 0)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 3 * HOUR_US)), unique_by=lambda row: row[0]),
    st.integers(0, 2),
    st.lists(st.integers(0, 10 * HOUR_US), min_size=2, max_size=2),
)
def test_hours_that_are_one_span_come_to_the_same(rows: list[tuple[int, int, int]], before: int, times: list[int]) -> None:
    """Whatever of them counts, and however much of each is known."""
    from_us, to_us = sorted(times)
    hours = WholeHours(from_us, to_us)
    for row in sorted(rows):
        hours.add(*row)
    each = [_hour(*row) for row in sorted(rows)]
    assert coverage(hours.spans(), before, from_us, to_us) == coverage(each, before, from_us, to_us)


def test_hours_that_look_alike_are_one_span() -> None:
    """A year of one host is as many spans as it changed."""
    hours = WholeHours(HOUR_US // 2, 100 * HOUR_US)
    for hour in range(100):
        hours.add(hour, 8 if hour < 50 else 4, HOUR_US)
    assert [span[:3] for span in hours.spans()] == [
        (0, HOUR_US, 8), (HOUR_US, 50 * HOUR_US, 8), (50 * HOUR_US, 100 * HOUR_US, 4),
    ]  # fmt: skip


def lab() -> StatusLog:
    """Two hosts: an hour of ada alone, half an hour of ada and bob, a silence, and an agent that repeats itself."""
    log = StatusLog()
    for host, name in ((ONE, "gpu-01"), (TWO, "=cmd|calc!A0")):
        log.put([registered(host, name)], time_ns=BEGIN, logged_at_ns=BEGIN)
    for minute in range(90):
        users = [{"user": "ada", "mem": 3}] if minute < 60 else [{"user": "ada", "mem": 3}, {"user": "+bob", "mem": 1}]
        time_ns = BEGIN + minute * 60 * SECOND
        log.put([sample_event(ONE, b"run", minute + 1, working(*users))], time_ns=time_ns, logged_at_ns=BEGIN + 4 * HOUR_NS)
    log.put([sample_event(TWO, b"run", 1, working())], time_ns=BEGIN, logged_at_ns=BEGIN + 4 * HOUR_NS)
    return log


def test_hours_of_users_and_hosts(tmp_path: Path) -> None:
    """Held, active, wasted and unknown by user and host; what no sample covers is nobody's."""
    with StatusReader(feed(lab(), tmp_path)) as reader:
        whole = reader.accounting(question(BEGIN + 1, BEGIN + 2 * HOUR_NS, "user,host", "full"), BEGIN + 9 * HOUR_NS)
        hours = [(*one[:2], *(us / HOUR_US for us in (one.held_us, one.active_us, one.unknown_us))) for one in whole.accounts]
        assert hours == [
            ("ada", "gpu_01", 1.5, 0.75, 0), ("+bob", "gpu_01", 0.5, 0.25, 0), (None, "=cmd|calc!A0", 0, 0, 4 - 2 / 60),
            (None, "gpu_01", 0, 0, 1),
        ]  # fmt: skip
        assert (whole.capacity_us, whole.accounts[0].wasted_us) == (8 * HOUR_US, 0.75 * HOUR_US)
        by_memory = reader.accounting(question(BEGIN, BEGIN + 2 * HOUR_NS, "user", "memory"), BEGIN + 9 * HOUR_NS)
        assert [(one.user, one.held_us / HOUR_US) for one in by_memory.accounts] == [("ada", 1.375), ("+bob", 0.125), (None, 0)]
        by_host = reader.accounting(question(BEGIN, BEGIN + 2 * HOUR_NS, "host", "equal"), BEGIN + 9 * HOUR_NS)
        assert by_host.accounts[0][1:3] == ("gpu_01", 1.5 * HOUR_US)
        assert by_host.accounts[0].wasted_us == 0.75 * HOUR_US
        ended = reader.accounting(question(BEGIN, BEGIN + 9 * HOUR_NS, "user", "full"), BEGIN + HOUR_NS)
        assert ended.capacity_us == 4 * HOUR_US, "what lies ahead is no time yet"


def test_any_range_to_the_second(tmp_path: Path) -> None:
    """Parts of hours count the samples in them; parts that meet come to the whole, and to what the samples themselves say."""
    log = StatusLog()
    for host, name in ((ONE, "gpu-1"), (TWO, "gpu-2")):
        log.put([registered(host, name)], time_ns=BEGIN, logged_at_ns=BEGIN)
    taken = []
    for at in range(900):  # three hours, most of them in chunks; the second host does not state its interval
        users = [{"user": "ada", "mem": 3, "sm_pct": at % 100}] + ([{"user": "bob", "mem": at}] if at % 7 else [])
        time_ns = BEGIN + at * 12 * SECOND
        for host in (ONE, TWO):
            sample = working(*users, util=at % 100, interval_s=12)
            if host == TWO:
                del sample["int_ms"]
            log.put([sample_event(host, b"run", at + 1, sample)], time_ns=time_ns, logged_at_ns=time_ns)
        taken.append((time_ns, use_of(working(*users, util=at % 100), 12_000_000)))
    now_ns = BEGIN + 5 * HOUR_NS
    with StatusReader(feed(log, tmp_path, range(100, 400, 100))) as reader:

        def sums(from_s: int, to_s: int) -> dict[tuple[str | None, str | None], tuple[int, ...]]:
            asked = question(BEGIN + from_s * SECOND + 7, BEGIN + to_s * SECOND + 999, "user,host", "memory")
            answer = reader.accounting(asked, now_ns)
            assert (answer.question.from_ns, answer.longest_us) == (BEGIN + from_s * SECOND, 12_000_000)
            assert answer.capacity_us == 2 * 2 * (to_s - from_s) * 1_000_000
            assert answer.nobody_us == sum(one.nobody_us for one in answer.accounts)
            return {one[:2]: one[2:] for one in answer.accounts}

        for from_s, to_s in ((13, 14), (13, 500), (500, 4000), (3600, 7200), (3599, 7201), (7300, 10_790), (60, 10_799)):
            inside = [use for time_ns, use in taken if BEGIN + from_s * SECOND <= time_ns < BEGIN + to_s * SECOND]
            found = sums(from_s, to_s)
            for user in ("ada", "bob"):
                wanted = [sum(use.users[user][at] for use in inside if user in use.users) for at in (6, 7)]
                assert list(found.get((user, "gpu_1"), (0, 0))[:2]) == wanted, (from_s, to_s)
                assert found.get((user, "gpu_2")) == found.get((user, "gpu_1"))
            middle = (from_s * 2 + to_s) // 3
            if middle > from_s:
                parts = sums(from_s, middle), sums(middle, to_s)
                for key, whole in found.items():
                    if key[0] is not None:
                        halves = [part.get(key, (0, 0, 0, 0)) for part in parts]
                        assert tuple(map(sum, zip(*halves, strict=True))) == whole


class Told(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, int]] = []

    def at(self, done: int, total: int, count: int) -> None:
        self.lines.append((done, total, count))

    def end(self, done: int, total: int, count: int) -> None:
        self.lines.append((done, total, count))


def test_a_long_range_is_read_in_steps_that_are_told(tmp_path: Path) -> None:
    """First the hours that have sums, from the first one on, then host after host; the sums are those of the parts."""
    log = StatusLog()
    weeks = range(0, 10 * 7 * 24, 50)
    for host, name in ((ONE, "gpu-1"), (TWO, "gpu-2")):
        log.put([registered(host, name)], time_ns=BEGIN, logged_at_ns=BEGIN)
        for number, hour in enumerate(weeks):
            time_ns = BEGIN + hour * HOUR_NS
            log.put([sample_event(host, b"run", number + 1, working({"user": "ada"}))], time_ns=time_ns, logged_at_ns=time_ns)
    asked = Question(0, BEGIN + (weeks[-1] + 1) * HOUR_NS)
    told: dict[str, Told] = {}
    with StatusReader(feed(log, tmp_path, range(100, 2 * len(weeks), 100))) as reader:
        found = reader.accounting(asked, asked.to_ns, lambda unit: told.setdefault(unit, Told()))
    assert {one.held_us for one in found.accounts if one.user == "ada"} == {len(weeks) * 60_000_000}
    assert found.capacity_us == 2 * 2 * (weeks[-1] + 1) * HOUR_US
    assert list(told) == ["hours", "hosts"]
    hours = weeks[-1] + 1
    assert told["hours"].lines == [(done, hours, done) for done in (*range(168, hours, 168), hours, hours)]
    assert told["hosts"].lines == [(done, 2, done) for done in (0, 1, 2)]


def test_samples_that_are_gone_widen_the_range(tmp_path: Path) -> None:
    """Where only the sums of hours are left, the answer is of whole hours and says so."""
    folder = feed(lab(), tmp_path)
    db = apsw.Connection(str(folder / (folder / CURRENT).read_text()))
    db.execute(f"delete from host_{ONE} where timestamp < ?", (BEGIN + HOUR_NS // 2,))
    db.execute("delete from chunks where host = ? and timestamp < ?", (ONE, BEGIN + HOUR_NS // 2))
    db.execute("update latest set single_ns = max(single_ns, ?2) where id = ?1", (ONE, BEGIN + HOUR_NS // 2))
    db.close()
    with StatusReader(folder) as reader:
        for from_s, to_s, begin, end in ((60, 600, 0, 3600), (60, 4000, 0, 4000), (1800, 4000, 1800, 4000)):
            asked = question(BEGIN + from_s * SECOND, BEGIN + to_s * SECOND, "user", "full")
            found = reader.accounting(asked, BEGIN + 9 * HOUR_NS).question
            assert (found.from_ns, found.to_ns) == (BEGIN + begin * SECOND, BEGIN + end * SECOND)


def test_sums_of_all_time(tmp_path: Path) -> None:
    """Per host and user what all hours come to; errors of GPUs by number; both go to the host that goes on for another."""
    log = lab()
    for uuid, xid in (("GPU-a", 79), ("GPU-a", 79), ("GPU-a", 13), (None, 48)):
        log.put([["gpu.xid", ONE, 0, 0, uuid, xid]], time_ns=BEGIN + xid, logged_at_ns=BEGIN + 4 * HOUR_NS)
    with StatusReader(feed(log, tmp_path, range(1, 12))) as reader:
        hours = reader.accounting(Question(0, BEGIN + 9 * HOUR_NS), BEGIN + 9 * HOUR_NS).accounts
        assert [(one.user, one.held_us, one.active_us) for one in reader.gpu_totals()] == sorted(
            (one.user, one.held_us, one.active_us) for one in hours if one.user is not None
        )
        assert reader.xid_counts() == [
            (ONE, "", 48, 1, BEGIN + 48), (ONE, "GPU-a", 13, 1, BEGIN + 13), (ONE, "GPU-a", 79, 2, BEGIN + 79),
        ]  # fmt: skip
    log.put([["host.merged", ONE, 0, 0, TWO]], logged_at_ns=BEGIN + 5 * HOUR_NS)
    with StatusReader(feed(log, tmp_path)) as reader:
        assert {one.host for one in reader.gpu_totals()} == {one.host for one in reader.xid_counts()} == {TWO}
    log.put([["host.forgotten", ONE, 0, 0]], logged_at_ns=BEGIN + 6 * HOUR_NS)
    with StatusReader(feed(log, tmp_path)) as reader:
        assert (reader.gpu_totals(), reader.xid_counts()) == ([], [])


def test_rebuilt_repeated_and_late_it_is_the_same(tmp_path: Path) -> None:
    """The answer and the tables' digest do not depend on repeats, on order, or on when commits were made."""
    log = lab()
    asked = Question(BEGIN, BEGIN + 5 * HOUR_NS)
    with StatusReader(feed(log, tmp_path / "once")) as reader:
        wanted = reader.accounting(asked, BEGIN + 9 * HOUR_NS)
    parts = feed(log, tmp_path / "parts", range(1, 12))
    with StatusReader(parts) as reader:
        assert reader.accounting(asked, BEGIN + 9 * HOUR_NS) == wanted
    assert table_digest(parts) == table_digest(tmp_path / "once")
    for at in range(0, 90, 7):
        log.again(at)
    with StatusReader(feed(log, tmp_path / "once")) as reader:
        assert reader.accounting(asked, BEGIN + 9 * HOUR_NS) == wanted, "copies of batches"
    backwards = StatusLog()
    backwards.put([registered(ONE, "gpu-01")], time_ns=BEGIN, logged_at_ns=BEGIN)
    for minute in reversed(range(90)):
        users = [{"user": "ada", "mem": 3}] if minute < 60 else [{"user": "ada", "mem": 3}, {"user": "+bob", "mem": 1}]
        event = sample_event(ONE, b"run", minute + 1, working(*users))
        backwards.put([event, event], time_ns=BEGIN + minute * 60 * SECOND, logged_at_ns=BEGIN + 4 * HOUR_NS)
    with StatusReader(feed(backwards, tmp_path / "late")) as reader:
        found = reader.accounting(asked, BEGIN + 9 * HOUR_NS).accounts
        assert found[:2] == wanted.accounts[:2], "samples that came in the wrong order, and twice"


@pytest.mark.parametrize("user", ["=1+1", "+x", "-x", "@x", "\t=x", "\r=x", 'a"b,c', "a\nb", "\u202ex"])
def test_names_are_text_in_csv(user: str) -> None:
    """No name becomes a formula, another cell or another line."""
    answer = account(Question(0, HOUR_NS), [Used(user, "h", HOUR_US, 0, 0)], HOUR_US, 0)
    head, row = csv.reader(io.StringIO(as_csv(answer), newline=""))
    assert head == ["user", "host", "held", "active", "wasted", "unknown"]
    assert row[1:] == ["h", "1.0", "0.0", "1.0", "0.0"]
    assert row[0][0] not in "=+-@\t\r"
    assert row[0].isprintable()
    assert as_json(answer, str)["gpu_hours"] == [
        {"user": user, "host": "h", "held": 1.0, "active": 0.0, "wasted": 1.0, "unknown": 0.0}
    ]


@pytest.mark.parametrize(
    ("by", "sharing", "length"),
    [("gpu", "full", 1), ("", "full", 1), ("user,user", "full", 1), ("user", "x", 1), ("user", "full", 0)],
)
def test_what_cannot_be_asked_is_said(by: str, sharing: str, length: int) -> None:
    """One clear line for a wrong word or an empty range."""
    with pytest.raises(BadQuery):
        question(BEGIN, BEGIN + length, by, sharing)


def test_the_command_shows_a_table_json_and_csv(tmp_path: Path) -> None:
    """`dimint accounting` reads the tables in the data directory."""
    feed(lab(), tmp_path / TABLES_FOLDER)
    arguments = [f"--data_dir={tmp_path}", f"--from=@{BEGIN // SECOND}", f"--to=@{(BEGIN + 2 * HOUR_NS) // SECOND}", "--by=user"]
    shown = CliRunner().invoke(command, arguments)
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[1].split() == ["ada", "1.500", "0.750", "0.750", "0.000"]
    in_json = CliRunner().invoke(command, [*arguments, "--json", "--sharing=equal"])
    told = [json.loads(line) for line in in_json.stderr.splitlines()]
    assert [(line["progress"], line.get("hours"), line.get("hosts"), line["finished"]) for line in told] == [
        ("accounting", 2, None, True), ("accounting", None, 2, True),
    ]  # fmt: skip
    plain = json.loads(in_json.stdout)
    assert [(line["user"], line["held"]) for line in plain["gpu_hours"]] == [("ada", 1.25), ("+bob", 0.25), (None, 0.0)]
    assert (plain["capacity"], plain["sharing"]) == (8.0, "equal")
    lines = CliRunner().invoke(command, [*arguments, "--csv"]).output.splitlines()
    assert lines[:3] == ["user,held,active,wasted,unknown", "ada,1.5,0.75,0.75,0.0", "'+bob,0.5,0.25,0.25,0.0"]
