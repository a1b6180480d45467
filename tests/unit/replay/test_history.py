"""The history index against the dumb model: every change, every past value, however it is filled."""

import shutil
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.batch import By, encode
from dimint.clock import ManualClock
from dimint.door import Change
from dimint.errors import BadPosition, LogMismatch
from dimint.events import KV_TOPIC
from dimint.log.memory import MemoryLog
from dimint.log.opening import GenesisSettings, genesis, genesis_of
from dimint.log.port import Entry
from dimint.node.store import Store
from dimint.replay.history import Cut, HistoryIndex, HistoryInUse
from dimint.testing import memory_log
from tests.support.kv_model import PEOPLE, Step, fold, steps
from tests.support.placing import placed


def new_log(partitions: int = 1) -> MemoryLog:
    log = memory_log()
    genesis(log, wanted=GenesisSettings(kv_partitions=partitions), clock=ManualClock(), host="h", process="p")
    return log


@settings(max_examples=25)
@given(made=steps(), cuts=st.lists(st.integers(0, 12), max_size=3), prefix=st.sampled_from(["", "a", "k", "zz"]))
def test_as_the_model_says(made: list[Step], cuts: list[int], prefix: str) -> None:
    """However often it catches up: the changes of each key, each key at each time, and what differs between two times."""
    log = new_log()
    generation = log.describe().generation
    with TemporaryDirectory() as folder:
        at = 0
        for cut in [*sorted(cuts), len(made)]:
            for step in made[at : max(at, cut)]:
                value = encode(step.writer, step.number, 0, PEOPLE, step.events, logged_at_ns=step.time_us * 1000)
                log.append([Entry(KV_TOPIC, 0, value)])[0].result()
                at += 1
            with HistoryIndex(Path(folder), generation) as index:
                index.catch_up(log)
        model = fold(made)
        with HistoryIndex(Path(folder), generation) as index:
            keys = sorted({change.key for change in model.changes})
            for key in keys:
                known = [(each.kind, each.key, each.value, each.version, each.offset, each.index) for each in index.history(key)]
                assert known == [
                    (change.kind, change.key, change.value, change.version, change.offset, change.index)
                    for change in model.changes
                    if change.key == key
                ]
            times: list[Cut] = [*sorted({change.log_time_us for change in model.changes} | {0, 1 << 60})]
            places: list[Cut] = [{0: offset} for offset in sorted({change.offset for change in model.changes})]
            for thens in (times, places):
                states = [state_at(model.changes, then, prefix) for then in thens]
                for then, state in zip(thens, states, strict=True):
                    assert {each.key: each.value for each in index.scan(prefix, then)} == state
                    for key in keys:
                        set_by = index.at(key, then)
                        assert (set_by and set_by.value) == state.get(key) or not key.startswith(prefix)
                for (since, before), (until, after) in pairwise(zip(thens, states, strict=True)):
                    found = {each.key: (each.before and each.before.value, each.after and each.after.value)
                             for each in index.diff(since, until, prefix)}  # fmt: skip
                    pairs = {key: (before.get(key), after.get(key)) for key in before.keys() | after.keys()}
                    assert found == {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def state_at(changes: Iterable[Change], then: Cut, prefix: str) -> dict[str, bytes]:
    """Keys with the prefix and their values, by the model."""
    state: dict[str, bytes | None] = {}
    for change in changes:
        if change.log_time_us <= then if isinstance(then, int) else change.offset <= then[0]:
            state[change.key] = change.value
    return {key: value for key, value in state.items() if value is not None and key.startswith(prefix)}


def test_positions_of_several_partitions() -> None:
    """Each partition up to its own record; one that is not named is left out; what is not there is named."""
    log = new_log(2)
    keys = [placed("k", partition, genesis_of(log)) for partition in (0, 1)]
    for number in (1, 2, 3):
        for partition in (0, 1):
            event = ["kv.set", keys[partition], 0, 0, None, b"J%d" % number, None, 0]
            value = encode(b"w" * 16, number, 0, PEOPLE, [event], logged_at_ns=number * 1_000_000_000)
            log.append([Entry(KV_TOPIC, partition, value)])[0].result()
    with TemporaryDirectory() as folder, HistoryIndex(Path(folder), log.describe().generation) as index:
        index.catch_up(log)
        assert {each.key: each.value for each in index.scan("k", {0: 0, 1: 2})} == {keys[0]: b"J1", keys[1]: b"J3"}
        assert [each.key for each in index.scan("k", {1: 2})] == [keys[1]]
        assert [each.key for each in index.diff({0: 0}, 1 << 60)] == [keys[0]]
        assert [each.key for each in index.diff(0, {1: 0})] == [keys[1]]
        assert list(index.diff({0: 0}, {1: 2})) == []
        assert [each.offset for each in index.history(keys[0], since={0: 1, 1: 0}, until={0: 1})] == [1]
        assert [each.offset for each in index.history(keys[0], since=2_000_000, until={0: 2})] == [1, 2]
        assert index.history("never", until={1: 0}) == []
        with pytest.raises(BadPosition, match="is in partition 0, which the positions do not name"):
            index.at(keys[0], {1: 0})
        with pytest.raises(BadPosition, match=r"there is no dimint\.kv/0@3 in the log: .* ends at 3"):
            index.at(keys[0], {0: 3})
        with pytest.raises(BadPosition, match=r"there is no dimint\.kv/7@0"):
            list(index.scan("", {0: 0, 7: 0}))


def _filled(log: MemoryLog, numbers: Iterable[int], value: bytes = b"J1") -> None:
    """Batches of four sets of two keys each."""
    for number in numbers:
        events = [["kv.set", key, 0, 0, None, value, None, 0] for key in ("a", "b", "a", "a")]
        record = encode(b"w" * 16, number, 0, PEOPLE, events, logged_at_ns=number * 1_000_000_000)
        log.append([Entry(KV_TOPIC, 0, record)])[0].result()


def test_a_key_of_many_runs() -> None:
    """Changes that take many rows, some of them large, are found from any place on in both directions."""
    log = new_log()
    _filled(log, range(1, 51))
    _filled(log, range(51, 56), b'J"' + b"x" * 20_000 + b'"')
    with TemporaryDirectory() as folder, HistoryIndex(Path(folder), log.describe().generation) as index:
        index.catch_up(log)
        places = [(each.offset, each.index) for each in index.history("a")]
        assert places == [(offset, at) for offset in range(55) for at in (0, 2, 3)]
        for edge in [(-1, 0), *places[::7], places[-1]]:
            later = [place for place in places if place > edge]
            assert [(each.offset, each.index) for each in index.history("a", after=edge, limit=9)] == later[:9]
            earlier = [place for place in reversed(places) if place < edge]
            assert [(each.offset, each.index) for each in index.history("a", after=edge, newest_first=True)] == earlier
        for offset in (0, 20, 21, 22, 54):
            for until in (offset * 1_000_000 + 1_000_000, {0: offset}):
                found = index.at("a", until)
                assert found is not None
                assert (found.offset, found.index) == (offset, 3)
                assert [(each.offset, each.index) for each in index.history("a", since=until, until=until)] == [
                    (offset, at) for at in (0, 2, 3)
                ]


@pytest.mark.parametrize("lost", ["fold", "fold again", "history.db"])
def test_what_a_crash_leaves(lost: str) -> None:
    """If the fold is behind the changes, or the other way round, nothing is missing and nothing is there twice."""
    log = new_log()
    generation = log.describe().generation
    _filled(log, range(1, 4))
    with TemporaryDirectory() as folder:
        place, kept = Path(folder) / "index", Path(folder) / "kept"
        with HistoryIndex(place, generation) as index:
            index.catch_up(log)
        shutil.copytree(place, kept)
        _filled(log, range(4, 7))
        with HistoryIndex(place, generation) as index:
            index.catch_up(log)
        if lost == "history.db":
            for file in place.glob("history.db*"):
                file.unlink()
            shutil.copy(kept / "history.db", place)
        else:
            shutil.rmtree(place / "fold")
            if lost == "fold":
                shutil.copytree(kept / "fold", place / "fold")
        _filled(log, [7])
        with HistoryIndex(place, generation) as index:
            index.catch_up(log)
            assert [(each.offset, each.index) for each in index.history("b")] == [(offset, 1) for offset in range(7)]
            assert len(index.history("a")) == 21


def test_limits_and_starts() -> None:
    """The newest changes of a key, a page of a scan, and keys whose bytes are at the end of all."""
    log = new_log()
    keys = ["a", "a\U0010ffff", "a\U0010ffffb", "b"]
    made = [Step(b"w" * 16, 1, 1_000_000, [["kv.set", key, 0, 0, None, b"J1", None, 0] for key in keys * 3])]
    log.append([Entry(KV_TOPIC, 0, made[0].record(0).value)])[0].result()
    with TemporaryDirectory() as folder, HistoryIndex(Path(folder), log.describe().generation) as index:
        assert index.catch_up(log) == 12
        assert index.catch_up(log) == 0
        assert [each.index for each in index.history("a", limit=2)] == [0, 4]
        assert [each.index for each in index.history("a", newest_first=True, limit=2)] == [8, 4]
        assert [each.index for each in index.history("a", after=(0, 0))] == [4, 8]
        assert [each.index for each in index.history("a", after=(0, 4), newest_first=True)] == [0]
        assert [each.key for each in index.scan("a", 1 << 60)] == keys[:3]
        assert [each.key for each in index.scan("a", 1 << 60, start=keys[1], limit=1)] == [keys[1]]
        assert [each.by.host for each in index.scan("b", 1 << 60)] == ["host"]


def test_it_may_pause() -> None:
    """Reading a long log stops where it is told to and goes on from there, a partition at a time if that is all it needs."""
    log = new_log(2)
    keys = [placed("k", partition, genesis_of(log)) for partition in (0, 1)]
    for number in range(1, 6):
        for partition in (0, 1):
            step = Step(b"w" * 16, number, number * 1_000_000, [["kv.set", keys[partition], 0, 0, None, b"J1", None, 0]])
            log.append([Entry(KV_TOPIC, partition, step.record(0).value)])[0].result()
    with TemporaryDirectory() as folder, HistoryIndex(Path(folder), log.describe().generation) as index:
        assert index.advance(log, partitions=[1])
        assert (index.known, len(index.history(keys[1])), index.history(keys[0])) == ({1: 5}, 5, [])
        while not index.advance(log, pause=lambda: True):
            pass
        assert len(index.history(keys[0])) == 5
        assert index.known == {0: 5, 1: 5}
        assert index.taken == 10
        with HistoryIndex(Path(folder), log.describe().generation) as other:
            assert other.advance(log)
            assert other.taken == 0


def test_another_process_is_waited_for() -> None:
    """Who comes while the index is brought up to date waits for it, and is told if that takes too long."""
    log = new_log(1)
    step = Step(b"w" * 16, 1, 1_000_000, [["kv.set", "a", 0, 0, None, b"J1", None, 0]])
    log.append([Entry(KV_TOPIC, 0, step.record(0).value)])[0].result()
    with TemporaryDirectory() as folder, HistoryIndex(Path(folder), log.describe().generation) as index:
        other = Store(Path(folder) / "fold")
        with pytest.raises(HistoryInUse):
            index.catch_up(log, wait_s=0.05)
        timer = threading.Timer(0.2, other.close)
        timer.start()
        assert index.catch_up(log) == 1
        timer.join()


def test_processes_that_take_turns() -> None:
    """Each goes on from what others put in meanwhile, also when somebody it does not know writes, and after it failed."""
    log = new_log(1)

    def written_by(number: int, process: str) -> None:
        event = ["kv.set", "a", 0, 0, None, b"J1", None, 0]
        value = encode(b"w" * 16, number, 0, [By(None, "host", process)], [event], logged_at_ns=number * 1_000_000_000)
        log.append([Entry(KV_TOPIC, 0, value)])[0].result()

    def stop() -> bool:
        raise KeyboardInterrupt

    generation = log.describe().generation
    with (
        TemporaryDirectory() as folder,
        HistoryIndex(Path(folder), generation) as one,
        HistoryIndex(Path(folder), generation) as other,
    ):
        for number, (index, process) in enumerate([(one, "p1"), (other, "p2"), (one, "p3"), (other, "p1")], 1):
            written_by(number, process)
            with pytest.raises(KeyboardInterrupt):
                index.advance(log, pause=stop)
            assert index.catch_up(log) == 1
        assert [change.by.process for change in one.history("a")] == ["p1", "p2", "p3", "p1"]


def test_another_log_is_refused() -> None:
    """An index is of one log."""
    with TemporaryDirectory() as folder:
        HistoryIndex(Path(folder), "one").close()
        with pytest.raises(LogMismatch, match="history of another log"):
            HistoryIndex(Path(folder), "two")


def test_an_older_format_is_made_anew_and_a_newer_one_left_alone() -> None:
    """The log has all that was in the old tables."""
    log = new_log()
    step = Step(b"w" * 16, 1, 1_000_000, [["kv.set", "a", 0, 0, None, b"J1", None, 0]])
    log.append([Entry(KV_TOPIC, 0, step.record(0).value)])[0].result()
    generation = log.describe().generation
    with TemporaryDirectory() as folder:
        with HistoryIndex(Path(folder), generation) as index:
            index.catch_up(log)
        with closing(sqlite3.connect(Path(folder) / "history.db")) as db, db:
            db.execute("drop table runs")
            db.execute("create table changes(what blob)")
            db.execute("pragma user_version = 1")
        with HistoryIndex(Path(folder), generation) as index:
            assert index.catch_up(log) == 1
            assert [change.value for change in index.history("a")] == [b"J1"]
        with closing(sqlite3.connect(Path(folder) / "history.db")) as db:
            db.execute("pragma user_version = 1000")
        with pytest.raises(LogMismatch, match="history of a newer program"):
            HistoryIndex(Path(folder), generation)


def test_what_was_trimmed_before_is_said() -> None:
    """A history that cannot be whole is not made up."""
    log = new_log()
    step = Step(b"w" * 16, 1, 1_000_000, [["kv.set", "a", 0, 0, None, b"J1", None, 0]])
    for _ in range(3):
        log.append([Entry(KV_TOPIC, 0, step.record(0).value)])[0].result()
    log.trim(KV_TOPIC, 0, 2)
    with (
        TemporaryDirectory() as folder,
        HistoryIndex(Path(folder), log.describe().generation) as index,
        pytest.raises(LogMismatch, match=r"the log begins at dimint\.kv/0@2"),
    ):
        index.catch_up(log)
