"""Who waits for changes of which keys, and where each of them stands. [S]

A watcher asks again and again, each time from the position that it has reached, and the answer comes as soon as there is
something after it. So nothing is kept for a watcher between its questions, one that is slow asks later, and whichever
replica answers, no change is left out or comes twice: the position alone decides.

Of each partition that somebody watches, the last WATCH_RECENT_BYTES of changes stay in memory (its `_Tail`). A watcher
whose position lies in the tail is served from it and then waits at its end, where a change finds its watchers by the key
and by the lengths of their prefixes, however many there are. One that is further back is served from records of the log
and the rows of dimint/node/journal.py: `wants` says what the driver has to read, off the thread that applies. One that is
ahead (it comes from a replica that was further) waits until this one has come so far.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple, TypeAlias

from dimint.door import MOVED, Change
from dimint.errors import Busy, OffsetOutOfRange, PositionGone, TimedOut
from dimint.limits import WATCH_RECENT_BYTES, WATCH_REPLY_BYTES, WATCHES_MAX
from dimint.log.port import Record
from dimint.node.replica import Replica
from dimint.positions import Position

__all__ = ["Found", "Limits", "Watch", "Watches"]

KEEP_S: Final = 60.0
"""A tail that nobody asked for is given up after so long."""
OVERHEAD_BYTES: Final = 100


class Found(NamedTuple):
    """The answer to a Watch; see dimint/door.py's Fetched. Without an error `positions` has every partition's."""

    positions: Mapping[int, Position]
    changes: Mapping[int, list[Change]]
    error: str | None = None
    oldest: tuple[int, int] | None = None


class Limits(NamedTuple):
    """How many watches wait at once, how much stays in memory of a partition, and when an answer is full."""

    waiting: int = WATCHES_MAX
    recent_bytes: int = WATCH_RECENT_BYTES
    reply_bytes: int = WATCH_REPLY_BYTES


Answer: TypeAlias = Callable[[Found], None]


class Watch:
    """One question; `answer` is called once, and only enqueues.

    `positions` has None where it only asks where the partition stands, once that is at its place in `starts`.
    """

    __slots__ = ("answer", "bytes", "changes", "deadline", "done", "key", "live", "positions", "prefix", "starting", "starts")

    def __init__(
        self,
        answer: Answer,
        key: str | None,
        prefix: str,
        positions: Mapping[int, Position | None],
        deadline: float,
        starts: Mapping[int, int] | None = None,
    ) -> None:
        self.answer, self.key, self.prefix, self.deadline = answer, key, prefix, deadline
        self.positions: dict[int, Position | None] = dict(positions)
        self.starts = starts or {}
        self.starting = any(position is None for position in self.positions.values())
        self.live: set[int] = set()
        """Partitions in which it stands at the tail's end."""
        self.changes: dict[int, list[Change]] = {}
        self.bytes = 0
        self.done = False

    def take(self, partition: int, changes: Iterable[Change], most_bytes: int) -> bool:
        """Take those of a partition's next changes that it asks for; False if it is full and stands before one of them."""
        key, prefix = self.key, self.prefix
        for change in changes:
            if change.key == key if key is not None else change.key.startswith(prefix):
                if self.bytes >= most_bytes:
                    self.positions[partition] = Position(change.offset, change.index)
                    return False
                self.bytes += _size(change)
                self.changes.setdefault(partition, []).append(change)
        return True


