"""One partition of the log as state: records in, rows and outcomes out. [S]

The replica is a pure function of the records, however they are cut into calls of `apply`:

- dimint/log/reading.py says which batches count, and what log time is. Batches that do not count leave no trace, so a
  copy of the log without them gives the same state.
- A batch with an event that this program must not pass over halts the partition before anything of it is applied. A
  record that cannot be read here stops it too; neither is ever skipped.
- Position, dedupe, digest and outcomes are saved with the data by the same `save`; a store commits them together.

Side table of a partition: b"m" the fields of Meta as msgpack, b"w" + writer → number and log time µs, and the rows of
dimint/dedupe.py (c, o, t), dimint/node/outcomes.py (q, v), dimint/node/journal.py (h, k) and dimint/node/rows.py (d, e).

Speed: what mattered is that little is done for each event. A batch of plain sets is decoded and checked by one call
(dimint/batch.py); a key that the store has needs no hash to say where it belongs; rows are loaded, packed, hashed for the digest
and written once for all that happened between two saves, in key order by one call each (node/keyspace.py), so a rebuild saves
rarely; the garbage collector runs rarely (dimint/node/loop.py). ARCHITECTURE.md has figures.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

import msgpack
from xxhash import xxh3_64_digest

from dimint.batch import Batch, Header, decode
from dimint.dedupe import RequestWindows, WriterRow, WriterTable
from dimint.door import Change, Found, Outcome
from dimint.door import Replica as ReplicaState
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.limits import KEY_MAX_BYTES, SCAN_MAX_BYTES
from dimint.log.port import Record
from dimint.log.reading import Counted, Halt, Intake, Opened, Quarantine, open_record
from dimint.node.fold import Prepared, Unusable, fold, prepare
from dimint.node.journal import Journal, Made, changes_of
from dimint.node.keyspace import Keyspace
from dimint.node.outcomes import Known, OutcomeRing
from dimint.node.rows import HEAD, VALUE_AT, VERSION
from dimint.node.state import State

__all__ = ["DIGEST_EVERY", "META", "Applied", "Due", "Fingerprint", "Fresh", "Meta", "Page", "Problem", "Replica", "read_meta"]

DIGEST_EVERY = 4096
"""Replicas compare digests after the first record at or past each multiple of this offset."""
META = b"m"
_WRITER = Struct(">QQ")
_FEW_BYTES: Final = 1 << 19
"""Records are decoded and applied so many bytes at a time: what is touched again stays near the processor."""


class Fingerprint(NamedTuple):
    """Which record a store ends with: the log's generation, the record's offset (−1: none yet), its xxh3_64, and the
    leader's reign that it was appended in, −1 where the log tells none."""

    generation: str
    offset: int
    digest: bytes
    reign: int = -1


class Meta(NamedTuple):
    """Where a partition's store stands."""

    next_offset: int
    fingerprint: Fingerprint
    log_time_us: int
    key_count: int
    digest: int
    mark_at: int
    mark: int
    dead_letters: int


class Applied(NamedTuple):
    """One batch that counted and had outcomes."""

    offset: int
    writer: bytes
    number: int
    outcomes: dict[int, Outcome]


class Fresh(NamedTuple):
    """One batch that counted and changed something."""

    offset: int
    header: Header
    batch: Prepared
    made: Made


class Due(NamedTuple):
    """A key whose time is over at log time `expires_us`, if its version is still this one."""

    key: str
    version: int
    expires_us: int


class Page(NamedTuple):
    """Part of a scan; `more` says whether keys were left out at its end."""

    found: list[Found]
    more: bool


class Problem(NamedTuple):
    """Why a partition stands still. `unreadable`: reading the record again may help; else only another program does."""

    text: str
    unreadable: bool


def read_meta(row: bytes | None) -> Meta | None:
    """The fields of a store's META row."""
    if row is None:
        return None
    next_offset, fingerprint, log_time_us, key_count, digest, mark_at, mark, dead_letters = msgpack.unpackb(row)
    whole, marked = int.from_bytes(digest, "big"), int.from_bytes(mark, "big")
    return Meta(next_offset, Fingerprint(*fingerprint), log_time_us, key_count, whole, mark_at, marked, dead_letters)


