"""The way of reports into the log: order, numbers, group commit, faults, bounds and the end."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from dimint.batch import FIELDS, KEY, Event, decode
from dimint.clock import ManualClock
from dimint.errors import LogBroken, LogUnavailable
from dimint.events import STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.limits import REPORTS_QUEUED_MAX
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import TopicSpec
from dimint.testing import FaultyLog
from dimint.webapp.intake import Intake, NotTaken
from dimint.webapp.senders import Report, registered, reported

PARTITIONS = 2
GENESIS = Genesis("g", 100, 1, PARTITIONS)
HOST, OTHER = "0" * 32, "1" * 32
RUN = b"12345678"


class StatusLog(FaultyLog):
    """A status topic in memory that can be looked at after the intake has closed its log."""

    def __init__(self) -> None:
        broker = MemoryBroker(clock=ManualClock())
        self.seen = MemoryLog(broker)
        self.seen.create([TopicSpec(STATUS_TOPIC, PARTITIONS)])
        super().__init__(MemoryLog(broker))


@contextmanager
def running(log: StatusLog) -> Iterator[Intake]:
    """An intake at work on this log; it has ended when the block is left."""
    intake = Intake(lambda: (log, GENESIS), ManualClock(), run=RUN)
    thread = threading.Thread(target=intake.run, name="intake-under-test")
    thread.start()
    try:
        yield intake
    finally:
        intake.stop()
        log.release_acks()
        thread.join(10)
        assert not thread.is_alive()


def post(host: str = HOST, heat: int = 36) -> Report:
    return reported(host, 1_700_000_000_000_000_000 + heat, b'{"gpu:0": {"temperature": %d}}' % heat)


def batches(log: StatusLog) -> list[Sequence[Event]]:
    """The events of every record, of each partition in order."""
    records = [record for partition in range(PARTITIONS) for record in log.seen.read(STATUS_TOPIC, partition, 0)]
    return [decode(record.value).events for record in records]


def samples(log: StatusLog, host: str = HOST) -> list[tuple[bytes, int, int]]:
    """(run, seq, temperature) of a host's samples."""
    events = [event for batch in batches(log) for event in batch if event[KEY] == host and len(event) == FIELDS + 3]
    return [(event[FIELDS], event[FIELDS + 1], event[FIELDS + 2]["gpu"][0]["t_mC"] // 1000) for event in events]


def outcome(future: Future[None]) -> str:
    error = future.exception(10)
    return "" if error is None else str(error)


def test_samples_are_numbered_per_host_in_order() -> None:
    """Each host counts from 1 in the run of this start; the event's time is when the post came."""
    log = StatusLog()
    with running(log) as intake:
        for heat in range(5):
            assert outcome(intake.offer(post(HOST, heat))) == outcome(intake.offer(post(OTHER, heat))) == ""
    for host in (HOST, OTHER):
        assert samples(log, host) == [(RUN, heat + 1, heat) for heat in range(5)]
    (first, *_) = log.seen.read(STATUS_TOPIC, GENESIS.status_partition(HOST), 0)
    batch = decode(first.value)
    assert batch.header.time_ns + batch.events[0][2] == 1_700_000_000_000_000_000


def test_what_comes_while_a_batch_is_in_flight_is_one_batch() -> None:
    """A reply comes only when the log has acknowledged; all that waited meanwhile share the next batch."""
    log = StatusLog()
    log.hold_acks()
    with running(log) as intake:
        first = intake.offer(post(heat=0))
        ((partition, end),) = intake.ends(HOST).result(10).items()
        assert (partition, first.done()) == (GENESIS.status_partition(HOST), False)
        rest = [intake.offer(post(heat=heat)) for heat in range(1, 50)]
        assert end <= 1
        assert not any(future.done() for future in rest)
        log.release_acks()
        assert {outcome(future) for future in [first, *rest]} == {""}
        assert intake.ends(HOST).result(10) == {partition: 2}
        assert sum(intake.ends().result(10).values()) == 2
    assert [len(batch) for batch in batches(log)] == [1, 49]
    assert [seq for _, seq, _ in samples(log)] == list(range(1, 51))


def test_seq_of_what_the_log_did_not_take_is_used_again() -> None:
    """A failed report is answered so, and leaves no hole in the numbers."""
    log = StatusLog()
    with running(log) as intake:
        assert outcome(intake.offer(post(heat=1))) == ""
        log.fail(1)
        assert outcome(intake.offer(post(heat=2))) == "the log did not take it"
        log.lose(1)
        assert outcome(intake.offer(post(heat=3))) == "the log did not take it"
        assert outcome(intake.offer(post(heat=4))) == ""
    assert samples(log) == [(RUN, 1, 1), (RUN, 2, 4)]


def test_late_landing_of_an_unknown_batch_is_found_out() -> None:
    """A batch whose answer was lost is answered by what the log has."""
    log = StatusLog()
    with running(log) as intake:
        log.hide(1)
        assert outcome(intake.offer(post(heat=1))) == ""
        assert outcome(intake.offer(post(heat=2))) == ""
    assert samples(log) == [(RUN, 1, 1), (RUN, 2, 2)]


def test_queue_is_bounded() -> None:
    """More than may wait is refused at once, and taken again when there is room."""
    log = StatusLog()
    log.hold_acks()
    report = registered(HOST, 1, "h", "10.0.0.1")
    with running(log) as intake:
        waiting = [intake.offer(report) for _ in range(REPORTS_QUEUED_MAX)]
        with pytest.raises(NotTaken, match="too many"):
            intake.offer(report)
        log.release_acks()
        assert {outcome(future) for future in waiting} == {""}
        assert outcome(intake.offer(post())) == ""


def test_queued_reports_reach_the_log_at_the_end() -> None:
    """A stop takes no more, but finishes what was taken."""
    log = StatusLog()
    log.hold_acks()
    with running(log) as intake:
        taken = [intake.offer(post(heat=heat)) for heat in range(3)]
        intake.stop()
        with pytest.raises(NotTaken, match="ending"):
            intake.offer(post())
        log.release_acks()
        assert {outcome(future) for future in taken} == {""}


def test_broken_log_ends_it() -> None:
    """Everyone who waits is told, and `run` raises."""
    log = StatusLog()
    intake = Intake(lambda: (log, GENESIS), ManualClock())
    log.break_down()
    told = intake.offer(post())
    with pytest.raises(LogBroken):
        intake.run()
    assert outcome(told) == "the log did not take it"
    with pytest.raises(NotTaken, match="ending"):
        intake.offer(post())


def test_log_that_is_away_at_the_start_is_waited_for() -> None:
    """Senders are told to try again meanwhile; then it goes on by itself."""
    log, away = StatusLog(), threading.Event()
    tries = iter([True])

    def open_log() -> tuple[StatusLog, Genesis]:
        if next(tries, False):
            away.set()
            raise LogUnavailable("nobody answers")
        return log, GENESIS

    intake = Intake(open_log, ManualClock())
    early = intake.offer(post())
    thread = threading.Thread(target=intake.run, name="intake-under-test")
    thread.start()
    try:
        assert away.wait(10)
        assert outcome(early) == "the log cannot be reached yet"
        refused = 0
        while True:
            try:
                taken = intake.offer(post())
                break
            except NotTaken:
                refused += 1
                threading.Event().wait(0.05)
        assert refused
        assert outcome(taken) == ""
    finally:
        intake.stop()
        thread.join(10)


def test_question_while_the_log_is_away() -> None:
    """Whoever asks for the end of the log is told that it cannot be reached."""
    log = StatusLog()
    with running(log) as intake:
        log.go_away(1)
        assert isinstance(intake.ends(HOST).exception(10), NotTaken)
        assert set(intake.ends(HOST).result(10).values()) == {0}