class _Tail:
    """The last changes of one partition: complete from `start` to `end`."""

    def __init__(self, replica: Replica, now: float) -> None:
        self.start = self.end = replica.next_offset
        self.replica = replica
        replica.watched = True
        replica.take_fresh()
        self.used_at = now
        self.changes: deque[Change] = deque()
        self.bytes = 0
        self.by_key: dict[str, dict[Watch, None]] = {}
        self.by_prefix: dict[int, dict[str, dict[Watch, None]]] = {}
        self.ahead: dict[Watch, None] = {}
        self.reading: dict[int, dict[Watch, None]] = {}

    def add(self, changes: Iterable[Change], keep_bytes: int) -> None:
        for change in changes:
            self.changes.append(change)
            self.bytes += _size(change)
        while self.bytes > keep_bytes:
            offset = self.changes[0].offset
            self.start = offset + 1
            while self.changes and self.changes[0].offset == offset:
                self.bytes -= _size(self.changes.popleft())

    def after(self, position: Position) -> list[Change]:
        """The changes after a position that is not before `start`."""
        found: list[Change] = []
        for change in reversed(self.changes):
            if (change.offset, change.index) < position:
                break
            found.append(change)
        found.reverse()
        return found

    def stand(self, watch: Watch) -> None:
        """It waits at the end."""
        self._place_of(watch).setdefault(watch)

    def leave(self, watch: Watch) -> None:
        """It waits no more."""
        place = self._place_of(watch)
        place.pop(watch, None)
        if place:
            return
        if watch.key is not None:
            self.by_key.pop(watch.key, None)
            return
        same_length = self.by_prefix[len(watch.prefix)]
        same_length.pop(watch.prefix, None)
        if not same_length:
            del self.by_prefix[len(watch.prefix)]

    def standing(self) -> list[Watch]:
        """Everybody at the end."""
        places = [*self.by_key.values(), *(place for some in self.by_prefix.values() for place in some.values())]
        return [watch for place in places for watch in place]

    def concerned(self, changes: Iterable[Change]) -> dict[Watch, list[Change]]:
        """Who at the end asks for which of these."""
        found: dict[Watch, list[Change]] = {}
        for change in changes:
            for watch in self.by_key.get(change.key, ()):
                found.setdefault(watch, []).append(change)
            for length, places in self.by_prefix.items():
                for watch in places.get(change.key[:length], ()):
                    found.setdefault(watch, []).append(change)
        return found

    def is_idle(self) -> bool:
        return not (self.by_key or self.by_prefix or self.ahead or self.reading)

    def _place_of(self, watch: Watch) -> dict[Watch, None]:
        if watch.key is not None:
            return self.by_key.setdefault(watch.key, {})
        return self.by_prefix.setdefault(len(watch.prefix), {}).setdefault(watch.prefix, {})


