"""Child processes: started by exec, watched, started again, stopped. The only owner of them.

A child gets three things: its log file as stdout and stderr, the reading end of a pipe that ends with its parent
(PARENT_FD), and the writing end of one on which it says once whether it is ready (READY_FD).
"""

import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from dimint.errors import DimintError, SettingsError
from dimint.logs import BACKGROUND, open_log_file
from dimint.restarts import DEATHS_MAX, DEATHS_WITHIN_S, Restarts
from dimint.service import EXIT_SETTINGS, PARENT_FD, READY_FD, WAITS

__all__ = ["Child", "ChildFailed", "ChildSpec", "Supervisor", "start_in_background"]

LOOK_S: Final = 0.05
STOP_CHILD_S: Final = 8.0
"""After this a child that does not end is killed."""

log = logging.getLogger("dimint")


class ChildFailed(DimintError):
    """A child process ended and cannot be started again."""


class ChildSpec(NamedTuple):
    """What to run.

    `essential_first`: the next ones are started when this one says that it is ready. `needed`: without it nothing of the
    whole is of use.
    """

    name: str
    command: tuple[str, ...]
    log_path: Path
    environment: Mapping[str, str] = {}
    essential_first: bool = False
    needed: bool = True


class Child:
    """One started process. Belongs to one thread."""

    def __init__(self, spec: ChildSpec, *, parent_fd: int | None = None, own_session: bool = False) -> None:
        self.spec = spec
        self.said = ""
        """`ready`, `error: …` or nothing yet."""
        self.waits_for = ""
        """What it said that it waits for before it can be ready."""
        ready_read, ready_write = os.pipe()
        log_fd = -1
        try:
            log_fd = open_log_file(spec.log_path)
            environment = {**os.environ, **spec.environment, READY_FD: str(ready_write), BACKGROUND: str(spec.log_path)}
            inherited = [ready_write]
            if parent_fd is not None:
                environment[PARENT_FD] = str(parent_fd)
                inherited.append(parent_fd)
            self.process = subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                env=environment,
                pass_fds=inherited,
                start_new_session=own_session,
                process_group=None if own_session else 0,  # Ctrl-C is for the parent, which stops its children in order
            )
        except OSError as error:
            os.close(ready_read)
            raise ChildFailed(f"cannot start {spec.name}: {error}") from error
        finally:
            os.close(ready_write)
            if log_fd >= 0:
                os.close(log_fd)
        self._ready_fd: int | None = ready_read
        os.set_blocking(ready_read, False)
        self.pid = self.process.pid

    def ended(self) -> int | None:
        """Exit status (negative: minus the signal's number), None while it runs."""
        return self.process.poll()

    def listen(self, timeout_s: float = 0.0) -> str:
        """What the child said of itself so far."""
        if self._ready_fd is not None:
            poll = select.poll()
            poll.register(self._ready_fd, select.POLLIN)
            if poll.poll(timeout_s * 1000):
                with contextlib.suppress(BlockingIOError):
                    text = os.read(self._ready_fd, 4096).decode("utf-8", "replace")
                    lines = text.strip().splitlines()
                    for line in lines:
                        if line.startswith(WAITS):
                            self.waits_for = line.removeprefix(WAITS)
                        else:
                            self.said = self.said or line
                    if self.said or not lines:
                        self._forget_pipe()
        return self.said

    def ask_to_stop(self) -> None:
        """Tell it to end, without waiting for it."""
        if self.ended() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = STOP_CHILD_S) -> None:
        """End it: politely, then for good."""
        if self.ended() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.error("%s (%d) did not stop in %g s: killed", self.spec.name, self.pid, timeout_s)
                self.process.kill()
                self.process.wait()
        self._forget_pipe()

    def close(self) -> None:
        """Forget it; a process that runs goes on."""
        self._forget_pipe()
        if self.process.returncode is None:
            self.process.returncode = 0  # it is not ours to wait for any more, and Popen would warn

    def _forget_pipe(self) -> None:
        fd, self._ready_fd = self._ready_fd, None
        if fd is not None:
            os.close(fd)


