"""Taking partitions up, finding a store that does not fit its log, problems that go away, partitions that move."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.batch import By, encode
from dimint.clock import ManualClock
from dimint.errors import OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import Entry, TopicPartition, TopicSpec
from dimint.node.holdings import COMMIT_S, KEEP_MOVED_S, RETRY_S, Holdings
from dimint.node.store import Store
from tests.support.placing import placed

GENESIS = Genesis("one", 10_000, 3, 1)


class Setting:
    """A log in memory, a store on disk, and what a node does with them."""

    def __init__(self, directory: Path, *, map_max_bytes: int = 1 << 40) -> None:
        self.directory = directory
        self.map_max_bytes = map_max_bytes
        self.numbers: dict[int, int] = {}
        self.new_log()
        self.open()

    def new_log(self, generation: str = "one") -> None:
        self.log = MemoryLog(MemoryBroker(clock=ManualClock(), generation=generation))
        self.log.create([TopicSpec(KV_TOPIC, 3)])
        self.numbers = {}

    def open(self) -> None:
        self.store = Store(self.directory, map_bytes=1 << 20, map_max_bytes=self.map_max_bytes)
        self.moved = 0
        genesis = GENESIS._replace(generation=self.log.describe().generation)
        self.holdings = Holdings(self.store, self.log, genesis, moved_positions=self._count)

    def _count(self) -> None:
        self.moved += 1

    def reopen(self) -> None:
        self.store.close()
        self.open()

    def write(self, partition: int, key: str, value: bytes = b"J1", *, writer: bytes = b"w" * 16) -> bytes:
        number = self.numbers[partition] = self.numbers.get(partition, 0) + 1
        event = ["kv.set", placed(key, partition, GENESIS), 0, 0, None, value, None, 0]
        record = encode(writer, number, 0, (By(None, "h", "p"),), [event])
        self.log.append([Entry(KV_TOPIC, partition, record)])
        return record

    def catch_up(self, now: float = 0.0) -> None:
        for place, offset in self.holdings.positions().items():
            self.holdings.apply(self.log.read(place.topic, place.partition, offset), now)

    def keys(self, partition: int) -> list[str]:
        return [found.key.partition(".")[0] for found in self.holdings.replicas[partition].scan("", None, 1000).found]


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path / "node")
    yield made
    made.store.close()


def test_partitions_are_taken_up_and_read_from_where_their_store_ends(setting: Setting) -> None:
    """A new partition starts at the log's start, a known one where it was committed."""
    setting.write(0, "a")
    setting.holdings.hold(frozenset({0, 1}), 0.0)
    assert setting.moved == 1
    assert setting.holdings.positions() == {TopicPartition(KV_TOPIC, 0): 0, TopicPartition(KV_TOPIC, 1): 0}
    setting.catch_up()
    assert setting.keys(0) == ["a"]
    setting.holdings.commit(0.0)
    setting.reopen()
    setting.holdings.hold(frozenset({0}), 0.0)
    assert setting.holdings.positions() == {TopicPartition(KV_TOPIC, 0): 1}
    assert setting.keys(0) == ["a"]


def test_commits_wait_a_little_and_nothing_stays_open(setting: Setting) -> None:
    """A change is committed COMMIT_S after it was applied; with nothing saved no transaction outlives the turn."""
    setting.holdings.hold(frozenset({0}), 0.0)
    setting.write(0, "a")
    setting.catch_up(5.0)
    setting.holdings.end_turn(5.0)
    assert setting.store.uncommitted_bytes > 0
    assert setting.holdings.next_time(5.0) == pytest.approx(COMMIT_S)
    setting.holdings.end_turn(5.001 + COMMIT_S)
    assert setting.store.uncommitted_bytes == 0
    assert setting.holdings.next_time(6.0) is None
    setting.keys(0)
    setting.holdings.end_turn(6.0)
    assert setting.store._txn is None


@pytest.mark.parametrize("change", ["another log", "shorter log", "other record"])
def test_a_store_that_does_not_fit_its_log_is_rebuilt(setting: Setting, change: str, caplog: pytest.LogCaptureFixture) -> None:
    """Another log, a truncated one or another last record: said loudly, thrown away, built anew."""
    setting.holdings.hold(frozenset({0}), 0.0)
    setting.write(0, "a")
    setting.write(0, "b")
    setting.catch_up()
    setting.holdings.commit(0.0)
    setting.new_log("two" if change == "another log" else "one")
    setting.write(0, "new")
    if change != "shorter log":
        setting.write(0, "newer")
    setting.reopen()
    with caplog.at_level(logging.ERROR):
        setting.holdings.hold(frozenset({0}), 0.0)
    assert "thrown away and rebuilt" in caplog.text
    setting.catch_up()
    assert setting.keys(0) == (["new"] if change == "shorter log" else ["new", "newer"])


