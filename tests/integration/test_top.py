"""`dimint top` in a real terminal (a pty): live, keys, resize, and an end that leaves the terminal as it was."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dimint.system_clock import SystemClock
from tests.support.fleet import MemoryTables, busy_sample, host_id
from tests.support.web import serving


class Terminal:
    """A process on a pty. `sees` waits until its output, since the last look, has some text."""

    def __init__(self, *arguments: str) -> None:
        self._fd, inside = pty.openpty()
        self.resize(24, 100)
        self.before = termios.tcgetattr(inside)
        command = [sys.executable, "-m", "dimint", "top", *arguments]
        self.process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
        self._inside = inside
        self._seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        self._seen = ""
        os.write(self._fd, keys.encode())

    def sees(self, text: str, timeout_s: float = 20.0) -> str:
        until = time.monotonic() + timeout_s
        while text not in self._seen:
            assert time.monotonic() < until, self._seen[-3000:]
            if select.select([self._fd], [], [], 0.2)[0]:
                self._seen += os.read(self._fd, 65536).decode("utf-8", "replace")
        return self._seen

    def mode_now(self) -> list[object]:
        return termios.tcgetattr(self._inside)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._fd)
        os.close(self._inside)


@contextmanager
def top(url: str, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(url, "--every", "0.3", *arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def test_keys_live_lines_and_a_clean_end() -> None:
    """New samples show by themselves; filter, host, time and size; q ends with 0 and the terminal as it was."""
    tables = MemoryTables()
    for number in range(3):
        tables.register(host_id(number), f"gpu-{number:02d}", f"10.0.0.{number + 1}")
    with serving(tables, SystemClock()) as (host, port):
        for number in range(3):
            tables.put(host_id(number), time.time_ns(), busy_sample(number, 0, 4))
        with top(f"http://{host}:{port}") as terminal:
            terminal.sees("gpu_02")
            content = busy_sample(1, 0, 4)
            content["gpu"][0]["st"] = "lost"
            tables.put(host_id(1), time.time_ns(), content)
            terminal.sees("gpu_01 GPU 0: lost")
            terminal.press("/host==gpu_02\r")
            assert "gpu_00" not in terminal.sees("1 host ").rpartition("\x1b[H")[2]
            terminal.press("\x1b")
            terminal.sees("3 hosts")
            terminal.press("\r")
            terminal.sees("### gpu_01 :: 10.0.0.2")
            terminal.press("[")
            terminal.sees("no entry received")
            terminal.press("l\x1b[D")
            terminal.sees("view auto")
            terminal.press("")
            terminal.resize(12, 60)
            os.kill(terminal.process.pid, signal.SIGWINCH)
            terminal.sees("view auto")
            terminal.press("q")
            assert terminal.process.wait(10) == 0
            assert "\x1b[?1049l" in terminal.sees("\x1b[?1049l")
            assert terminal.mode_now() == terminal.before


def test_no_server_is_one_line_and_interrupt_ends() -> None:
    """Where nothing answers it says so and goes on asking; Ctrl-C ends it."""
    with top("http://127.0.0.1:9") as terminal:
        terminal.sees("no answer from 127.0.0.1:9")
        terminal.press("\x03")
        assert terminal.process.wait(10) == 0


@pytest.mark.parametrize("arguments", [["--once"], []])
def test_without_a_terminal(arguments: list[str]) -> None:
    """One picture on demand, else one clear line and a non-zero end."""
    tables = MemoryTables()
    tables.register(host_id(1), "gpu-01", "10.0.0.2")
    with serving(tables, SystemClock()) as (host, port):
        tables.put(host_id(1), time.time_ns(), busy_sample(1, 0, 4))
        command = [sys.executable, "-m", "dimint", "top", f"http://{host}:{port}", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False)
    if arguments:
        assert ended.returncode == 0
        assert "gpu_01" in ended.stdout
    else:
        assert ended.returncode == 2
        assert "dimint top needs a terminal" in ended.stderr
