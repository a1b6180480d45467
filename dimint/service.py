"""The only owner of threads and signals: one Service a process.

A process object has `run()`, which blocks until it is done or stopped, and `stop()`, which may be called from any thread
and more than once. A program is a function that opens what it needs and gives its process object to `Service.run`; it
works on one thread from beginning to end, so that sockets and databases stay with the thread that made them:

    def run(settings: OverlordSettings, service: Service) -> None:
        with open_log(…) as log:
            service.run(Overlord(settings, log))

    raise SystemExit(Service("overlord").main(lambda service: run(settings, service)))

The main thread meanwhile waits for what may end the process:

    SIGINT, SIGTERM, HUP   stop everything, exit code 0; a second Ctrl-C ends at once, code 130
    the parent is gone     the pipe that it left to us is at its end: stop everything within PARENT_GONE_S
    an exception anywhere  one line, the traceback in the log, stop everything, exit code 1 (2 for SettingsError)
    the program returned   stop everything, exit code 0

Whoever does not stop in time is named, with every thread's stack in the log, and the process ends anyway.
"""

import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, Protocol

from dimint.errors import DimintError, SettingsError

__all__ = ["EXIT_FAILURE", "EXIT_HARD", "EXIT_OK", "EXIT_SETTINGS", "PARENT_FD", "READY_FD", "Process", "Service", "spawn_thread"]

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
EXIT_SETTINGS: Final = 2
"""What was asked for cannot be done as it was asked: starting the same again cannot help."""
EXIT_HARD: Final = 130

PARENT_FD: Final = "_DIMINT_PARENT_FD"
"""Environment: file descriptor of a pipe whose other end only the parent has; at its end the parent is gone."""
READY_FD: Final = "_DIMINT_READY_FD"
"""Environment: file descriptor that gets one line, `ready` or `error: …`, when it is known which."""

STOP_S: Final = 10.0
SWITCH_S: Final = 0.0005
"""Longest that a busy thread keeps the interpreter from one that was woken. With Python's default of 5 ms a commit's thread
beside a busy loop acknowledged after 17 ms in the median, with this after 2.6 ms."""
SAME_SIGNAL_S: Final = 1.0
"""A second Ctrl-C later than this ends the process at once."""
WAITS: Final = "waits: "
"""How a line at READY_FD begins that says what the process waits for; another line follows."""
PARENT_GONE_S: Final = 1.5

log = logging.getLogger("dimint")


class Process(Protocol):
    """What a Service runs."""

    def run(self) -> None:
        """Work until `stop` was called or the work is done."""

    def stop(self) -> None:
        """Make `run` return soon. From any thread, at any time, also before `run`; idempotent."""


