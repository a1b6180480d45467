"""The agent as a process, and what it wrote."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from dimint.batch import decode
from dimint.errors import LogError
from dimint.events import STATUS_TOPIC
from dimint.log.opening import open_log
from dimint.system_clock import SystemClock
from tests.support.forked import Forked

Process: TypeAlias = "Forked | subprocess.Popen[bytes]"


@contextmanager
def agent(
    directory: Path, *flags: str, environment: dict[str, str] | None = None, start: type[Process] = Forked
) -> Iterator[Process]:
    """A running agent, ended at the end; what it says goes to a file. One that is weighed is started by subprocess.Popen."""
    base = environment if environment is not None else dict(os.environ)
    clean = {name: value for name, value in base.items() if not name.startswith("DIMINT_")}
    command = [sys.executable, "-m", "dimint", "agent", "run", f"--data_dir={directory}", *flags]
    directory.mkdir(exist_ok=True)
    with (directory / "agent.out").open("ab") as out:
        process = start(command, stdout=out, stderr=out, env=clean)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, (directory / "agent.out").read_text()


def status_events(directory: Path) -> list[list[Any]]:
    """Every event of the status topic, per partition in order; empty while there is no log."""
    found: list[list[Any]] = []
    try:
        log = open_log(directory, clock=SystemClock())
    except LogError:
        return found
    try:
        for partition in range(log.describe().topics.get(STATUS_TOPIC, 0)):
            for record in log.read(STATUS_TOPIC, partition, 0, max_records=100_000, max_bytes=1 << 30):
                found += map(list, decode(record.value).events)
    finally:
        log.close()
    return found


def numbers(events: list[list[Any]], at: int = 4) -> dict[tuple[str, bytes], list[int]]:
    """(host, run) → sample numbers in order; `at` is where an event's own fields start."""
    found: dict[tuple[str, bytes], list[int]] = {}
    for event in events:
        if event[0] == "host.sample":
            found.setdefault((event[1], event[at]), []).append(event[at + 1])
    return found