def test_a_trimmed_log_is_enough_for_a_store_that_has_the_rest(setting: Setting) -> None:
    """What was applied may go from the log; a store without it stands still and says why."""
    setting.holdings.hold(frozenset({0}), 0.0)
    setting.write(0, "a")
    setting.catch_up()
    setting.holdings.commit(0.0)
    setting.write(0, "b")
    setting.log.trim(KV_TOPIC, 0, 1)
    setting.reopen()
    setting.holdings.hold(frozenset({0}), 0.0)
    setting.catch_up()
    assert setting.keys(0) == ["a", "b"]
    setting.write(1, "x")
    setting.log.trim(KV_TOPIC, 1, 1)
    setting.holdings.hold(frozenset({0, 1}), 0.0)
    problem = setting.holdings.states()[1].problem
    assert problem is not None
    assert "starts at 1" in problem
    assert TopicPartition(KV_TOPIC, 1) not in setting.holdings.positions()
    assert not setting.holdings.caught_up(1)


def test_a_position_outside_the_log_is_looked_at_again(setting: Setting) -> None:
    """When the log shrinks under a running node, the partition is rebuilt from what is there."""
    setting.holdings.hold(frozenset({0}), 0.0)
    for key in "abc":
        setting.write(0, key)
    setting.catch_up()
    broker = setting.log._broker
    del broker.topics[KV_TOPIC][0].records[1:]
    setting.holdings.misread(0, OffsetOutOfRange(KV_TOPIC, 0, 3, 0, 1), 0.0)
    assert setting.holdings.positions() == {TopicPartition(KV_TOPIC, 0): 0}
    setting.catch_up()
    assert setting.keys(0) == ["a"]


def test_a_partition_that_moved_away_is_removed_later(setting: Setting) -> None:
    """It is not served at once, its rows go after a while, and it comes back without a rebuild before that."""
    setting.holdings.hold(frozenset({0, 1}), 0.0)
    setting.write(0, "a")
    setting.write(1, "b")
    setting.catch_up()
    assert setting.holdings.hold(frozenset({1}), 1.0) == {0}
    setting.holdings.end_turn(2.0)
    setting.holdings.hold(frozenset({0, 1}), 3.0)
    assert setting.keys(0) == ["a"]
    setting.holdings.hold(frozenset({1}), 4.0)
    setting.holdings.end_turn(4.0 + KEEP_MOVED_S)
    assert setting.store.partitions() == [1]
    setting.holdings.hold(frozenset({0, 1}), 5.0 + KEEP_MOVED_S)
    assert setting.holdings.positions()[TopicPartition(KV_TOPIC, 0)] == 0


def test_a_damaged_record_is_read_again(setting: Setting) -> None:
    """The partition stands still, says so, and goes on when the record can be read."""
    setting.holdings.hold(frozenset({0}), 0.0)
    good = setting.write(0, "a")
    record = setting.log.read(KV_TOPIC, 0, 0)[0]
    setting.holdings.apply([record._replace(value=good[:-1] + b"\x00\x00")], 0.0)
    assert setting.holdings.positions() == {}
    assert setting.holdings.states()[0].problem is not None
    setting.holdings.end_turn(RETRY_S)
    setting.catch_up()
    assert setting.keys(0) == ["a"]
    assert setting.holdings.states()[0].problem is None


