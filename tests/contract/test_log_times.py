"""Which times a log's records have, and finding a record by its time, over the backends that stamp with a clock of ours."""

from pathlib import Path

import pytest

from dimint.clock import ManualClock
from tests.support.logs import WITH_OUR_CLOCK, append, log_under_test
from tests.support.topics import TOPIC


@pytest.mark.parametrize("backend", WITH_OUR_CLOCK)
def test_timestamps_follow_the_logs_clock_and_never_go_back(backend: str, tmp_path: Path) -> None:
    """When the clock jumps back the partition's last time stands, also across trimming everything."""
    clock = ManualClock()
    with log_under_test(backend, tmp_path, clock) as logs:
        log = logs.open()
        began = clock.time_ns()
        append(log, b"a")
        clock.advance(10)
        append(log, b"b")
        clock.jump(-3600)
        append(log, b"c")
        late = began + 10_000_000_000
        assert [record.timestamp_ns for record in log.read(TOPIC, 0, 0)] == [began, late, late]
        log.trim(TOPIC, 0, 3)
        append(logs.open(), b"d")
        assert log.read(TOPIC, 0, 3)[0].timestamp_ns == late
        append(log, b"e", partition=1)
        assert log.read(TOPIC, 1, 0)[0].timestamp_ns == late - 3600_000_000_000


@pytest.mark.parametrize("backend", WITH_OUR_CLOCK)
def test_offset_at(backend: str, tmp_path: Path) -> None:
    """The first record at or after a time, for every time around every record, also after trimming."""
    clock = ManualClock(time_ns=1_000)
    with log_under_test(backend, tmp_path, clock) as logs:
        log = logs.open()
        assert log.offset_at(TOPIC, 0, 0) == 0
        times = []
        for step in (0, 5, 0, 0, 7, 1, 1, 30):
            clock.advance(step / 1e9)
            times.append(clock.time_ns())
            append(log, b"x")
        for trimmed in (0, 3, 8):
            log.trim(TOPIC, 0, trimmed)
            for at in range(990, 1050):
                expected = next((o for o, t in enumerate(times) if t >= at and o >= trimmed), 8)
                assert log.offset_at(TOPIC, 0, at) == expected
