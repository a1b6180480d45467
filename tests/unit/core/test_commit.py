"""Who commits to the embedded log: the caller while commits are quick, a thread of the log while they are not."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dimint.errors import LogBroken
from dimint.log.embedded import EmbeddedLog, commit
from dimint.log.embedded.topic import TopicFile
from dimint.log.port import Entry, TopicSpec

TOPIC = "t"
WAIT_S = 20.0


@contextmanager
def _log(path: Path, quick_s: float) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(path, clock=time, quick_s=quick_s)
    log.create([TopicSpec(TOPIC, 1)])
    yield log
    log.close()


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """The topic, as long as another process commits."""
    (name,) = path.rglob(f"{TOPIC}.lock")
    lock = os.open(name, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


def _append(log: EmbeddedLog) -> bool:
    """One record; whether it was there when the call returned."""
    (future,) = log.append([Entry(TOPIC, 0, b"x")])
    done = future.done()
    future.result(WAIT_S)
    return done


def _append_until_quick(log: EmbeddedLog) -> None:
    """The log's thread has its turn too: as it begins, and after something slow."""
    deadline = time.monotonic() + WAIT_S
    while not _append(log):
        assert time.monotonic() < deadline, "the caller never commits, although that is quick"


def test_the_caller_commits_while_that_is_quick(tmp_path: Path) -> None:
    with _log(tmp_path, quick_s=WAIT_S) as log:
        _append_until_quick(log)
        assert all(_append(log) for _ in range(20))


@pytest.mark.parametrize("quick_s", [0.0, WAIT_S])
def test_nobody_waits_for_another_process(tmp_path: Path, quick_s: float) -> None:
    """And everything is in the order in which it was handed over, whoever commits it."""
    with _log(tmp_path, quick_s) as log:
        if quick_s:
            _append_until_quick(log)
        with _held(tmp_path):
            waiting = [log.append([Entry(TOPIC, 0, b"x")])[0] for _ in range(3)]
            time.sleep(0.05)
            waiting += [log.append([Entry(TOPIC, 0, b"x")])[0] for _ in range(3)]
            assert not any(future.done() for future in waiting)
        offsets = [future.result(WAIT_S) for future in waiting]
        assert offsets == list(range(offsets[0], offsets[0] + 6))
        if quick_s:
            _append_until_quick(log)


def test_nobody_waits_for_a_disk_that_was_slow(tmp_path: Path) -> None:
    with _log(tmp_path, quick_s=0.0) as log:
        assert not all(_append(log) for _ in range(50)), "the caller commits"


@pytest.mark.parametrize("quick_s", [0.0, 0.001, WAIT_S])
def test_close_waits_for_everything(tmp_path: Path, quick_s: float) -> None:
    with _log(tmp_path, quick_s) as log:
        futures = [log.append([Entry(TOPIC, 0, bytes(20_000))])[0] for _ in range(200)]
    assert [future.result(0) for future in futures] == list(range(200))


def test_a_broken_log_keeps_no_processor_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread waits for the end; every append is told."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(commit, "_EXPIRE_EVERY_S", 0.01)
    with _log(tmp_path, quick_s=WAIT_S) as log:
        monkeypatch.setattr(TopicFile, "append", fail)
        for _ in range(2):
            with pytest.raises(LogBroken, match="gone"):
                _append(log)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
