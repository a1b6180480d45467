"""What waits for a partition to reach an offset. [S]"""

import heapq
from itertools import count
from typing import Generic, NamedTuple, TypeVar

from dimint.limits import REQUESTS_IN_FLIGHT_MAX

__all__ = ["Expired", "Pending"]

Item = TypeVar("Item")


class Expired(NamedTuple, Generic[Item]):
    """An item whose deadline passed before its partition was there."""

    partition: int
    item: Item


class _Wait(Generic[Item]):
    __slots__ = ("item", "open", "partition")

    def __init__(self, partition: int, item: Item) -> None:
        self.partition, self.item, self.open = partition, item, True


class Pending(Generic[Item]):
    """Items by partition and offset, each with a deadline (seconds of a monotonic clock).

    >>> pending = Pending[str]()
    >>> pending.add(3, 10, 1.0, "read"), pending.reached(3, 9), pending.reached(3, 10), pending.expire(2.0)
    (True, [], ['read'], [])
    """

    def __init__(self, *, most: int = REQUESTS_IN_FLIGHT_MAX) -> None:
        self._most = most
        self._order = count()
        self._by_offset: dict[int, list[tuple[int, int, _Wait[Item]]]] = {}
        self._by_deadline: list[tuple[float, int, _Wait[Item]]] = []
        self._open = 0
        self._stale = 0  # expired ones that still stand in _by_offset

    def __len__(self) -> int:
        return self._open

    def add(self, partition: int, offset: int, deadline: float, item: Item) -> bool:
        """Wait until the partition's next offset is at least `offset`. False if there is no room for more."""
        if self._open >= self._most:
            return False
        wait = _Wait(partition, item)
        order = next(self._order)
        heapq.heappush(self._by_offset.setdefault(partition, []), (offset, order, wait))
        heapq.heappush(self._by_deadline, (deadline, order, wait))
        self._open += 1
        return True

    def reached(self, partition: int, next_offset: int) -> list[Item]:
        """Items that the partition has come far enough for, the lowest offset first."""
        waits = self._by_offset.get(partition)
        found: list[Item] = []
        while waits and waits[0][0] <= next_offset:
            found += self._close(heapq.heappop(waits)[2])
        if waits is not None and not waits:
            del self._by_offset[partition]
        return found

    def expire(self, now: float) -> list[Expired[Item]]:
        """Items whose deadline is over, the earliest first."""
        found: list[Expired[Item]] = []
        heap = self._by_deadline
        while heap and (heap[0][0] <= now or not heap[0][2].open):
            wait = heapq.heappop(heap)[2]
            expired = [Expired(wait.partition, item) for item in self._close(wait)]
            self._stale += len(expired)
            found += expired
        if max(len(heap) - self._open, self._stale) > self._open + 1000:
            self._sweep()
        return found

    def _sweep(self) -> None:
        """Let go of what is answered and still stands in a heap."""
        self._stale = 0
        self._by_deadline = [entry for entry in self._by_deadline if entry[2].open]
        heapq.heapify(self._by_deadline)
        for partition, waits in list(self._by_offset.items()):
            self._by_offset[partition] = [entry for entry in waits if entry[2].open]
            heapq.heapify(self._by_offset[partition])

    def drop(self, partition: int) -> list[Item]:
        """Everything that waits for a partition, which is served no more."""
        return [
            item
            for _, _, wait in sorted(self._by_offset.pop(partition, []), key=lambda entry: entry[:2])
            for item in self._close(wait)
        ]

    def next_deadline(self) -> float | None:
        """When `expire` may have something; None if nothing waits."""
        return self._by_deadline[0][0] if self._open else None

    def _close(self, wait: _Wait[Item]) -> list[Item]:
        if not wait.open:
            return []
        wait.open = False
        self._open -= 1
        return [wait.item]
