"""What every log backend promises (dimint/log/port.py), over all of them."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.errors import LogError, LogMismatch, OffsetOutOfRange, RecordTooLarge
from dimint.limits import RECORD_MAX_BYTES
from dimint.log.port import Bounds, Entry, Log, TopicPartition, TopicSpec
from tests.support.logs import BACKENDS, LogUnderTest, append, log_under_test, poll_values, values_of
from tests.support.topics import OTHER, PARTITIONS, TOPIC

pytestmark = pytest.mark.timeout(180)  # the first test of a backend starts its servers


@pytest.fixture(params=BACKENDS)
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogUnderTest]:
    with log_under_test(request.param, tmp_path) as under_test:
        yield under_test


@pytest.fixture
def log(logs: LogUnderTest) -> Log:
    return logs.open()


def test_what_is_appended_is_read_from_every_handle(logs: LogUnderTest, log: Log) -> None:
    """Offsets grow, and another handle sees the same records at them."""
    offsets = append(log, b"a", b"", b"c" * 5000)
    other = logs.open()
    records = other.read(TOPIC, 0, offsets[0])
    assert [(record.offset, record.value) for record in records] == list(zip(offsets, [b"a", b"", b"c" * 5000], strict=True))
    assert offsets == sorted(set(offsets))
    assert {record[:2] for record in records} == {(TOPIC, 0)}
    assert other.bounds(TOPIC, 0) == Bounds(offsets[0], offsets[-1] + 1)
    assert other.read(TOPIC, 0, offsets[-1] + 1) == []


def test_partitions_and_topics_are_apart(log: Log) -> None:
    """Entries of one call go where they belong, in order."""
    entries = [Entry(TOPIC, 2, b"1"), Entry(OTHER, 0, b"2"), Entry(TOPIC, 0, b"3"), Entry(TOPIC, 2, b"4")]
    for future in log.append(entries):
        future.result(10)
    assert values_of(log.read(TOPIC, 2, 0)) == [b"1", b"4"]
    assert values_of(log.read(TOPIC, 0, 0)) == [b"3"]
    assert log.read(TOPIC, 1, 0) == []
    assert values_of(log.read(OTHER, 0, 0)) == [b"2"]


def test_nothing_to_append_is_nothing(log: Log) -> None:
    """An empty call is allowed."""
    assert list(log.append([])) == []


def test_description(logs: LogUnderTest, log: Log) -> None:
    """Every handle tells the same generation and topics."""
    description = log.describe()
    assert description.topics == {TOPIC: PARTITIONS, OTHER: 1}
    assert description.generation
    assert description.durability
    assert description.generation == logs.open().describe().generation
    assert description.kind


def test_health(log: Log) -> None:
    """Every topic with its partitions, none of which lacks anything."""
    health = log.health()
    assert health.durability == log.describe().durability
    found = {topic.name: topic for topic in health.topics}
    assert {name: topic.partitions for name, topic in found.items()} == {TOPIC: PARTITIONS, OTHER: 1}
    assert all((topic.lacking, topic.stopped) == (0, 0) and 1 <= topic.copies_needed <= topic.copies for topic in found.values())
    assert all(broker.up and broker.address for broker in health.brokers)


def test_create_is_repeatable_but_not_changeable(logs: LogUnderTest, log: Log) -> None:
    """A topic is there once; another partition count is refused and changes nothing."""
    append(log, b"kept")
    logs.open().create([TopicSpec(TOPIC, PARTITIONS), TopicSpec("t.three", 17)])
    with pytest.raises(LogMismatch, match=f"{PARTITIONS} partitions, not 4"):
        log.create([TopicSpec(TOPIC, 4)])
    assert log.describe().topics == {TOPIC: PARTITIONS, OTHER: 1, "t.three": 17}
    assert values_of(log.read(TOPIC, 0, 0)) == [b"kept"]
    offsets = [future.result(10) for future in log.append([Entry("t.three", part, b"x") for part in range(17)])]
    assert offsets == [0] * 17


@pytest.mark.parametrize(("topic", "partition"), [("t.none", 0), (TOPIC, PARTITIONS), (TOPIC, -1), ("../t", 0)])
def test_unknown_places_are_refused(log: Log, topic: str, partition: int) -> None:
    """No call takes a topic or partition that is not there, and nothing of the call happens."""
    with pytest.raises(LogError):
        log.append([Entry(TOPIC, 0, b"x"), Entry(topic, partition, b"x")])
    with pytest.raises(LogError):
        log.read(topic, partition, 0)
    with pytest.raises(LogError):
        log.bounds(topic, partition)
    reader = log.reader()
    with pytest.raises(LogError):
        reader.assign({TopicPartition(topic, partition): 0})
    reader.close()
    assert log.bounds(TOPIC, 0) == Bounds(0, 0)


def test_record_sizes(log: Log) -> None:
    """The largest record goes through; one byte more is refused at once with nothing of its call appended."""
    append(log, b"x" * RECORD_MAX_BYTES)
    with pytest.raises(RecordTooLarge):
        log.append([Entry(TOPIC, 1, b"fits"), Entry(TOPIC, 0, b"x" * (RECORD_MAX_BYTES + 1))])
    assert len(log.read(TOPIC, 0, 0)[0].value) == RECORD_MAX_BYTES
    assert log.bounds(TOPIC, 1) == Bounds(0, 0)


def test_read_bounds(log: Log) -> None:
    """A read stops at either bound, but gives at least one record."""
    append(log, *[bytes([i]) * 100 for i in range(20)])
    assert len(log.read(TOPIC, 0, 3, max_records=5)) == 5
    assert len(log.read(TOPIC, 0, 3, max_bytes=250)) == 2
    assert len(log.read(TOPIC, 0, 3, max_bytes=1)) == 1
    assert len(log.read(TOPIC, 0, 3)) == 17


def test_offsets_out_of_range(log: Log) -> None:
    """Reading below the start or above the end says what the bounds are."""
    append(log, b"a", b"b", b"c")
    log.trim(TOPIC, 0, 2)
    for offset in (1, 4):
        with pytest.raises(OffsetOutOfRange) as caught:
            log.read(TOPIC, 0, offset)
        assert (caught.value.offset, caught.value.start, caught.value.end) == (offset, 2, 3)
    assert log.read(TOPIC, 0, 3) == []


def test_trimming_keeps_the_end(logs: LogUnderTest, log: Log) -> None:
    """The end never goes back, not even when everything is trimmed and the log is opened anew; stale handles see it too."""
    append(log, *[b"x"] * 1200)
    other = logs.open()
    other.trim(TOPIC, 0, 1150)
    assert log.bounds(TOPIC, 0) == Bounds(1150, 1200)
    other.trim(TOPIC, 0, 10)
    other.trim(TOPIC, 0, 1 << 60)
    assert log.bounds(TOPIC, 0) == Bounds(1200, 1200)
    assert logs.open().bounds(TOPIC, 0) == Bounds(1200, 1200)
    assert logs.open().read(TOPIC, 0, 1200) == []
    assert append(log, b"next") == [1200]
    assert append(other, b"more") == [1201]
    other.trim(TOPIC, 0, 1202)
    assert append(log, b"again", b"and again") == [1202, 1203]


def test_appends_from_handles_that_know_old_ends(logs: LogUnderTest, log: Log) -> None:
    """Two handles that append in turn never give out one offset twice, with trims between."""
    other = logs.open()
    seen = []
    for turn in range(30):
        seen += append(log if turn % 2 else other, b"x", b"y")
        if turn % 5 == 0:
            (other if turn % 2 else log).trim(TOPIC, 0, seen[-1] + 1)
    assert seen == list(range(60))


# --- readers ---------------------------------------------------------------------------------------------------------


def test_reader_follows_its_partitions(logs: LogUnderTest, log: Log) -> None:
    """What was there and what comes later arrives once, in offset order per partition, and nothing of other partitions."""
    append(log, b"0a", b"0b")
    append(log, b"1a", partition=1)
    reader = logs.open().reader()
    reader.assign({TopicPartition(TOPIC, 0): 1, TopicPartition(TOPIC, 1): 0, TopicPartition(OTHER, 0): 0})
    assert sorted(poll_values(reader, 2)) == [b"0b", b"1a"]
    append(log, b"2", partition=2)
    append(log, b"o", topic=OTHER)
    append(log, b"0c", b"0d")
    values = poll_values(reader, 3)
    assert sorted(values) == [b"0c", b"0d", b"o"]
    assert values.index(b"0c") < values.index(b"0d")
    assert reader.poll(0) == []
    reader.close()


def test_reader_reads_nothing_before_it_is_told(log: Log) -> None:
    """Without an assignment there is nothing to read."""
    append(log, b"x")
    reader = log.reader()
    assert reader.poll(0.01) == []
    reader.assign({})
    assert reader.poll(0.01) == []
    reader.close()


def test_reader_waits_for_what_another_handle_appends(logs: LogUnderTest, log: Log) -> None:
    """A waiting poll returns soon after the append, long before its time is over."""
    reader = logs.open().reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    timer = threading.Timer(0.05, lambda: log.append([Entry(TOPIC, 0, b"x")]))
    timer.start()
    began = time.monotonic()
    assert values_of(reader.poll(10)) == [b"x"]
    assert time.monotonic() - began < 3
    timer.join()
    reader.close()


def test_poll_times_out(log: Log) -> None:
    """With nothing to read a poll ends at its time, not before and not much later."""
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    began = time.monotonic()
    assert reader.poll(0.12) == []
    assert 0.11 <= time.monotonic() - began < 2
    reader.close()


def test_wake_ends_a_poll(log: Log) -> None:
    """`wake` ends a waiting poll, or the next one if none waits; only one."""
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    timer = threading.Timer(0.05, reader.wake)
    timer.start()
    began = time.monotonic()
    assert reader.poll(10) == []
    timer.join()
    reader.wake()
    reader.wake()
    assert reader.poll(10) == []
    assert time.monotonic() - began < 3
    assert reader.poll(0.05) == []
    append(log, b"x")
    reader.wake()
    assert poll_values(reader, 1) == [b"x"]
    reader.close()


def test_assign_replaces_positions(log: Log) -> None:
    """A new assignment is all that counts, backwards too."""
    append(log, b"a", b"b")
    append(log, b"c", partition=1)
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    assert poll_values(reader, 2) == [b"a", b"b"]
    reader.assign({TopicPartition(TOPIC, 0): 1})
    assert poll_values(reader, 1) == [b"b"]
    reader.assign({TopicPartition(TOPIC, 1): 0})
    assert poll_values(reader, 1) == [b"c"]
    reader.close()


def test_reader_is_fair(log: Log) -> None:
    """A partition with little is heard while another has a great deal."""
    for _ in range(5):
        append(log, *[b"x" * 1000] * 200)
    append(log, b"little", partition=2)
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, partition): 0 for partition in range(PARTITIONS)})
    before = 0
    deadline = time.monotonic() + 30
    while b"little" not in (values := values_of(reader.poll(1, max_bytes=10_000))):
        before += len(values)
        assert before < 500, "the small partition was not heard while half of the large one was read"
        assert time.monotonic() < deadline
    reader.close()


def test_reader_takes_everything_in_pieces(log: Log) -> None:
    """Bounded polls together give every record once, and each gives at least one."""
    sent = [bytes([i % 251]) * (i * 37 % 3000) for i in range(300)]
    append(log, *sent)
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    got: list[bytes] = []
    while len(got) < len(sent):
        records = reader.poll(5, max_bytes=2000)
        assert records
        assert len(records) == 1 or sum(len(record.value) for record in records) <= 2000
        got += values_of(records)
    assert got == sent
    reader.close()


@pytest.mark.parametrize("position", [0, 9])
def test_reader_says_when_its_position_is_gone(log: Log, position: int) -> None:
    """A position that was trimmed, or that never was, raises; after a new assignment the others go on."""
    append(log, b"a", b"b")
    append(log, b"c", partition=1)
    log.trim(TOPIC, 0, 2)
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): position, TopicPartition(TOPIC, 1): 0})
    for _ in range(2):  # it stays so
        with pytest.raises(OffsetOutOfRange) as caught:
            poll_values(reader, 2)  # the other partition may be on a broker that answers first
        assert (caught.value.partition, caught.value.start, caught.value.end) == (0, 2, 2)
    reader.assign({TopicPartition(TOPIC, 0): 2, TopicPartition(TOPIC, 1): 0})
    assert poll_values(reader, 1) == [b"c"]
    reader.close()


def test_trimming_under_a_reader_is_noticed(log: Log) -> None:
    """What was trimmed before it was read is an error, never a hole."""
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    append(log, b"a")
    assert poll_values(reader, 1) == [b"a"]
    append(log, b"b", b"c")
    log.trim(TOPIC, 0, 2)
    with pytest.raises(OffsetOutOfRange):
        reader.poll(5)
    reader.close()


# --- threads and ends ------------------------------------------------------------------------------------------------


def test_many_threads_on_many_handles(logs: LogUnderTest) -> None:
    """Threads of two handles append at once: every acknowledged record is at its offset, in each thread's order."""
    handles = [logs.open(), logs.open()]
    acknowledged: list[tuple[int, int, bytes]] = []

    def work(name: int) -> None:
        log = handles[name % 2]
        for turn in range(25):
            entries = [Entry(TOPIC, part, b"%d:%d:%d" % (name, turn, part)) for part in range(PARTITIONS)]
            for entry, future in zip(entries, log.append(entries), strict=True):
                acknowledged.append((entry.partition, future.result(20), entry.value))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = logs.open().reader()
    reader.assign({TopicPartition(TOPIC, partition): 0 for partition in range(PARTITIONS)})
    there: dict[tuple[int, int], bytes] = {}
    while records := reader.poll(1):
        there |= {(record.partition, record.offset): record.value for record in records}
    reader.close()
    assert len(there) == len(acknowledged) == 4 * 25 * PARTITIONS
    assert all(there[partition, offset] == value for partition, offset, value in acknowledged)
    for partition in range(PARTITIONS):
        assert sorted(offset for place, offset in there if place == partition) == list(range(100))


