"""Batches of one log, or of an archive, appended to another log: the same ids, log times and order, none twice.

A copy keeps its batch's writer and number, so readers of the target count it once however often it was sent; its header
says where it was read, so a copying that was interrupted finds in the target's own last records where to go on.

Within a partition nothing is handed over before what stands before it is settled: a reader passes over a batch whose
successor came first. A log that takes the entries of a call all or not at all gets many at once.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Final, NamedTuple

from dimint.batch import KIND, Origin, copy_record, decode, decode_header
from dimint.errors import (
    AppendFailed,
    AppendUnknown,
    BadArchive,
    FormatError,
    LogBroken,
    LogMismatch,
    LogUnavailable,
    SettingsError,
)
from dimint.events import CLUSTER_TOPIC
from dimint.genesis import Genesis, from_event
from dimint.log.opening import create_topics, find_genesis
from dimint.log.port import Entry, Log, TopicPartition, TopicSpec
from dimint.log.reading import Counted
from dimint.replay.archive import Row
from dimint.replay.positions import Range
from dimint.replay.ranges import own_time_ns
from dimint.replay.stream import Item, Stream

__all__ = ["Copier", "Incoming", "Prepared", "find_genesis_row", "genesis_in", "prepare", "row_of"]

_QUEUED_MAX_BYTES: Final = 32 << 20
_ROWS_TOGETHER_MAX: Final = 2000
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.05, 1.0
_GIVE_UP_S: Final = 120.0
"""After so long without any record taken the target counts as gone; the same command goes on later."""


def row_of(item: Item) -> Row:
    """A counted batch of a stream, to be copied."""
    return Row(*item.place, item.record.offset, item.logged_at_ns, item.record.value)


def find_genesis_row(log: Log) -> Row:
    """The batch that holds a log's genesis. Raises LogMismatch if there is none."""
    if CLUSTER_TOPIC in log.describe().topics:
        start, end = log.bounds(CLUSTER_TOPIC, 0)
        for item in Stream(log, [Range(CLUSTER_TOPIC, 0, start, end)]).history():
            if isinstance(item.taken, Counted) and any(event[KIND] == "cluster.genesis" for event in item.taken.events):
                return row_of(item)
    raise LogMismatch(f"the log {log.describe().url} has no genesis", hint="it is empty, or was trimmed or damaged")


class Incoming(NamedTuple):
    """What is to be copied: from which log, its genesis, the ranges, and for ranges that hold any the log time of their
    first batch. `batches_before` counts the batches of a range below an offset."""

    source: str
    genesis: Row
    ranges: Sequence[Range]
    first_ns: Mapping[TopicPartition, int]
    batches_before: Callable[[TopicPartition, int], int]


class Prepared(NamedTuple):
    """The first offset of each range that the target does not have, and whether the genesis was copied for it just now."""

    start: dict[TopicPartition, int]
    began: bool


def prepare(target: Log, incoming: Incoming, *, dry: bool = False) -> Prepared:
    """Make a log ready for copies.

    One without a genesis gets the source's; another one must have the same hash range and partition counts, because a
    key's events stay in their partition. What is copied follows what the target has of the source without a gap, and is
    not older than anything else it has, or it would be history behind history. LogMismatch says what is wrong, before any
    batch of the ranges is written. A `dry` call only looks.
    """
    if target.describe().generation == incoming.source:
        raise SettingsError("a log cannot be copied into itself", hint="name another one")
    wanted = genesis_in(incoming.genesis, incoming.source)
    found = find_genesis(target)
    if found is None:
        for topic, count in target.describe().topics.items():
            if any(target.bounds(topic, partition).end for partition in range(count)):
                raise LogMismatch(f"the target has records in {topic} and no genesis", hint="name an empty log")
        if not dry:
            target.create([TopicSpec(CLUSTER_TOPIC, 1)])
            copier = Copier(target, incoming.source)
            copier.put(incoming.genesis)
            copier.flush()
    elif found[1:] != wanted[1:]:
        have, need = _numbers(found), _numbers(wanted)
        raise LogMismatch(f"the target has {have}; this needs {need}", hint="copy into an empty log")
    if not dry:
        create_topics(target, wanted.kv_partitions, wanted.status_partitions)
    return Prepared({each.place: _start(target, each, incoming) for each in incoming.ranges}, found is None)


