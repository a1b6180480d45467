"""The agent's loop on a log in memory, under a clock that is turned by hand."""

from collections.abc import Iterator
from typing import Any

import pytest

from dimint.batch import decode
from dimint.clock import ManualClock
from dimint.dedupe import WriterTable
from dimint.events import KINDS, STATUS_TOPIC, problem_of
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

PARTITIONS = 4
IDS = [f"{number:032x}" for number in range(12)]


class Scene:
    """An agent with twelve simulated hosts on a log that fails on command."""

    def __init__(self, folder: Any) -> None:
        self.clock = ManualClock()
        self.log = FaultyLog(memory_log([TopicSpec(STATUS_TOPIC, PARTITIONS)], clock=self.clock))
        self.writer = BatchWriter(self.log, clock=self.clock, host="here", process="agent/1")
        self.publisher = LogPublisher(self.writer, Genesis("g", 10_000, 8, PARTITIONS))
        self.spool = Spool(folder / "spool.db", self.clock)
        hosts = [SimulatedHost(1, number, interval_ms=2000) for number in range(len(IDS))]
        delivery = Delivery(self.publisher, self.spool, self.clock)
        schedule = Schedule(2.0, self.clock.monotonic())
        self.agent = Agent([SimulatedFleet(hosts, IDS, self.clock)], delivery, self.publisher, schedule, self.clock)
        self.delivery = delivery

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
                header, events = decode(record.value)
                if table.take(header.writer, header.number, log_time_us=0):
                    found += [(partition, event, header.time_ns + event[2]) for event in events]
        return found

    def numbers(self) -> dict[str, list[int]]:
        """Host → its sample numbers in the order in which they first stand in the log."""
        found: dict[str, list[int]] = {host: [] for host in IDS}
        for _, event, _ in self.events():
            if event[0] == "host.sample" and event[5] not in found[event[1]]:
                found[event[1]].append(event[5])
        return found


@pytest.fixture
def scene(tmp_path: Any) -> Iterator[Scene]:
    """A scene, taken down at the end."""
    scene = Scene(tmp_path)
    yield scene
    scene.publisher.close()
    scene.spool.close()


def test_events_are_what_the_table_says(scene: Scene) -> None:
    """Every event has the fields of its kind, stands in its host's partition and carries its own time."""
    scene.run(9)
    genesis = Genesis("g", 10_000, 8, PARTITIONS)
    for partition, event, time_ns in scene.events():
        assert event[0] in KINDS
        assert problem_of(event, STATUS_TOPIC) is None
        assert partition == genesis.status_partition(event[1])
        assert time_ns % 10**9 == 0, "ticks of this clock are whole seconds"
    kinds = [event[0] for _, event, _ in scene.events()]
    assert (kinds.count("host.registered"), kinds.count("host.sample")) == (12, 60)


def test_hosts_of_one_partition_share_a_batch(scene: Scene) -> None:
    """A tick is at most one record a partition, however many hosts there are."""
    scene.run(9)
    assert sum(scene.log.bounds(STATUS_TOPIC, partition).end for partition in range(PARTITIONS)) <= 5 * PARTITIONS


def test_registration_is_repeated_hourly(scene: Scene) -> None:
    """Who joins late learns every host's facts within the hour."""
    scene.agent.step()
    scene.publisher.wait(0.02)
    scene.clock.advance(3601)
    scene.agent.step()
    scene.publisher.wait(0.02)
    assert [event[0] for _, event, _ in scene.events()].count("host.registered") == 24


@pytest.mark.parametrize("fault", ["fail", "lose", "hide", "park"])
def test_faults_of_the_log_lose_nothing(scene: Scene, fault: str) -> None:
    """Records that fail, vanish, land unseen or land late: every number of every host is there, in order."""
    for _ in range(6):
        scene.run(4)
        getattr(scene.log, fault)(3)
    scene.run(4)
    scene.log.land()
    scene.run(60)
    for _ in range(100):  # the writer's thread settles in real time, however slow this machine is at present
        scene.publisher.wait(0.05)
        scene.delivery.pump()
        if scene.delivery.settled:
            break
        scene.run(1)
    assert scene.delivery.settled
    last = scene.numbers()[IDS[0]][-1]
    assert scene.numbers() == {host: list(range(1, last + 1)) for host in IDS}
    assert last >= 40


def test_the_end_leaves_nothing_in_memory(scene: Scene) -> None:
    """What the log does not take by the end waits in the spool."""
    scene.agent.step()
    scene.log.fail(1000)
    scene.clock.advance(2.0)
    scene.agent.step()
    scene.publisher.wait(0.02)
    scene.agent.stop()
    scene.delivery.close()
    assert scene.spool.events == 12
