"""From the log into one table file: what the consumer does all day and a rebuild does once."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from xxhash import xxh3_128_digest

from dimint.consumers.projection import Changes
from dimint.consumers.tables import PartitionState, StatusTables
from dimint.consumers.tables_sealing import Keep
from dimint.dedupe import WriterTable
from dimint.errors import LogMismatch, OffsetOutOfRange
from dimint.events import STATUS_TOPIC
from dimint.log.port import Log, Record, TopicPartition
from dimint.log.reading import Counted, DeadLetter, Halt, Intake, Quarantine

__all__ = ["Feeder"]

log = logging.getLogger("dimint.consumer")
_DEAD_LOGGED_MAX: Final = 20
"""Dead letters that are logged one by one; all are counted."""


class Feeder:
    """Owns one table file and feeds it. One thread.

    Raises LogMismatch if the file was filled from another log, or from one that has lost what the file has seen;
    CorruptRecord if it is damaged.
    """

    def __init__(self, source: Log, path: Path, *, first_sequence: int, keep: Keep | None = None) -> None:
        description = source.describe()
        self._log = source
        self.tables = StatusTables(path, generation=description.generation, sequence=first_sequence, keep=keep)
        self.stopped: dict[int, str] = {}
        """Partitions that cannot be read on, and why."""
        self.events = 0
        """Events taken since the last commit."""
        try:
            if self.tables.generation != description.generation:
                raise LogMismatch(f"{path} was filled from log {self.tables.generation}, this is {description.generation}")
            self._states = self.tables.partitions()
            partitions = description.topics[STATUS_TOPIC]
            for partition, state in self._states.items():
                self._check(partition, state)
            self._intakes = {partition: self._intake(partition) for partition in range(partitions)}
            self._projection = self.tables.projection(partitions)
        except BaseException:
            self.tables.close()
            raise
        self._touched: set[int] = set()
        self._dead_logged = 0

    def close(self) -> None:
        """What was not committed is in the log. Idempotent."""
        self.tables.close()

    def positions(self) -> dict[TopicPartition, int]:
        """Where to read on, without the partitions that are stopped."""
        return {
            TopicPartition(STATUS_TOPIC, partition): intake.position
            for partition, intake in self._intakes.items()
            if partition not in self.stopped
        }

    @property
    def dead_letters(self) -> int:
        """Records since the start of this process that were none of ours; the tables count all."""
        return sum(intake.dead_letters.total() for intake in self._intakes.values())

    @property
    def pending(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._touched)

    def take(self, records: Iterable[Record]) -> bool:
        """Apply records; False if a partition has stopped, so that `positions` has become less."""
        stopped = len(self.stopped)
        for record in records:
            if record.partition not in self.stopped:
                self._take_one(record)
        return len(self.stopped) == stopped

    def go_to(self, partition: int, position: int) -> None:
        """Read on at another offset: an earlier one before anything was taken, or past what an archive has passed over."""
        intake = self._intakes[partition]
        intake.position = position
        self._states[partition] = PartitionState(position, None, None, intake.log_time_us)
        self._touched.add(partition)

    def skip_trimmed(self, partition: int, start: int) -> None:
        """Go on at `start`: what stood before it was trimmed before it was read here. Counted and said aloud."""
        intake = self._intakes[partition]
        missed = start - intake.position
        log.error("%s/%d: %d offsets were trimmed before these tables had read them", STATUS_TOPIC, partition, missed)
        self._projection.count("trimmed offsets", missed)
        self.go_to(partition, start)

    def commit(self) -> Changes | None:
        """Store what was taken since the last commit; what that was, None for nothing."""
        if not self._touched:
            return None
        writers = [(at, writer, row) for at in self._touched for writer, row in self._intakes[at].writers.take_changes()]
        changes = self._projection.take()
        self.tables.commit(changes, {at: self._states[at] for at in self._touched}, writers)
        self._touched.clear()
        self.events = 0
        return changes

    # --- inside -----------------------------------------------------------------------------------------------------
    def _take_one(self, record: Record) -> None:
        partition = record.partition
        intake = self._intakes[partition]
        taken = intake.take(record)
        if isinstance(taken, Halt | Quarantine):
            self.stopped[partition] = f"offset {taken.offset}: {taken.detail}"
            log.critical("%s/%d stops at offset %d: %s", STATUS_TOPIC, partition, taken.offset, taken.detail)
            return
        if isinstance(taken, Counted):
            self._projection.apply(partition, taken)
            self.events += len(taken.events)
        elif isinstance(taken, DeadLetter):
            self._projection.count(f"dead letter {taken.reason}")
            if self._dead_logged < _DEAD_LOGGED_MAX:
                self._dead_logged += 1
                log.error("%s/%d: offset %d is not one of our batches: %r", STATUS_TOPIC, partition, taken.offset, taken.detail)
        else:
            self._projection.count("repeated batch")
        self._states[partition] = PartitionState(
            intake.position, record.offset, xxh3_128_digest(record.value), intake.log_time_us
        )
        self._touched.add(partition)

    def _intake(self, partition: int) -> Intake:
        state = self._states.get(partition)
        if state is None:
            return Intake(STATUS_TOPIC, partition, position=self._log.bounds(STATUS_TOPIC, partition).start)
        writers = WriterTable(self.tables.writers(partition))
        return Intake(STATUS_TOPIC, partition, position=state.position, log_time_us=state.log_time_us, writers=writers)

    def _check(self, partition: int, state: PartitionState) -> None:
        """That the log still has the last record taken, unless it was trimmed."""
        path = self.tables.path
        try:
            bounds = self._log.bounds(STATUS_TOPIC, partition)
            if state.position > bounds.end:
                raise LogMismatch(f"{path} has read to {state.position} of partition {partition}, the log ends at {bounds.end}")
            if state.last_offset is None or state.last_offset < bounds.start:
                return
            records = self._log.read(STATUS_TOPIC, partition, state.last_offset, max_records=1)
        except OffsetOutOfRange as error:
            raise LogMismatch(f"{path} does not fit the log: {error}") from error
        if not records or records[0].offset != state.last_offset or xxh3_128_digest(records[0].value) != state.last_hash:
            raise LogMismatch(f"{path}: offset {state.last_offset} of partition {partition} is another record than it was")
