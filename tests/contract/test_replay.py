"""Reading a log again, over every backend: ranges, order, exactly once, and projections that are killed."""

import random
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from dimint.batch import By, Origin, copy_record, encode
from dimint.clock import ManualClock
from dimint.dedupe import WriterRow
from dimint.errors import BadPosition, LogMismatch, OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.opening import GenesisSettings, genesis, open_log
from dimint.log.port import Entry, Log, TopicPartition
from dimint.log.reading import Counted, DeadLetter, Repeated
from dimint.node.rebuild import rebuild_store
from dimint.node.store import Store
from dimint.node.verify import verify_store
from dimint.replay import Checkpoint, PartitionState, Range, Stream, first_at, parse_positions, run, select
from dimint.replay.history import HistoryIndex
from dimint.system_clock import SystemClock
from tests.support.counts import Counts
from tests.support.placing import placed
from tests.support.replay_log import (
    BACKENDS,
    REAL,
    WAIT_S,
    kill_now_and_then,
    new_location,
    new_log,
    store_digests,
    write_sets,
)
from tests.support.system import wait_until

pytestmark = pytest.mark.timeout(120)
W = b"w" * 16
BY = (By(None, "h", "p"),)
SET = ["kv.set", placed("a", 0, Genesis("", 100, 3, 2)), 0, 0, None, b"J1", None, 0]


def append(log: Log, partition: int, *records: bytes) -> None:
    for record in records:
        log.append([Entry(KV_TOPIC, partition, record)])[0].result(WAIT_S)


def batch(number: int, *, writer: bytes = W, logged_at_ns: int | None = None) -> bytes:
    return encode(writer, number, 0, BY, [SET], logged_at_ns=logged_at_ns)


def whole(log: Log) -> list[Range]:
    return select(log, topics=[KV_TOPIC])


@pytest.mark.parametrize("backend", BACKENDS)
def test_history_then_live(backend: str, tmp_path: Path) -> None:
    """All that is there in the order of log time, then what comes, each batch once; positions say where it stands."""
    with new_log(backend, tmp_path) as (log, found):
        written = write_sets(log, found, 60)
        ranges = select(log, topics=[KV_TOPIC], open_end=True)
        with Stream(log, ranges) as stream:
            items = list(stream.history())
            times = [item.taken.log_time_us for item in items if isinstance(item.taken, Counted)]
            assert times == sorted(times)
            assert stream.counts["events"] == written
            for place in stream.positions:
                offsets = [item.record.offset for item in items if item.place == place]
                assert offsets == sorted(set(offsets))
            assert stream.left() == 0
            thread = threading.Thread(target=write_sets, args=(log, found, 20), kwargs={"seed": 2})
            thread.start()
            came = 0
            for item in stream.follow(0.2):
                came += item is not None
                if not thread.is_alive() and stream.left() == 0:
                    break
            thread.join()
            assert came == stream.counts["batches"] - len(items)
            assert stream.positions == {each.place: log.bounds(*each.place).end for each in ranges}


