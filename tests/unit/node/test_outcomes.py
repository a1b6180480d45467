"""Outcomes as bytes, and the ring of the last batches that had some."""

import pytest

from dimint.door import Outcome
from dimint.node.outcomes import Known, OutcomeRing, pack, unpack
from dimint.node.state import MemoryTable

W, V = b"w" * 16, b"v" * 16


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("applied"),
        Outcome("applied", "-123456789012345678901234567890", 7),
        Outcome("condition", None, 0),
        Outcome("not_integer", None, 1 << 60),
        Outcome("superseded"),
        Outcome("forgotten"),
        Outcome("unused"),
    ],
    ids=lambda outcome: str(outcome.name),
)
def test_packed_outcomes_come_back(outcome: Outcome) -> None:
    """What is packed is unpacked, absent versions and version 0 told apart."""
    assert unpack(pack(outcome)) == outcome


@pytest.mark.parametrize("reopen", [False, True])
def test_the_ring_keeps_the_last_batches(reopen: bool) -> None:
    """What falls out is said to be unknown; batches without outcomes are known to have none."""
    table = MemoryTable()
    ring = OutcomeRing(table, keep=3)
    outcome = {2: Outcome("applied", "1", 5)}
    for number in range(1, 8):
        ring.add(100 + number, W, 2 * number, outcome)
        table.save(ring.take_changes())
        if reopen:
            ring = OutcomeRing(table, keep=3)
    assert [ring.find(W, number).kept for number in (1, 8, 9, 10, 14, 15)] == [False, False, True, True, True, True]
    assert ring.find(W, 14) == Known(107, outcome)
    assert ring.find(W, 11) == Known(-1, {})
    assert ring.find(V, 1) == Known(-1, {})
    ring.add(110, V, 1, outcome)
    assert ring.find(V, 1) == Known(110, outcome)
    ring.forget([W])
    table.save(ring.take_changes())
    assert sorted(key[:1] for key in table.rows) == [b"q", b"q", b"q"]
