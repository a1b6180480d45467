"""The board: what changed, in which order, and when it is news."""

from dataclasses import replace
from pathlib import Path

from dimint.clock import ManualClock
from dimint.consumers.reading import StatusReader
from dimint.settings_thresholds import THRESHOLDS
from dimint.webapp.board import Board, BoardRules
from dimint.webapp.host_past import read_history
from dimint.webapp.judge import problems, use_of
from dimint.webapp.models import Status, Use
from dimint.webapp.trends import CELL_NS, STEP_NS, STEPS, Trends
from dimint.webapp.view import sampled
from tests.support.fleet import MemoryTables, host_id
from tests.support.hosts import GTX, gpu, sample
from tests.support.samples import START_NS, registered, sample_event
from tests.support.status_log import StatusLog, feed

SECOND = 1_000_000_000
RULES = BoardRules(down_after_s=60.0, order="name", save_interval_s=0.0, names={})
CONTENT = sample([gpu(0, GTX, 1, 2, 3, 4)])


def test_snapshot_is_the_same_until_something_changes() -> None:
    """Unchanged tables give the same snapshot, a new sample changes its host only."""
    tables, clock = MemoryTables(), ManualClock()
    for number in range(3):
        tables.register(host_id(number), f"h{number}")
        tables.put(host_id(number), clock.time_ns(), CONTENT)
    board = Board(tables, RULES, clock)
    first = board.refresh()
    assert board.refresh() is first
    tables.put(host_id(1), clock.time_ns() + 1, CONTENT)
    second = board.refresh()
    assert [a is b for a, b in zip(first.hosts, second.hosts, strict=True)] == [True, False, True]
    assert [second.changed[host.id] > first.sequence for host in second.hosts] == [False, True, False]
    assert second.order_changed == first.order_changed


def test_silence_is_news() -> None:
    """A host goes down and comes back without any other change; one known from before the start waits."""
    tables, clock = MemoryTables(), ManualClock()
    tables.register(host_id(1), "old")
    tables.put(host_id(1), clock.time_ns() - 1, CONTENT)
    board = Board(tables, RULES, clock)
    assert board.refresh().hosts[0].status is Status.WAITING
    tables.put(host_id(1), clock.time_ns(), CONTENT)
    assert board.refresh().hosts[0].status is Status.RUNNING
    clock.advance(60.5)
    down = board.refresh()
    assert down.hosts[0].status is Status.DOWN
    assert down.changed[host_id(1)] == down.sequence
    tables.put(host_id(1), clock.time_ns(), CONTENT)
    assert board.refresh().hosts[0].status is Status.RUNNING


def test_names_by_address() -> None:
    """A name that the settings give an address is shown, unless another host has it; hosts are found by both names."""
    tables, clock = MemoryTables(), ManualClock()
    tables.register(host_id(1), "gpu-01.lab", "10.0.0.1")
    tables.register(host_id(2), "taken", "10.0.0.2")
    tables.register(host_id(3), "other", "10.0.0.3")
    board = Board(tables, BoardRules(60.0, "name", 0.0, {"10.0.0.1": "front", "10.0.0.3": "taken"}), clock)
    assert [host.name for host in board.refresh().hosts] == ["front", "other", "taken"]
    for name in ("front", "gpu-01.lab", "gpu_01_lab", host_id(1)):
        found = board.find(name)
        assert found is not None
        assert found.id == host_id(1)
    assert board.find("nobody") is None


def test_history_is_read_back_at_the_start() -> None:
    """The little lines know what was stored before the server started."""
    tables, clock = MemoryTables(), ManualClock()
    tables.register(host_id(1), "h")
    for step in range(10):
        tables.put(host_id(1), clock.time_ns() + step * STEP_NS, sample([gpu(0, GTX, 1, 2, step * 10, 4)]))
    (line,) = Board(tables, RULES, clock).refresh().hosts[0].trends
    assert line == (None,) * (STEPS - 10) + tuple(range(0, 100, 10))


