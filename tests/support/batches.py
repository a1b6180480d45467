"""Batches with one event, whose key is all that matters, and what readers count of them."""

from dimint.batch import By
from dimint.log.port import Log
from dimint.log.reading import Counted, Intake
from dimint.writer import Outgoing
from tests.support.topics import TOPIC

__all__ = ["BY", "batch_of", "counted_keys"]

BY = (By("client", "host", "process"),)


def batch_of(key: str, partition: int = 0) -> Outgoing:
    return Outgoing(TOPIC, partition, BY, (["x", key, 0, 0],))


def counted_keys(log: Log, partition: int = 0) -> list[str]:
    """Keys of the events that count, as every reader sees them."""
    intake = Intake(TOPIC, partition)
    taken = [intake.take(record) for record in log.read(TOPIC, partition, 0)]
    return [event[1] for batch in taken if isinstance(batch, Counted) for event in batch.events]
