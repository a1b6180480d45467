"""Reading stretches of a log again: counted batches of many partitions in the order of their log times, then live.

A `Stream` reads every partition through an `Intake` of its own, like every reader of the log, so each batch counts once.
What it has handed out is its state: `states` is what a projection commits together with its own data, and a stream made
from it goes on where that one was, without a loss or a repetition.

A stream that starts in the middle of a partition first looks at the headers of the batches before it, as far back as
writers are remembered: a late copy of one of those is known for what it is.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from xxhash import xxh3_64_digest

from dimint.batch import decode_header
from dimint.dedupe import WriterRow, WriterTable
from dimint.errors import FormatError, LogError, LogMismatch, OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.limits import WRITER_KEEP_S
from dimint.log.opening import genesis_of
from dimint.log.port import Log, Reader, Record, TopicPartition
from dimint.log.reading import Counted, DeadLetter, Halt, Intake, Quarantine, Repeated
from dimint.replay.positions import Range, format_position
from dimint.replay.ranges import first_at, own_time_ns

__all__ = ["Item", "PartitionState", "Stream", "look_back"]

_CHUNKS_MAX_BYTES: Final = 64 << 20
"""What all partitions together may hold in memory."""
_CHUNK_MIN_BYTES: Final = 64 << 10
_CHUNK_MAX_BYTES: Final = 4 << 20

Passed: TypeAlias = Counted | Repeated | DeadLetter


class Item(NamedTuple):
    """One record, and what it means: a batch that counts, a repeated one, or a dead letter."""

    place: TopicPartition
    record: Record
    taken: Passed

    @property
    def logged_at_ns(self) -> int:
        """Log time of a counted batch in ns, never below the partition's before it."""
        assert isinstance(self.taken, Counted)
        own_ns = self.taken.header.logged_at_ns
        own_ns = self.record.timestamp_ns if own_ns is None else own_ns
        return max(own_ns, self.taken.log_time_us * 1000)


class PartitionState(NamedTuple):
    """How far a partition was read: what has to be stored with what was made of it.

    `last_offset` and `last_digest` (xxh3_64) name the last record taken, if any, so that a log that has lost or changed it
    is found out; `writers` is what keeps batches from counting twice.
    """

    position: int
    log_time_us: int
    last_offset: int | None
    last_digest: bytes
    writers: tuple[tuple[bytes, WriterRow], ...]


