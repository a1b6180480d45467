"""Replicas with other contents than the rest are found, shown and not asked."""

import msgspec
import pytest

from dimint.batch import By
from dimint.door import DISPUTED, Building, Disputed, Outcome, Outcomes, Replica
from dimint.events import KV_TOPIC
from dimint.node.replica import DIGEST_EVERY
from dimint.overlord.digests import DigestTable
from dimint.writer import BatchWriter, Outgoing
from tests.support.cluster_sim import Sim


def report(digest: str, at: int = DIGEST_EVERY, problem: str | None = None, *, anew: bool = False) -> list[Replica]:
    return [Replica(0, at + 10, 1, 0, True, digest, at, problem, anew=anew)]


def test_without_a_majority_nobody_is_right() -> None:
    """One against one leaves both in doubt, the master too; two against one name the one."""
    table = DigestTable(1)
    assert table.take("m", report("bad")) == []
    assert table.disputed == frozenset()
    (told,) = table.take("a", report("good"))
    assert told == Disputed(0, f"{DISPUTED} at offset 4096: good, but m bad")
    assert table.disputed == {("a", 0), ("m", 0)}
    assert table.take("m", report("bad")) == [Disputed(0, f"{DISPUTED} at offset 4096: bad, but a good")]
    assert table.take("b", report("good")) == []
    assert table.disputed == {("m", 0)}
    assert table.take("a", report("good", problem=f"{DISPUTED} …")) == [Disputed(0, None)]


def test_what_was_built_anew_from_the_log_is_right() -> None:
    """Against one other, against two, and alone at its offset while the other builds itself anew too."""
    for others in ("a", "ab"):
        table = DigestTable(1)
        for other in others:
            table.take(other, report("bad"))
        assert table.take("x", report("good"))
        assert ("x", 0) in table.disputed
        assert table.take("x", report("good", anew=True)) == []
        assert table.disputed == {(other, 0) for other in others}
        for other in others:
            assert table.take(other, report("bad"))[0].text is not None
    first, last = others[0], others[-1]
    table.take(first, report("", at=0, anew=True))
    assert (last, 0) in table.disputed
    assert table.take(first, report("good", anew=True)) == []
    assert table.disputed == {(last, 0)}
    assert table.take(last, report("good", anew=True)) == [Disputed(0, None, agreed=True)]
    assert table.disputed == frozenset()
    assert table.take("x", report("good", anew=True)) == [Disputed(0, None, agreed=True)]
    assert table.take("x", report("good")) == []


def test_two_that_were_built_anew_and_differ_are_both_wrong() -> None:
    """That is a fault of the programs: nothing is served until somebody looks."""
    table = DigestTable(1)
    table.take("a", report("one", anew=True))
    table.take("b", report("two", anew=True))
    table.take("c", report("two"))
    assert table.disputed == {("a", 0), ("b", 0), ("c", 0)}


def test_agreement_is_not_told_while_a_replica_is_being_built() -> None:
    """It passes offsets at which the others were right still."""
    table = DigestTable(1)
    for at, digest in ((4096, "same"), (8192, "bad")):
        table.take("a", report(digest, at))
    table.take("x", report("good", 8192))
    state = report("same", 4096, f"{DISPUTED} …", anew=True)[0]
    half = msgspec.structs.replace(state, caught_up=False, building=Building("log", "", 50.0, 1.0))
    assert table.take("x", [half]) == []
    assert table.take("x", report("good", 8192, anew=True)) == []
    assert table.disputed == {("a", 0)}


def test_only_the_same_offset_is_compared() -> None:
    """Replicas that are behind are compared when they come there, also with one that is gone; other offsets say nothing."""
    table = DigestTable(1)
    take = table.take
    take("m", report("one", 4096))
    take("m", report("two", 8192))
    take("s", report("zero", 0))
    assert table.disputed == frozenset()
    table.forget("m")
    take("s", report("other", 4096))
    assert table.disputed == {("s", 0)}, "what one that is gone reported counts"
    take("s", report("new", 12288))
    assert table.disputed == {("s", 0)}, "further on nothing is known yet"