class Copier:
    """Appends copies. `put` waits for room, `flush` until all is in the target; both raise LogUnavailable if it takes
    nothing for too long, and what `Log.append` raises. Belongs to one thread."""

    def __init__(self, target: Log, source: str) -> None:
        self._target, self._source = target, source
        self._together_max_bytes = target.describe().together_max_bytes
        self._lanes: dict[object, _Lane] = {}
        self._settled: SimpleQueue[_Lane] = SimpleQueue()
        self._queued_bytes = 0
        self._taken_s = time.monotonic()

    def put(self, row: Row) -> None:
        """Hand over one batch, the next one of its partition."""
        place = row.place
        origin = Origin(self._source, row.partition, row.offset)
        record = copy_record(row.record, logged_at_ns=row.logged_at_ns, origin=origin)
        lane = self._lane(place)
        lane.waiting.append(Entry(*place, record))
        self._queued_bytes += len(record)
        self._send(lane)
        while self._queued_bytes > _QUEUED_MAX_BYTES:
            self._settle(_PAUSE_MAX_S)
        self.settle(0.0)

    def settle(self, timeout_s: float) -> None:
        """Look after what is under way for so long."""
        deadline = time.monotonic() + timeout_s
        while self._queued_bytes and self._settle(max(0.0, deadline - time.monotonic())):
            pass

    def flush(self) -> None:
        """Wait until everything is durable in the target."""
        while self._queued_bytes:
            self._settle(_PAUSE_MAX_S)

    def _lane(self, place: TopicPartition) -> "_Lane":
        key = place.topic if self._together_max_bytes else place
        if key not in self._lanes:
            self._lanes[key] = _Lane()
        return self._lanes[key]

    def _send(self, lane: "_Lane") -> None:
        """Hand over what may go now, if nothing is under way."""
        if lane.flying or not lane.waiting:
            return
        size = 0
        while lane.waiting and len(lane.flying) < _ROWS_TOGETHER_MAX:
            size += len(lane.waiting[0].value)
            if lane.flying and size > self._together_max_bytes:
                break
            lane.flying.append(lane.waiting.popleft())
        self._fly(lane)

    def _fly(self, lane: "_Lane") -> None:
        try:
            lane.futures = list(self._target.append(lane.flying))
        except (AppendFailed, LogUnavailable) as error:
            failed: Future[int] = Future()
            failed.set_exception(error)
            lane.futures = [failed]
        lane.open = len(lane.futures)
        for future in lane.futures:
            future.add_done_callback(partial(self._done, lane))

    def _done(self, lane: "_Lane", _future: Future[int]) -> None:
        """On a thread of the log, or in `append`."""
        with lane.lock:
            lane.open -= 1
            last = lane.open == 0
        if last:
            self._settled.put(lane)

    def _settle(self, timeout_s: float) -> bool:
        """Take one answer, if it comes in time."""
        try:
            lane = self._settled.get(timeout=timeout_s) if timeout_s > 0 else self._settled.get_nowait()
        except Empty:
            self._check_alive()
            return False
        errors = [error for future in lane.futures if (error := future.exception()) is not None]
        if not errors:
            self._queued_bytes -= sum([len(entry.value) for entry in lane.flying])
            lane.flying.clear()
            lane.pause_s = _PAUSE_MIN_S
            self._taken_s = time.monotonic()
            self._send(lane)
            return True
        error = errors[0]
        if not isinstance(error, AppendFailed | AppendUnknown):
            raise error
        if len(errors) < len(lane.futures):
            raise LogBroken("the target took a part of what belongs together") from error
        self._check_alive(error)
        time.sleep(lane.pause_s)
        lane.pause_s = min(2 * lane.pause_s, _PAUSE_MAX_S)
        self._fly(lane)  # the same records: those that did land after all do not count again
        return True

    def _check_alive(self, error: BaseException | None = None) -> None:
        if time.monotonic() - self._taken_s > _GIVE_UP_S and self._queued_bytes:
            why = f": {error}" if error is not None else ""
            raise LogUnavailable(f"the target took nothing for {_GIVE_UP_S:.0f} s{why}", hint="the same command goes on later")


