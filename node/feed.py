"""Records from the log, read ahead on a thread of its own into a bounded queue.

While nobody waits for what it reads, it rests after each read, so that a stream of small commits is read and applied
together: with 64 sets under way that more than halves the node's processor time, which the overlord beside it can use. Who
waits says so with `hurry`, and for a while from then on there are no rests.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from dimint.errors import OffsetOutOfRange
from dimint.log.port import Log, Record, TopicPartition

__all__ = ["Feed"]

QUEUE_MAX_BYTES: Final = 32 << 20
POLL_MAX_BYTES: Final = 1 << 20
POLL_S: Final = 1.0
REST_S: Final = 0.02
REST_BELOW_BYTES: Final = 256 << 10
"""After so many bytes at once there is a backlog, and no rest."""
EAGER_S: Final = 0.2


class Feed:
    """One reader of the log. `wake` is called on the reading thread whenever `take` has something new.

    What is taken always goes on from the positions of the last `assign`: what was read before that is dropped.
    """

    def __init__(self, log: Log, *, wake: Callable[[], None]) -> None:
        self._reader = log.reader()
        self._wake = wake
        self._changed = threading.Condition()
        self._queue: deque[list[Record] | OffsetOutOfRange] = deque()
        self._queued_bytes = 0
        self._positions: Mapping[TopicPartition, int] = {}
        self._term = 0
        self._stopping = False
        self._eager_until = 0.0

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read from here on. From any thread."""
        with self._changed:
            self._positions = dict(positions)
            self._term += 1
            self._queue.clear()
            self._queued_bytes = 0
            self._changed.notify_all()
        self._reader.wake()

    def take(self) -> list[Record] | OffsetOutOfRange | None:
        """The next records, or the position that is not in the log (nothing more is read until `assign`); None for nothing."""
        with self._changed:
            if not self._queue:
                return None
            taken = self._queue.popleft()
            if not isinstance(taken, OffsetOutOfRange):
                self._queued_bytes -= sum([len(record.value) for record in taken])
                self._changed.notify_all()
            return taken

    def hurry(self) -> None:
        """Somebody waits for what comes next. From any thread; cheap when it was said just before."""
        now = time.monotonic()
        if now < self._eager_until - EAGER_S / 2:
            return
        with self._changed:
            self._eager_until = now + EAGER_S
            self._changed.notify_all()

    def run(self) -> None:
        """The reading thread's work, until `stop`. What the log raises ends it."""
        term = 0
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._may_read)
                    if self._stopping:
                        return
                    positions = dict(self._positions) if self._term != term else None
                    term = self._term
                if positions is not None:
                    self._reader.assign(positions)
                if 0 < self._read(term) < REST_BELOW_BYTES:
                    self._rest(term)
        finally:
            self._reader.close()

    def stop(self) -> None:
        """From any thread; idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._reader.wake()

    def _may_read(self) -> bool:
        return self._stopping or (self._queued_bytes < QUEUE_MAX_BYTES and bool(self._positions))

    def _rest(self, term: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or self._term != term or time.monotonic() < self._eager_until, timeout=REST_S
            )

    def _read(self, term: int) -> int:
        """Queue what is there; how many bytes."""
        found: list[Record] | OffsetOutOfRange
        try:
            found = self._reader.poll(POLL_S, max_bytes=POLL_MAX_BYTES)
        except OffsetOutOfRange as error:
            found = error
        if not found:
            return 0
        size = 0
        with self._changed:
            if term != self._term:
                return 0
            self._queue.append(found)
            if isinstance(found, OffsetOutOfRange):
                self._positions = {}  # until the owner has assigned anew
            else:
                size = sum([len(record.value) for record in found])
                self._queued_bytes += size
        self._wake()
        return size
