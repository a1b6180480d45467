"""The change rows of a partition: bounded, and honest about where they begin."""

from dimint.batch import By, encode
from dimint.events import KV_TOPIC
from dimint.log.port import Record
from dimint.node.journal import Journal
from dimint.node.replica import Replica
from dimint.node.state import MemoryState, MemoryTable
from tests.support.placing import ONE


def _record(offset: int) -> Record:
    events = [["kv.set", f"key {offset}", 0, 0, None, b"J1", None, 0]]
    return Record(KV_TOPIC, 0, offset, offset * 1000, encode(b"w" * 16, offset + 1, 0, [By(None, "h", "p")], events))


def test_old_rows_are_dropped_and_the_floor_says_so() -> None:
    """Not more bytes than allowed stay; the rows that are there reach from the floor to the end."""
    side = MemoryTable()
    journal = Journal(side, 0, keep_bytes=1000)
    for offset in range(0, 200, 2):
        journal.add(offset, 5_000_000 + offset, [0, 5_000_000 + offset, 3, 4_999_000], {})
        side.save(journal.take_changes())
        assert sum(len(row) for key, row in side.rows.items() if key[:1] == b"h") <= 1000
    found = journal.find(0, 1000)
    assert [offset for offset, _ in found] == list(range(found[0][0], 200, 2))
    assert journal.floor == found[0][0] - 1
    assert found[0][1].changes == [0, 5_000_000 + found[0][0], 3, 4_999_000]
    again = Journal(side, 200, keep_bytes=1000)
    assert (again.floor, again.find(0, 1000)) == (journal.floor, found)


def test_a_store_from_before_the_rows_knows_nothing_of_its_past() -> None:
    """What was applied by a program that kept no rows is below the floor."""
    state = MemoryState()
    old = Replica(0, ONE, state)
    old.apply([_record(offset) for offset in range(5)])
    for key in [key for key in state.side.rows if key[:1] in b"hk"]:
        del state.side.rows[key]
    replica = Replica(0, ONE, state)
    replica.apply([_record(offset) for offset in range(5, 8)])
    assert replica.changes_floor == 5
    assert [change.key for change in replica.changes([_record(offset) for offset in range(5, 8)])] == ["key 5", "key 6", "key 7"]
