"""An agent whose log stands still: the embedded one and a real broker. Nothing is lost, and what came late says so."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from dimint.batch import FIELDS, decode
from dimint.errors import LogError
from dimint.events import STATUS_TOPIC
from dimint.log.opening import open_log
from dimint.system_clock import SystemClock
from tests.support.agent_process import agent
from tests.support.services.kafka import shared_broker
from tests.support.system import wait_until

Samples = list[tuple[int, dict[str, Any]]]


def samples_of(log_at: str) -> Samples:
    """(number, sample) of the one run in a log, in the log's order; empty while there is none."""
    found: Samples = []
    try:
        log = open_log(log_at, clock=SystemClock())
    except LogError:
        return found
    try:
        for partition in range(log.describe().topics.get(STATUS_TOPIC, 0)):
            at, end = log.bounds(STATUS_TOPIC, partition)
            while at < end:
                for record in log.read(STATUS_TOPIC, partition, at):
                    at = record.offset + 1
                    events = decode(record.value).events
                    found += [(event[FIELDS + 1], event[FIELDS + 2]) for event in events if event[0] == "host.sample"]
    finally:
        log.close()
    return found


@contextmanager
def no_commits(home: Path) -> Iterator[None]:
    """Hold the lock that every commit of the embedded log needs."""
    fd = os.open(home / "log" / f"{STATUS_TOPIC}.lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def standing_still() -> Iterator[None]:
    """Stop the broker's process for a while."""
    server = shared_broker().brokers[0].server
    server.pause()
    try:
        yield
    finally:
        server.resume()


def check(home: Path, log_at: str, away: Callable[[], AbstractContextManager[None]]) -> None:
    """Samples before, during and after the log stands still."""
    with agent(home, "--interval=0.2", f"--log={log_at}"):
        wait_until(lambda: len(samples_of(log_at)) > 5, 30, "samples in the log")
        with away():
            wait_until(lambda: "spool" in (home / "agent.out").read_text(), 15, "the spool in use")
            time.sleep(2)
        before = len(samples_of(log_at))
        wait_until(lambda: any(not sample.get("late") for _, sample in samples_of(log_at)[before:]), 60, "samples in time again")
    found = samples_of(log_at)
    numbers = [number for number, _ in found]
    first_seen = list(dict.fromkeys(numbers))
    assert first_seen == list(range(1, len(first_seen) + 1)), "all of them, in order"
    late = [number for number, sample in found if sample.get("late")]
    assert len(set(late)) >= 3
    assert max(sample["spool"]["events"] for _, sample in found) > 0


def test_the_embedded_log_stands_still(tmp_path: Path) -> None:
    """Whoever holds the log's lock keeps agents waiting; their samples wait on disk."""
    home = tmp_path / "home"
    check(home, str(home), lambda: no_commits(home))


def test_a_broker_stands_still(tmp_path: Path) -> None:
    """A broker that neither answers nor refuses: samples wait on disk until it does."""
    log_at = f"{shared_broker().url}/{os.urandom(6).hex()}"
    check(tmp_path / "home", log_at, standing_still)
