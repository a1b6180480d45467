"""Threads, signals and child processes, with real processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dimint.children import ChildFailed, ChildSpec, start_in_background
from dimint.errors import SettingsError
from dimint.process_state import stop_program
from dimint.service import SAME_SIGNAL_S
from tests.support.system import wait_until

ROOT = Path(__file__).parent.parent.parent
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `tests.support.tiny` with arguments; kills what a failed test leaves."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.tiny", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TINY_LOG": str(tmp_path / "tiny.log"), **environment},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def gone(pid: int, within_s: float) -> bool:
    """Whether the process ends in time; one that only waits to be reaped by init has ended."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(start: Start, number: signal.Signals) -> None:
    """Everything stops, in order, exit code 0, nothing on stderr."""
    process = start("serve")
    assert line(process) == "serving"
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_program_that_is_done_ends(start: Start) -> None:
    """Returning is a clean end."""
    process = start("once")
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "serving\n", "")


def test_an_exception_on_the_main_thread_is_loud(start: Start, tmp_path: Path) -> None:
    """One line for people, the traceback in the log, exit code 1."""
    process = start("crash")
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (1, "dimint: ValueError: broken on purpose\n")
    assert "Traceback" in (tmp_path / "tiny.log").read_text()


def test_an_exception_on_any_thread_ends_the_process(start: Start, tmp_path: Path) -> None:
    """The others are stopped, and it is told what happened."""
    process = start("crash-thread")
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert out.splitlines()[-1] == "stopped"
    assert err == "dimint: ZeroDivisionError: integer division or modulo by zero\n"
    assert "print(1 // 0)" in (tmp_path / "tiny.log").read_text()


def test_refused_settings_are_plain_lines(start: Start, tmp_path: Path) -> None:
    """No traceback anywhere, exit code 2."""
    process = start("refuse")
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (2, "dimint: bind: not like this\ndimint: port: nor like this\n")
    assert "Traceback" not in (tmp_path / "tiny.log").read_text()


def test_what_does_not_stop_is_ended_by_force(start: Start, tmp_path: Path) -> None:
    """After its time it is named, and the process ends with an error."""
    process = start("stuck", TINY_STOP_S="0.3")
    assert line(process) == "serving"
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "did not stop in time" in err
    assert "did not stop in time" in (tmp_path / "tiny.log").read_text()