class _Lane:
    """What must keep its order: a partition, or a whole topic where a call is taken as one."""

    def __init__(self) -> None:
        self.waiting: deque[Entry] = deque()
        self.flying: list[Entry] = []
        self.futures: list[Future[int]] = []
        self.open = 0
        self.lock = Lock()
        self.pause_s = _PAUSE_MIN_S


def genesis_in(row: Row, source: str) -> Genesis:
    """The genesis of the log `source` in the batch that holds it. Raises BadArchive if it is not there."""
    try:
        events = decode(row.record).events
    except FormatError as error:
        raise BadArchive(f"the genesis cannot be read: {error}") from error
    for event in events:
        if event[KIND] == "cluster.genesis":
            return from_event(source, event[4])
    raise BadArchive("what should hold the log's genesis does not")


def _numbers(genesis: Genesis) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(Genesis._fields[1:], genesis[1:], strict=True))


def _start(target: Log, wanted: Range, incoming: Incoming) -> int:
    """Where to go on in a range. Raises LogMismatch if what is to come would not fit behind what is there."""
    place = wanted.place
    if place.topic not in target.describe().topics:
        return wanted.start  # a dry call
    name = f"{place.topic}/{place.partition} of the target"
    reached, batches = _reached(target, wanted, incoming.source)
    if reached is not None:
        needed = incoming.batches_before(place, reached)
        if batches != needed:
            raise LogMismatch(
                f"{name} has later batches of the same log, but only {batches} of the {needed} that belong before them",
                hint="copy into an empty log, the oldest stretch first",
            )
        return reached
    # the cluster's topic is history of what was, nothing is folded from it: its order of times does not matter
    first_ns = incoming.first_ns.get(place)
    if first_ns is not None and place.topic != CLUSTER_TOPIC and first_ns // 1000 < _log_time_ns(target, place) // 1000:
        raise LogMismatch(
            f"{name} has later batches than what is to be copied",
            hint="copy into an empty log, or into one that ends before",
        )
    return wanted.start


def _reached(target: Log, wanted: Range, source: str) -> tuple[int | None, int]:
    """The next offset of the source after what the target has of it at or past the range's start, None if it has nothing
    of that, and how many batches of the range it has."""
    offset, end = target.bounds(*wanted.place)
    reached: int | None = None
    batches = 0
    while offset < end:
        for record in target.read(*wanted.place, offset):
            offset = record.offset + 1
            origin = _origin(record.value)
            if origin is None or origin.generation != source or origin.offset < (wanted.start if reached is None else reached):
                continue
            reached = origin.offset + 1
            batches += wanted.end is None or origin.offset < wanted.end
    return reached, batches


def _origin(record: bytes) -> Origin | None:
    try:
        return decode_header(record).origin
    except FormatError:
        return None


def _log_time_ns(target: Log, place: TopicPartition) -> int:
    """Log time at a partition's end, 0 if it is empty."""
    offset, start = target.bounds(*place).end, target.bounds(*place).start
    while offset > start:
        offset -= 1
        records = target.read(*place, offset, max_records=1)
        time_ns = own_time_ns(records[0]) if records else None
        if time_ns is not None:
            return time_ns
    return 0
