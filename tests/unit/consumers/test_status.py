"""The status projection and its tables: names, clocks, repeats, hostile events."""

from pathlib import Path
from typing import Any

import pytest

from dimint.consumers.reading import StatusReader
from dimint.consumers.seen import RANGES_MAX
from dimint.consumers.status import RUNS_MAX
from dimint.limits import SAMPLE_MAX_BYTES
from tests.support.samples import START_NS, Machine, host_id, registered, sample_event
from tests.support.status_log import PARTITIONS, StatusLog, feed, partition_of

ONE, TWO = host_id(1), host_id(2)
RUN = b"8 bytes."
SECOND = 1_000_000_000


def tables(log: StatusLog, folder: Path) -> StatusReader:
    """A reader of the tables that the log makes."""
    return StatusReader(feed(log, folder))


def test_nothing_is_an_empty_system(tmp_path: Path) -> None:
    """A reader of a folder that is not there finds no hosts, and creates nothing."""
    with StatusReader(tmp_path / "none") as reader:
        assert (reader.hosts(), reader.host("a"), reader.latest([ONE]), reader.last(ONE, 5)) == ([], None, {}, [])
        assert (reader.between(ONE, 0, 1, 5), reader.at(ONE, 1), reader.version(), reader.positions()) == ([], None, 0, {})
        assert reader.changed_since(-1) == (-1, set())
    assert not (tmp_path / "none").exists()


def test_a_host_and_its_samples(tmp_path: Path) -> None:
    """Facts, address and times of a host; its samples with the times of both clocks."""
    log = StatusLog()
    machine = Machine(1, gpus=1, cores=2)
    log.put([registered(ONE, "gpu-01.lab", "10.0.0.7", machine.facts)], logged_at_ns=START_NS)
    samples = []
    for at in range(3):
        samples.append(machine.step())
        log.put([sample_event(ONE, RUN, at + 1, samples[-1])], time_ns=machine.time_ns, logged_at_ns=machine.time_ns + 1000)
    with tables(log, tmp_path) as reader:
        (host,) = reader.hosts()
        assert (host.id, host.name, host.given_name, host.ip) == (ONE, "gpu_01_lab", "gpu-01.lab", "10.0.0.7")
        assert (host.facts, host.simulated, host.registered_ns) == (machine.facts, True, START_NS)
        assert host.last_sample_ns == machine.time_ns
        assert reader.host("gpu-01.lab") == reader.host("gpu_01_lab") == reader.host(ONE) == host
        assert reader.host("gpu") is None
        assert [stored.sample for stored in reader.last(ONE, 9)] == samples
        newest = reader.latest([ONE, TWO])[ONE]
        assert (newest.time_ns, newest.run, newest.seq) == (machine.time_ns, RUN, 3)
        assert 0 <= newest.received_ns - newest.time_ns <= 1000


def test_a_taken_name_gets_the_hosts_own_bits(tmp_path: Path) -> None:
    """Of two hosts of one name the first to say so keeps it; giving it up frees it."""
    log = StatusLog()
    log.put([registered(ONE, "gpu-01")], logged_at_ns=START_NS)
    log.put([registered(TWO, "gpu.01")], logged_at_ns=START_NS + SECOND)
    folder = tmp_path / "t"
    with tables(log, folder) as reader:
        assert {host.id: host.name for host in reader.hosts()} == {ONE: "gpu_01", TWO: f"gpu_01_{TWO[:8]}"}
        log.put([registered(ONE, "other")], logged_at_ns=START_NS + 2 * SECOND)
        before = reader.version()
        sequence, _ = reader.changed_since(-1)
        feed(log, folder)
        assert reader.version() != before
        assert reader.changed_since(sequence)[1] == {ONE, TWO}
        assert {host.id: host.name for host in reader.hosts()} == {ONE: "other", TWO: "gpu_01"}


def test_a_sample_makes_its_host_known(tmp_path: Path) -> None:
    """A host whose registration is not in the log is shown under its id."""
    log = StatusLog()
    log.put([sample_event(ONE, RUN, 1, {})])
    with tables(log, tmp_path) as reader:
        assert [host.name for host in reader.hosts()] == [ONE]


def test_a_clock_that_runs_ahead_hides_nothing(tmp_path: Path) -> None:
    """A sample from the future is placed at its log time, so that the next good one is the latest."""
    log = StatusLog()
    log.put([sample_event(ONE, RUN, 1, {"n": 1}, dt_ns=3600 * SECOND)], logged_at_ns=START_NS)
    log.put([sample_event(ONE, RUN, 2, {"n": 2}, dt_ns=SECOND)], logged_at_ns=START_NS)
    with tables(log, tmp_path) as reader:
        assert [(stored.time_ns, stored.sample) for stored in reader.last(ONE, 5)] == [
            (START_NS, {"n": 1}),
            (START_NS + SECOND, {"n": 2}),
        ]
        assert reader.counts() == {"clock ahead": 1}