class Supervisor:
    """Runs children until it is stopped; a dead one is started again, by the rule of dimint/restarts.py.

    A process object (see dimint/service.py). `run` raises ChildFailed when a child that is needed cannot be kept up, and
    SettingsError with the child's own line when one refuses its settings before it was ever ready; all others are stopped
    then too, in reverse order. A child that is not needed is off while it cannot be kept up. If this process dies, however,
    the children end by themselves.
    """

    def __init__(self, specs: Sequence[ChildSpec]) -> None:
        self._specs = specs
        self._stopping = threading.Event()
        self._children: dict[str, Child] = {}
        self._restarts = {spec.name: Restarts(needed=spec.needed) for spec in specs}
        self._due: dict[str, float] = {}
        self._were_ready: set[str] = set()
        self._off: dict[str, str] = {}
        self._told = ""

    def run(self) -> None:
        parent_read, parent_write = os.pipe()
        try:
            self._start_all(parent_read)
            while not self._stopping.wait(LOOK_S):
                self._look(parent_read)
        finally:
            for _, role in groupby(reversed(self._specs), key=lambda spec: spec.name.partition("-")[0]):
                going = [self._children[spec.name] for spec in role if spec.name in self._children]
                for child in going:  # all at once: a node that knows that the others go too does not wait for them
                    child.ask_to_stop()
                for child in going:
                    child.stop()
            os.close(parent_read)
            os.close(parent_write)

    def stop(self) -> None:
        self._stopping.set()

    def pids(self) -> dict[str, int]:
        """Name → pid of the children that were started. From any thread."""
        return {name: child.pid for name, child in list(self._children.items())}

    def off(self) -> dict[str, str]:
        """The children that are off: name → how the last try ended. From any thread."""
        return dict(self._off)

    def _start_all(self, parent_fd: int) -> None:
        for spec in self._specs:
            if self._stopping.is_set():
                return
            self._start(spec, parent_fd)
            while spec.essential_first and not self._stopping.is_set() and not self._may_go_on(spec.name):
                self._look(parent_fd)

    def _may_go_on(self, name: str) -> bool:
        """Whether the next children may be started; waits a moment for the last one to be ready."""
        if name in self._off:
            return True
        if name in self._due:
            self._stopping.wait(LOOK_S)
            return False
        return self._children[name].listen(LOOK_S) == "ready"

    def _start(self, spec: ChildSpec, parent_fd: int) -> None:
        try:
            child = Child(spec, parent_fd=parent_fd)
        except ChildFailed as error:  # no process, no descriptor, no room for its log
            self._due[spec.name] = self._after_death(spec, str(error), time.monotonic())
            return
        self._children[spec.name] = child
        log.info("started %s, pid %d", spec.name, child.pid)

    def _look(self, parent_fd: int) -> None:
        now = time.monotonic()
        for spec in self._specs:
            if spec.name in self._due:
                if now >= self._due[spec.name]:
                    del self._due[spec.name]
                    self._start(spec, parent_fd)
                continue
            child = self._children.get(spec.name)
            if child is None:
                continue
            said = child.listen()
            if said == "ready":
                self._were_ready.add(spec.name)
            if child.waits_for and not said and child.waits_for != self._told:
                self._told = child.waits_for
                log.warning("%s: %s", spec.name, child.waits_for)
            status = child.ended()
            if status is not None:
                self._due[spec.name] = self._died(child, status, said or child.listen(), now)
            elif self._restarts[spec.name].lives(now):
                del self._off[spec.name]
                log.warning("%s is back: it has run for %g s", spec.name, DEATHS_WITHIN_S)

    def _died(self, child: Child, status: int, said: str, now: float) -> float:
        """When the dead child is to be started again; raises when it is not to be."""
        spec, refused = child.spec, status == EXIT_SETTINGS
        error = said.removeprefix("error: ") if said.startswith("error: ") else ""
        if refused and (spec.needed or spec.name not in self._were_ready):
            raise SettingsError(f"{spec.name}: {error}" if error else f"{spec.name} refused its settings")
        what = f"{spec.name} ({child.pid}) " + (f"was killed by signal {-status}" if status < 0 else f"ended with code {status}")
        return self._after_death(spec, f"{what}: {error}" if error else what, now, hopeless=refused)

    def _after_death(self, spec: ChildSpec, what: str, now: float, *, hopeless: bool = False) -> float:
        restarts = self._restarts[spec.name]
        was_off = restarts.off
        pause = restarts.died(now, hopeless=hopeless)
        often = "" if hopeless else f", the {DEATHS_MAX}th time within {DEATHS_WITHIN_S:g} s"
        if pause is None:
            raise ChildFailed(f"{what}{often}", hint=f"see {spec.log_path}")
        if not restarts.off:
            self._off.pop(spec.name, None)
            log.warning("%s; starting it again", what)
        elif was_off:
            self._off[spec.name] = what
            log.info("%s; it stays off for %g s", what, pause)
        else:
            self._off[spec.name] = what
            log.error("%s%s: %s is off and is tried again every few minutes, the rest goes on; see %s",
                      what, often, spec.name, spec.log_path)  # fmt: skip
        return now + pause


def start_in_background(spec: ChildSpec, timeout_s: float = 30.0) -> int:
    """Start a process that outlives this one; its pid, once it said that it is ready, or what it waits for.

    Raises SettingsError or ChildFailed with its own line if it ended before; it is stopped if it says nothing in time.
    """
    child = Child(spec, own_session=True)
    deadline = time.monotonic() + timeout_s
    while child.listen(LOOK_S) != "ready":
        status = child.ended()
        if status is not None:
            said = child.listen().removeprefix("error: ") or f"ended with code {status}"
            child.close()
            if status == EXIT_SETTINGS:
                raise SettingsError(said)
            raise ChildFailed(said, hint=f"see {spec.log_path}")
        if child.waits_for:
            log.warning("%s", child.waits_for)
            break
        if time.monotonic() > deadline:
            child.stop()
            raise ChildFailed(f"{spec.name} was not ready within {timeout_s:g} s", hint=f"see {spec.log_path}")
    child.close()
    return child.pid