def spawn_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a named thread. What it raises ends the process if a Service runs here (see `Service`)."""
    thread = threading.Thread(target=target, name=name)
    thread.start()
    return thread


class Service:
    """Threads, signals and the end of one process. One a process, made on the main thread.

    `stop_s` is how long everything may take to stop.
    """

    def __init__(self, name: str, *, stop_s: float = STOP_S) -> None:
        self.name = name
        self.stopping = threading.Event()
        """Set as soon as the process is to end: waits use it instead of sleeping."""
        self.exit_code = EXIT_OK
        self._stop_s = stop_s
        self._processes: list[Process] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._signals = 0
        self._first_signal = 0.0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._parent_fd = _inherited_fd(PARENT_FD)
        self._ready_fd = _inherited_fd(READY_FD)
        self._deadline: float | None = None

    def main(self, program: "Callable[[Service], None]") -> int:
        """Run a program to its end; the exit code. Blocks the main thread."""
        sys.setswitchinterval(SWITCH_S)
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup means to go on without the terminal
            numbers.append(signal.SIGHUP)
        previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        # the kernel may give a signal to any thread; this wakes the one that runs Python's handlers
        fd = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        hook, threading.excepthook = threading.excepthook, self._on_thread_exception
        try:
            self.spawn("main", self._ending_with(lambda: program(self)))
            self._wait()
            self._end()
        finally:
            threading.excepthook = hook
            signal.set_wakeup_fd(fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            for ours in (self._wake_read, self._wake_write, self._parent_fd, self._ready_fd):
                if ours is not None:
                    os.close(ours)
            self._parent_fd = self._ready_fd = None
        return self.exit_code

    # --- the program's side -----------------------------------------------------------------------------------------
    def run(self, *processes: Process) -> None:
        """Run process objects until one is done or the whole is stopped, then stop all; returns when all have returned.

        The first runs on this thread, each other one on a thread of its own. Later ones are stopped first. What the
        first one raises is raised here, what another one raises ends the process as any exception does.
        """
        with self._lock:
            self._processes += processes
        try:
            others = [self.spawn(type(process).__name__, self._ending_with(process.run)) for process in processes[1:]]
            if self.stopping.is_set():
                self._stop_all(list(processes))
            self._ending_with(processes[0].run)()
        finally:
            self._stop_all(list(reversed(processes)))
        for thread in others:
            thread.join()

    # --- any thread's side ------------------------------------------------------------------------------------------
    def spawn(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Start a thread that is joined at the end. It must return soon after `stopping` is set."""
        thread = threading.Thread(target=target, name=f"{self.name}-{name}")
        with self._lock:
            thread.start()
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
        return thread

    def ready(self) -> None:
        """Tell whoever started this process that it listens now. Once is enough; more is harmless."""
        self._tell("ready")

    def waits(self, line: str) -> None:
        """Tell people, and whoever started this process, what it waits for before it can be ready."""
        log.warning("%s", line)
        with self._lock:
            if self._ready_fd is not None:
                with contextlib.suppress(OSError):
                    os.write(self._ready_fd, f"{WAITS}{_flat(line)}\n".encode("utf-8", "replace")[:2000])

    def stop(self) -> None:
        """End the process cleanly."""
        self.stopping.set()
        self._wake()

    def fail(self, error: BaseException) -> None:
        """End the process loudly: one line for people, the traceback for the log; exit code 2 for settings, else 1."""
        line = _one_line(error)
        if isinstance(error, SettingsError):
            for part in str(error).splitlines():
                log.error("%s", part)
        else:
            log.critical("%s", line, exc_info=error)
        with self._lock:
            if self.exit_code == EXIT_OK:
                self.exit_code = EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILURE
        self._tell(f"error: {line}")
        self.stop()

    # --- inside -----------------------------------------------------------------------------------------------------
    def _ending_with(self, work: Callable[[], None]) -> Callable[[], None]:
        def end_with_it() -> None:
            try:
                work()
            finally:
                self.stop()

        return end_with_it

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        self._first_signal = self._first_signal or now
        self._signals += 1
        # whoever signals both a process and its group (a shell, timeout, make) means it once
        if number == signal.SIGINT and now - self._first_signal > SAME_SIGNAL_S:
            os.write(2, b"ended at once\n")
            os._exit(EXIT_HARD)
        self._wake()

    def _on_thread_exception(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            self.fail(args.exc_value)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"\0")

    def _tell(self, line: str) -> None:
        with self._lock:
            fd, self._ready_fd = self._ready_fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.write(fd, line.encode("utf-8", "replace")[:2000] + b"\n")
            os.close(fd)

    def _wait(self) -> None:
        """Until a signal, the parent's end or `stop`."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        if self._parent_fd is not None:
            poll.register(self._parent_fd, select.POLLIN)
        while not self.stopping.is_set() and not self._signals:
            readable = {fd for fd, _ in poll.poll()}
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
            elif self._parent_fd in readable and not os.read(self._parent_fd, 64):
                log.error("the program that started this one is gone: ending")
                self._deadline = time.monotonic() + PARENT_GONE_S
                break
        self.stopping.set()

    def _end(self) -> None:
        """Stop what runs, join it, and end the process by force if that takes too long. Idempotent."""
        self.stopping.set()
        deadline = self._deadline or time.monotonic() + self._stop_s
        with self._lock:
            processes, self._processes = self._processes[::-1], []
        stopper = threading.Thread(target=self._stop_all, args=(processes,), name=f"{self.name}-stop", daemon=True)
        stopper.start()
        for thread in self._to_join(stopper):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._force(thread)

    def _stop_all(self, processes: list[Process]) -> None:
        for process in processes:
            try:
                process.stop()
            except Exception as error:  # noqa: BLE001 - the others must be stopped too; it is reported and ends with code 1
                self.fail(error)

    def _to_join(self, first: threading.Thread) -> Iterator[threading.Thread]:
        yield first
        with self._lock:
            threads, self._threads = self._threads[::-1], []
        yield from threads
        for thread in threading.enumerate():  # those of libraries, which their owners should have closed
            if thread is not threading.current_thread() and not thread.daemon:
                yield thread

    def _force(self, thread: threading.Thread) -> None:
        log.critical("%s did not stop in time: ending by force", thread.name)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        logging.shutdown()
        os._exit(self.exit_code or EXIT_FAILURE)


def _inherited_fd(variable: str) -> int | None:
    """The descriptor that a parent named in the environment, kept from our own children; None without one."""
    text = os.environ.pop(variable, "")
    if not text.isascii() or not text.isdigit():
        return None
    fd = int(text)
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return None
    return fd


def _flat(text: str) -> str:
    return " ".join(text.split())


def _one_line(error: BaseException) -> str:
    text = _flat(str(error))
    if isinstance(error, DimintError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