class Stream:
    """Reads ranges of a log, each partition from its range's start or from its stored state on.

    `history` gives what is there, `follow` what comes. The log stays the caller's to close; a stream belongs to one
    thread, but for `wake`. `look_back_s` is how much log time before a start in the middle is looked through for batches
    whose copies could follow; less is quicker and may take a repeated batch for a new one.

    Raises LogMismatch where the log is not the one that a state is of, and at a record that no reader may pass over;
    OffsetOutOfRange where the log was trimmed under the reader.
    """

    def __init__(
        self,
        log: Log,
        ranges: Iterable[Range],
        *,
        states: Mapping[TopicPartition, PartitionState] | None = None,
        look_back_s: float = WRITER_KEEP_S,
    ) -> None:
        self._log = log
        ranges = list(ranges)
        genesis = genesis_of(log) if any(each.topic == KV_TOPIC for each in ranges) else None
        chunk = min(max(_CHUNKS_MAX_BYTES // max(len(ranges), 1), _CHUNK_MIN_BYTES), _CHUNK_MAX_BYTES)
        self._cursors = {
            each.place: _open(log, genesis, each, (states or {}).get(each.place), chunk, look_back_s) for each in ranges
        }
        self._reader: Reader | None = None
        self.counts: Counter[str] = Counter()
        """What was passed over: "repeated" and the reasons of dead letters; and "batches" and "events" that count."""

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The next offset of every partition: everything before it was handed out, or does not count."""
        return {place: cursor.intake.position for place, cursor in self._cursors.items()}

    @property
    def done(self) -> bool:
        """Whether every range was read to its end; an open range has none."""
        return all(cursor.done for cursor in self._cursors.values())

    def left(self) -> int:
        """Offsets up to the ends of the ranges, or to the log's present ends where they are open: for progress."""
        left = 0
        for place, cursor in self._cursors.items():
            end = self._log.bounds(*place).end if cursor.end is None else cursor.end
            left += max(0, end - cursor.intake.position)
        return left

    def state(self, place: TopicPartition) -> PartitionState:
        """What to store of a partition, after the last item that was handed out."""
        return self._cursors[place].state()

    def history(self) -> Iterator[Item]:
        """Everything up to the ranges' ends, or to where the log ends meanwhile; the oldest log time first.

        Items of one partition come in its order, partitions are merged by log time, then by name: the same ranges give
        the same sequence.
        """
        waiting = []
        for number, cursor in enumerate(self._cursors.values()):
            due_us = cursor.peek()
            if due_us is not None:
                waiting.append((due_us, number, cursor))
        heapq.heapify(waiting)
        while waiting:
            _, number, cursor = waiting[0]
            yield self._counted(cursor.take())
            due_us = cursor.peek()
            if due_us is None:
                heapq.heappop(waiting)
            else:
                heapq.heapreplace(waiting, (due_us, number, cursor))

    def follow(self, wait_s: float = 1.0) -> Iterator[Item | None]:
        """What comes from here on, until every range is done; None whenever `wait_s` went by, or at `wake`."""
        if self._reader is None:
            self._reader = self._log.reader()
        self._assign()
        while not self.done:
            came = False
            for record in self._reader.poll(wait_s):
                cursor = self._cursors[TopicPartition(record.topic, record.partition)]
                if not cursor.done:
                    came = True
                    cursor.give(record)
                    if cursor.peek() is not None:
                        yield self._counted(cursor.take())
            if not came:
                yield None

    def wake(self) -> None:
        """Make `follow` give None now. From any thread."""
        if self._reader is not None:
            self._reader.wake()

    def close(self) -> None:
        """Idempotent."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _assign(self) -> None:
        assert self._reader is not None
        for cursor in self._cursors.values():
            cursor.drop_chunk()
        self._reader.assign({place: cursor.intake.position for place, cursor in self._cursors.items() if not cursor.done})

    def _counted(self, item: Item) -> Item:
        taken = item.taken
        if isinstance(taken, Counted):
            self.counts["batches"] += 1
            self.counts["events"] += len(taken.events)
        else:
            self.counts["repeated" if isinstance(taken, Repeated) else taken.reason] += 1
        return item


class _Cursor:
    """One partition. What was handed out is in the intake; the rest of the chunk was only looked at."""

    def __init__(self, log: Log, place: TopicPartition, end: int | None, intake: Intake, chunk_bytes: int) -> None:
        self.place, self.end, self.intake = place, end, intake
        self.last: Record | None = None
        self.stored_last: tuple[int | None, bytes] = (None, b"")
        self._log, self._chunk_bytes = log, chunk_bytes
        self._chunk: Sequence[Record] = ()
        self._at = 0

    @property
    def done(self) -> bool:
        return self.end is not None and self.intake.position >= self.end

    def peek(self) -> int | None:
        """Log time in µs that the next record brings; None at the end of the range, or of what the log has."""
        if self.done:
            return None
        if self._at >= len(self._chunk):
            self._chunk = self._log.read(*self.place, self.intake.position, max_bytes=self._chunk_bytes)
            self._at = 0
            if not self._chunk:
                return None
        record = self._chunk[self._at]
        if self.end is not None and record.offset >= self.end:
            self.intake.position = self.end
            return None
        own_ns = own_time_ns(record)
        return self.intake.log_time_us if own_ns is None else max(self.intake.log_time_us, own_ns // 1000)

    def take(self) -> Item:
        """The record that `peek` looked at."""
        record = self._chunk[self._at]
        taken = self.intake.take(record)
        if isinstance(taken, Halt | Quarantine):
            raise LogMismatch(f"{format_position(*self.place, taken.offset)} cannot be read: {taken.detail}")
        self._at += 1
        self.last = record
        return Item(self.place, record, taken)

    def give(self, record: Record) -> None:
        """A record that a reader brought takes the place of the chunk."""
        self._chunk, self._at = (record,), 0

    def drop_chunk(self) -> None:
        self._chunk, self._at = (), 0

    def state(self) -> PartitionState:
        offset, digest = self.stored_last
        if self.last is not None:
            offset, digest = self.last.offset, xxh3_64_digest(self.last.value)
        return PartitionState(self.intake.position, self.intake.log_time_us, offset, digest, tuple(self.intake.writers))


def _open(
    log: Log, genesis: Genesis | None, bounds: Range, state: PartitionState | None, chunk_bytes: int, look_back_s: float
) -> _Cursor:
    place = bounds.place
    if state is None:
        writers, log_time_us = look_back(log, place, bounds.start, look_back_s)
        intake = Intake(*place, genesis, position=bounds.start, log_time_us=log_time_us, writers=writers)
        return _Cursor(log, place, bounds.end, intake, chunk_bytes)
    _check(log, place, state)
    intake = Intake(*place, genesis, position=state.position, log_time_us=state.log_time_us, writers=WriterTable(state.writers))
    cursor = _Cursor(log, place, bounds.end, intake, chunk_bytes)
    cursor.stored_last = (state.last_offset, state.last_digest)
    return cursor


def look_back(log: Log, place: TopicPartition, start: int, look_back_s: float = WRITER_KEEP_S) -> tuple[WriterTable, int]:
    """Writers and log time in µs at an offset in the middle, from so much log time before it.

    Headers are enough, unless a writer's last number is that of a dead letter, which uses none.
    """
    writers, log_time_us = WriterTable(), 0
    first = log.bounds(*place).start
    if start <= first:
        return writers, log_time_us
    before = log.read(*place, start - 1, max_records=1)
    time_ns = own_time_ns(before[0]) if before else None
    if time_ns is not None:
        first = max(first, first_at(log, place, max(0, time_ns - round(look_back_s * 1e9))))
    last: dict[bytes, Record] = {}
    for record in _records(log, place, first, start):
        try:
            header = decode_header(record.value)
        except FormatError:
            continue
        own_ns = record.timestamp_ns if header.logged_at_ns is None else header.logged_at_ns
        if writers.take(header.writer, header.number, log_time_us=max(log_time_us, own_ns // 1000)):
            log_time_us = max(log_time_us, own_ns // 1000)
            last[header.writer] = record
    genesis = genesis_of(log) if place.topic == KV_TOPIC else None
    if any(isinstance(Intake(*place, genesis).take(record), DeadLetter) for record in last.values()):
        intake = Intake(*place, genesis)
        for record in _records(log, place, first, start):
            intake.position = record.offset
            intake.take(record)
        writers, log_time_us = intake.writers, intake.log_time_us
    writers.forget(log_time_us)
    writers.take_changes()
    return writers, log_time_us


def _records(log: Log, place: TopicPartition, start: int, end: int) -> Iterator[Record]:
    while start < end:
        records = log.read(*place, start, max_bytes=_CHUNK_MAX_BYTES)
        if not records:
            return
        for record in records:
            if record.offset >= end:
                return
            yield record
        start = records[-1].offset + 1


def _check(log: Log, place: TopicPartition, state: PartitionState) -> None:
    """That the log still has the record that the state ends with, unless it was trimmed."""
    where = format_position(*place, state.position)
    try:
        bounds = log.bounds(*place)
    except LogError as error:
        raise LogMismatch(f"{where} does not fit this log: {error}") from error
    if state.position > bounds.end:
        raise LogMismatch(f"what was stored has read to {where}, this log ends at {bounds.end}")
    if state.last_offset is None or state.last_offset < bounds.start:
        return
    try:
        records = log.read(*place, state.last_offset, max_records=1)
    except OffsetOutOfRange:
        records = []  # trimmed this moment
    if records and (records[0].offset != state.last_offset or xxh3_64_digest(records[0].value) != state.last_digest):
        raise LogMismatch(f"{format_position(*place, state.last_offset)} is another record than the one that was read")
