"""Records → counted batches: the one way every reader of the log decides what a record means. [S]

`Intake` is one partition of one projection. What it holds (position, log time, writer table) belongs into the
projection's own commit. Of a record it makes one of:

    Counted      the batch counts: apply its events
    Repeated     a late or repeated copy of a batch: no effect
    DeadLetter   not a batch of ours, fields that no writer of ours makes, or a key that belongs into another partition:
                 counted by reason, no effect
    Halt         ours, from a newer program: the partition stops until this program is upgraded
    Quarantine   ours, but damaged here: the local store cannot be trusted to see what others see

The first three move the position on, Halt and Quarantine do not. Log time is the running maximum over counted batches of
the header's `logged_at_ns`, or else the record's timestamp; it is kept in µs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from dimint.batch import KEY, KIND, MAGIC, Batch, Event, Header, decode
from dimint.dedupe import WriterTable
from dimint.errors import CorruptRecord, FormatError, UnknownVersion
from dimint.events import KINDS, KV_TOPIC, is_critical, problem_of
from dimint.genesis import Genesis
from dimint.log.port import Record

__all__ = ["Counted", "DEAD_REASONS", "DeadLetter", "Halt", "Intake", "Opened", "Quarantine", "Repeated", "Taken", "open_record"]


class Counted(NamedTuple):
    """A batch that counts. `log_time_us` is the partition's log time from this batch on."""

    offset: int
    log_time_us: int
    header: Header
    events: Sequence[Event]


class Repeated(NamedTuple):
    """A batch whose number is not higher than the last counted one of its writer."""

    offset: int
    header: Header


DEAD_REASONS = ("foreign", "framing", "fields", "partition")


class DeadLetter(NamedTuple):
    """`reason` is "foreign", "framing", "fields" or "partition"; `detail` says what is wrong."""

    offset: int
    reason: str
    detail: str


class Halt(NamedTuple):
    offset: int
    detail: str


class Quarantine(NamedTuple):
    offset: int
    detail: str


Taken: TypeAlias = Counted | Repeated | DeadLetter | Halt | Quarantine

_SHAPES_MAX, _SHAPE_MAX_LENGTH = 4096, 32


Opened: TypeAlias = Batch | FormatError


def open_record(record: Record) -> Opened:
    """The batch in a record, or why there is none: what `Intake.judge` takes."""
    try:
        return decode(record.value)
    except FormatError as error:
        return error


class Intake:
    """One partition. `position` is the next offset to be taken, `log_time_us` and `writers` are what a commit restored.

    `genesis` says which keys belong into the partition: no record of KV_TOPIC can be judged without it.

    After each `take` the owner may call `writers.take_changes()` for what its commit has to store.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        genesis: Genesis | None = None,
        *,
        position: int = 0,
        log_time_us: int = 0,
        writers: WriterTable | None = None,
    ) -> None:
        assert genesis is not None or topic != KV_TOPIC, "keys have partitions"
        self.topic, self.partition = topic, partition
        self._genesis = genesis if topic == KV_TOPIC else None
        self.position = position
        self.log_time_us = log_time_us
        self.writers = WriterTable() if writers is None else writers
        self.dead_letters: Counter[str] = Counter()
        self.repeated = 0
        self.unknown_events = 0
        """Events of unknown kinds passed over; only where unknown kinds are not critical."""
        self._critical = is_critical(topic)
        # kind and field types of events that were sound: `problem_of` looks at nothing else
        self._sound: set[tuple[object, ...]] = set()

    def take(self, record: Record) -> Taken:
        """Judge one record of this partition; offsets must not go back."""
        return self.judge(record, open_record(record))

    def judge(
        self, record: Record, opened: Opened, *, problem: str | None = "", strangers: Iterable[bytes] | None = None
    ) -> Taken:
        """`take` for who has opened the record already, and knows more about it.

        `problem` is None if every event was found to be known and sound in kind and types, else a text that halts the
        partition if the batch counts and is no dead letter by the rules above. `strangers` are the keys that are not known
        to belong into the partition, in the order of the batch; None: all of them.
        """
        offset = record.offset
        assert offset >= self.position, "offsets must not go back"
        if not isinstance(opened, Batch):
            return self._unopened(record, opened)
        header, events, plain = opened
        if problem != "" and not self.writers.counts(header.writer, header.number):
            problem = ""  # a copy: nobody will apply it, whatever is in it
        unknown = 0
        if problem is not None and not (plain and self.topic == KV_TOPIC):
            for event in events:
                if (event[KIND], *map(type, event)) not in self._sound:
                    verdict = self._examine(offset, events)
                    if not isinstance(verdict, int):
                        return verdict
                    unknown = verdict
                    break
        if self._genesis is not None:
            if strangers is None:
                strangers = [event[KEY].encode() for event in events if event[KEY] is not None]
            stray = self._genesis.stray_key(strangers, self.partition)
            if stray is not None:
                home = self._genesis.partition_of_key(stray)
                return self._dead(offset, "partition", f"key {stray.decode()!a:.100} belongs into partition {home}")
        if problem:
            return Halt(offset, problem)
        self.position = offset + 1
        now_us = (record.timestamp_ns if header.logged_at_ns is None else header.logged_at_ns) // 1000
        if not self.writers.take(header.writer, header.number, log_time_us=max(now_us, self.log_time_us)):
            self.repeated += 1
            return Repeated(offset, header)
        if now_us > self.log_time_us:
            self.log_time_us = now_us
            self.writers.forget(now_us)
        self.unknown_events += unknown
        return Counted(offset, self.log_time_us, header, events)

    def _unopened(self, record: Record, error: FormatError) -> DeadLetter | Halt | Quarantine:
        if isinstance(error, UnknownVersion):
            return Halt(record.offset, str(error))
        if isinstance(error, CorruptRecord):
            return Quarantine(record.offset, str(error))
        return self._dead(record.offset, "framing" if record.value[:4] == MAGIC else "foreign", str(error))

    def _examine(self, offset: int, events: Sequence[Event]) -> DeadLetter | Halt | int:
        """Look at each event of a batch; the number of unknown ones if the batch is sound."""
        unknown = [event[KIND] for event in events if event[KIND] not in KINDS]
        if unknown and self._critical:
            return Halt(offset, f"unknown kind of event {unknown[0]!r:.100}; upgrade this program")
        for event in events:
            if event[KIND] in KINDS:
                problem = problem_of(event, self.topic)
                if problem is not None:
                    return self._dead(offset, "fields", problem)
                shape = (event[KIND], *map(type, event))
                if len(self._sound) < _SHAPES_MAX and len(shape) < _SHAPE_MAX_LENGTH:
                    self._sound.add(shape)
        return len(unknown)

    def _dead(self, offset: int, reason: str, detail: str) -> DeadLetter:
        self.position = offset + 1
        self.dead_letters[reason] += 1
        return DeadLetter(offset, reason, detail)
