"""Records of the past, read from the log for watchers on a thread of its own: on a broker a read may take its time."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dimint.errors import LogUnavailable, OffsetOutOfRange
from dimint.events import KV_TOPIC
from dimint.log.port import Log, Record

__all__ = ["Past", "WasRead"]

PORTION_BYTES: Final = 1 << 20


class WasRead(NamedTuple):
    """What was found from an offset on; None while the log cannot be read."""

    partition: int
    offset: int
    result: Sequence[Record] | OffsetOutOfRange | None


class Past:
    """`wake` is called on the reading thread whenever `take` has something."""

    def __init__(self, log: Log, *, wake: Callable[[], None]) -> None:
        self._log, self._wake = log, wake
        self._asked: deque[tuple[int, int]] = deque()
        self._found: deque[WasRead] = deque()
        self._changed = threading.Condition()
        self._stopping = False

    def ask(self, partition: int, offset: int) -> None:
        """Read a portion of the key-value topic from `offset` on."""
        with self._changed:
            self._asked.append((partition, offset))
            self._changed.notify()

    def take(self) -> list[WasRead]:
        """What was read since the last call."""
        found = []
        while self._found:
            found.append(self._found.popleft())
        return found

    def run(self) -> None:
        """The reading thread's work, until `stop`. What the log raises for good ends it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._asked)
                if self._stopping:
                    return
                partition, offset = self._asked.popleft()
            self._found.append(WasRead(partition, offset, self._read(partition, offset)))
            self._wake()

    def stop(self) -> None:
        """From any thread; idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _read(self, partition: int, offset: int) -> Sequence[Record] | OffsetOutOfRange | None:
        try:
            return self._log.read(KV_TOPIC, partition, offset, max_bytes=PORTION_BYTES)
        except OffsetOutOfRange as error:
            return error
        except LogUnavailable:
            return None