def test_trends_keep_a_window_and_let_late_samples_go() -> None:
    """Old steps leave, a gap stays a gap, what comes late does not rewrite the line."""
    trends = Trends()
    for step in (0, 1, 100, 40, 159):
        trends.add(sampled(step * STEP_NS, sample([gpu(0, GTX, 1, 2, step % 100, 4)])))
    (line,) = trends.lines(1)
    assert line[0] == 0
    assert line[-1] == 59
    assert sum(value is not None for value in line) == 2


def test_a_merged_host_has_one_page(tmp_path: Path) -> None:
    """By its old id and by its own, now and at a time before it was merged, with the samples of both."""
    log, clock = StatusLog(), ManualClock(START_NS + 60 * SECOND)
    for number in (1, 2):
        at = START_NS + number * 20 * SECOND
        log.put([registered(host_id(number), "gpu-01")], time_ns=at, logged_at_ns=at)
        log.put([sample_event(host_id(number), b"8 bytes" + bytes((number,)), 1, CONTENT)], time_ns=at, logged_at_ns=at)
    log.put([["host.merged", host_id(1), 0, 0, host_id(2)]], logged_at_ns=START_NS + 50 * SECOND)
    reader = StatusReader(feed(log, tmp_path))
    board = Board(reader, RULES, clock)
    (now,) = board.refresh().hosts
    (then,) = board.past(START_NS + 30 * SECOND).hosts
    assert (now.id, now.name, then.id, then.name) == (host_id(2), "gpu_01", host_id(2), "gpu_01")
    for snapshot in (board.refresh(), board.past(START_NS + 30 * SECOND)):
        assert board.find(host_id(1), snapshot) is snapshot.hosts[0]
    history = read_history(reader, now, START_NS, START_NS + 60 * SECOND)
    assert sum(history.known) >= 2
    board.close()


def test_thresholds_hold_everywhere() -> None:
    """What the settings call hot and idle is so in the words about problems, in what a GPU does, now and in the past."""
    clock = ManualClock()
    tables = MemoryTables()
    tables.register(host_id(1), "gpu-01")
    busy = [{"g": 0, "pid": 1, "user": "alice", "mem": 1 << 30, "t0_ms": 1}]
    for limits, uses, words in (
        (THRESHOLDS, Use.BUSY, []),
        (replace(THRESHOLDS, hot_temperature=60), Use.BUSY, ["60 °C"]),
        (replace(THRESHOLDS, idle_percent=30), Use.IDLE, []),
        (replace(THRESHOLDS, idle_percent=30, idle_held=60.0), Use.IDLE, ["held for 10 min and idle, by alice"]),
    ):
        board = Board(tables, replace(RULES, limits=limits), clock)
        began_ms = clock.time_ns() // 1_000_000 - 600_000
        tables.put(host_id(1), clock.time_ns(), sample([gpu(0, GTX, 1, 2, 20, 60)], [busy[0] | {"t0_ms": began_ms}]))
        for host in (board.refresh().hosts[0], board.past(clock.time_ns()).hosts[0]):
            assert host.newest is not None
            assert use_of(host.newest.gpus[0]) is uses
            assert [problem.text for problem in problems([host], clock.time_ns())] == words


def test_the_past_is_kept_until_something_changes() -> None:
    """Who asks again for the same instant gets the same object, of the newest few instants, and never across a commit."""
    clock, tables = ManualClock(), MemoryTables()
    tables.register(host_id(1), "gpu-01")
    tables.put(host_id(1), clock.time_ns(), CONTENT)
    board = Board(tables, RULES, clock)
    first = board.past(clock.time_ns())
    assert board.past(clock.time_ns()) is first
    for ago in range(1, 40):
        board.past(clock.time_ns() - ago)
    again = board.past(clock.time_ns())
    assert again is not first
    tables.put(host_id(1), clock.time_ns(), CONTENT)
    assert board.past(clock.time_ns()) is not again