def test_a_second_interrupt_ends_at_once(start: Start) -> None:
    """Who presses Ctrl-C again after a second means it; a group's copy of the first one does not count."""
    process = start("stuck")
    assert line(process) == "serving"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    time.sleep(SAME_SIGNAL_S + 0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 130


def test_it_can_be_ended_while_it_starts(start: Start) -> None:
    """A start that hangs on a disk or a lock does not make the process immortal."""
    process = start("slow-start", TINY_STOP_S="0.3")
    assert line(process) == "starting"
    process.terminate()
    process.communicate(timeout=5)
    assert process.returncode == 1


def supervised(start: Start, directory: Path, *children: str) -> tuple["subprocess.Popen[str]", dict[str, int]]:
    process = start("supervise", str(directory), *children)
    pids: dict[str, int] = {}
    while len(pids) < len(children):
        _, name, pid = line(process).split()
        pids[name] = int(pid)
    return process, pids


def until_serving(directory: Path, name: str) -> None:
    """Wait until a supervised child says in its log that it serves."""
    log = directory / "logs" / f"{name}.log"
    deadline = time.monotonic() + 20
    while "serving" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_children_are_stopped_without_orphans(start: Start, tmp_path: Path) -> None:
    """SIGTERM to the parent: every child ends in its own clean way, exit code 0."""
    process, pids = supervised(start, tmp_path, "serve")
    wait_until(lambda: (tmp_path / "logs/serve.log").read_text(), 10, "the child serves")
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    assert all(gone(pid, 0) for pid in pids.values())
    assert (tmp_path / "logs/serve.log").read_text() == "serving\nstopped\n"


def test_a_killed_child_is_started_again(start: Start, tmp_path: Path) -> None:
    """kill -9 of a child: a new one is there at once, and it is said."""
    process, pids = supervised(start, tmp_path, "serve")
    until_serving(tmp_path, "serve")
    os.kill(pids["serve"], signal.SIGKILL)
    killed = time.monotonic()
    _, _, pid = line(process).split()
    assert time.monotonic() - killed < 2
    assert int(pid) != pids["serve"]
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "was killed by signal 9; starting it again" in err


def test_children_end_when_their_parent_is_killed(start: Start, tmp_path: Path) -> None:
    """kill -9 of the parent: the children end by themselves within two seconds."""
    process, pids = supervised(start, tmp_path, "serve")
    until_serving(tmp_path, "serve")
    process.kill()
    killed = time.monotonic()
    assert gone(pids["serve"], 2)
    assert time.monotonic() - killed < 2
    process.communicate()


def test_stuck_children_end_too_when_their_parent_is_killed(start: Start, tmp_path: Path) -> None:
    """Also one that cannot be stopped politely."""
    process, pids = supervised(start, tmp_path, "stuck")
    until_serving(tmp_path, "stuck")
    process.kill()
    assert gone(pids["stuck"], 2.5)
    process.communicate()


def test_a_child_that_keeps_dying_ends_the_whole_loudly(start: Start, tmp_path: Path) -> None:
    """Five deaths within half a minute: no more restarts, the other children are stopped, exit code 1."""
    counter = tmp_path / "starts"
    process, pids = supervised(start, tmp_path, "serve", f"flaky={counter}")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert re.search(r"flaky \(\d+\) was killed by signal 9, the 5th time within 30 s; see ", err)
    assert counter.read_text() == "xxxxx"
    assert gone(pids["serve"], 0)


def test_the_rest_goes_on_without_what_is_not_needed(start: Start, tmp_path: Path) -> None:
    """Five deaths of such a child, or one that tells of settings which it had accepted before: one line, and it is off."""
    counter, accepted = tmp_path / "starts", tmp_path / "accepted"
    process, pids = supervised(start, tmp_path, "serve", f"spare-flaky={counter}", f"spare-refuse-next={accepted}")
    until_serving(tmp_path, "refuse-next")
    os.kill(pids["refuse-next"], signal.SIGTERM)
    told = tmp_path / "tiny.log"
    wait_until(lambda: told.read_text().count(" is off and is tried again ") == 2, 30, "two children are off")
    assert counter.read_text() == "xxxxx"
    assert not gone(pids["serve"], 0)
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    (flaky,) = re.findall(r"dimint: flaky \(\d+\) (.* is off .*)\n", err)
    assert flaky == (
        "was killed by signal 9, the 5th time within 30 s: flaky is off and is tried again every few minutes, the rest goes on; "
        f"see {tmp_path}/logs/flaky.log"
    )
    assert "ended with code 2: not like this: refuse-next is off and is tried again every few minutes" in err


def test_a_child_that_refuses_its_settings_is_not_tried_again(start: Start, tmp_path: Path) -> None:
    """Its own line is what the user sees, exit code 2."""
    process = start("supervise", str(tmp_path), "refuse")
    _, err = process.communicate(timeout=10)
    assert process.returncode == 2
    assert err == "dimint: refuse: bind: not like this port: nor like this\n"


def background(tmp_path: Path, what: str) -> int:
    command = (sys.executable, "-m", "tests.support.tiny", what)
    return start_in_background(ChildSpec(what, command, tmp_path / f"{what}.log", {"PYTHONPATH": str(ROOT)}), timeout_s=10)


def test_a_background_start_returns_when_it_is_ready(tmp_path: Path) -> None:
    """The process goes on by itself, in a session of its own, with its messages in its file."""
    pid = background(tmp_path, "serve")
    process = psutil.Process(pid)
    try:
        assert os.getsid(pid) == pid
        assert process.is_running()
    finally:
        process.terminate()
        os.waitpid(pid, 0)
    assert (tmp_path / "serve.log").read_text() == "serving\nstopped\n"


def test_a_background_start_that_fails_says_why(tmp_path: Path) -> None:
    """The child's own line, not only that it failed."""
    with pytest.raises(ChildFailed, match="ValueError: broken on purpose"):
        background(tmp_path, "crash")
    with pytest.raises(SettingsError, match="bind: not like this"):
        background(tmp_path, "refuse")


def test_only_dimint_programs_are_stopped(start: Start) -> None:
    """A pid of something else, of nobody, or out of range is refused, and nothing is signalled."""
    process = start("serve")
    assert line(process) == "serving"
    with pytest.raises(SettingsError, match="not a dimint process"):
        stop_program(process.pid)
    assert process.poll() is None
    for pid in (2**22 + 1, 10**9, 2**31 - 1, 2**40):
        with pytest.raises(SettingsError):
            stop_program(pid)
