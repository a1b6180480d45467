"""How old what a replica says may be: when the log last had nothing that it lacks. [S]

The log's ends are asked for on a thread of their own (dimint/node/ends.py), now and then and without waiting for them here.
An end proves the replica up to date as of when it was asked for, as soon as the replica has come so far. While the log
cannot be reached nothing proves anything, and the age grows.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

from dimint.node.replica import Replica

__all__ = ["Ages"]

PROOFS_MAX: Final = 100
"""Ends of one partition that the replica has not reached; more are looked at no closer than that."""


class Ages:
    """`replicas` is the live map of what the node holds; `now` is set every turn, seconds of a monotonic clock."""

    def __init__(self, replicas: Mapping[int, Replica]) -> None:
        self._replicas = replicas
        self.now = 0.0
        self._current_at: dict[int, float] = {}
        self._proofs: dict[int, deque[tuple[int, float]]] = {}

    def learn(self, ends: Mapping[int, int], asked_at: float) -> None:
        """End offsets by partition, asked for at that time."""
        for partition, end in ends.items():
            proofs = self._proofs.setdefault(partition, deque(maxlen=PROOFS_MAX))
            proofs.append((end, asked_at))

    def age_ms(self, partition: int) -> int:
        """So many milliseconds ago the replica had all that the log had; −1 if that is not known."""
        replica = self._replicas.get(partition)
        if replica is None:
            return -1
        proofs = self._proofs.get(partition)
        while proofs and proofs[0][0] <= replica.next_offset:
            self._current_at[partition] = proofs.popleft()[1]
        at = self._current_at.get(partition)
        return -1 if at is None else max(0, round((self.now - at) * 1000))

    def forget(self, partition: int) -> None:
        """The partition is held no more."""
        self._current_at.pop(partition, None)
        self._proofs.pop(partition, None)
