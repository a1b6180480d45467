"""The spool: in order, bounded, durable, and honest about what it dropped."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimint.clock import ManualClock
from dimint.producers.spool import Spool, SpoolFull, Taken

RUN = b"12345678"


def sample(seq: int, *, host: str = "h", size: int = 10) -> list[Any]:
    """One sample event that does not compress."""
    return ["host.sample", host, seq, RUN, seq, {"x": os.urandom(size)}]


def numbers(events: list[list[Any]]) -> list[int]:
    """Numbers of the samples among events."""
    return [event[4] for event in events if event[0] == "host.sample"]


def declared(events: list[list[Any]]) -> list[tuple[int, int]]:
    """Ranges of the gaps among events."""
    return [(event[4], event[5]) for event in events if event[0] == "host.gap"]


def test_order_and_acknowledgement(tmp_path: Path) -> None:
    """What was taken stays until it is done, also over a restart; order is the order of putting."""
    spool = Spool(tmp_path / "spool.db", ManualClock())
    assert not spool
    spool.put([[sample(1), sample(2)], [sample(3)]])
    spool.put([[sample(4)]])
    assert (bool(spool), spool.events) == (True, 4)
    first = spool.take(3)
    assert numbers(first.events) == [1, 2, 3]
    spool.close()
    spool = Spool(tmp_path / "spool.db", ManualClock())
    first = spool.take(3)
    assert numbers(first.events) == [1, 2, 3]
    spool.done(first)
    assert numbers(spool.take(100).events) == [4]
    spool.done(spool.take(100))
    assert (bool(spool), spool.events, spool.bytes) == (False, 0, 0)
    assert spool.take(5) == Taken([], 0, 0)
    spool.close()


def test_one_row_is_taken_however_big_it_is(tmp_path: Path) -> None:
    """A tick with more events than asked for still goes out."""
    spool = Spool(tmp_path / "spool.db", ManualClock())
    spool.put([[sample(seq) for seq in range(1, 50)], [sample(50)]])
    assert len(numbers(spool.take(10).events)) == 49
    spool.close()


def test_a_full_spool_drops_the_oldest_and_says_so(tmp_path: Path) -> None:
    """Stored and declared numbers together are all that were put, without overlap; the gap comes first."""
    spool = Spool(tmp_path / "spool.db", ManualClock(), max_bytes=20_000)
    for seq in range(1, 201):
        spool.put([[sample(seq, size=500), sample(seq, host="other", size=10)]])
    assert spool.bytes <= 20_000
    events = spool.take(10_000).events
    mine = [event for event in events if event[1] == "h"]
    ((first, last),) = declared(mine)
    assert events[0][0] == "host.gap"
    assert (first, numbers(mine)) == (1, list(range(last + 1, 201)))
    spool.close()


def test_what_was_taken_is_not_dropped(tmp_path: Path) -> None:
    """While the oldest rows are on their way, a full spool drops the ones behind them, and later gaps are new ones."""
    spool = Spool(tmp_path / "spool.db", ManualClock(), max_bytes=5_000)
    spool.put([[sample(seq, size=400)] for seq in range(1, 9)])
    taken = spool.take(4)
    spool.put([[sample(seq, size=400)] for seq in range(9, 15)])
    spool.done(taken)
    rest = spool.take(100)
    assert numbers(taken.events) == [1, 2, 3, 4]
    ((first, last),) = declared(rest.events)
    assert sorted([*range(1, 5), *range(first, last + 1), *numbers(rest.events)]) == list(range(1, 15))
    spool.close()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["put", "take", "done", "reopen"]), st.integers(1, 12)), max_size=40))
def test_stored_and_declared_are_everything(steps: list[tuple[str, int]]) -> None:
    """Against a plain count: every number is published, declared or waiting, and order never goes back."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "s.db", ManualClock(), max_bytes=3_000)
        seq, taken = 0, None
        out: list[int] = []
        gone: list[int] = []
        for step, amount in steps:
            if step == "put":
                spool.put([[sample(seq := seq + 1, size=100)] for _ in range(amount)])
            elif step == "take" and taken is None:
                taken = spool.take(amount)
            elif step == "done" and taken is not None:
                spool.done(taken)
                out += numbers(taken.events)
                gone += [one for first, last in declared(taken.events) for one in range(first, last + 1)]
                taken = None
            elif step == "reopen":
                spool.close()
                spool, taken = Spool(Path(folder) / "s.db", ManualClock(), max_bytes=3_000), None
        rest = spool.take(10_000)
        spool.close()
        gone += [one for first, last in declared(rest.events) for one in range(first, last + 1)]
        assert sorted(out + gone + numbers(rest.events)) == list(range(1, seq + 1))
        assert out + numbers(rest.events) == sorted(out + numbers(rest.events))


def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no database cost what was in them; the agent goes on with a new spool and keeps the old file."""
    path = tmp_path / "spool.db"
    path.write_bytes(b"no database at all" * 1000)
    spool = Spool(path, ManualClock())
    assert "damaged" in caplog.text
    spool.put([[sample(1)]])
    assert numbers(spool.take(10).events) == [1]
    spool.close()
    assert list(tmp_path.glob("spool.db.damaged-*"))


def test_a_damaged_row_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A row whose checksum fails is named in the log and skipped; the others are sent."""
    spool = Spool(tmp_path / "spool.db", ManualClock())
    spool.put([[sample(seq)] for seq in (1, 2, 3)])
    spool._db.execute("UPDATE rows SET body = zeroblob(20) WHERE id = 2")
    assert numbers(spool.take(10).events) == [1, 3]
    assert "row 2" in caplog.text
    spool.close()


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """The caller is told and keeps the events; what was there stays, and it goes on when there is room again."""
    spool = Spool(tmp_path / "spool.db", ManualClock())
    spool.put([[sample(1)]])
    pages = spool._db.pragma("page_count")
    spool._db.pragma("max_page_count", pages)
    with pytest.raises(SpoolFull):
        spool.put([[sample(2, size=100_000)]])
    assert (spool.events, numbers(spool.take(10).events)) == (1, [1])
    spool._db.pragma("max_page_count", 1 << 30)
    spool.put([[sample(2)]])
    assert numbers(spool.take(10).events) == [1, 2]
    spool.close()


_WRITER = """
import sys, os
from pathlib import Path
from dimint.clock import ManualClock
from dimint.producers.spool import Spool
spool = Spool(Path(sys.argv[1]), ManualClock())
seq = int(sys.argv[2])
while True:
    seq += 1
    spool.put([[["host.sample", "h", seq, b"12345678", seq, {"x": os.urandom(200)}]]])
    print(seq, flush=True)
"""


def test_kill_at_any_time_loses_nothing_that_was_put(tmp_path: Path) -> None:
    """After kill -9 in the middle of putting, every number that put had returned for is there, in order, once."""
    last = 0
    for round_ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path / "spool.db"), str(last)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(10 + 7 * round_):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait()
        last = int(rest[-1]) if rest else last
        spool = Spool(tmp_path / "spool.db", ManualClock())
        found = numbers(spool.take(100_000).events)
        spool.close()
        assert found[:last] == list(range(1, last + 1))
        assert len(found) <= last + 1, "at most the one that was being put"
        last = len(found)