@pytest.mark.parametrize("backend", BACKENDS)
def test_ranges_tile(backend: str, tmp_path: Path) -> None:
    """Stretches with a bound in common have everything once, by positions and by times."""
    with new_log(backend, tmp_path) as (log, found):
        write_sets(log, found, 40)
        items = list(Stream(log, whole(log)).history())
        middle_ns = items[len(items) // 2].record.timestamp_ns
        cut = {each.place: first_at(log, each.place, middle_ns) for each in whole(log)}
        for bound in (middle_ns, cut):
            early = Stream(log, select(log, topics=[KV_TOPIC], end=bound)).history()
            late = Stream(log, select(log, topics=[KV_TOPIC], start=bound)).history()
            assert [*early, *late] == items
        assert all(item.record.timestamp_ns >= middle_ns for item in items if item.record.offset >= cut[item.place])
        assert select(log, start=parse_positions(f"{KV_TOPIC}/1@2"), end=parse_positions(f"{KV_TOPIC}/1@4")) == [
            Range(KV_TOPIC, 1, 2, 4)
        ]


def test_ranges_that_are_not_there(tmp_path: Path) -> None:
    """Each in one line."""
    with new_log("memory", tmp_path) as (log, found):
        write_sets(log, found, 20)
        with pytest.raises(BadPosition, match=r"there is no dimint.kv/7"):
            select(log, start=parse_positions("dimint.kv/7@0"))
        with pytest.raises(OffsetOutOfRange, match=r"offset 999 of dimint.kv/1 is outside 0…"):
            select(log, start=parse_positions("dimint.kv/1@999"))
        with pytest.raises(BadPosition, match=r"dimint.kv/1@1 lies before dimint.kv/1@2"):
            select(log, start=parse_positions("dimint.kv/1@2"), end=parse_positions("dimint.kv/1@1"))
        log.trim(KV_TOPIC, 1, 2)
        with pytest.raises(OffsetOutOfRange):
            select(log, start=parse_positions("dimint.kv/1@1"))


def test_a_start_in_the_middle_knows_late_copies(tmp_path: Path) -> None:
    """A copy of a batch from before the start is no new batch, unless nobody looks back."""
    clock = ManualClock()
    with new_log("memory", tmp_path, clock=clock) as (log, _):
        append(log, 0, batch(1), batch(2))
        clock.advance(60)
        append(log, 0, batch(1, writer=b"v" * 16), batch(1), b"not ours", batch(3))
        middle = [Range(KV_TOPIC, 0, 3, 6)]
        kinds = [type(item.taken) for item in Stream(log, middle).history()]
        assert kinds == [Repeated, DeadLetter, Counted]
        assert [type(item.taken) for item in Stream(log, middle, look_back_s=1).history()] == [Counted, DeadLetter, Counted]


@pytest.mark.parametrize("backend", ["memory", "embedded"])
def test_dead_letters_before_a_start_in_the_middle(backend: str, tmp_path: Path) -> None:
    """A key in the wrong partition uses no number, also where only headers are read before the start."""
    with new_log(backend, tmp_path) as (log, found):
        stray = ["kv.set", placed("a", 1, found), 0, 0, None, b"J1", None, 0]
        append(log, 0, batch(1), encode(W, 9, 0, BY, [SET, stray]), batch(2), batch(1), batch(3))
        kinds = [type(item.taken) for item in Stream(log, [Range(KV_TOPIC, 0, 0, 5)]).history()]
        assert kinds == [Counted, DeadLetter, Counted, Repeated, Counted]
        for start in range(1, 5):
            assert [type(item.taken) for item in Stream(log, [Range(KV_TOPIC, 0, start, 5)]).history()] == kinds[start:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_reader_passes_over_keys_of_other_partitions(backend: str, tmp_path: Path) -> None:
    """Stores, rebuilt and checked ones, the history of keys and projections: none has what stands in a wrong partition."""
    with new_log(backend, tmp_path) as (log, found):
        write_sets(log, found, 20)
        expected = store_digests(log, tmp_path / "before")
        strays = [["kv.set", placed("k1", partition, found), 0, 0, None, b"J666", None, 0] for partition in (1, 0, 0)]
        for partition, stray in enumerate(strays):
            append(log, partition, encode(b"f" * 16, 1, 0, BY, [stray]))
        assert store_digests(log, tmp_path / "after") == expected
        ends = {partition: log.bounds(KV_TOPIC, partition).end for partition in range(found.kv_partitions)}
        with closing(Store(tmp_path / "node")) as store:
            rebuilt = list(rebuild_store(log, store, ends))
        assert [(each.key_count, int(each.digest, 16)) for each in rebuilt] == expected
        verdicts = list(verify_store(tmp_path / "node", log, tmp_path / "scratch"))
        assert [verdict.problem for verdict in verdicts] == [None] * found.kv_partitions
        with HistoryIndex(tmp_path / "history", found.generation) as index:
            index.catch_up(log)
            assert not any(change.value == b"J666" for key in strays for change in index.history(str(key[1])))
            assert not any(each.value == b"J666" for each in index.scan("", 1 << 60))
        with Stream(log, whole(log)) as stream:
            items = list(stream.history())
            assert stream.counts["partition"] == len(strays)
            counted = [event for item in items if isinstance(item.taken, Counted) for event in item.taken.events]
            assert not any(event[5:6] == [b"J666"] for event in counted)


@pytest.mark.parametrize("backend", ["memory", "embedded"])
def test_times_in_copied_stretches(backend: str, tmp_path: Path) -> None:
    """Log time is the header's where a batch was copied, whatever time the record came at."""
    clock = ManualClock(10**18)
    with new_log(backend, tmp_path, clock=clock) as (log, _):
        times = [100, 100, 250, 300, 300, 301, 999]
        for number, time_ns in enumerate(times, 1):
            record = copy_record(batch(number), logged_at_ns=time_ns, origin=Origin("g", 0, number))
            append(log, 0, record)
            if number % 3 == 0:
                append(log, 0, b"not ours")
            clock.advance(1)
        append(log, 0, batch(50), batch(51))
        place = TopicPartition(KV_TOPIC, 0)
        records = log.read(*place, 0)
        for wanted in (0, 99, 100, 101, 250, 299, 300, 301, 302, 1000, clock.time_ns(), clock.time_ns() + 1):
            reached, expected = 0, len(records)
            for item in Stream(log, [Range(*place, 0, len(records))]).history():
                if isinstance(item.taken, Counted):
                    reached = max(reached, item.logged_at_ns)
                    if reached >= wanted:
                        expected = item.record.offset
                        break
            found = first_at(log, place, wanted)
            between = [record.value for record in records[min(found, expected) : max(found, expected)]]
            assert all(value == b"not ours" for value in between), (wanted, found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_projection_over_history_and_live(backend: str, tmp_path: Path) -> None:
    """Run to the end, run again with nothing new, then followed: each event once, with its state in the file."""
    with new_log(backend, tmp_path) as (log, found), Counts(tmp_path / "counts.sqlite") as counts:
        written = write_sets(log, found, 50)
        run(counts, log)
        assert counts.total() == written
        assert run(counts, log) == run(counts, log)
        stop = threading.Event()
        thread = threading.Thread(target=run, args=(counts, log), kwargs={"follow": True, "stop": stop})
        thread.start()
        written += write_sets(log, found, 30, seed=2)
        with Counts(tmp_path / "counts.sqlite") as reading:
            # another connection sees commits only
            wait_until(lambda: (reading.load(), reading.total())[1] == written, 60, "the projection follows")
        stop.set()
        thread.join()
        assert counts.total() == written


@pytest.mark.parametrize("backend", REAL)
def test_a_killed_projection_goes_on(backend: str, tmp_path: Path) -> None:
    """SIGKILL at random moments: in the end every event was counted once."""
    location = new_location(backend, tmp_path)
    log = open_log(location, clock=SystemClock())
    try:
        found = genesis(log, wanted=GenesisSettings(kv_partitions=3), clock=SystemClock(), host="h", process="t")
        written = write_sets(log, found, 600)
    finally:
        log.close()
    file = tmp_path / "counts.sqlite"
    command = [sys.executable, "-m", "tests.support.counts", location, str(file)]
    kill_now_and_then(command, chance=random.Random(backend), longest_s=1.0, kills=4)
    with Counts(file) as counts:
        assert counts.total() == written


def test_a_file_that_is_written_can_be_opened(tmp_path: Path) -> None:
    """Opening one that is there waits for no writer, and makes none fail that has read and is about to write."""
    with Counts(tmp_path / "c.sqlite") as writing:
        writing.db.execute("INSERT INTO counts VALUES ('k', 1)")
        began = time.monotonic()
        with Counts(tmp_path / "c.sqlite") as reading:
            assert reading.load() is None
        assert time.monotonic() - began < 5, "it does not wait for the lock"


def test_a_projection_of_another_log_is_refused(tmp_path: Path) -> None:
    """By the log's generation, by a record that changed, by a log that is shorter."""
    with new_log("memory", tmp_path) as (log, found), Counts(tmp_path / "c.sqlite") as counts:
        write_sets(log, found, 20)
        checkpoint = run(counts, log)
        assert Checkpoint.from_bytes(checkpoint.to_bytes()) == checkpoint
        place, state = next(iter(checkpoint.partitions.items()))
        changed = {
            "is another record": state._replace(last_digest=b"12345678"),
            "this log ends at": state._replace(position=10_000),
        }
        for text, wrong in changed.items():
            counts.commit(checkpoint._replace(partitions={place: wrong}))
            with pytest.raises(LogMismatch, match=text):
                run(counts, log)
        counts.commit(checkpoint._replace(log="other"))
        with pytest.raises(LogMismatch, match="is of log other"):
            run(counts, log)


def test_a_record_that_nobody_may_pass_over_ends_it(tmp_path: Path) -> None:
    """What stands before it was applied; the position of it is in the message."""
    with new_log("memory", tmp_path) as (log, _), Counts(tmp_path / "c.sqlite") as counts:
        damaged = bytearray(batch(2))
        damaged[-1] ^= 1
        append(log, 0, batch(1), bytes(damaged), batch(3))
        for _ in range(2):
            with pytest.raises(LogMismatch, match=r"dimint.kv/0@1 cannot be read: the record's checksum"):
                run(counts, log)


def test_states_are_plain_data() -> None:
    """A checkpoint survives its bytes, None and long numbers too."""
    state = PartitionState(2**62, 5, None, b"", ((W, WriterRow(7, 2**61)),))
    checkpoint = Checkpoint("g", {TopicPartition("t", 3): state})
    assert Checkpoint.from_bytes(checkpoint.to_bytes()) == checkpoint
