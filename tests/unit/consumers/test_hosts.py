"""What people change about hosts: names, merges, and what is forgotten."""

from pathlib import Path
from typing import Any

from dimint.consumers.accounting import Question
from dimint.consumers.digest import table_digest
from dimint.consumers.reading import StatusReader
from tests.support.samples import START_NS, host_id, registered, sample_event
from tests.support.status_log import PARTITIONS, StatusLog, feed, partition_of

ONE, TWO = host_id(1), host_id(2)
RUN = b"8 bytes."
SECOND = 1_000_000_000
HOUR_NS = 3600 * SECOND
BUSY = {"int_ms": 60_000, "gpu": [{"i": 0, "u": "GPU-a", "st": "ok", "util_pct": 9}], "proc": [{"g": 0, "pid": 1, "user": "ada"}]}


class Changes(StatusLog):
    """A log to which things are added second by second."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = START_NS

    def say(self, *events: list[Any]) -> None:
        self.now_ns += SECOND
        for event in events:
            self.put([event], time_ns=self.now_ns, logged_at_ns=self.now_ns)


def names(reader: StatusReader) -> dict[str, str]:
    return {row.id: row.name for row in reader.hosts()}


def test_a_host_is_called_what_people_call_it(tmp_path: Path) -> None:
    """The name that people give stays while the agent says another one; taken back, the agent's counts again."""
    log = Changes()
    log.say(registered(ONE, "gpu-01"), registered(TWO, "gpu-02"), ["host.renamed", ONE, 0, 0, "big.one"])
    before_ns = log.now_ns - 1
    folder = feed(log, tmp_path)
    with StatusReader(folder) as reader:
        assert names(reader) == {ONE: "big_one", TWO: "gpu_02"}
        assert reader.host("big.one") == reader.host(ONE)
        log.say(registered(ONE, "gpu-01", "10.0.0.9"), ["host.renamed", TWO, 0, 0, "big.one"])
        feed(log, folder)
        assert names(reader) == {ONE: "big_one", TWO: f"big_one_{TWO[:8]}"}, "who was called so first keeps it"
        assert [event.kind for event in reader.events(0, 1 << 62, host_id=ONE)] == ["host.renamed"]
        log.say(["host.renamed", ONE, 0, 0, ""])
        feed(log, folder)
        assert names(reader) == {ONE: "gpu_01", TWO: "big_one"}
        assert [entry.host.name for entry in reader.fleet_at(log.now_ns - 1)] == ["big_one", f"big_one_{TWO[:8]}"]
        assert reader.fleet_at(before_ns) == []


