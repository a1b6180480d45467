"""What a reader makes of each record."""

import time

import pytest

from dimint.batch import By, encode
from dimint.dedupe import WriterTable
from dimint.events import CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Record
from dimint.log.reading import Counted, DeadLetter, Halt, Intake, Quarantine, Repeated
from tests.support.placing import ONE, placed

W1, W2 = b"1" * 16, b"2" * 16
BY = (By(None, "h", "p"),)
DELETE = ["kv.delete", "k", 0, 0, None]


def _record(offset: int, value: bytes, *, timestamp_ns: int = 5_000_000, topic: str = KV_TOPIC) -> Record:
    return Record(topic, 0, offset, timestamp_ns, value)


def _batch(writer: bytes, number: int, *events: list[object], logged_at_ns: int | None = None) -> bytes:
    return encode(writer, number, 1000, BY, events or (DELETE,), logged_at_ns=logged_at_ns)


def test_batches_count_once_per_writer() -> None:
    """A number that is not higher than the writer's last one has no effect but the position."""
    intake = Intake(KV_TOPIC, 0, ONE)
    plan = [(W1, 1, Counted), (W1, 1, Repeated), (W2, 1, Counted), (W1, 3, Counted), (W1, 2, Repeated), (W2, 2, Counted)]
    for offset, (writer, number, expected) in enumerate(plan):
        assert type(intake.take(_record(offset, _batch(writer, number)))) is expected
        assert intake.position == offset + 1
    assert intake.repeated == 2


def test_fences_count_and_have_no_events() -> None:
    """An empty batch uses its number."""
    intake = Intake(KV_TOPIC, 0, ONE)
    fence = intake.take(_record(0, encode(W1, 2, 0, (), ())))
    assert isinstance(fence, Counted)
    assert fence.events == []
    assert isinstance(intake.take(_record(1, _batch(W1, 1))), Repeated)


def test_log_time_is_the_running_maximum_over_counted_batches() -> None:
    """`logged_at` goes before the record's timestamp; neither lets log time go back, and repeats do not move it."""
    intake = Intake(KV_TOPIC, 0, ONE, log_time_us=3)
    times = []
    for offset, (number, timestamp_ns, logged_at_ns) in enumerate(
        [(1, 2_999, None), (2, 9_000, None), (3, 50_000, 7_000), (4, 1_000, 11_999), (4, 99_000, None), (5, 0, None)]
    ):
        taken = intake.take(_record(offset, _batch(W1, number, logged_at_ns=logged_at_ns), timestamp_ns=timestamp_ns))
        times.append(taken.log_time_us if isinstance(taken, Counted) else None)
    assert times == [3, 9, 9, 11, None, 11]
    assert intake.log_time_us == 11


def test_writers_are_forgotten_by_log_time() -> None:
    """A writer's row goes a day after its last batch."""
    intake = Intake(KV_TOPIC, 0, ONE)
    day_ns = 24 * 3600 * 10**9
    intake.take(_record(0, _batch(W1, 5), timestamp_ns=0))
    intake.take(_record(1, _batch(W2, 1), timestamp_ns=day_ns))
    assert len(intake.writers) == 2
    intake.take(_record(2, _batch(W2, 2), timestamp_ns=day_ns + 2000))
    assert [writer for writer, _ in intake.writers] == [W2]


def test_dead_letters_are_counted_by_reason() -> None:
    """Foreign bytes, bad framing and bad fields are passed over, counted, and move the position on."""
    intake = Intake(KV_TOPIC, 0, ONE)
    bad_fields: list[list[object]] = [
        ["kv.delete", None, 0, 0, None],
        ["kv.delete", "k", 0, 0],
        ["kv.delete", "k", 0, 0, "seq"],
        ["barrier", "k", 0, 0],
        ["host.gap", "h", 0, 0, b"run", 1, 2, "full"],
    ]
    ill_framed = encode(W1, 1, 0, (), (DELETE,))
    values = [b"", b"hello", ill_framed, *(_batch(W1, 1, DELETE, event) for event in bad_fields)]
    reasons = []
    for offset, value in enumerate(values):
        taken = intake.take(_record(offset, value))
        assert isinstance(taken, DeadLetter)
        assert taken.detail
        reasons.append(taken.reason)
    assert reasons == ["foreign", "foreign", "framing", *["fields"] * 5]
    assert intake.dead_letters == {"foreign": 2, "framing": 1, "fields": 5}
    assert intake.position == len(values)
    assert isinstance(intake.take(_record(len(values), _batch(W1, 1))), Counted), "a dead letter uses no number"


