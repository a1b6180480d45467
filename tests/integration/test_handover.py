"""A node that is stopped hands over what it serves: nobody who reads or writes notices."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dimint.batch import decode
from dimint.client import Client
from dimint.errors import DimintError
from dimint.events import CLUSTER_TOPIC
from dimint.log.opening import open_log
from dimint.system_clock import SystemClock
from tests.support.kv_system import KvSystem, kv_system
from tests.support.services.kafka import shared_broker
from tests.support.services.zookeeper import ZooKeeperEnsemble
from tests.support.system import OldClient

KEYS = 40


class Watched:
    """What the readers and writers saw."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.count = 0
        self.slowest_s = 0.0

    def note(self, began: float) -> None:
        self.count += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)


@contextmanager
def in_use(system: KvSystem) -> Iterator[Watched]:
    """Readers of each kind and a counting writer, with next to no pause, while the body runs."""
    watched = Watched()
    over = threading.Event()

    def read(consistency: str) -> None:
        with Client(system.addresses) as client:
            number = 0
            while not over.wait(0.002):
                number += 1
                began = time.monotonic()
                try:
                    found = client.get(f"k{number % KEYS}", consistency=consistency)
                except DimintError as error:
                    watched.problems.append(f"{consistency}: {error!r}")
                    return
                if found != number % KEYS:
                    watched.problems.append(f"{consistency}: k{number % KEYS} is {found}")
                watched.note(began)

    def read_raw() -> None:
        with OldClient(f"tcp://{system.address}") as client:
            number = 0
            while not over.wait(0.002):
                number += 1
                began = time.monotonic()
                reply = client("get", key=f"k{number % KEYS}")
                if reply.get("value") != number % KEYS:
                    watched.problems.append(f"raw: {reply}")
                watched.note(began)

    def count() -> None:
        with Client(system.addresses) as client:
            number = 0
            while not over.wait(0.002):
                number += 1
                began = time.monotonic()
                found = client.incr(f"n{number % 8}")
                if found != (number - 1) // 8 + 1:
                    watched.problems.append(f"n{number % 8} is {found}")
                watched.note(began)

    threads = [threading.Thread(target=read, args=(kind,)) for kind in ("weak", "session", "strong")]
    threads += [threading.Thread(target=read_raw), threading.Thread(target=count)]
    for thread in threads:
        thread.start()
    try:
        yield watched
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("slaves", [1, 0])
def test_nobody_notices_a_master_that_is_stopped(tmp_path: Path, slaves: int) -> None:
    """With a slave, which becomes the master, and without one, where everything moves first; then it comes back."""
    stop_the_master(tmp_path, slaves=slaves)


def test_nobody_notices_it_on_kafka_and_zookeeper(tmp_path: Path) -> None:
    """The same where strong reads need barriers and members have sessions."""
    log = f"{shared_broker().url}/{os.urandom(6).hex()}"
    with ZooKeeperEnsemble(tick_ms=200) as ensemble:
        stop_the_master(
            tmp_path, slaves=1, log=log, flags=[f"--log={log}", f"--zookeeper_hosts={ensemble.hosts}", "--zookeeper_session=4"]
        )


def cluster_history(location: str | Path) -> list[str]:
    """What the cluster topic tells, in its order: who left, and the nodes that each assignment is the first one without."""
    told: list[str] = []
    known: set[str] = set()
    with closing(open_log(location, clock=SystemClock())) as log:
        for record in log.read(CLUSTER_TOPIC, 0, 0):
            for event in decode(record.value).events:
                if event[0] == "node.left":
                    told.append(f"left {event[1]}")
                elif event[0] == "cluster.assigned":
                    there = {node for master, slaves in event[5]["groups"] for node in (master, *slaves)}
                    told += [f"assigned without {node}" for node in known - there]
                    known |= there
    return told


def stop_the_master(directory: Path, *, slaves: int, log: str = "", flags: Sequence[str] = ()) -> None:
    with kv_system(directory, nodes=2, slaves=slaves, flags=flags) as system, Client(system.address) as client:
        for number in range(KEYS):
            client.set(f"k{number}", number)
        status = client.status()
        master = status["partitions"][0]["master"]
        pids = {node["node_id"]: node["pid"] for node in status["nodes"]}
        (other,) = pids.keys() - {master}
        name = next(name for name, process in system.processes.items() if process.pid == pids[master])
        with in_use(system) as watched:
            time.sleep(0.3)
            process = system.processes.pop(name)
            process.terminate()
            assert process.wait(15) == 0
            assert {part["master"] for part in client.status()["partitions"]} == {other}
            time.sleep(0.3)
        assert watched.problems == []
        assert watched.count > 100
        assert watched.slowest_s < 1.5
        history = cluster_history(log or directory)
        assert history.index(f"left {master}") > history.index(f"assigned without {master}")
        system.start(name)
        system.wait_ready()