def test_hostile_events_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Bad ids, runs, numbers, times, sizes and depths leave no row; good events beside them do."""
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    good = sample_event(ONE, RUN, 5, {"ok": True})
    bad: list[list[Any]] = [
        sample_event(ONE, b"", 1, {}),
        sample_event(ONE, b"x" * 33, 1, {}),
        sample_event(ONE, RUN, 0, {}),
        sample_event(ONE, RUN, 1 << 60, {}),
        sample_event(ONE, RUN, 1, {}, dt_ns=-(1 << 62)),
        sample_event(ONE, RUN, 1, {"blob": b"x" * SAMPLE_MAX_BYTES}),
        ["host.gap", ONE, 0, 0, RUN, 5, 4, "backwards"],
    ]
    log = StatusLog()
    for event in bad:
        log.put([event])
    log.put([good])
    log.put([good])
    elsewhere = next(host for host in map(host_id, range(9)) if partition_of(host) != partition_of(ONE))
    log.put([good, sample_event(elsewhere, RUN, 1, {}), sample_event("; drop table machines", RUN, 1, {})])
    log.put([sample_event("A" * 32, RUN, 1, {})])
    log.put([["made.up", "x", 0, 0], ["node.heartbeat", "n", 0, 0, {}, 3], ["gpu.back", ONE, 0, 0, "x" * (1 << 20)]])
    log.put([["host.gap", ONE, 0, 0, RUN, 1, 4, "spool full"]])
    log.put([["host.registered", ONE, 0, 0, "\x1b]52;c;x\a" + "n" * 300, "i" * 300, {"f": b"x" * SAMPLE_MAX_BYTES}]])
    for partition in range(PARTITIONS):
        log.put_raw(partition, b"not ours")
    with tables(log, tmp_path) as reader:
        assert [stored.sample for stored in reader.last(ONE, 5)] == [{"ok": True}]
        (host,) = reader.hosts()
        assert host.name.isprintable()
        assert len(host.name) <= 255
        assert reader.counts() == {
            "bad sample": 6, "bad gap": 1, "repeated sample": 2, "wrong partition": 1, "bad host id": 2, "unknown kind": 1,
            "ignored node.heartbeat": 1, "bad gpu.back": 1, "bad facts": 1, "dead letter foreign": PARTITIONS,
        }  # fmt: skip


def test_what_happens_on_hosts_is_kept_in_order(tmp_path: Path) -> None:
    """Each event of a host is a row of its lane, in order of its time; one from the future is put at its log time."""
    log = StatusLog()
    other = next(host for host in map(host_id, range(9)) if partition_of(host) != partition_of(ONE))
    log.put(
        [["gpu.lost", ONE, 5 * SECOND, 0, "GPU-1", "lost"], ["gpu.back", ONE, 2 * SECOND, 0, "GPU-1"]], logged_at_ns=START_NS * 2
    )
    log.put([["gpu.lost", other, 3 * SECOND, 0, "GPU-2", "hung"]], logged_at_ns=START_NS * 2)
    log.put([["gpu.back", ONE, 1 << 62, 0, "GPU-9"]], logged_at_ns=START_NS * 2)
    with tables(log, tmp_path) as reader:
        found = reader.events(0, 1 << 62)
        assert [(event.host, event.n, event.kind, event.time_ns - START_NS) for event in found] == [
            (ONE, 1, "gpu.back", 2 * SECOND), (other, 0, "gpu.lost", 3 * SECOND), (ONE, 0, "gpu.lost", 5 * SECOND),
            (ONE, 2, "gpu.back", START_NS),
        ]  # fmt: skip
        assert found[2].fields == {"uuid": "GPU-1", "state": "lost"}
        assert [event.n for event in reader.events(0, START_NS + 5 * SECOND, host_id=ONE, limit=1)] == [0]
        assert reader.events(0, START_NS + SECOND) == []


def test_runs_and_gaps_are_bounded(tmp_path: Path) -> None:
    """A host that starts anew all the time, or loses every other sample, costs bounded memory."""
    log = StatusLog()
    log.put([sample_event(ONE, at.to_bytes(4, "big"), 1, {}) for at in range(RUNS_MAX + 20)])
    log.put([sample_event(ONE, RUN, at, {}) for at in range(1, 2 * RANGES_MAX + 9, 2)])
    log.put([sample_event(ONE, (0).to_bytes(4, "big"), 1, {})])
    with tables(log, tmp_path) as reader:
        assert len(reader.last(ONE, 9999)) == RUNS_MAX + 20 + RANGES_MAX + 4 + 1


@pytest.mark.parametrize("size", [100, 30_000])
def test_big_samples_make_short_chunks(tmp_path: Path, size: int) -> None:
    """However large samples are, all come back in order."""
    log = StatusLog()
    for at in range(1, 501):
        log.put([sample_event(ONE, RUN, at, {"text": f"{at:05}" * (size // 5)}, dt_ns=at * SECOND)], logged_at_ns=START_NS * 2)
    with tables(log, tmp_path) as reader:
        assert [stored.seq for stored in reader.last(ONE, 1000)] == list(range(1, 501))
        assert [stored.seq for stored in reader.between(ONE, START_NS + 100 * SECOND, START_NS + 399 * SECOND, 5)] == [
            *range(100, 105)
        ]
