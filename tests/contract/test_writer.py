"""BatchWriter over every log backend, with a log that goes wrong as told."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.batch import Header, decode
from dimint.errors import AppendFailed, AppendUnknown, LogBroken, LogError, NotApplied, RecordTooLarge
from dimint.limits import BATCH_MAX_EVENTS
from dimint.testing import FaultyLog
from dimint.writer import Appended, BatchWriter, Outgoing
from tests.support.batches import BY, batch_of, counted_keys
from tests.support.logs import BACKENDS, log_under_test
from tests.support.topics import TOPIC

pytestmark = pytest.mark.timeout(180)  # the first test of a backend starts its servers


# three brokers keep the contract of a log that one broker keeps: test_log sees to that, and a writer sees nothing but the log
@pytest.fixture(params=[backend for backend in BACKENDS if backend not in ("faulty", "kafka-of-three")])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FaultyLog]:
    with log_under_test(request.param, tmp_path) as under_test:
        yield FaultyLog(under_test.open())


@pytest.fixture
def writer(log: FaultyLog) -> Iterator[BatchWriter]:
    writer = BatchWriter(log, clock=time, host="host", process="process")
    yield writer
    writer.close()


def test_batches_of_one_call(log: FaultyLog, writer: BatchWriter) -> None:
    """Each partition counts its own numbers; what was given stands in the record."""
    batch = Outgoing(TOPIC, 1, BY, [["x", "k" * 100, -5, 0, 1]] * 9, compress=True, logged_at_ns=7, time_ns=1000)
    futures = writer.append([batch_of("a"), batch])
    assert [future.result(10) for future in futures] == [Appended(0, 1), Appended(0, 1)]
    assert writer.append([batch_of("b")])[0].result(10) == Appended(1, 2)
    header, events, _ = decode(log.read(TOPIC, 1, 0)[0].value)
    assert header == Header(writer.incarnation, 1, 9, 1000, 7, BY)
    assert events == [["x", "k" * 100, -5, 0, 1]] * 9
    assert decode(log.read(TOPIC, 0, 1)[0].value).header.number == 2


def test_incarnations(log: FaultyLog) -> None:
    """A writer has a random incarnation unless it is given one; a second writer starts its own numbers."""
    writers = [BatchWriter(log, clock=time, host="h", process="p") for _ in range(2)]
    assert writers[0].incarnation != writers[1].incarnation
    assert [writer.append([batch_of("a")])[0].result(10) for writer in writers] == [Appended(0, 1), Appended(1, 1)]
    assert BatchWriter(log, clock=time, host="h", process="p", incarnation=b"i" * 16).incarnation == b"i" * 16


def test_idle_tells_when_the_next_batch_may_come(log: FaultyLog, writer: BatchWriter) -> None:
    """A partition is busy until its batch is settled, and idle already when the future's callback runs."""
    assert writer.idle(TOPIC, 0)
    log.hold_acks()
    (future,) = writer.append([batch_of("a")])
    assert not writer.idle(TOPIC, 0)
    assert writer.idle(TOPIC, 1)
    with pytest.raises(AssertionError):
        writer.append([batch_of("b")])
    idle: list[bool] = []
    future.add_done_callback(lambda _: idle.append(writer.idle(TOPIC, 0)))
    assert log.release_acks() == 1
    future.result(10)
    assert idle == [True]


def test_a_failed_batch_is_not_applied(log: FaultyLog, writer: BatchWriter) -> None:
    """A certain failure is final at once, and the number is used up."""
    log.fail(1)
    (future,) = writer.append([batch_of("a")])
    assert isinstance(future.exception(10), NotApplied)
    assert writer.append([batch_of("b")])[0].result(10) == Appended(0, 2)
    assert counted_keys(log) == ["b"]


def test_an_unknown_batch_that_landed_is_found(log: FaultyLog, writer: BatchWriter) -> None:
    """The answer is the offset that the batch has, and the next batch follows the fence."""
    writer.append([batch_of("a")])[0].result(10)
    log.hide(1)
    assert writer.append([batch_of("b")])[0].result(10) == Appended(1, 2)
    assert writer.append([batch_of("c")])[0].result(10) == Appended(3, 4)
    assert counted_keys(log) == ["a", "b", "c"]


@pytest.mark.parametrize("fence", ["pass_on", "fail", "lose", "hide", "park"])
def test_an_unknown_batch_that_lands_late_does_not_count(log: FaultyLog, writer: BatchWriter, fence: str) -> None:
    """Whatever becomes of the first fence, the batch is final as not applied, and landing later changes nothing."""
    log.park(1)
    getattr(log, fence)(1)
    (future,) = writer.append([batch_of("a")])
    assert isinstance(future.exception(10), NotApplied)
    log.land()
    writer.append([batch_of("b")])[0].result(10)
    assert counted_keys(log) == ["b"]


def test_an_unknown_batch_that_lands_before_its_fence_counts(log: FaultyLog, writer: BatchWriter) -> None:
    """The fences fail until the batch has landed: then it is there, and said to be."""
    log.park(1)
    log.fail(4)
    (future,) = writer.append([batch_of("a")])
    time.sleep(0.05)
    assert not future.done()
    assert not writer.idle(TOPIC, 0)
    log.land()
    assert future.result(20).offset == 0
    assert counted_keys(log) == ["a"]


