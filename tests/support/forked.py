"""Programs as processes without their imports: forked from one process that has imported them all.

Tests of stores and clusters start hundreds of programs, and half of what such a start costs is importing. A `Forked` is a
real process with a number, files, signals and an exit code of its own, but `ps` shows its template's command line, and all
forks of one template share the seed of their hashes. How programs start, what they are called and how they are supervised
is tested on real ones.

The template is one child of the test process, `python -m tests.support.forked FD`. It has no threads, and ends with the
socket at FD. A request on it has the file descriptors of the new process and, behind them, the writing end of a pipe, on
which the template writes the process's pid, and later its exit code: four bytes each.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.support.foundation import LEFT_OUT

__all__ = ["Forked", "run"]

ROOT = Path(__file__).parent.parent.parent
IMPORTED = ["dimint.cli_role", "dimint.overlord.cli", "dimint.node.cli", "dimint.consumers.cli", "dimint.producers.cli"]
IMPORTED += ["dimint.cli_archive", "dimint.cli_rebuild", "dimint.cli_replay", "dimint.cli_snapshot", "dimint.cli_trim"]
IMPORTED += [] if LEFT_OUT else ["dimint.log.kafka", "dimint.registry.zookeeper"]
REQUEST_MAX_BYTES = 1 << 17
FILES_MAX = 16
HIGH_FD = 1000
"""Above every descriptor that a new process is to have."""


class Forked:
    """`python -m MODULE ARGUMENT…` as subprocess.Popen would run it; `command` is the same too.

    Its input is empty. `pass_fds` it has under the same numbers.
    """

    returncode: int | None = None

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdout: "int | IO[bytes]" = subprocess.DEVNULL,
        stderr: "int | IO[bytes]" = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        assert list(command[:2]) == [sys.executable, "-m"], command
        self.args = command
        request = {"argv": command[2:], "env": dict(os.environ if env is None else env), "cwd": os.getcwd(), "fds": pass_fds}
        self._told, told = os.pipe()
        with open(os.devnull, "r+b") as nothing:
            files = [nothing.fileno(), *(_fd(stream, nothing) for stream in (stdout, stderr)), *pass_fds, told]
            socket.send_fds(_template(), [json.dumps(request).encode()], files)
        os.close(told)
        self.pid = self._number(None)

    def poll(self) -> int | None:
        """The exit code (negative: minus the signal that ended it), None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.returncode = self._number(timeout)
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _number(self, timeout: float | None) -> int:
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        said = os.read(self._told, 4)
        assert said, "the template is gone"
        return int.from_bytes(said, "little", signed=True)


def run(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """As subprocess.run with its output kept as text."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        program = Forked(command, stdout=out, stderr=err, env=env)
        try:
            program.wait(timeout)
        finally:
            program.kill()
            status = program.wait()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
        return subprocess.CompletedProcess(command, status, *said)


def _fd(stream: "int | IO[bytes]", nothing: IO[bytes]) -> int:
    if isinstance(stream, int):
        return nothing.fileno() if stream == subprocess.DEVNULL else stream
    return stream.fileno()


@functools.cache
def _template() -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.support.forked", str(its.fileno())]
    template = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()])
    its.close()

    def end() -> None:
        ours.close()
        template.wait()

    atexit.register(end)
    return ours


# --- the template ---------------------------------------------------------------------------------------------------
class _Request(NamedTuple):
    argv: list[str]
    env: dict[str, str]
    cwd: str
    fds: list[int]


def _serve(asked: socket.socket) -> _Request:
    """Fork for every request; returns in the new process. Ends with the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and for what they started
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for fd, _ in poll.poll():
            if fd != asked.fileno():
                pid, told = running.pop(fd)
                _tell(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                poll.unregister(fd)
                os.close(fd)
                os.close(told)
                continue
            data, files, _, _ = socket.recv_fds(asked, REQUEST_MAX_BYTES, FILES_MAX)
            if not data:
                raise SystemExit(0)
            request = _Request(**json.loads(data))
            *wanted, told = files
            pid = os.fork()
            if not pid:
                asked.detach()
                _become(request, wanted)
                return request
            for each in wanted:
                os.close(each)
            _tell(told, pid)
            ended = os.pidfd_open(pid)
            running[ended] = pid, told
            poll.register(ended, select.POLLIN)


def _tell(told: int, number: int) -> None:
    with suppress(BrokenPipeError):
        os.write(told, number.to_bytes(4, "little", signed=True))


def _become(request: _Request, files: Sequence[int]) -> None:
    """What exec would have done: the files and no others, signals as they are by default, the environment."""
    moved = [os.dup2(fd, HIGH_FD + at) for at, fd in enumerate(files)]
    os.closerange(3, HIGH_FD)
    for fd, at in zip([0, 1, 2, *request.fds], moved, strict=True):
        os.dup2(at, fd)
    os.closerange(HIGH_FD, HIGH_FD + FILES_MAX)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request.env)
    os.chdir(request.cwd)


def _main(fd: int) -> Any:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=fd))
    module, *arguments = request.argv
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
