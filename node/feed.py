"""Records from the log, read ahead on a thread of its own into a bounded queue."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from dimint.errors import OffsetOutOfRange
from dimint.log.port import Log, Record, TopicPartition

__all__ = ["Feed"]

QUEUE_MAX_BYTES: Final = 32 << 20
POLL_MAX_BYTES: Final = 1 << 20
POLL_S: Final = 1.0


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
                self._read(term)
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

    def _read(self, term: int) -> None:
        found: list[Record] | OffsetOutOfRange
        try:
            found = self._reader.poll(POLL_S, max_bytes=POLL_MAX_BYTES)
        except OffsetOutOfRange as error:
            found = error
        if not found:
            return
        with self._changed:
            if term != self._term:
                return
            self._queue.append(found)
            if isinstance(found, OffsetOutOfRange):
                self._positions = {}  # until the owner has assigned anew
            else:
                self._queued_bytes += sum([len(record.value) for record in found])
        self._wake()