def test_a_past_grid_of_many_hosts(tmp_path: Path) -> None:
    """With more hosts than are read sample by sample a grid has the minutes that were summed up, and who was on each GPU."""
    log = StatusLog()
    users = ["alice"] * 30 + ["bob"] * 220
    for number in range(66):
        log.put([registered(host_id(number), f"gpu-{number:02d}")], time_ns=START_NS, logged_at_ns=START_NS)
    for minute, user in enumerate(users):
        at = START_NS + minute * 60 * SECOND
        held = [{"g": 0, "pid": 1 + (user == "bob"), "user": user, "mem": 1 << 30, "t0_ms": 1}]
        content = sample([gpu(0, GTX, 1, 2, minute % 100, 60), gpu(1, GTX, 1, 2, 0, 60)], held) | {"int_ms": 60_000}
        log.put([sample_event(host_id(1), b"8 bytes.", minute + 1, content)], time_ns=at, logged_at_ns=at)
    board = Board(StatusReader(feed(log, tmp_path)), RULES, ManualClock(START_NS + 6 * 3600 * SECOND))
    at_ns = START_NS + 50 * 60 * SECOND
    shown = {layout: board.past(at_ns, layout=layout).hosts[1] for layout in ("grid", "tiles")}
    first, second = shown["grid"].hour
    known = [cell for cell in first if cell.util is not None]
    assert [cell.util for cell in known] == list(range(51))
    assert [cell.user for cell in known[:25]] == ["alice"] * 25
    assert known[-1].user == "bob"
    assert known[10].use is Use.BUSY
    assert {cell.use for cell in second if cell.util is not None} == {Use.FREE}
    assert shown["tiles"].hour == ()
    (first, _) = board.past(START_NS + 120 * 60 * SECOND, START_NS, layout="grid").hosts[1].hour
    assert sum(cell.util is not None for cell in first) == len(first) == 60
    assert (first[5].user, first[40].user) == ("alice", "bob")
    board.refresh()  # the newest samples are in no tier yet, but in the memory of the live page
    (first, _) = board.past(START_NS + 249 * 60 * SECOND, layout="grid").hosts[1].hour
    assert sum(cell.util is not None for cell in first) == 60
    board.close()


def test_the_hour_before_a_start_is_read_for_many_hosts_too(tmp_path: Path) -> None:
    """A live grid of more hosts than are read sample by sample has each minute once: summed up, single, or both; also of
    a host that another is merged into."""
    log = StatusLog()
    for number in range(66):
        log.put([registered(host_id(number), f"gpu-{number:02d}")], time_ns=START_NS, logged_at_ns=START_NS)
    first_ns = (START_NS // CELL_NS + 1) * CELL_NS
    for step in range(250 * 6):
        at = first_ns + step * 10 * SECOND
        host = host_id(1) if step > 240 * 6 else host_id(0)
        held = [{"g": 0, "pid": 1, "user": "alice", "mem": 1 << 30, "t0_ms": 1}]
        content = sample([gpu(0, GTX, 1, 2, step // 6 % 100, 60)], held) | {"int_ms": 10_000}
        log.put([sample_event(host, b"8 bytes" + host[-1:].encode(), step + 1, content)], time_ns=at, logged_at_ns=at)
    log.put([["host.merged", host_id(0), 0, 0, host_id(1)]], logged_at_ns=START_NS + 3 * 3600 * SECOND)
    board = Board(StatusReader(feed(log, tmp_path)), RULES, ManualClock(START_NS + 6 * 3600 * SECOND))
    (cells,) = next(host for host in board.refresh().hosts if host.id == host_id(1)).hour
    assert [cell.util for cell in cells] == [minute % 100 for minute in range(190, 250)]
    assert {cell.user for cell in cells} == {"alice"}
    board.close()