def test_a_merged_host_is_found_and_not_listed(tmp_path: Path) -> None:
    """The one that stays has the name and the GPU-hours; both histories are there; it can be taken back."""
    log = Changes()
    for host in (ONE, TWO):
        log.say(registered(host, "gpu-01"), sample_event(host, RUN, 1, BUSY))
    log.say(["host.merged", ONE, 0, 0, TWO], ["host.merged", TWO, 0, 0, TWO], ["host.merged", TWO, 0, 0, "x"])
    folder = feed(log, tmp_path)
    with StatusReader(folder) as reader:
        assert names(reader) == {TWO: "gpu_01"}
        assert reader.counts() == {"bad host.merged": 2}
        assert {host: into for host, (_, into) in reader.merged().items()} == {ONE: TWO}
        assert reader.host(ONE) is not None
        assert [len(reader.last(host, 9)) for host in (ONE, TWO)] == [1, 2]
        assert reader.owner(ONE) == reader.owner(TWO) == TWO
        assert {entry.host.id for entry in reader.fleet_at(log.now_ns)} == {TWO}
        asked = Question(START_NS // HOUR_NS * HOUR_NS, START_NS + 2 * HOUR_NS, ("user", "host"), "full")
        assert [one[:3] for one in reader.accounting(asked, START_NS + HOUR_NS).accounts if one.user] == [
            ("ada", "gpu_01", 120_000_000)
        ]
        log.say(["host.merged", ONE, 0, 0, ""])
        feed(log, folder)
        assert names(reader) == {ONE: "gpu_01", TWO: f"gpu_01_{TWO[:8]}"}


def test_a_merged_host_is_one_line_of_time(tmp_path: Path) -> None:
    """A machine that was set up anew: its samples, series, processes and events go on where the old ones end, at any time."""
    log = Changes()
    log.say(registered(ONE, "gpu-01"))
    times = []
    for host, run in ((ONE, RUN), (TWO, b"another.")):
        for seq in range(1, 4):
            log.say(sample_event(host, run, seq, BUSY | {"int_ms": 1000}))
            times.append(log.now_ns)
        log.say(["driver.changed", host, 0, 0, None, "570"])
        if host == ONE:
            log.say(registered(TWO, "gpu-01"))
    log.say(["host.merged", ONE, 0, 0, TWO])
    with StatusReader(feed(log, tmp_path)) as reader:
        row = reader.host(TWO)
        assert row is not None
        assert (row.first_sample_ns, row.last_sample_ns) == (times[0], times[-1])
        assert reader.hosts() == [row]
        assert [stored.time_ns for stored in reader.last(TWO, 4)] == times[2:]
        assert [stored.time_ns for stored in reader.between(TWO, 0, 1 << 62)] == times
        whole = reader.page(TWO, 0, 1 << 62, limit=4)
        rest = reader.page(TWO, 0, 1 << 62, limit=4, after=whole.cursor)
        assert [stored.time_ns for stored in (*whole.samples, *rest.samples)] == times
        assert len(reader.page(TWO, 0, 1 << 62, step_ns=SECOND).samples) == 6
        summed = reader.series(TWO, times[0], times[-1], 1)
        assert sum(slot["GPU-a"]["util_pct"][3] for slot in summed.slots.values()) == 6
        hours = reader.series(TWO, times[0] - 100 * HOUR_NS, times[-1], 1)
        assert sum(slot["GPU-a"]["util_pct"][3] for slot in hours.slots.values()) == 6
        assert sum(one.samples for one in reader.processes(TWO, 0, 1 << 62)) == 6
        assert {event.host for event in reader.events(0, 1 << 62)} == {TWO}
        assert [event.kind for event in reader.events(0, 1 << 62, host_id=TWO)].count("driver.changed") == 2
        assert {stored.time_ns for stored in reader.latest([TWO]).values()} == {times[-1]}
        assert reader.changed_since(-1)[1] == {TWO}
        (then,) = reader.fleet_at(times[1])
        assert (then.host.id, then.host.name, then.sample and then.sample.time_ns) == (TWO, "gpu_01", times[1])


def test_of_a_forgotten_host_nothing_is_left(tmp_path: Path) -> None:
    """No row of it stays in any table; with its next event it is a new host, in the same commit or later."""
    log = Changes()
    log.say(registered(TWO, "other"))
    untouched = feed(log, tmp_path / "untouched")
    log = Changes()
    log.say(registered(TWO, "other"))
    log.say(registered(ONE, "gpu-01"), *(sample_event(ONE, RUN, seq, BUSY) for seq in range(1, 600)))
    log.say(["gpu.back", ONE, 0, 0, "GPU-a"], ["host.gap", ONE, 0, 0, RUN, 700, 701, "full"], ["host.forgotten", ONE, 0, 0])
    once = feed(log, tmp_path / "once")
    assert table_digest(once) == table_digest(untouched)
    assert table_digest(feed(log, tmp_path / "parts", [1, 300, 200, 101, 1, 1])) == table_digest(once)
    log.say(sample_event(ONE, RUN, 1, BUSY), registered(ONE, "gpu-01"))
    anew = feed(log, once)
    assert table_digest(feed(log, tmp_path / "again")) == table_digest(anew)
    with StatusReader(anew) as reader:
        assert names(reader) == {ONE: "gpu_01", TWO: "other"}
        assert len(reader.last(ONE, 999)) == 1
    assert len({partition_of(ONE), partition_of(TWO)}) <= PARTITIONS


def test_alerts_of_a_past_instant(tmp_path: Path) -> None:
    """What was raised and not over then is open then; at the end it is what is open now, to the field."""
    log = Changes()
    log.say(registered(ONE, "gpu-01"))
    times = []
    for event in (
        ["alert.raised", ONE, 0, 0, "hot", "GPU-a", "warning", START_NS + SECOND, "90 °C"],
        ["alert.told", ONE, 0, 0, "hot", "GPU-a", "raised", "mail", None],
        ["alert.raised", ONE, 0, 0, "down", "", "critical", START_NS, "silent"],
        ["alert.cleared", ONE, 0, 0, "hot", "GPU-a", START_NS + 2 * SECOND, "cool"],
        ["alert.raised", ONE, 0, 0, "hot", "GPU-a", "info", START_NS + 3 * SECOND, "80 °C"],
    ):
        log.say(event)
        times.append(log.now_ns)
    with StatusReader(feed(log, tmp_path)) as reader:
        then = [[(one.rule, one.severity, one.told) for one in reader.alerts_at(time_ns)] for time_ns in (0, *times)]
        assert then == [
            [], [("hot", "warning", False)], [("hot", "warning", True)], [("down", "critical", False), ("hot", "warning", True)],
            [("down", "critical", False)], [("hot", "info", False), ("down", "critical", False)],
        ]  # fmt: skip
        assert reader.alerts_at(times[-1]) == reader.alerts()
