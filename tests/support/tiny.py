"""A tiny real program on the service, for tests of threads, signals and children: WHAT [ARGUMENT …].

serve            says ready, waits to be stopped, writes `stopped` to stdout
once             is done by itself
crash            raises on its main thread; crash-thread: on another one
refuse           raises SettingsError
stuck            cannot be stopped
slow-start       blocks for a minute before it runs anything
flaky FILE       counts its starts in FILE and dies at once, by SIGKILL
refuse-next FILE  makes FILE and serves; refuses its settings when FILE is there
supervise WHAT…  a supervisor of one child of each WHAT, `spare-WHAT` is not needed; prints their pids as `child NAME PID`
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from dimint.children import ChildSpec, Supervisor
from dimint.errors import SettingsError
from dimint.logs import log_path, start_logging
from dimint.service import Service


class Waiting:
    """A process object that only waits."""

    def __init__(self, stopped: str = "") -> None:
        self._event = threading.Event()
        self._stopped = stopped

    def run(self) -> None:
        self._event.wait()
        if self._stopped:
            print(self._stopped, flush=True)

    def stop(self) -> None:
        self._event.set()


class Stuck(Waiting):
    def stop(self) -> None:
        """Does not."""


def program(service: Service, arguments: list[str]) -> None:
    what = arguments[0]
    if what == "refuse":
        raise SettingsError("bind: not like this\nport: nor like this")
    if what == "crash":
        raise ValueError("broken\non purpose")
    if what == "slow-start":
        print("starting", flush=True)
        time.sleep(60)
    if what == "flaky":
        with open(arguments[1], "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "refuse-next":
        if os.path.exists(arguments[1]):
            raise SettingsError("not like this")
        Path(arguments[1]).touch()
    if what == "supervise":
        directory = Path(arguments[1])
        specs = [spec(directory, name) for name in arguments[2:]]
        supervisor = Supervisor(specs)
        service.spawn("tell", lambda: tell(service, supervisor))
        service.run(supervisor)
        return
    if what == "crash-thread":
        service.spawn("bad", lambda: print(1 // 0))
    service.ready()
    print("serving", flush=True)
    if what == "once":
        return
    service.run(Stuck() if what == "stuck" else Waiting("stopped"), Waiting())


def spec(directory: Path, name: str) -> ChildSpec:
    needed = not name.startswith("spare-")
    what, _, argument = name.removeprefix("spare-").partition("=")
    command = [sys.executable, "-m", "tests.support.tiny", what, *([argument] if argument else [])]
    return ChildSpec(what, tuple(command), log_path(directory, what), essential_first=what == "serve", needed=needed)


def tell(service: Service, supervisor: Supervisor) -> None:
    known: dict[str, int] = {}
    while not service.stopping.wait(0.02):
        for name, pid in supervisor.pids().items():
            if known.get(name) != pid:
                known[name] = pid
                print(f"child {name} {pid}", flush=True)


def main() -> int:
    start_logging(Path(os.environ.get("TINY_LOG", os.devnull)), sys.stderr)
    stop_s = float(os.environ.get("TINY_STOP_S", "10"))
    return Service("tiny", stop_s=stop_s).main(lambda service: program(service, sys.argv[1:]))


if __name__ == "__main__":
    raise SystemExit(main())