def test_what_was_built_anew_is_trusted_again() -> None:
    """A replica that agrees at its latest offset serves again."""
    table = DigestTable(1)
    take = table.take
    take("m", report("one", 4096))
    take("s", report("other", 4096))
    assert table.disputed
    take("s", report("zero", 0))
    take("s", report("one", 4096))
    assert table.disputed == frozenset()
    assert take("s", report("one", 4096, problem=f"{DISPUTED} …")) == [Disputed(0, None, agreed=True)]


@pytest.mark.parametrize("wrong", ["master", "slave"])
def test_a_corrupted_replica_serves_no_reads(wrong: str) -> None:
    """A row differs on one of two: once both are past the same mark, the log decides, and nobody reads what is wrong."""
    sim = Sim(3, nodes=2)
    sim.run(0.3)
    assert sim.assignment is not None
    partition = sim.genesis.partition_of_key(b"k")
    node = dict(zip(("master", "slave"), sim.assignment.servers_of(partition), strict=True))[wrong]
    keys = [key for key in map(str, range(100)) if sim.genesis.partition_of_key(key.encode()) == partition][:2]
    for key in keys:
        assert sim.ask(cmd="set", key=key, value="right") == {"value": "right"}
    sim.run(0.3)
    rows = sim.nodes[node].replicas[partition]._state.data.rows  # type: ignore[attr-defined]
    for key in keys:
        rows[key.encode()] = rows[key.encode()].replace(b"right", b"wrong")
    assert "wrong" in {sim.ask(cmd="get", key=keys[0])["value"] for _ in range(4)}
    writer = BatchWriter(sim.log, clock=sim.clock, host="h", process="p")
    by = (By(None, "h", "p"),)
    for number in range(DIGEST_EVERY):
        events = [["kv.set", keys[1], 0, 0, None, b"J1", None, 0]] if number == 0 else [["barrier", None, 0, 0]]
        writer.append([Outgoing(KV_TOPIC, partition, by, events)])[0].result(0)
    seen: set[str] = set()
    for _ in range(1000):
        sim.run(0.05)
        replicas = sim.ask(cmd="status")["partitions"][partition]["replicas"]
        now = {node for node, replica in replicas.items() if replica["problem"]}
        assert all(replica["problem"].startswith(DISPUTED) for replica in replicas.values() if replica["problem"])
        seen |= now
        if now:
            assert sim.ask(cmd="get", key=keys[0]).get("value", "right") == "right"
        elif seen:
            break
    assert seen == sim.nodes.keys(), "both were in doubt"
    assert {sim.ask(cmd="get", key=keys[0])["value"] for _ in range(4)} == {"right"}
    replicas = sim.ask(cmd="status")["partitions"][partition]["replicas"]
    assert [replica["problem"] for replica in replicas.values()] == [None, None]
    assert len({replica["digest"] for replica in replicas.values()}) == 1
    sim.run(1.0)
    assert not any(found.renewed for found in sim.nodes.values()), "they know that they agree"
    sim.log.close()


def test_outcomes_of_a_disputed_master_are_not_believed() -> None:
    """What an increment came to is asked of another replica then."""
    sim = Sim(4, nodes=2)
    sim.run(0.3)
    assert sim.assignment is not None
    master, slave = sim.assignment.servers_of(0)
    (overlord,) = sim.overlords.values()
    told = Outcomes(0, overlord.core.outcomes._writer, 999, 5, {0: Outcome("applied", "90", 1)})
    overlord.core.reads.disputed = frozenset({(master, 0)})
    overlord.core.from_node(master, told, sim.now)
    assert (0, 999) not in overlord.core.outcomes._early
    overlord.core.from_node(slave, told, sim.now)
    assert (0, 999) in overlord.core.outcomes._early
    sim.log.close()