def test_close_waits_for_what_was_handed_over(logs: LogUnderTest, log: Log) -> None:
    """After close every future is settled; closing twice is allowed, using the log is not."""
    futures = [future for _ in range(20) for future in log.append([Entry(TOPIC, 0, b"x" * 100)])]
    log.close()
    assert [future.result(0) for future in futures] == list(range(20))
    log.close()
    for use in (
        lambda: log.append([Entry(TOPIC, 0, b"x")]),
        lambda: log.read(TOPIC, 0, 0),
        lambda: log.bounds(TOPIC, 0),
        lambda: log.reader(),
        lambda: log.create([TopicSpec("t.new", 1)]),
    ):
        with pytest.raises(LogError, match="closed"):
            use()
    assert logs.open().bounds(TOPIC, 0).end == 20


def test_closed_readers_say_so(log: Log) -> None:
    """Polling a closed reader is an error; closing it twice and waking it are not."""
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    reader.close()
    reader.close()
    reader.wake()
    with pytest.raises(LogError, match="closed"):
        reader.poll(0)


def test_callbacks_may_use_the_log(log: Log) -> None:
    """A callback of an append may hand over the next one without blocking the log."""
    done = threading.Event()

    def again(_future: object) -> None:
        log.append([Entry(TOPIC, 0, b"second")])[0].add_done_callback(lambda _: done.set())

    log.append([Entry(TOPIC, 0, b"first")])[0].add_done_callback(again)
    assert done.wait(10)
    assert values_of(log.read(TOPIC, 0, 0)) == [b"first", b"second"]
