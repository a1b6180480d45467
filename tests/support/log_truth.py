"""What the log says, folded anew by a replica in memory: the judge of what clients were told."""

from collections.abc import Mapping

from dimint.door import Change
from dimint.events import KV_TOPIC
from dimint.log.opening import genesis_of
from dimint.log.port import Log
from dimint.node.replica import Replica
from dimint.node.state import MemoryState
from dimint.positions import Position

__all__ = ["all_changes", "ends"]


def ends(log: Log) -> dict[int, Position]:
    """The end of each partition of the key-value topic."""
    count = log.describe().topics[KV_TOPIC]
    return {partition: Position(log.bounds(KV_TOPIC, partition).end) for partition in range(count)}


def all_changes(log: Log, until: Mapping[int, Position]) -> dict[int, list[Change]]:
    """Every change below these positions, by partition."""
    changes = {}
    for partition, end in until.items():
        replica = Replica(partition, genesis_of(log), MemoryState())
        replica.watched = True
        while replica.next_offset < end.offset:
            records = log.read(KV_TOPIC, partition, replica.next_offset)
            replica.apply([record for record in records if record.offset < end.offset])
        changes[partition] = replica.take_fresh()
    return changes
