"""Replicas with other contents than the rest are found, shown and not asked."""

from functools import partial

from dimint.batch import By
from dimint.door import DISPUTED, Disputed, Replica
from dimint.events import KV_TOPIC
from dimint.node.replica import DIGEST_EVERY
from dimint.overlord.digests import DigestTable
from dimint.writer import BatchWriter, Outgoing
from tests.support.cluster_sim import Sim


def report(digest: str, at: int = DIGEST_EVERY, problem: str | None = None) -> list[Replica]:
    return [Replica(0, at + 10, 1, 0, True, digest, at, problem)]


def test_the_majority_counts_and_then_the_master() -> None:
    """Two against one name the one; one against one the slave; without a master nobody is trusted."""
    table = DigestTable(1)
    take = partial(table.take, masters=["m"])
    assert take("m", report("bad")) == []
    assert table.disputed == frozenset()
    (told,) = take("a", report("good"))
    assert told == Disputed(0, f"{DISPUTED} at offset 4096: good, but m bad")
    assert table.disputed == {("a", 0)}
    assert take("b", report("good")) == []
    assert table.disputed == {("m", 0)}
    assert take("a", report("good", problem=f"{DISPUTED} …")) == [Disputed(0, None)]
    alone = DigestTable(1)
    alone.take("a", report("x"), masters=[None])
    alone.take("b", report("y"), masters=[None])
    assert alone.disputed == {("a", 0), ("b", 0)}


def test_only_the_same_offset_is_compared() -> None:
    """Replicas that are behind are compared when they come there, also with one that is gone; other offsets say nothing."""
    table = DigestTable(1)
    take = partial(table.take, masters=["m"])
    take("m", report("one", 4096))
    take("m", report("two", 8192))
    take("s", report("zero", 0))
    assert table.disputed == frozenset()
    table.forget("m")
    take("s", report("other", 4096))
    assert table.disputed == {("s", 0)}, "a gone master's report counts"
    take("s", report("new", 12288))
    assert table.disputed == {("s", 0)}, "further on nothing is known yet"


def test_what_was_built_anew_is_trusted_again() -> None:
    """A replica that agrees at its latest offset serves again."""
    table = DigestTable(1)
    take = partial(table.take, masters=["m"])
    take("m", report("one", 4096))
    take("s", report("other", 4096))
    assert table.disputed
    take("s", report("zero", 0))
    take("s", report("one", 4096))
    assert table.disputed == frozenset()
    assert take("s", report("one", 4096, problem=f"{DISPUTED} …")) == [Disputed(0, None)]


def test_a_corrupted_replica_serves_no_reads() -> None:
    """One row differs on a slave: once both are past the same mark, `status` says so and every read comes from the master."""
    sim = Sim(3, nodes=2)
    sim.run(0.3)
    assert sim.assignment is not None
    partition = sim.genesis.partition_of_key(b"k")
    master, slave = sim.assignment.servers_of(partition)
    assert sim.ask(cmd="set", key="k", value="right") == {"value": "right"}
    sim.run(0.3)
    rows = sim.nodes[slave].replicas[partition]._state.data.rows  # type: ignore[attr-defined]
    rows[b"k"] = rows[b"k"].replace(b"right", b"wrong")
    assert "wrong" in {sim.ask(cmd="get", key="k")["value"] for _ in range(4)}
    writer = BatchWriter(sim.log, clock=sim.clock, host="h", process="p")
    by = (By(None, "h", "p"),)
    for number in range(DIGEST_EVERY):
        events = [["kv.set", "k" if number == 0 else "other", 0, 0, None, b"J1", None, 0]]
        writer.append([Outgoing(KV_TOPIC, partition, by, events)])[0].result(0)
    for _ in range(40):
        sim.run(0.2)
        replicas = sim.ask(cmd="status")["partitions"][partition]["replicas"]
        if replicas[slave]["problem"]:
            break
    assert replicas[slave]["problem"].startswith(DISPUTED)
    assert replicas[master]["problem"] is None
    (overlord,) = sim.overlords.values()
    assert overlord.core.reads.disputed == {(slave, partition)}
    assert overlord.core.reads.servers_of(partition) == [master]
    rows[b"k"] = b"\0" * 16 + b'J"wrong"'
    for consistency in ("weak", "strong"):
        assert {sim.ask(cmd="get", key="k", consistency=consistency)["value"] for _ in range(4)} == {1}
    sim.log.close()