def test_a_settlement_that_was_trimmed_ends_unknown(log: FaultyLog, writer: BatchWriter) -> None:
    """Where the batch stood nothing can be read any more: nobody says what became of it, and the writer goes on."""
    writer.append([batch_of("a")])[0].result(10)
    log.hide(1)
    log.fail(4)
    (future,) = writer.append([batch_of("b")])
    log.trim(TOPIC, 0, 2)
    error = future.exception(20)
    assert isinstance(error, AppendUnknown)
    assert f"{TOPIC}/0 was trimmed before batch 2 was looked for" in str(error)
    assert writer.idle(TOPIC, 0)
    assert writer.append([batch_of("c")])[0].result(10).number == 8
    assert writer.append([batch_of("d", 1)])[0].result(10).number == 1


def test_other_partitions_go_on_while_one_is_unknown(log: FaultyLog, writer: BatchWriter) -> None:
    """An unsettled partition holds up nothing else."""
    log.lose(1)
    log.pass_on(1)
    log.fail(4)
    unknown, known = writer.append([batch_of("a"), batch_of("b", partition=1)])
    assert known.result(10) == Appended(0, 1)
    assert isinstance(unknown.exception(20), NotApplied)


def test_a_log_that_cannot_be_reached_is_asked_again(log: FaultyLog, writer: BatchWriter) -> None:
    """A first batch is not applied while nobody says where to begin; an outcome is looked for until somebody answers."""
    log.go_away(1)
    first, other = writer.append([batch_of("a"), batch_of("b", partition=1)])
    assert isinstance(first.exception(10), NotApplied)
    assert other.result(10) == Appended(0, 1)
    assert writer.idle(TOPIC, 0)
    log.hide(1)
    log.go_away(0)
    writer.append([batch_of("c")])[0].result(10)
    log.lose(1)
    log.go_away(3)
    assert isinstance(writer.append([batch_of("d")])[0].exception(10), NotApplied)
    assert counted_keys(log) == ["c"]


def test_too_large_batches_fail_alone(log: FaultyLog, writer: BatchWriter) -> None:
    """A batch over the limits was not sent and uses no number; the others of the call are."""
    huge = Outgoing(TOPIC, 1, BY, [["x", "k", 0, 0]] * (BATCH_MAX_EVENTS + 1))
    good, bad = writer.append([batch_of("a"), huge])
    assert good.result(10) == Appended(0, 1)
    assert isinstance(bad.exception(10), RecordTooLarge)
    assert writer.append([batch_of("b", partition=1)])[0].result(10) == Appended(0, 1)


def test_a_broken_log_fails_everything(log: FaultyLog, writer: BatchWriter) -> None:
    """LogBroken reaches the caller at once, for this batch and all that follow."""
    writer.append([batch_of("a")])[0].result(10)
    log.break_down()
    for _ in range(2):
        (future,) = writer.append([batch_of("b")])
        assert isinstance(future.exception(10), LogBroken)


def test_a_closed_log_applies_nothing(log: FaultyLog, writer: BatchWriter) -> None:
    """What cannot be handed over is not applied."""
    writer.append([batch_of("a")])[0].result(10)
    log.close()
    (future,) = writer.append([batch_of("b")])
    assert isinstance(future.exception(10), NotApplied)


def test_unknown_topics_are_refused(writer: BatchWriter) -> None:
    """A batch for a topic that is not there raises and leaves nothing in flight."""
    with pytest.raises(LogError):
        writer.append([batch_of("a"), Outgoing("t.none", 0, BY, ())])
    assert writer.idle("t.none", 0)
    assert writer.idle(TOPIC, 0)


def test_append_and_wait(log: FaultyLog, writer: BatchWriter) -> None:
    """The slow writer's way: the outcome or a named error by the deadline."""
    assert writer.append_and_wait(batch_of("a"), 10) == Appended(0, 1)
    log.hold_acks()
    with pytest.raises(AppendUnknown):
        writer.append_and_wait(batch_of("b"), 0.05)
    with pytest.raises(AppendFailed, match="before"):
        writer.append_and_wait(batch_of("c"), 0.05)
    timer = threading.Timer(0.05, log.release_acks)
    timer.start()
    assert writer.append_and_wait(batch_of("d"), 10) == Appended(2, 3)
    timer.join()
    log.fail(1)
    with pytest.raises(NotApplied):
        writer.append_and_wait(batch_of("e"), 10)
    assert counted_keys(log) == ["a", "b", "d"]


def test_close_gives_up_what_is_unsettled(log: FaultyLog) -> None:
    """A closed writer leaves no future open and no thread behind."""
    writer = BatchWriter(log, clock=time, host="h", process="p")
    log.lose(1)
    log.fail(1000)
    (future,) = writer.append([batch_of("a")])
    time.sleep(0.05)
    writer.close()
    writer.close()
    assert isinstance(future.exception(10), AppendUnknown)
    assert not [thread for thread in threading.enumerate() if thread.name == "writer-settle"]
