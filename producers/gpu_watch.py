"""Watches the process that talks to NVML, so that a driver that hangs never hangs the agent.

A call into a broken driver may never return, and a process that is stuck in the kernel cannot be killed. So the reading
process gets a deadline for every GPU; past it, it is killed, and no second one is started until the first is really gone.
The GPU that was being touched is then left alone for a while, and the others go on. Where there is no driver no process
is kept; it is tried again from time to time.
"""

import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from dimint.clock import Clock
from dimint.producers.schedule import Backoff

__all__ = ["DEADLINE_S", "GpuReading", "GpuWatch", "Want", "Xid"]

DEADLINE_S = 10.0
RETRY_FIRST_S, RETRY_MOST_S = 30.0, 300.0
_LEAVE_S = 0.3
_BUFFER_MAX_BYTES = 8 << 20
_XIDS_MAX = 1000
_COMMAND = (sys.executable, "-m", "dimint.producers.gpu_child")


class Want(NamedTuple):
    """What to read besides the fast values."""

    processes: bool = True
    slow: bool = True


class Xid(NamedTuple):
    """An error that the driver reported; `uuid` is None if it could not say of which GPU."""

    uuid: str | None
    xid: int
    time_ns: int


class GpuReading(NamedTuple):
    """What is known of the host's GPUs now. `gpus` are the child's entries (gpu.py); `procs` is None if not read."""

    state: str
    gpus: list[dict[str, Any]]
    procs: list[list[Any]] | None = None
    procs_err: Mapping[str, int] = {}
    facts: Sequence[dict[str, Any]] = ()
    versions: Mapping[str, str | None] = {}
    procs_s: float = 0.0
    """What reading the process lists took, in seconds."""
    slow_s: float = 0.0
    """What the values of the slow tier took."""
    failed: Sequence[Sequence[Any]] = ()
    """[place of the GPU, call, code] of every call that failed in it."""


