"""A Java server as a child process: started, waited for, ended by its pid, with its output kept for failures."""

import contextlib
import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.services.jars import HERE

_PR_SET_PDEATHSIG = 1


def answers(port: int) -> bool:
    """Whether somebody accepts connections at a port of the loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class JavaServer:
    """One process. `folder` gets its output file."""

    def __init__(self, name: str, jars: Path, folder: Path, arguments: Sequence[str], *, heap_mb: int = 256) -> None:
        self.name, self.output = name, folder / f"{name}.out"
        self._command = [
            "java",
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # servers of a minute: quick to start counts more than quick for long
            "-Xshare:auto",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            "-cp",
            f"{jars}/*",
            *arguments,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; returns at once."""
        assert self._process is None, "it runs already"
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_end_with_parent
            )

    def join(self) -> None:
        """Wait for a command to end by itself. Raises AssertionError with its output if it fails."""
        assert self._process is not None
        code = self._process.wait(60)
        self._process = None
        assert code == 0, f"{self.name} ended with {code}:\n{self.last_output()}"

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = 90) -> None:
        """Wait for it to work. Raises AssertionError with its output if it dies or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert self._process is not None
            assert self._process.poll() is None, f"{self.name} died:\n{self.last_output()}"
            assert time.monotonic() < deadline, f"{self.name} is not ready after {timeout_s} s:\n{self.last_output()}"
            time.sleep(0.05)

    def last_output(self) -> str:
        return self.output.read_text(errors="replace")[-4000:] if self.output.exists() else ""

    def pause(self) -> None:
        """Stop it where it is, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As kill -9 does; it can be started again."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Politely, then not."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # a stopped process takes no SIGTERM
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    """Between fork and exec: a test run that is killed leaves no server behind."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
