"""The ends of the partitions in the log, asked for now and then on a thread of its own: a broker may be slow to tell, or gone."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from dimint.clock import Clock
from dimint.errors import LogUnavailable
from dimint.events import KV_TOPIC
from dimint.log.port import Log

__all__ = ["Ends", "Known"]

ASK_S: Final = 1.0


class Known(NamedTuple):
    """End offsets by partition, and when they were asked for (the first of them)."""

    ends: Mapping[int, int]
    asked_at: float


class Ends:
    """`partitions` gives what is held; it is called on the thread."""

    def __init__(self, log: Log, clock: Clock, partitions: Callable[[], frozenset[int]]) -> None:
        self._log, self._clock, self._partitions = log, clock, partitions
        self._found: deque[Known] = deque(maxlen=10)
        self._stopped = threading.Event()

    def run(self) -> None:
        """The thread's work, until `stop`. What the log raises for good ends it."""
        first = 0
        while not self._stopped.wait(ASK_S):
            asked_at = self._clock.monotonic()
            ends: dict[int, int] = {}
            partitions = sorted(self._partitions())
            first = (first + 1) % max(1, len(partitions))
            with contextlib.suppress(LogUnavailable):  # the others had their turn, or will be first next time
                for partition in partitions[first:] + partitions[:first]:
                    ends[partition] = self._log.bounds(KV_TOPIC, partition).end
            self._found.append(Known(ends, asked_at))

    def take(self) -> list[Known]:
        """What was learnt since the last call."""
        found = []
        while self._found:
            found.append(self._found.popleft())
        return found

    def stop(self) -> None:
        """From any thread; idempotent."""
        self._stopped.set()