class Watches:
    """`replicas` is the live map of what the node holds. Times are seconds of a monotonic clock."""

    def __init__(self, replicas: Mapping[int, Replica], limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
        self._replicas, self._limits = replicas, limits
        self._tails: dict[int, _Tail] = {}
        self._open: dict[Watch, None] = {}
        self._deadlines: list[tuple[float, int, Watch]] = []
        self._order = count()
        self._wants: list[tuple[int, int]] = []
        self._swept_at = 0.0

    # --- what comes in --------------------------------------------------------------------------------------------------
    def start(self, watch: Watch, now: float) -> None:
        """Answer now, or as soon as there is something."""
        if len(self._open) >= self._limits.waiting:
            watch.answer(Found({}, {}, Busy.code))
            return
        for partition in watch.positions:
            replica = self._replicas.get(partition)
            if replica is None or replica.problem is not None:
                watch.answer(Found({}, {}, MOVED))
                return
        self._open[watch] = None
        heapq.heappush(self._deadlines, (watch.deadline, next(self._order), watch))
        for partition in list(watch.positions):
            tail = self._tails.get(partition)
            if tail is None:
                tail = self._tails[partition] = _Tail(self._replicas[partition], now)
            tail.used_at = now
            self._came_on(partition, tail)
            if not watch.done:
                self._place(watch, partition, tail)
        self._settle(watch)

    def came_on(self, partition: int) -> None:
        """The partition's replica has applied something."""
        tail = self._tails.get(partition)
        if tail is not None:
            self._came_on(partition, tail)

    def was_read(self, partition: int, offset: int, result: Sequence[Record] | OffsetOutOfRange | None) -> None:
        """Records of the log from an offset that `wants` named; None: the log cannot be read now."""
        tail = self._tails.get(partition)
        waiting = {} if tail is None else tail.reading.pop(offset, {})
        replica = self._replicas.get(partition)
        if tail is None or replica is None or not waiting or result is None:
            return  # whoever asks again makes it read again, or asks elsewhere
        if isinstance(result, OffsetOutOfRange):
            self._gone(waiting, partition, max(result.start, replica.changes_floor))
            return
        if offset < replica.changes_floor:
            self._gone(waiting, partition, replica.changes_floor)
            return
        records = [record for record in result if record.offset < replica.next_offset]
        if not records:
            return
        changes = replica.changes(records)
        reached = Position(records[-1].offset + 1)
        for watch in list(waiting):
            position = watch.positions[partition]
            assert position is not None
            after = [change for change in changes if (change.offset, change.index) >= position]
            if watch.take(partition, after, self._limits.reply_bytes):
                watch.positions[partition] = reached
                if partition not in watch.changes:
                    self._place(watch, partition, tail)
            self._settle(watch)

    def expire(self, now: float) -> None:
        """Answer what waited long enough: no changes, but positions that have moved on."""
        heap = self._deadlines
        while heap and (heap[0][0] <= now or heap[0][2].done):
            watch = heapq.heappop(heap)[2]
            if not watch.done:
                self._end(watch, self._problem_of(watch))
        if len(heap) > 2 * len(self._open) + 1000:
            self._deadlines = [entry for entry in heap if not entry[2].done]
            heapq.heapify(self._deadlines)
        if now - self._swept_at >= 1.0:
            self._swept_at = now
            for partition, tail in list(self._tails.items()):
                if not tail.is_idle():
                    tail.used_at = now
                elif now - tail.used_at > KEEP_S:
                    tail.replica.watched = False
                    tail.replica.take_fresh()
                    del self._tails[partition]

    def drop(self, partition: int) -> None:
        """The partition is held no more."""
        self._tails.pop(partition, None)
        for watch in [watch for watch in self._open if partition in watch.positions]:
            self._end(watch, MOVED)

    def end(self, watch: Watch) -> None:
        """Answer it at once with where it stands, if it waits."""
        if not watch.done:
            self._end(watch, self._problem_of(watch))

    # --- what goes out --------------------------------------------------------------------------------------------------
    def wants(self) -> list[tuple[int, int]]:
        """(partition, offset) of the log that somebody waits for; each is named once until `was_read`."""
        wants, self._wants = self._wants, []
        return wants

    def next_deadline(self) -> float | None:
        """When `expire` has something to answer; None if nobody waits."""
        return self._deadlines[0][0] if self._deadlines else None

    # --- inside ---------------------------------------------------------------------------------------------------------
    def _came_on(self, partition: int, tail: _Tail) -> None:
        replica = self._replicas.get(partition)
        if replica is None:
            return
        if replica is not tail.replica:
            # made again from what was committed: what it applied meanwhile was not seen here
            tail.replica = replica
            replica.watched = True
            replica.take_fresh()
            if replica.next_offset > tail.end:
                standing = tail.standing()
                for watch in standing:
                    self._unstand(watch, partition, tail)
                tail.changes.clear()
                tail.bytes = 0
                tail.start = tail.end = replica.next_offset
                for watch in standing:
                    self._place(watch, partition, tail)
            return
        fresh = [change for change in replica.take_fresh() if change.offset >= tail.end]
        concerned = tail.concerned(fresh)
        tail.add(fresh, self._limits.recent_bytes)
        tail.end = max(tail.end, replica.next_offset)
        for watch, changes in concerned.items():
            self._unstand(watch, partition, tail)
            if watch.take(partition, changes, self._limits.reply_bytes):
                watch.positions[partition] = Position(tail.end)
            self._settle(watch)
        if tail.ahead:
            ahead, tail.ahead = tail.ahead, {}
            for watch in ahead:
                self._place(watch, partition, tail)
                self._settle(watch)

    def _place(self, watch: Watch, partition: int, tail: _Tail) -> None:
        """Put it where it belongs in a partition, with what there is for it."""
        position = watch.positions[partition]
        if position is None:
            if tail.end < watch.starts.get(partition, 0):
                tail.ahead[watch] = None
                return
            position = watch.positions[partition] = Position(tail.end)
        if position.end > tail.end:
            tail.ahead[watch] = None
        elif position.offset >= tail.start or position.offset == tail.end:
            if watch.take(partition, tail.after(position), self._limits.reply_bytes):
                watch.live.add(partition)
                tail.stand(watch)
        elif position.offset < (floor := self._replicas[partition].changes_floor):
            self._gone((watch,), partition, floor)
        else:
            reading = tail.reading.get(position.offset)
            if reading is None:
                reading = tail.reading[position.offset] = {}
                self._wants.append((partition, position.offset))
            reading[watch] = None

    def _unstand(self, watch: Watch, partition: int, tail: _Tail) -> None:
        tail.leave(watch)
        watch.live.discard(partition)
        watch.positions[partition] = Position(tail.end)

    def _settle(self, watch: Watch) -> None:
        """Answer it if there is something to say."""
        if watch.done:
            return
        known = not watch.starting or all(position is not None for position in watch.positions.values())
        if known and (watch.changes or watch.starting):
            self._end(watch, None)

    @staticmethod
    def _problem_of(watch: Watch) -> str | None:
        return TimedOut.code if any(position is None for position in watch.positions.values()) else None

    def _gone(self, watches: Iterable[Watch], partition: int, oldest: int) -> None:
        for watch in list(watches):
            if not watch.done:
                self._end(watch, PositionGone.code, (partition, oldest))

    def _end(self, watch: Watch, error: str | None, oldest: tuple[int, int] | None = None) -> None:
        watch.done = True
        del self._open[watch]
        for partition in watch.positions:
            tail = self._tails.get(partition)
            if tail is None:
                continue
            if partition in watch.live:
                self._unstand(watch, partition, tail)
            tail.ahead.pop(watch, None)
            for reading in tail.reading.values():
                reading.pop(watch, None)
        changes, watch.changes = watch.changes, {}
        if error is not None:
            watch.answer(Found({}, {}, error, oldest))
        else:
            watch.answer(Found({at: position for at, position in watch.positions.items() if position is not None}, changes))


def _size(change: Change) -> int:
    return len(change.key) + len(change.value or b"") + OVERHEAD_BYTES
