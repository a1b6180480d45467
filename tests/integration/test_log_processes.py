"""The embedded log under several processes at once, kills, full disks and failing fsyncs."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimint.clock import ManualClock
from dimint.errors import AppendFailed, LogBroken, LogMismatch, SettingsError
from dimint.log.embedded import EmbeddedLog
from dimint.log.embedded.directory import LogDirectory, network_filesystem
from dimint.log.embedded.topic import WAL_MAX_PAGES, TopicFile, check_sqlite
from dimint.log.port import Bounds, Entry, TopicPartition, TopicSpec
from tests.support.disks import small_disk_at
from tests.support.log_process import start
from tests.support.topics import PARTITIONS, TOPIC

Line = tuple[int, int, str]


def _parse(line: str) -> Line:
    partition, offset, value = line.split()
    return int(partition), int(offset), value


def _everything(log: EmbeddedLog) -> list[Line]:
    lines = []
    for partition in range(PARTITIONS):
        offset = 0
        while records := log.read(TOPIC, partition, offset):
            lines += [(partition, record.offset, record.value.split(b" ")[0].decode()) for record in records]
            offset = records[-1].offset + 1
    return lines


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path, clock=time)
    log.create([TopicSpec(TOPIC, PARTITIONS)])
    yield log
    log.close()


def test_processes_append_and_read_at_once(log: EmbeddedLog, tmp_path: Path) -> None:
    """Three appenders and two readers: every acknowledgement is true, both readers see all, offsets are dense."""
    readers = [start("read", tmp_path, PARTITIONS, 3 * 60 * PARTITIONS) for _ in range(2)]
    appenders = [start("append", tmp_path, name, PARTITIONS, 60, 300) for name in "abc"]
    acknowledged = [_parse(line) for child in appenders for line in child.communicate(timeout=50)[0].splitlines()]
    seen = [[_parse(line) for line in child.communicate(timeout=50)[0].splitlines()] for child in readers]
    assert [child.returncode for child in appenders + readers] == [0] * 5
    everything = _everything(log)
    assert sorted(acknowledged) == everything
    assert [sorted(lines) for lines in seen] == [everything] * 2
    for partition in range(PARTITIONS):
        assert [line[1] for line in everything if line[0] == partition] == list(range(180))


def test_killed_appenders_lose_nothing_and_block_nobody(log: EmbeddedLog, tmp_path: Path) -> None:
    """After each kill -9 in the middle of commits all that was acknowledged is there, and others go on at once."""
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, partition): 0 for partition in range(PARTITIONS)})
    acknowledged: list[Line] = []
    for turn in range(5):
        child = start("append", tmp_path, f"k{turn}", PARTITIONS, 100_000, 20_000)
        assert child.stdout is not None
        for _ in range(10 + turn * 31):
            acknowledged.append(_parse(child.stdout.readline()))
        child.kill()
        acknowledged += [_parse(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        began = time.monotonic()
        log.append([Entry(TOPIC, 0, b"mine ")])[0].result(10)
        assert time.monotonic() - began < 5
    everything = _everything(log)
    assert set(acknowledged) <= set(everything)
    followed = []
    while records := reader.poll(0):
        followed += [(record.partition, record.offset) for record in records]
    assert sorted(followed) == [line[:2] for line in everything]
    reader.close()


def test_killed_readers_leave_no_sockets_behind(log: EmbeddedLog, tmp_path: Path) -> None:
    """The socket of a killed reader is removed by the next commits."""
    log.append([Entry(TOPIC, 0, b"x ")])[0].result(10)
    child = start("read", tmp_path, PARTITIONS, 1000)
    assert child.stdout is not None
    assert child.stdout.readline()
    child.kill()
    child.communicate()
    wake = tmp_path / "log" / "wake" / TOPIC
    assert len(list(wake.iterdir())) == 1
    log.append([Entry(TOPIC, 0, b"x ")])[0].result(10)
    assert list(wake.iterdir()) == []


def test_processes_that_start_at_once_agree_on_one_log(tmp_path: Path) -> None:
    """On an empty directory the first genesis wins: one process gets what it wanted, the others are told."""
    children = [start("genesis", tmp_path / "new", hash_range) for hash_range in (100, 200, 100, 300)]
    answers = [child.communicate(timeout=50)[0].strip() for child in children]
    good = {answer for answer in answers if not answer.startswith("error")}
    assert len(good) == 1
    hash_range = int(good.pop().split()[1])
    for wanted, answer in zip((100, 200, 100, 300), answers, strict=True):
        assert answer.startswith("error") == (wanted != hash_range)
        if wanted != hash_range:
            assert f"hash_range of this log is {hash_range} for ever, not {wanted}" in answer


def test_readers_find_by_themselves_what_nobody_told_them(log: EmbeddedLog, tmp_path: Path) -> None:
    """A committer that dies between its commit and the datagram leaves no reader waiting for long."""
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    assert reader.poll(0) == []
    directory = LogDirectory(tmp_path)
    file = TopicFile(directory, TOPIC)
    timer = threading.Timer(0.02, lambda: file.append([(0, b"silent")], time.time_ns()))
    timer.start()
    began = time.monotonic()
    assert [record.value for record in reader.poll(10)] == [b"silent"]
    assert time.monotonic() - began < 2
    timer.join()
    file.close()
    directory.close()
    reader.close()


def test_large_and_wide_commits(tmp_path: Path) -> None:
    """Commits of many rows, of large rows and over many partitions are all whole and in order."""
    log = EmbeddedLog(tmp_path, clock=time)
    log.create([TopicSpec(TOPIC, 40)])
    sent: dict[int, list[bytes]] = {partition: [] for partition in range(40)}
    for count, size in ((1, 10), (40, 10), (700, 3), (5, 1_000_000), (16, 10), (300, 2000)):
        entries = [Entry(TOPIC, index % 40, bytes([index % 256]) * size) for index in range(count)]
        for entry in entries:
            sent[entry.partition].append(entry.value)
        for future in log.append(entries):
            future.result(30)
    for partition, expected in sent.items():
        values: list[bytes] = []
        while records := log.read(TOPIC, partition, len(values)):
            values += [record.value for record in records]
        assert values == expected
    log.close()


def test_write_ahead_log_stays_bounded_under_readers(log: EmbeddedLog, tmp_path: Path) -> None:
    """With readers that never rest, 60 MB of records leave a write-ahead log of a few MiB."""
    ended = threading.Event()

    def follow() -> None:
        reader = log.reader()
        while not ended.is_set():
            reader.assign({TopicPartition(TOPIC, partition): 0 for partition in range(PARTITIONS)})
            for _ in range(20):
                reader.poll(0.001)
        reader.close()

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        largest = 0
        for _ in range(100):
            futures = log.append([Entry(TOPIC, partition, b"x" * 200_000) for partition in range(PARTITIONS)])
            futures[-1].result(30)
            largest = max(largest, (tmp_path / "log" / f"{TOPIC}.sqlite-wal").stat().st_size)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert largest < 5 * WAL_MAX_PAGES * 4096


def test_trimmed_space_is_used_again(log: EmbeddedLog, tmp_path: Path) -> None:
    """A log that is trimmed as it grows keeps its file small."""
    for _ in range(40):
        futures = log.append([Entry(TOPIC, 0, b"x" * 100_000)] * 5)
        log.trim(TOPIC, 0, futures[-1].result(30))
    assert (tmp_path / "log" / f"{TOPIC}.sqlite").stat().st_size < 6_000_000


def test_retention_drops_what_is_old(tmp_path: Path) -> None:
    """A process that opens the log and appends drops records older than the topic's retention; others stay."""
    clock = ManualClock()
    log = EmbeddedLog(tmp_path, clock=clock)
    log.create([TopicSpec("t.kept", 1), TopicSpec("t.short", 1, retention_s=100)])
    for topic in ("t.kept", "t.short"):
        log.append([Entry(topic, 0, b"old")])[0].result(10)
    log.close()
    clock.advance(101)
    log = EmbeddedLog(tmp_path, clock=clock)
    log.append([Entry("t.short", 0, b"new")])[0].result(10)
    deadline = time.monotonic() + 10
    while log.bounds("t.short", 0) != Bounds(1, 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log.bounds("t.short", 0) == Bounds(1, 2)
    assert log.bounds("t.kept", 0) == Bounds(0, 1)
    log.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_failed_fsync_ends_the_appender(log: EmbeddedLog, tmp_path: Path) -> None:
    """After a failed fsync a process acknowledges nothing more; the log stays good for others."""
    inject = ("strace", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=4")
    child = start("append", tmp_path, "e", PARTITIONS, 50, 300, wrapper=inject)
    lines = child.communicate(timeout=50)[0].splitlines()
    assert lines[-1] == "error LogBroken"
    assert {_parse(line) for line in lines[:-1]} <= set(_everything(log))
    log.append([Entry(TOPIC, 0, b"mine ")])[0].result(10)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with small_disk_at(tmp_path / "small", 4) as place:
        yield place


def test_full_disk_fails_appends_until_there_is_room(small_disk: Path) -> None:
    """Without room a commit fails for certain and as a whole; with room again the same log goes on, nothing lost."""
    (small_disk / "ballast").write_bytes(b"x" * (2 << 20))
    log = EmbeddedLog(small_disk, clock=time)
    log.create([TopicSpec(TOPIC, PARTITIONS)])
    written = failed = 0
    for turn in range(60):
        futures = log.append([Entry(TOPIC, partition, b"%d" % turn + b" " * 50_000) for partition in range(PARTITIONS)])
        errors = {type(future.exception(30)) for future in futures}
        assert errors in ({type(None)}, {AppendFailed})
        if errors == {AppendFailed}:
            failed += 1
            if failed == 3:
                break
        else:
            written += 1
    assert written
    assert failed == 3
    assert [log.bounds(TOPIC, partition) for partition in range(PARTITIONS)] == [Bounds(0, written)] * PARTITIONS
    os.unlink(small_disk / "ballast")
    assert log.append([Entry(TOPIC, 0, b"after ")])[0].result(30) == written
    log.close()
    again = EmbeddedLog(small_disk, clock=time)
    assert len(_everything(again)) == written * PARTITIONS + 1
    again.close()


def test_damaged_file_breaks_the_log(tmp_path: Path) -> None:
    """A topic's file that is no database any more is an error, not an empty topic."""
    log = EmbeddedLog(tmp_path, clock=time)
    log.create([TopicSpec(TOPIC, 1)])
    for suffix in ("-wal", "-shm"):
        (tmp_path / "log" / f"{TOPIC}.sqlite{suffix}").unlink()
    (tmp_path / "log" / f"{TOPIC}.sqlite").write_bytes(b"this is no database" * 1000)
    with pytest.raises(LogBroken):
        log.bounds(TOPIC, 0)
    log.close()


def test_files_of_another_log_are_refused(tmp_path: Path) -> None:
    """A topic file copied from another log, or a directory that lost its generation, is not taken for this log."""
    for name in ("one", "two"):
        log = EmbeddedLog(tmp_path / name, clock=time)
        log.create([TopicSpec(TOPIC, 1)])
        log.append([Entry(TOPIC, 0, b"x")])[0].result(10)
        log.close()
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(tmp_path / "one" / "log" / f"{TOPIC}.sqlite{suffix}", tmp_path / "two" / "log")
    log = EmbeddedLog(tmp_path / "two", clock=time)
    with pytest.raises(LogMismatch, match="belongs to log"):
        log.bounds(TOPIC, 0)
    log.close()
    (tmp_path / "one" / "log" / "generation").unlink()
    with pytest.raises(LogMismatch, match="missing"):
        EmbeddedLog(tmp_path / "one", clock=time)


def test_deep_directories_work(tmp_path: Path) -> None:
    """Readers are woken in directories whose path is longer than a socket's address may be."""
    deep = tmp_path.joinpath(*["a-directory-with-a-long-name"] * 6)
    log = EmbeddedLog(deep, clock=time)
    log.create([TopicSpec(TOPIC, 1)])
    reader = log.reader()
    reader.assign({TopicPartition(TOPIC, 0): 0})
    assert len(list((deep / "log" / "wake" / TOPIC).iterdir())) == 1
    log.append([Entry(TOPIC, 0, b"x")])[0].result(10)
    assert len(reader.poll(10)) == 1
    reader.close()
    assert not list((deep / "log" / "wake" / TOPIC).iterdir())
    log.close()


def test_unusable_directories_are_refused_in_one_line(tmp_path: Path) -> None:
    """A file in the way is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot keep a log in"):
        LogDirectory(tmp_path / "file")


@pytest.mark.parametrize(
    ("version", "good"), [("3.51.2", False), ("3.40.1", False), ("3.51.3", True), ("3.100.0", True), ("4.0.0", True)]
)
def test_old_sqlite_is_refused(version: str, good: bool) -> None:
    """Only an SQLite that cannot lose commits is used."""
    if good:
        check_sqlite(version)
    else:
        with pytest.raises(SettingsError, match="can lose"):
            check_sqlite(version)


def test_network_file_systems_are_recognised() -> None:
    """The deepest mount that holds the path decides; blanks in mount points are understood."""
    mounts = "\n".join(
        (
            "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
            "30 22 0:40 / /home rw shared:5 master:2 - nfs4 server:/home rw",
            "31 30 0:41 / /home/local\\040disk rw - xfs /dev/sdb rw",
            "32 22 0:42 / /mnt/share rw - fuse.sshfs me@there: rw",
            "33 22 0:43 / /tmp rw - tmpfs tmpfs rw",
            "nonsense",
        )
    )
    assert network_filesystem(mounts, "/var/lib/dimint") is None
    assert network_filesystem(mounts, "/home/me/data") == "nfs4"
    assert network_filesystem(mounts, "/homeless") is None
    assert network_filesystem(mounts, "/home/local disk/data") is None
    assert network_filesystem(mounts, "/mnt/share") == "fuse.sshfs"
    assert network_filesystem(mounts, "/tmp/x") is None
    assert network_filesystem("", "/x") is None