class Replica:
    """One partition. `start` is the first offset to read if the state is empty."""

    def __init__(self, partition: int, genesis: Genesis, state: State, *, start: int = 0) -> None:
        self.partition = partition
        self.problem: Problem | None = None
        self._generation = genesis.generation
        self._state = state
        side = state.side
        meta = read_meta(side.get(META))
        if meta is None:
            meta = Meta(start, Fingerprint(genesis.generation, -1, b""), 0, 0, 0, -1, 0, 0)
        self._dead_before = meta.dead_letters
        self._last, self._mark_at, self._mark = meta.fingerprint, meta.mark_at, meta.mark
        self._keys = Keyspace(state, digest=meta.digest, key_count=meta.key_count)
        self._intake = Intake(
            KV_TOPIC,
            partition,
            genesis,
            position=meta.next_offset,
            log_time_us=meta.log_time_us,
            writers=WriterTable((key[1:], WriterRow(*_WRITER.unpack(row))) for key, row in side.scan(b"w", b"w", 1 << 30)),
        )
        self._windows = RequestWindows(side.get, lambda prefix, limit: side.scan(prefix, prefix, limit))
        self._ring = OutcomeRing(side)
        self._journal = Journal(side, meta.next_offset)
        self.watched = False
        """Whether `take_fresh` is to have what is applied."""
        self._fresh: list[Fresh] = []
        self._newest: Record | None = None
        """The last record since the last save."""
        self._before = meta.fingerprint.offset
        self.unsaved_bytes = 0
        """Bytes of records and of old rows that were taken in since the last save: about what is held in memory."""
        self.events = 0
        """Events of batches that counted, since this object was made."""

    @property
    def next_offset(self) -> int:
        """Every record below this is applied."""
        return self._intake.position

    @property
    def log_time_us(self) -> int:
        return self._intake.log_time_us

    @property
    def dead_letters(self) -> int:
        """Records that were no batches of ours, since the start of the log."""
        return self._dead_before + self._intake.dead_letters.total()

    @property
    def digest(self) -> int:
        """Digest of the keys and values now."""
        return self._keys.digest

    def fits_its_rows(self) -> bool:
        """Whether the digest is that of the rows, added up: about a second for a million keys."""
        return self._keys.added_up() == (self.digest, self.key_count)

    @property
    def key_count(self) -> int:
        return self._keys.key_count

    def apply(self, records: Sequence[Record]) -> list[Applied]:
        """Apply records of this partition in offset order and save the result; those below `next_offset` are passed over.

        Stops early when a record makes a problem; `problem` then says which, `next_offset` is that record's offset.
        """
        reported = self.advance(records)
        self.save()
        return reported

    def advance(self, records: Sequence[Record]) -> list[Applied]:
        """`apply` without saving, for who reads much of the log: the more is saved at once, the less there is to write.

        Until `save` nothing is in the store, nor found by whatever reads from it. Save when `unsaved_bytes` grows.
        """
        reported: list[Applied] = []
        records = [record for record in records if record.offset >= self.next_offset]
        while records and self.problem is None:
            count = _few(records)
            self._advance(records[:count], reported)
            records = records[count:]
        return reported

    def _advance(self, records: Sequence[Record], reported: list[Applied]) -> None:
        opened: list[tuple[Record, Opened, Prepared | str]] = []
        wanted: set[bytes | None] = set()
        for record in records:
            batch = open_record(record)
            prepared = _prepared(batch)
            if isinstance(prepared, Prepared):
                wanted.update(prepared.keys)
            opened.append((record, batch, prepared))
        wanted.discard(None)
        self.unsaved_bytes += self._keys.prepare(wanted)  # type: ignore[arg-type]
        intake, keys = self._intake, self._keys
        for record, batch, prepared in opened:
            if isinstance(prepared, Prepared):
                found = intake.judge(record, batch, problem=None, strangers=keys.strangers(prepared.keys))
                if isinstance(found, Counted):
                    self._fold(found, prepared, reported)
            else:
                found = intake.judge(record, batch, problem=prepared)
            if isinstance(found, Halt | Quarantine):
                text = f"record {record.offset} of {record.topic}/{record.partition}: {found.detail}"
                self.problem = Problem(text, unreadable=isinstance(found, Quarantine))
                return
            if record.offset // DIGEST_EVERY > self._before // DIGEST_EVERY:
                self._keys.settle()
                self._mark_at, self._mark = record.offset - record.offset % DIGEST_EVERY, self._keys.digest
            self._newest, self._before = record, record.offset
            self.unsaved_bytes += len(record.value)

    def _fold(self, counted: Counted, batch: Prepared, reported: list[Applied]) -> None:
        offset, log_time_us, header, events = counted
        self.events += len(events)
        outcomes = fold(batch, self._keys, self._windows, log_time_us)
        changes = self._keys.take_made()
        if changes:
            made = self._journal.add(offset, log_time_us, changes, outcomes)
            if self.watched:
                self._fresh.append(Fresh(offset, header, batch, made))
        if outcomes:
            reported.append(Applied(offset, header.writer, header.number, outcomes))
            self._ring.add(*reported[-1])

    def save(self) -> None:
        """Write what was applied since the last save; the store's owner then commits it."""
        if self._newest is None:
            return
        value, reign = self._newest.value, self._newest.reign
        self._last = Fingerprint(self._generation, self._before, xxh3_64_digest(value), reign)
        self._newest, self.unsaved_bytes = None, 0
        changes = self._keys.save(self.log_time_us)
        for writer, row in self._intake.writers.take_changes():
            changes[b"w" + writer] = None if row is None else _WRITER.pack(*row)
            if row is None:
                self._ring.forget([writer])
        changes.update(self._windows.take_changes(self.log_time_us))
        changes.update(self._ring.take_changes())
        changes.update(self._journal.take_changes())
        changes[META] = msgpack.packb(
            [
                self.next_offset,
                self._last,
                self.log_time_us,
                self.key_count,
                self.digest.to_bytes(16, "big"),
                self._mark_at,
                self._mark.to_bytes(16, "big"),
                self.dead_letters,
            ]
        )
        self._state.side.save({key: changes[key] for key in sorted(changes)})

    def get(self, keys: Sequence[str]) -> list[Found]:
        """The keys that are there, in the order asked."""
        found = []
        get = self._state.data.get
        for key in keys:
            encoded = key.encode()
            if 0 < len(encoded) <= KEY_MAX_BYTES and (row := get(encoded)) is not None:
                version, expires_us = HEAD.unpack_from(row)
                found.append(Found(key, row[VALUE_AT:], version, expires_us))
        return found

    def scan(self, prefix: str, after: str | None, limit: int) -> Page:
        """Keys with `prefix` and above `after`, in byte order: at most `limit`, and as many as SCAN_MAX_BYTES of keys and
        values allow, but at least one if there is one."""
        low = prefix.encode()
        above = b"" if after is None else after.encode()
        found: list[Found] = []
        size = 0
        if len(low) > KEY_MAX_BYTES:
            return Page(found, more=False)
        for key, row in self._state.data.scan(max(above[:KEY_MAX_BYTES], low), low, limit + 2):
            if key <= above:
                continue
            size += len(key) + len(row) - VALUE_AT
            if len(found) == limit or (found and size > SCAN_MAX_BYTES):
                return Page(found, more=True)
            version, expires_us = HEAD.unpack_from(row)
            found.append(Found(key.decode(), row[VALUE_AT:], version, expires_us))
        return Page(found, more=False)

    def due(self, before_us: int, limit: int) -> list[Due]:
        """Keys that expire before log time `before_us`, the earliest first."""
        found = []
        for key, row in self._state.side.scan(b"e", b"e", limit):
            expires_us = VERSION.unpack_from(key, 1)[0]
            if expires_us >= before_us:
                break
            found.append(Due(row[8:].decode(), VERSION.unpack_from(row)[0], expires_us))
        return found

    def outcomes_of(self, writer: bytes, number: int) -> Known | None:
        """Outcomes of a batch; None if it is not applied yet."""
        return None if self._intake.writers.counts(writer, number) else self._ring.find(writer, number)

    @property
    def changes_floor(self) -> int:
        """What the records from this offset on changed is known."""
        return self._journal.floor

    def take_fresh(self) -> list[Change]:
        """What was changed since the last call, while `watched`."""
        return [change for one in self.take_batches() for change in changes_of(one.offset, one.batch.events, one.made)]

    def take_batches(self) -> "list[Fresh]":
        """`take_fresh` by batches."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def changes(self, records: Sequence[Record]) -> list[Change]:
        """What these records changed: consecutive ones of the log, below `next_offset` and not below `changes_floor`."""
        if not records:
            return []
        made = dict(self._journal.find(records[0].offset, len(records)))
        found = []
        for record in records:
            if record.offset in made:
                found += changes_of(record.offset, decode(record.value).events, made[record.offset])
        return found

    def state(self, *, caught_up: bool) -> ReplicaState:
        """What goes into Progress."""
        return ReplicaState(
            self.partition,
            self.next_offset,
            self.key_count,
            self.log_time_us,
            caught_up,
            f"{self._mark:032x}" if self._mark_at >= 0 else "",
            self._mark_at,
            None if self.problem is None else self.problem.text,
            self.dead_letters,
        )


def _few(records: Sequence[Record]) -> int:
    """How many of the records are taken at once."""
    size = 0
    for count, record in enumerate(records, 1):
        size += len(record.value)
        if size >= _FEW_BYTES:
            return count
    return len(records)


def _prepared(batch: Opened) -> Prepared | str:
    """The batch ready to be applied, or a text that says why it is not."""
    try:
        return prepare(batch) if isinstance(batch, Batch) else ""
    except Unusable as error:
        return str(error)