def test_keys_of_other_partitions_are_dead_letters() -> None:
    """Of whatever kind the event is, and whatever stands beside it; the detail names the partition that it belongs into."""
    genesis = Genesis("g", 100, 4, 1)
    ours, other = placed("k", 2, genesis), placed("k", 3, genesis)
    others: list[list[object]] = [
        ["kv.set", other, 0, 0, None, b"J1", None, 0],
        ["kv.incr", other, 0, 0, None, 1],
        ["kv.cas", other, 0, 0, None, None, 0, b"J1", None],
        ["kv.delete", other, 0, 0, None],
        ["kv.expire", other, 0, 0, 7],
        ["kv.resolve", other, 0, 0, 1],
    ]
    plain: list[object] = ["kv.delete", ours, 0, 0, None]
    intake = Intake(KV_TOPIC, 2, genesis)
    for offset, event in enumerate(others):
        taken = intake.take(Record(KV_TOPIC, 2, offset, 10**18, _batch(W1, 9, plain, event)))
        assert taken == DeadLetter(offset, "partition", f"key {other!r} belongs into partition 3")
    assert intake.dead_letters == {"partition": len(others)}
    assert intake.log_time_us == 0
    first = Record(KV_TOPIC, 2, len(others), 0, _batch(W1, 1, plain, ["barrier", None, 0, 0]))
    assert isinstance(intake.take(first), Counted), "a dead letter uses no number"
    assert isinstance(Intake(KV_TOPIC, 4, genesis).take(first._replace(partition=4)), DeadLetter), "there is no such partition"


def test_only_keys_of_the_store_have_partitions_by_slot() -> None:
    """What is in the other topics is not looked at; a newer kind halts, wherever its key belongs."""
    genesis = Genesis("g", 100, 4, 1)
    joined = _batch(W1, 1, ["node.left", "k", 0, 0])
    for partition in range(4):
        assert isinstance(Intake(CLUSTER_TOPIC, partition, genesis).take(_record(0, joined)), Counted)
        newer = _record(0, _batch(W1, 1, ["kv.rename", "k", 0, 0]))
        assert isinstance(Intake(KV_TOPIC, partition, genesis).take(newer), Halt)


def test_more_fields_than_known_are_allowed() -> None:
    """A newer writer may add fields at the end."""
    intake = Intake(KV_TOPIC, 0, ONE)
    assert isinstance(intake.take(_record(0, _batch(W1, 1, [*DELETE, "new", {"a": 1}], ["barrier", None, 0, 0]))), Counted)


@pytest.mark.parametrize("topic", [KV_TOPIC, CLUSTER_TOPIC])
def test_unknown_kinds_halt_where_every_kind_is_critical(topic: str) -> None:
    """The position stays, so that an upgraded program takes the record again."""
    intake = Intake(topic, 0, ONE)
    halt = intake.take(_record(0, _batch(W1, 1, ["kv.rename", "k", 0, 0]), topic=topic))
    assert isinstance(halt, Halt)
    assert "kv.rename" in halt.detail
    assert intake.position == 0
    assert len(intake.writers) == 0


def test_unknown_kinds_are_passed_over_in_status() -> None:
    """Known events of the batch still count, at their own indexes."""
    intake = Intake(STATUS_TOPIC, 0)
    taken = intake.take(
        _record(0, _batch(W1, 1, ["gpu.on_fire", "h", 0, 0], ["gpu.back", "h", 0, 0, "GPU-1"]), topic=STATUS_TOPIC)
    )
    assert isinstance(taken, Counted)
    assert [event[0] for event in taken.events] == ["gpu.on_fire", "gpu.back"]
    assert intake.unknown_events == 1


@pytest.mark.parametrize("topic", [KV_TOPIC, STATUS_TOPIC])
def test_newer_formats_halt_and_damage_quarantines(topic: str) -> None:
    """Neither moves the position on."""
    good = _batch(W1, 1)
    intake = Intake(topic, 0, ONE)
    assert isinstance(intake.take(_record(0, good[:4] + b"\x02" + good[5:], topic=topic)), Halt)
    assert isinstance(intake.take(_record(0, good[:-1] + b"\x55", topic=topic)), Quarantine)
    assert intake.position == 0


def test_holes_between_offsets_are_fine_but_going_back_is_a_bug() -> None:
    """Offsets need not be dense on every backend."""
    intake = Intake(KV_TOPIC, 0, ONE, position=7)
    assert isinstance(intake.take(_record(9, _batch(W1, 1))), Counted)
    with pytest.raises(AssertionError):
        intake.take(_record(9, _batch(W1, 2)))


def test_a_restored_intake_goes_on() -> None:
    """Position, log time and writers from a commit are all there is."""
    first = Intake(KV_TOPIC, 0, ONE)
    first.take(_record(0, _batch(W1, 4)))
    second = Intake(KV_TOPIC, 0, ONE, position=1, log_time_us=first.log_time_us, writers=WriterTable(iter(first.writers)))
    assert isinstance(second.take(_record(1, _batch(W1, 4))), Repeated)
    assert isinstance(second.take(_record(2, _batch(W1, 5))), Counted)


def test_speed() -> None:
    """Batches of 100 events are taken at a rate that does not hold a rebuild up, by processor time (loose by a factor of 3)."""
    events = [["kv.set", f"key-{index}", index, 0, None, b"J" + b"1" * 90, None, 0] for index in range(100)]
    records = [_record(number, encode(W1, number + 1, 0, BY, events)) for number in range(200)]
    best = 0.0
    for _ in range(3):
        intake = Intake(KV_TOPIC, 0, ONE)
        began = time.thread_time()
        for record in records:
            intake.take(record)
        best = max(best, len(records) * 100 / (time.thread_time() - began))
    assert best > 500_000 / 3
