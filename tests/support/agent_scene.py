"""An agent with simulated hosts on a log in memory that fails on command, under a clock that is turned by hand."""

from pathlib import Path
from typing import Any

from dimint.batch import decode
from dimint.clock import ManualClock
from dimint.dedupe import WriterTable
from dimint.events import STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import TopicSpec
from dimint.producers.agent import Agent
from dimint.producers.delivery import Delivery
from dimint.producers.publish import LogPublisher
from dimint.producers.schedule import Schedule
from dimint.producers.simulated import SimulatedHost
from dimint.producers.sources import SimulatedFleet
from dimint.producers.spool import Spool
from dimint.testing import FaultyLog, memory_log
from dimint.writer import BatchWriter

__all__ = ["IDS", "PARTITIONS", "Scene"]

PARTITIONS = 4
IDS = [f"{number:032x}" for number in range(12)]


class Scene:
    """An agent with simulated hosts on a log that fails on command."""

    def __init__(self, folder: Path, *, hosts: int = len(IDS), interval_s: float = 2.0, **spool: Any) -> None:
        self._folder, self._hosts, self._interval_s, self._spool = folder, hosts, interval_s, spool
        self.clock = ManualClock()
        self.log = FaultyLog(memory_log([TopicSpec(STATUS_TOPIC, PARTITIONS)], clock=self.clock))
        self.start()

    def start(self) -> None:
        """A new process on the same spool: a new writer and new runs of the hosts."""
        self.writer = BatchWriter(self.log, clock=self.clock, host="here", process="agent/1")
        self.publisher = LogPublisher(self.writer, Genesis("g", 10_000, 8, PARTITIONS))
        self.spool = Spool(self._folder / "spool.db", self.clock, **self._spool)
        hosts = [SimulatedHost(1, number, interval_ms=round(1000 * self._interval_s)) for number in range(self._hosts)]
        source = SimulatedFleet(hosts, IDS[: self._hosts], self.clock)
        self.delivery = Delivery(self.publisher, self.spool, self.clock)
        schedule = Schedule(self._interval_s, self.clock.monotonic())
        self.agent = Agent([source], self.delivery, self.publisher, schedule, self.clock)

    def kill(self) -> None:
        """End as after kill -9: what is on disk is all that is left."""
        self.spool.close()
        self.publisher.close()

    def settle(self) -> None:
        """Let the log come back, until it has everything."""
        for _ in range(200):  # the writer's thread settles in real time, however slow this machine is at present
            if self.delivery.settled:
                return
            self.run(1)
            self.publisher.wait(0.05)
            self.delivery.pump()
        raise AssertionError("the log does not get everything")

    def run(self, seconds: float) -> None:
        """Let the loop run for a while; waits become turns of the clock."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            ahead = self.agent.step()
            self.publisher.wait(0.02)  # settling of unknown batches happens on the writer's own thread
            self.clock.advance(max(ahead, 0.01))

    def events(self) -> list[tuple[int, list[Any], int]]:
        """(partition, event, its absolute time) of every batch that counts."""
        found = []
        for partition in range(PARTITIONS):
            table = WriterTable()
            for record in self.log.read(STATUS_TOPIC, partition, 0, max_records=100_000, max_bytes=1 << 30):
                header, events, _ = decode(record.value)
                if table.take(header.writer, header.number, log_time_us=0):
                    found += [(partition, list(event), header.time_ns + event[2]) for event in events]
        return found

    def numbers(self) -> dict[str, list[int]]:
        """Host → its sample numbers in the order in which they first stand in the log."""
        found: dict[str, list[int]] = {host: [] for host in IDS}
        for _, event, _ in self.events():
            if event[0] == "host.sample" and event[5] not in found[event[1]]:
                found[event[1]].append(event[5])
        return found
