"""The agent's loop on a log in memory, under a clock that is turned by hand."""

from collections.abc import Iterator
from typing import Any

import pytest

from dimint.events import KINDS, STATUS_TOPIC, problem_of
from dimint.genesis import Genesis
from tests.support.agent_scene import IDS, PARTITIONS, Scene


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