class GpuWatch:
    """Asks the reading process and answers in time, whatever becomes of it. Belongs to one thread.

    `ask` starts a reading, `collect` waits for it a little. Use it as a context manager or `close` it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        deadline_s: float = DEADLINE_S,
        sysfs: str = "/sys",
        env: Mapping[str, str] | None = None,
        kill: Callable[["subprocess.Popen[bytes]"], None] = subprocess.Popen.kill,
    ) -> None:
        self._clock, self._deadline_s, self._env, self._kill = clock, deadline_s, env, kill
        self._command = (*_COMMAND, sysfs)
        self._child: subprocess.Popen[bytes] | None = None
        self._unpacker = msgpack.Unpacker(max_buffer_size=_BUFFER_MAX_BYTES)
        self._waiting_since: float | None = None
        self._leaving = False
        self._opening = False
        """Whether the present process has still to say what becomes of the driver."""
        self._want: Want | None = None
        self._at = -1
        self._retry_at = 0.0
        self._retry = Backoff(RETRY_FIRST_S, RETRY_MOST_S)
        self._again_at: float | None = None
        self._again = Backoff(RETRY_FIRST_S, RETRY_MOST_S)
        self._skip: dict[int, tuple[float, Backoff]] = {}
        self._state = "starting"
        self._versions: dict[str, str | None] = {}
        self._sleeping: list[dict[str, Any]] = []
        self._answer: GpuReading | None = None
        self._xids: deque[Xid] = deque(maxlen=_XIDS_MAX)

    @property
    def pid(self) -> int | None:
        """The reading process, if there is one."""
        return self._child.pid if self._child else None

    def ask(self, want: Want) -> None:
        """Have a reading made as soon as the last one is done with."""
        self._want = want
        self._advance()

    def collect(self, timeout_s: float) -> GpuReading | None:
        """The reading asked for, waiting for it at most `timeout_s`; None if it has not come yet.

        A host whose GPUs cannot be read gets its state at once, with no GPUs; also while they are tried again.
        """
        end = self._clock.monotonic() + timeout_s
        while True:
            self._advance()
            if self._answer is not None:
                answer, self._answer = self._answer, None
                return answer
            if self._waiting_since is None and not self._leaving:
                return self._nothing_read()
            if self._child is not None and self._leaving and self._state == "hung" and not _ends(self._child, _LEAVE_S):
                return GpuReading("hung", [], versions=self._versions)
            left = end - self._clock.monotonic()
            if left <= 0 or not self._wait(left):
                return self._nothing_read() if self._is_trying_again else None

    def hung(self) -> frozenset[int]:
        """Indexes of GPUs that are left alone because a call about them did not return."""
        return frozenset(self._skip)

    def take_xids(self) -> list[Xid]:
        """What was reported since the last call, as far as it has been received by `ask` or `collect`."""
        found = list(self._xids)
        self._xids.clear()
        return found

    def close(self) -> None:
        """End the reading process; one that is stuck in the kernel is left behind. Idempotent."""
        child, self._child = self._child, None
        if child is None:
            return
        _close_pipes(child)
        if not _ends(child, _LEAVE_S):
            child.kill()
            _ends(child, _LEAVE_S)

    def __enter__(self) -> "GpuWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _nothing_read(self) -> GpuReading:
        return GpuReading(self._state, [dict(gpu) for gpu in self._sleeping], versions=self._versions)

    @property
    def _is_trying_again(self) -> bool:
        """Whether a driver that could not be asked before has not answered the present attempt yet."""
        return self._opening and self._state not in ("ok", "starting")

    def _advance(self) -> None:
        """Do whatever can be done now without waiting."""
        now = self._clock.monotonic()
        if self._child is not None and not self._leaving:
            self._receive(now)
        if self._child is not None:
            self._look_after(self._child, now)
        if self._child is None and now >= self._retry_at and self._want is not None:
            self._start(now)
        if self._child is not None and not self._leaving and self._waiting_since is None and self._want is not None:
            self._request(self._child, self._want, now)

    def _start(self, now: float) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=_BUFFER_MAX_BYTES)
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._env, bufsize=0
        )
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        self._leaving, self._again_at, self._at, self._waiting_since = False, None, -1, now
        self._opening = True

    def _request(self, child: subprocess.Popen[bytes], want: Want, now: float) -> None:
        if self._again_at is not None and now >= self._again_at:
            self._let_go(child, now)  # some GPU is lost: initialise again, in a new process
            return
        for index in [index for index, (until, _) in self._skip.items() if now >= until]:
            self._skip[index] = (float("inf"), self._skip[index][1])  # on trial, see _read
        skip = [index for index, (until, _) in self._skip.items() if until != float("inf")]
        message = msgpack.packb({"processes": want.processes, "slow": want.slow, "skip": skip})
        assert child.stdin is not None
        try:
            child.stdin.write(message)
        except OSError:
            self._let_go(child, now)
            return
        self._want, self._waiting_since = None, now

    def _receive(self, now: float) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        while data := _read_available(self._child.stdout.fileno()):
            self._unpacker.feed(data)
            for kind, body in self._unpacker:
                if kind == "xid":  # nobody asked for it, so it says nothing about the answer that is waited for
                    self._xids.append(Xid(*body))
                    continue
                self._waiting_since = now
                if kind == "at":
                    self._at = body
                elif kind == "opened":
                    self._opened(body)
                elif kind == "reading":
                    self._read(body, now)

    def _opened(self, body: dict[str, Any]) -> None:
        self._state, self._sleeping = body.pop("state"), body.pop("sleeping")
        self._versions = body
        self._waiting_since, self._opening = None, False
        if self._state == "ok":
            self._retry.reset()

    def _read(self, body: dict[str, Any], now: float) -> None:
        self._waiting_since = None
        for index in [index for index, (until, _) in self._skip.items() if until == float("inf")]:
            del self._skip[index]  # it answered
        if not any(gpu["st"] in ("lost", "unknown") for gpu in body["gpus"]):
            self._again.reset()
            self._again_at = None
        elif self._again_at is None:
            self._again_at = now + self._again.next_s()
        self._answer = GpuReading(
            "ok",
            body["gpus"],
            body.get("procs"),
            body.get("procs_err", {}),
            body["facts"],
            self._versions,
            body.get("procs_s", 0.0),
            body["slow_s"],
            body["failed"],
        )

    def _look_after(self, child: subprocess.Popen[bytes], now: float) -> None:
        if child.poll() is not None:
            self._gone(child, now)
        elif self._waiting_since is not None and now - self._waiting_since >= self._deadline_s:
            if not self._leaving and self._at >= 0:
                backoff = self._skip.get(self._at, (0.0, Backoff(RETRY_FIRST_S, RETRY_MOST_S)))[1]
                self._skip[self._at] = (now + backoff.next_s(), backoff)
            self._state = "hung"
            self._leaving = True
            self._kill(child)
            self._waiting_since = now  # a process stuck in the kernel is told again, in case it comes to itself

    def _gone(self, child: subprocess.Popen[bytes], now: float) -> None:
        if not self._leaving:
            self._receive(now)  # its last words
        _close_pipes(child)
        killed_for_gpu = self._leaving and self._state == "hung" and self._at >= 0
        crashed = not self._leaving and (child.returncode != 0 or self._state == "ok")
        if crashed:
            self._state = "unknown"
        renewed = self._leaving and self._state != "hung"
        self._retry_at = now if killed_for_gpu or renewed else now + self._retry.next_s()
        self._child, self._leaving, self._waiting_since = None, False, None
        self._want = Want() if killed_for_gpu or renewed else None

    def _let_go(self, child: subprocess.Popen[bytes], now: float) -> None:
        """End the reading process in peace; the next one is started when it is gone."""
        assert child.stdin is not None
        child.stdin.close()
        self._leaving, self._waiting_since = True, now

    def _wait(self, timeout_s: float) -> bool:
        """Whether the reading process said something, or ended, within the time."""
        assert self._child is not None
        assert self._child.stdout is not None
        if self._child.stdout.closed:
            return False
        poll = select.poll()
        poll.register(self._child.stdout.fileno(), select.POLLIN)
        happened = poll.poll(max(1, round(timeout_s * 1000)))
        if happened and not happened[0][1] & select.POLLIN:  # its end is closed and it is still on its way out
            return _ends(self._child, timeout_s)
        return bool(happened)


def _read_available(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


def _ends(child: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the process is gone within the time."""
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                continue  # unsent bytes to a process that is gone
