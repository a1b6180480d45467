"""A whole system on free ports in a folder of its own, driven as a user drives it: `dimint up`, sockets, signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import zmq

from tests.support.ports import free_ports

__all__ = ["OldClient", "System", "wait_until"]

READY_S = 120.0


def wait_until(condition: Any, seconds: float, what: str) -> Any:
    """The first true value of `condition()` within `seconds`; fails with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return value


class OldClient:
    """A client as the ancestors had them: a raw socket, one JSON frame there, one back. Many of them may share a context."""

    def __init__(
        self, address: str, *, kind: int = zmq.DEALER, timeout_s: float = 10.0, context: "zmq.Context[Any] | None" = None
    ) -> None:
        self._context = zmq.Context() if context is None else context
        self._own_context = context is None
        self.socket = self._context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(timeout_s * 1000))
        self.socket.connect(address)

    def __call__(self, cmd: str, **fields: Any) -> Any:
        """One request and its reply. Raises zmq.Again if none comes."""
        self.socket.send(json.dumps({"cmd": cmd, **fields}).encode())
        return json.loads(self.socket.recv())

    def close(self) -> None:
        self.socket.close()
        if self._own_context:
            self._context.term()

    def __enter__(self) -> "OldClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class System:
    """One `dimint up`. `start` returns when it says `ready`; every process started is gone after `kill_all` or `stop`."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.client_port, self.node_port, self.http_port = free_ports(3)
        self.client_address = f"tcp://127.0.0.1:{self.client_port}"
        self.pages = f"http://127.0.0.1:{self.http_port}"
        self.ready_line = ""
        self.errors: list[str] = []
        self._program: subprocess.Popen[str] | None = None
        self._known: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        assert self._program is not None
        return self._program.pid

    def command(self) -> Sequence[str]:
        return (
            *(sys.executable, "-m", "dimint", "up"),
            *("--data_dir", str(self.directory), "--interval", "1"),
            *("--port_for_client", str(self.client_port), "--port_for_node", str(self.node_port)),
            *("--http_port", str(self.http_port), *self.options),
        )

    def start(self) -> "System":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DIMINT_")}
        self._program = subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        program = self._program
        assert program.stderr is not None
        self.errors = []
        threading.Thread(target=self.errors.extend, args=(program.stderr,), daemon=True).start()
        lines: list[str] = []
        assert program.stdout is not None
        threading.Thread(target=lines.extend, args=(program.stdout,), daemon=True).start()
        self.ready_line = wait_until(
            lambda: next((line for line in lines if line.startswith("ready")), "") or program.poll() is not None,
            READY_S,
            f"ready ({self.errors})",
        )
        assert program.poll() is None, self.errors
        self.children()
        return self

    def children(self) -> dict[str, psutil.Process]:
        """Living children by their role's name as on the command line; nodes with their number: node, node-2 …"""
        found: dict[str, psutil.Process] = {}
        for child in psutil.Process(self.pid).children():
            self._known[child.pid] = child
            try:
                arguments = child.cmdline()
                if child.status() == psutil.STATUS_ZOMBIE or "run" not in arguments:
                    continue
            except psutil.NoSuchProcess:
                continue
            role = arguments[arguments.index("run") - 1]
            number = next((argument.partition("=")[2] for argument in arguments if argument.startswith("--node_name=")), "")
            found[f"{role}-{number}" if number else role] = child
        return found

    def old_client(self, **options: Any) -> OldClient:
        return OldClient(self.client_address, **options)

    def stop(self, how: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Send the signal and give the exit code; no child may be left."""
        assert self._program is not None
        self.children()
        self._program.send_signal(how)
        code = self._program.wait(seconds)
        self.expect_no_children(6.0)  # two seconds, and a margin for a busy machine
        return code

    def kill_all(self) -> None:
        """Kill -9 of everything at once, as a power switch would."""
        self.children()
        grandchildren = [each for child in self._known.values() for each in _children_of(child)]
        for pid in (self.pid, *(child.pid for child in (*self._known.values(), *grandchildren))):
            _kill(pid)
        assert self._program is not None
        self._program.wait(10.0)
        self.expect_no_children(5.0)

    def expect_no_children(self, seconds: float) -> None:
        wait_until(lambda: not any(_is_alive(child) for child in self._known.values()), seconds, "no child is left")

    def __enter__(self) -> "System":
        try:
            return self.start()
        except BaseException:
            self.__exit__()  # one that is never ready goes on otherwise, beside all later tests
            raise

    def __exit__(self, *_: object) -> None:
        if self._program is not None:
            if self._program.poll() is None:
                self.kill_all()
            for stream in (self._program.stdout, self._program.stderr):
                if stream is not None:
                    stream.close()


@contextmanager
def writing(system: System, keys: str) -> Iterator[dict[str, int]]:
    """Write rising numbers under `keys`-0 … `keys`-9 while the body runs; what was acknowledged, by key.

    A request without an answer is given up after two seconds and its key's next number is tried on a new connection, as a
    person would; a key's value may then be one that was not acknowledged, but never an older one.
    """
    acknowledged: dict[str, int] = {}
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            with system.old_client(timeout_s=2.0) as client:
                try:
                    while not over.is_set():
                        number += 1
                        key = f"{keys}-{number % 10}"
                        if client("set", key=key, value=number) == {"value": number}:
                            acknowledged[key] = number
                        over.wait(0.004)  # the tests of a machine with two cores want to go on too
                except zmq.Again:
                    continue

    writer = threading.Thread(target=write, name="writing")
    writer.start()
    try:
        yield acknowledged
    finally:
        over.set()
        writer.join()


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
