"""Logs, restarts, and what is known of processes."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from dimint.logs import BACKGROUND, LOG_MAX_BYTES, log_path, open_log_file, start_logging
from dimint.process_state import ProcessState, find_program, is_dimint, own_address, program_command, programs
from dimint.restarts import DEATHS_MAX, DEATHS_WITHIN_S, OFF_PAUSE_MAX_S, Restarts
from tests.support.system import wait_until


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Give the root logger back its handlers."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def test_messages_go_to_the_file_and_warnings_to_the_terminal(tmp_path: Path) -> None:
    """The terminal gets one line without traceback; the file gets everything, control characters made visible."""
    terminal = StringIO()
    path = log_path(tmp_path / "data", "overlord")
    start_logging(path, terminal)
    log = logging.getLogger("dimint")
    log.info("quiet")
    try:
        raise ValueError("inner\x1b[2J")
    except ValueError:
        log.exception("bad \x1b]52;c;evil\x07 name\u202e\nsecond")
    assert terminal.getvalue() == "dimint: bad \\u001b]52;c;evil\\u0007 name\\u202e second\n"
    text = path.read_text()
    assert " INFO MainThread quiet\n" in text
    assert "ValueError: inner\\u001b[2J" in text
    assert "\x1b" not in text
    assert path.stat().st_mode & 0o077 == 0


def test_a_log_file_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    """The process goes on with the terminal alone."""
    terminal = StringIO()
    (tmp_path / "data").write_text("not a directory")
    start_logging(log_path(tmp_path / "data", "x"), terminal)
    logging.getLogger("dimint").warning("still here")
    assert terminal.getvalue().splitlines()[1:] == ["dimint: still here"]


def test_a_full_log_file_is_replaced(tmp_path: Path) -> None:
    """The old one is kept beside it, the new one takes what comes, and so does the next start."""
    path = tmp_path / "x.log"
    start_logging(path, None)
    log = logging.getLogger("dimint")
    for _ in range(11):
        log.info("y" * (1 << 20))
    log.info("after")
    assert (tmp_path / "x.log.1").stat().st_size > LOG_MAX_BYTES
    assert path.read_text().endswith("after\n")
    path.write_bytes(b"z" * (LOG_MAX_BYTES + 1))
    os.close(open_log_file(path))
    assert path.stat().st_size == 0
    assert (tmp_path / "x.log.1").stat().st_size == LOG_MAX_BYTES + 1


def test_in_the_background_stderr_is_the_log(tmp_path: Path) -> None:
    """What anything writes to stdout or stderr and what is logged stand in one file, and children do not inherit that."""
    path = tmp_path / "x.log"
    code = (
        "import logging, os, sys, pathlib; from dimint.logs import start_logging, BACKGROUND;"
        "start_logging(pathlib.Path('unused'), sys.stderr); logging.getLogger('dimint').warning('one'); print('two', flush=True);"
        "assert BACKGROUND not in os.environ"
    )
    with path.open("wb") as file:
        environment = {**os.environ, BACKGROUND: str(path), "PYTHONPATH": str(Path(__file__).parents[3])}
        subprocess.run([sys.executable, "-c", code], stdout=file, stderr=file, env=environment, check=True, cwd=tmp_path)
    assert path.read_text().splitlines()[0].endswith("WARNING MainThread one")
    assert path.read_text().splitlines()[1] == "two"
    assert not (tmp_path / "unused").exists()


def test_restarts_slow_down_and_give_up() -> None:
    """The first is at once; five within half a minute are too many; a child that dies once an hour is kept up."""
    restarts = Restarts()
    assert [restarts.died(float(at)) for at in range(DEATHS_MAX)] == [0.0, 0.5, 1.0, 2.0, None]
    restarts = Restarts()
    assert [restarts.died(at * 3600.0) for at in range(100)] == [0.0] * 100
    restarts = Restarts()
    steady = [restarts.died(at * DEATHS_WITHIN_S / (DEATHS_MAX - 2)) for at in range(100)]
    assert None not in steady


def test_what_is_not_needed_is_off_until_it_lives() -> None:
    """It is never given up: pauses grow to minutes; after half a minute of life it is back and begins anew."""
    restarts = Restarts(needed=False)
    assert [restarts.died(float(at)) for at in range(DEATHS_MAX)] == [0.0, 0.5, 1.0, 2.0, 10.0]
    now, pauses = 4.0 + 10.0, []
    for _ in range(8):
        assert restarts.off
        now += DEATHS_WITHIN_S  # dies before it counts as back, and later than early deaths are remembered
        assert not restarts.lives(now)
        pause = restarts.died(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
    assert pauses == [20.0, 40.0, 80.0, 160.0, *[OFF_PAUSE_MAX_S] * 4]
    assert restarts.lives(now + DEATHS_WITHIN_S + 0.1)
    assert (restarts.off, restarts.lives(now + 60)) == (False, False)
    assert [restarts.died(now + 60 + at) for at in range(DEATHS_MAX)] == [0.0, 0.5, 1.0, 2.0, 10.0]


def test_what_cannot_help_is_not_tried_five_times() -> None:
    """Off at the first death, or given up."""
    assert Restarts().died(0.0, hopeless=True) is None
    restarts = Restarts(needed=False)
    assert (restarts.died(0.0, hopeless=True), restarts.off) == (10.0, True)


def test_state_of_this_process() -> None:
    """The fields of a heartbeat, as psutil has them."""
    state = ProcessState().read()
    assert list(state) == "cwd name cmdline create_time cpu_percent memory_percent memory_info is_running".split()
    assert state["cwd"] == os.getcwd()
    assert state["is_running"] is True
    assert state["memory_info"][0] > 1 << 20
    assert all(type(number) is int for number in state["memory_info"])
    assert isinstance(state["cpu_percent"], float)


@pytest.mark.parametrize(
    ("cmdline", "ours"),
    [
        (["/v/bin/python", "/v/bin/dimint", "overlord", "start"], True),
        (["/v/bin/python3.11", "/v/bin/dimint_node"], True),
        (["python3", "-X", "dev", "-W", "error", "/v/bin/dimint-produce"], True),
        (["python", "-I", "-m", "dimint", "up"], True),
        (["/v/bin/dimint", "up"], True),
        (["vim", "dimint"], False),
        (["python", "-m", "dimint.cli"], False),
        (["python", "-m", "pytest", "dimint"], False),
        (["python", "-c", "dimint"], False),
        (["python", "x.py", "/v/bin/dimint"], False),
        (["python"], False),
        (["python", "-W"], False),
        ([], False),
    ],
)
def test_dimint_programs_are_known_by_their_command_line(cmdline: list[str], ours: bool) -> None:
    """Only what runs one of our programs counts, not what mentions it."""
    assert is_dimint(cmdline) is ours


def test_looking_for_programs(tmp_path: Path) -> None:
    """A running one is found with its log file; this test is none."""
    script = tmp_path / "dimint"
    script.write_text("input()")
    with (
        (tmp_path / "err.log").open("wb") as log,
        subprocess.Popen([sys.executable, str(script), "overlord", "start"], stdin=subprocess.PIPE, stderr=log) as process,
    ):
        # for a moment after its start a process has no command line
        found = wait_until(lambda: find_program(process.pid), 5, "the program is found")
        assert found in programs()
        assert str(found).startswith(f"psutil.Process(pid={process.pid}, name='python")
        assert str(found).endswith(f"), cmdline : {[sys.executable, str(script), 'overlord', 'start']!r}")
        assert found.log_path == str(tmp_path / "err.log")
        process.communicate(b"\n")
    assert find_program(process.pid) is None
    assert find_program(os.getpid()) is None
    assert find_program(-1) is None
    assert find_program(10**12) is None


def test_own_address_and_command() -> None:
    """An IPv4 address, and a command that can be started."""
    assert len(own_address().split(".")) == 4
    assert program_command()[0] == sys.executable
