"""A forked program is a process like any other: its files, environment, signals and exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dimint.service import READY_FD
from tests.support.forked import Forked, run

TINY = [sys.executable, "-m", "tests.support.tiny"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_files_environment_and_signals(tmp_path: Path, number: signal.Signals) -> None:
    """Descriptors keep their numbers, a signal does what it does to a program, and the exit code comes once for all."""
    read, write = os.pipe()
    with (tmp_path / "out").open("wb") as out:
        process = Forked([*TINY, "serve"], stdout=out, env=os.environ | {READY_FD: str(write)}, pass_fds=[write])
    os.close(write)
    with open(read) as said:
        assert said.read() == "ready\n", "nobody else holds the other end"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert os.getpgid(process.pid) == os.getpgid(0)
    process.send_signal(number)
    assert [process.wait(20), process.wait(), process.poll()] == [0, 0, 0]
    assert (tmp_path / "out").read_text() == "serving\nstopped\n"
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_one_that_is_killed() -> None:
    """Its exit code is minus the signal's number, and a signal to what is gone does nothing."""
    process = Forked([*TINY, "stuck"])
    process.kill()
    assert process.wait(20) == -signal.SIGKILL
    process.terminate()


def test_one_that_ends_by_itself(tmp_path: Path) -> None:
    """What it said, and whether it was content."""
    done = run([*TINY, "refuse"], env=os.environ | {"TINY_LOG": str(tmp_path / "log")})
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "dimint: bind: not like this\ndimint: port: nor like this\n")
    done = run([*TINY, "once"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "serving\n", "")
