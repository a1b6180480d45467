"""A node run as users run it, and what stands around it: a log, a registry, an assignment, a client at its own door."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dimint import assignment as assignments
from dimint.assignment import ASSIGNMENT_PATH, Assignment, Group, PartitionPlace
from dimint.batch import By
from dimint.events import KV_TOPIC
from dimint.genesis import GenesisSettings
from dimint.log.opening import genesis, open_log
from dimint.registry.opening import open_registry
from dimint.service import READY_FD
from dimint.settings import ToolSettings
from dimint.system_clock import SystemClock
from dimint.writer import Appended, BatchWriter, Outgoing
from tests.support.forked import Forked

READY_S = 20.0


class Surroundings:
    """One data directory with a log of `partitions` partitions and a registry; this process writes and assigns."""

    def __init__(self, directory: Path, stack: ExitStack, *, partitions: int = 2) -> None:
        self.directory = directory
        self.clock = SystemClock()
        settings = ToolSettings(
            data_dir=directory, log=str(directory), zookeeper_hosts=(), hash_range=None, partitions=None, given=frozenset()
        )
        self.log = open_log(directory, clock=self.clock)
        stack.callback(self.log.close)
        wanted = GenesisSettings(kv_partitions=partitions)
        self.genesis = genesis(self.log, wanted=wanted, clock=self.clock, host="here", process="test")
        self.registry = open_registry(settings)
        stack.callback(self.registry.close)
        self.writer = BatchWriter(self.log, clock=self.clock, host="here", process="test")
        stack.callback(self.writer.close)
        self.by = By(None, "here", "test")

    def append(self, partition: int, events: Sequence[Sequence[Any]], *, client: str | None = None) -> Appended:
        """One batch, durable when this returns."""
        by = (self.by._replace(client=client),)
        return self.writer.append_and_wait(Outgoing(KV_TOPIC, partition, by, events), 10.0)

    def set(self, key: str, value: object) -> str:
        """Append one set; the token of what a reader must have seen."""
        partition = self.genesis.partition_of_key(key.encode())
        stored = b"J" + json.dumps(value).encode()
        done = self.append(partition, [["kv.set", key, 0, 0, None, stored, None, 0]])
        return f"{self.genesis.generation}:{partition}:{done.offset + 1}"

    def assign(self, epoch: int, *groups: Sequence[str], places: Sequence[int] | None = None) -> None:
        """Store an assignment: every partition to the first group, or to those in `places`."""
        found = self.registry.get(ASSIGNMENT_PATH)
        wanted = Assignment(
            epoch,
            tuple(Group(group[0], tuple(group[1:])) for group in groups),
            tuple(PartitionPlace(place) for place in (places or [0] * self.genesis.kv_partitions)),
        )
        self.registry.put(ASSIGNMENT_PATH, assignments.encode(wanted), version=0 if found is None else found.version)

    def node_address(self, node: str, *, seconds: float = 10.0) -> str:
        """Where a live node serves clients."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            info = self.registry.members("node").get(node)
            if info is not None:
                return str(info["client"])
            time.sleep(0.02)
        raise AssertionError(f"node {node} is not there after {seconds} s")


@contextmanager
def surroundings(directory: Path, *, partitions: int = 2) -> Iterator[Surroundings]:
    with ExitStack() as stack:
        yield Surroundings(directory, stack, partitions=partitions)


class NodeProcess:
    """`dimint node run` as a process."""

    def __init__(self, directory: Path, *, name: str = "1") -> None:
        self.home = directory / "nodes" / name
        self._read, write = os.pipe()
        self._messages = directory / f"node-{name}.messages"
        with self._messages.open("ab") as messages:
            self.process = Forked(
                [sys.executable, "-m", "dimint", "node", "run", "--data_dir", str(directory), "--node_name", name],
                env=os.environ | {READY_FD: str(write)},
                pass_fds=(write,),
                stderr=messages,
            )
        os.close(write)

    @property
    def id(self) -> str:
        return (self.home / "id").read_text().strip()

    def ready(self) -> str:
        """The line that it says when it serves, or why it does not."""
        with os.fdopen(self._read, closefd=False) as lines:
            return lines.readline().strip()

    def _close(self) -> None:
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """The exit code, when it ends by itself."""
        try:
            return self.process.wait(15)
        finally:
            self._close()

    def messages(self) -> str:
        """What it wrote for people so far."""
        return self._messages.read_text()