def test_a_full_store_stops_all_and_goes_on_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Reads go on with what was committed; it is said once; when there is room again everything is caught up."""
    setting = Setting(tmp_path / "node", map_max_bytes=1 << 20)
    setting.holdings.hold(frozenset({0, 1}), 0.0)
    setting.write(0, "small")
    setting.catch_up()
    setting.holdings.commit(0.0)
    for number in range(6):
        setting.write(1, f"big {number}", b'J"' + b"x" * 300_000 + b'"')
    setting.catch_up()
    assert setting.holdings.positions() == {}
    assert all(state.problem is not None and "no room" in state.problem for state in setting.holdings.states())
    assert setting.keys(0) == ["small"]
    for attempt in (1, 2):
        setting.holdings.end_turn(RETRY_S * attempt)
        setting.catch_up(RETRY_S * attempt)
    assert caplog.text.count("no room") == 1
    setting.store.abort()
    setting.store._map_max_bytes = 1 << 30
    setting.holdings.end_turn(RETRY_S * 3)
    for _ in range(4):
        setting.catch_up(RETRY_S * 3)
        setting.holdings.end_turn(RETRY_S * 4)
    setting.holdings.commit(RETRY_S * 5)
    assert len(setting.keys(1)) == 6
    assert setting.holdings.states()[0].problem is None
    assert "has room again" in caplog.text
    setting.store.close()


def test_caught_up_means_near_the_end_once(setting: Setting) -> None:
    """A replica counts as caught up when it came near the end as it then was, and stays so while it goes on."""
    for number in range(300):
        setting.write(0, str(number))
    setting.holdings.hold(frozenset({0}), 0.0)
    assert not setting.holdings.caught_up(0)
    assert setting.holdings.lacking == {0}
    setting.catch_up()
    assert setting.holdings.caught_up(0)
    assert setting.holdings.lacking == set()
    for number in range(300):
        setting.write(0, str(number))
    assert setting.holdings.caught_up(0)
    assert not setting.holdings.caught_up(2)


def test_a_transaction_that_does_not_fit_the_map_makes_it_grow(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """That is no fault: what was not committed is applied again in a larger map, at once and without a word."""
    setting.holdings.hold(frozenset({0}), 0.0)
    for number in range(20):
        setting.write(0, f"{number:02d}", b'J"' + b"x" * 500_000 + b'"')
    for _ in range(12):
        setting.catch_up()
    setting.holdings.commit(0.0)
    assert setting.holdings.replicas[0].key_count == 20
    assert caplog.text == ""


def test_a_disputed_partition_is_built_anew_from_the_log(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """It says so, serves nothing until it was read from the log's start, and agrees with the log then. Once is enough."""
    setting.write(0, "a")
    setting.holdings.hold(frozenset({0}), 0.0)
    setting.catch_up()
    assert setting.holdings.caught_up(0)
    setting.store.partition(0).data.save({b"a": bytes(16) + b"J2"})  # what a flipped bit would do
    setting.holdings.dispute(0, "it differs", 0.0)
    setting.holdings.dispute(0, "it differs", 0.0)
    setting.holdings.dispute(7, "not held here", 0.0)
    assert setting.holdings.disputed() == {0}
    (state,) = setting.holdings.states()
    assert (state.problem, state.caught_up, state.next_offset) == ("it differs", False, 0)
    assert setting.holdings.lacking == {0}
    setting.write(0, "b")
    setting.catch_up()
    assert setting.holdings.caught_up(0)
    (state,) = setting.holdings.states()
    assert (state.problem, state.caught_up) == (None, True)
    assert setting.holdings.lacking == set()
    assert [found.value for found in setting.holdings.replicas[0].get([placed(key, 0, GENESIS) for key in "ab"])] == [
        b"J1",
        b"J1",
    ]

    setting.holdings.dispute(0, "it differs still", 0.0)
    (state,) = setting.holdings.states()
    assert (state.problem, state.next_offset) == ("it differs still", 2)
    assert state.anew
    assert "was derived again and serves no reads still" in caplog.text
    setting.holdings.dispute(0, None, 0.0)
    setting.holdings.dispute(0, None, 0.0, agreed=True)
    (state,) = setting.holdings.states()
    assert (state.problem, state.caught_up, state.anew) == (None, True, False)
    setting.holdings.dispute(0, "it differs after that", 0.0)
    (state,) = setting.holdings.states()
    assert (state.problem, state.next_offset) == ("it differs after that", 0), "once a dispute"


def test_a_trimmed_log_cannot_decide_but_the_rows_can(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """What fits its rows is kept, and says so; what does not is thrown away, to be taken from another node."""
    for key in "abc":
        setting.write(0, key)
    setting.holdings.hold(frozenset({0}), 0.0)
    setting.catch_up()
    setting.holdings.commit(0.0)
    assert setting.holdings.replicas[0].fits_its_rows()
    setting.log.trim(KV_TOPIC, 0, 2)
    setting.holdings.dispute(0, "it differs", 0.0)
    (state,) = setting.holdings.states()
    assert (state.problem, state.caught_up, state.anew, state.next_offset) == ("it differs", False, True, 3)
    setting.holdings.dispute(0, None, 0.0, agreed=True)
    setting.store.partition(0).data.save({placed("a", 0, GENESIS).encode(): bytes(16) + b"J2"})
    assert not setting.holdings.replicas[0].fits_its_rows()
    setting.holdings.dispute(0, "it differs", 0.0)
    assert 0 in setting.holdings.awaited()
    (state,) = setting.holdings.states()
    assert state.problem is not None
    assert not state.anew


def test_a_dispute_outlives_the_node(setting: Setting) -> None:
    """What is disputed is gone from the disk before anything else is done."""
    setting.write(0, "a")
    setting.holdings.hold(frozenset({0}), 0.0)
    setting.catch_up()
    setting.holdings.commit(0.0)
    setting.store.partition(0).data.save({b"b": bytes(16) + b"J2"})
    setting.store.commit()
    setting.holdings.dispute(0, "it differs", 0.0)
    setting.reopen()
    setting.holdings.hold(frozenset({0}), 0.0)
    assert setting.holdings.positions() == {TopicPartition(KV_TOPIC, 0): 0}
    setting.catch_up()
    assert setting.keys(0) == ["a"]
