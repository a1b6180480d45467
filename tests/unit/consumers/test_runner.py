"""The consumer's driver: tables that do not fit the log, records that cannot be read, logs that were trimmed."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from dimint.consumers.digest import table_digest
from dimint.consumers.folder import TablesFolder
from dimint.consumers.reading import StatusReader
from dimint.consumers.rebuild import rebuild_tables
from dimint.consumers.runner import StatusConsumer
from dimint.errors import LogMismatch, SettingsError, UnknownVersion
from dimint.events import STATUS_TOPIC
from dimint.system_clock import SystemClock
from tests.support.at_work import at_work
from tests.support.samples import START_NS, host_id, sample_event
from tests.support.status_log import StatusLog, partition_of
from tests.support.system import wait_until

ONE = host_id(1)
OTHER = next(host for host in map(host_id, range(9)) if partition_of(host) != partition_of(ONE))
RUN = b"run"


def put(log: StatusLog, host: str, first: int, last: int) -> None:
    """Samples of a host, one batch each."""
    for seq in range(first, last + 1):
        log.put([sample_event(host, RUN, seq, {"n": seq}, dt_ns=seq)], time_ns=START_NS, logged_at_ns=START_NS)


@contextlib.contextmanager
def running(log: StatusLog, folder: Path) -> Iterator[StatusReader]:
    """A consumer at work on the log, and a reader of its tables."""
    with at_work(StatusConsumer(log.log, TablesFolder(folder), SystemClock())), StatusReader(folder) as reader:
        yield reader


def wait_for_samples(reader: StatusReader, host: str, count: int) -> None:
    """Until the host has so many samples."""
    deadline = time.monotonic() + 10
    while len(reader.last(host, 1000)) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_follows_the_log_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Samples appear within a second, before and after a restart."""
    log = StatusLog()
    put(log, ONE, 1, 3)
    with running(log, tmp_path) as reader:
        wait_for_samples(reader, ONE, 3)
        start = time.monotonic()
        put(log, ONE, 4, 5)
        wait_for_samples(reader, ONE, 5)
        assert time.monotonic() - start < 3
    put(log, ONE, 6, 6)
    with running(log, tmp_path) as reader:
        wait_for_samples(reader, ONE, 6)


@pytest.mark.parametrize("what", ["other log", "shorter log", "other record", "damaged file", "no tables at all"])
def test_tables_that_do_not_fit_are_put_aside(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Another log, a log that lost records, or a damaged file: quarantined, filled anew, and said aloud."""
    first = StatusLog()
    put(first, ONE, 1, 5)
    with running(first, tmp_path) as reader:
        wait_for_samples(reader, ONE, 5)
    second = StatusLog()
    put(second, ONE, 2, 4 if what == "shorter log" else 9)
    if what in ("shorter log", "other record"):
        _set_generation(tmp_path, second.log.describe().generation)
    if what == "damaged file":
        (tmp_path / "status-000001.db").write_bytes(b"x" * 40_000)
    if what == "no tables at all":
        (tmp_path / "status-000001.db").write_bytes(b"")
    with running(second, tmp_path) as reader:
        wait_for_samples(reader, ONE, 3 if what == "shorter log" else 8)
    if what != "no tables at all":
        assert (tmp_path / "quarantined-000001.db").exists()
        assert "new tables are filled from the log" in caplog.text


def test_tables_of_another_version_are_not_read_and_filled_anew(tmp_path: Path) -> None:
    """Whoever reads them meanwhile is told, instead of finding no hosts or a column that is not there."""
    log = StatusLog()
    put(log, ONE, 1, 5)
    with running(log, tmp_path) as reader:
        wait_for_samples(reader, ONE, 5)
    with apsw.Connection(str(tmp_path / "status-000001.db")) as db:
        db.execute("update meta set value = value - 1 where name = 'format'")
    db.close()
    with StatusReader(tmp_path) as reader:
        for _ in range(2):
            with pytest.raises(UnknownVersion, match="this program reads"):
                reader.hosts()
        with running(log, tmp_path):
            wait_until(lambda: (tmp_path / "quarantined-000001.db").exists(), 20, "the old tables put aside")
            wait_for_samples(reader, ONE, 5)


def test_a_record_that_cannot_be_read_stops_only_its_partition(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records of a newer program, or damaged ones, are never skipped; a rebuild leaves the live tables alone."""
    log = StatusLog()
    put(log, ONE, 1, 2)
    record = log.records()[-1].value if partition_of(ONE) else log.records()[0].value
    log.put_raw(partition_of(ONE), record[:-1] + bytes((record[-1] ^ 1,)))
    put(log, ONE, 3, 4)
    with running(log, tmp_path) as reader:
        put(log, OTHER, 1, 2)
        wait_for_samples(reader, OTHER, 2)
        wait_for_samples(reader, ONE, 2)
    assert "stops at offset 2" in caplog.text


def test_a_rebuild_that_reads_less_leaves_the_live_tables(tmp_path: Path) -> None:
    """New tables must have read what the live ones have."""
    log = StatusLog()
    put(log, ONE, 1, 5)
    with running(log, tmp_path) as reader:
        wait_for_samples(reader, ONE, 5)
    shorter = StatusLog()
    put(shorter, ONE, 1, 4)
    _set_generation(tmp_path, shorter.log.describe().generation)
    with pytest.raises(LogMismatch, match="stay as they are"):
        rebuild_tables(shorter.log, TablesFolder(tmp_path))
    with StatusReader(tmp_path) as reader:
        assert len(reader.last(ONE, 9)) == 5
    assert not list(tmp_path.glob("building-*"))


def test_a_trimmed_log_is_said_and_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was trimmed before it was read is counted as missing; what comes after it is there."""
    log = StatusLog()
    put(log, ONE, 1, 3)
    with running(log, tmp_path) as reader:
        wait_for_samples(reader, ONE, 3)
    put(log, ONE, 4, 9)
    log.log.trim(STATUS_TOPIC, partition_of(ONE), 6)
    with running(log, tmp_path) as reader:
        wait_for_samples(reader, ONE, 6)
        assert [stored.seq for stored in reader.last(ONE, 9)] == [1, 2, 3, 7, 8, 9]
        assert reader.counts()["trimmed offsets"] == 3
    assert "were trimmed" in caplog.text
    before = table_digest(tmp_path)
    built = rebuild_tables(log.log, TablesFolder(tmp_path))
    assert built.digest != before, "a rebuild has what the log has"


def test_locks(tmp_path: Path) -> None:
    """One consumer and one rebuild at a time."""
    folder = TablesFolder(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(folder.lock_consumer().release)
        stack.callback(folder.lock_rebuild().release)
        with pytest.raises(SettingsError, match="another status consumer"):
            folder.lock_consumer()
        with pytest.raises(SettingsError, match="another rebuild"):
            rebuild_tables(StatusLog().log, TablesFolder(tmp_path))


def _set_generation(folder: Path, generation: str) -> None:
    import apsw

    db = apsw.Connection(str(folder / "status-000001.db"))
    db.execute("update meta set value = ? where name = 'generation'", (generation,))
    db.close()
