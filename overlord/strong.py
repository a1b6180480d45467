"""Where a strong read has to read: an offset learnt after its request arrived. [S]

On a log whose end offset is linearizable (one machine) the end is asked once a partition and turn, after the turn's
requests were taken. On any other log a cut-off leader may answer an old end, so an acknowledged batch handed over after
the request proves the position: an ordinary write if one is on its way, else a `barrier` event. One is in flight a
partition, shared by all reads that wait.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from dimint.errors import RequestError
from dimint.overlord.reads import Part, ReadTable, Want
from dimint.overlord.writes import Lane

__all__ = ["StrongReads"]

ScanOf = tuple[str, str | None, int] | None


class StrongReads:
    """Strong reads that do not know their offset yet."""

    def __init__(self, lanes: Sequence[Lane], reads: ReadTable, *, end_is_linearizable: bool) -> None:
        self._lanes, self._reads = lanes, reads
        self._end_is_linearizable = end_is_linearizable
        self._new: dict[int, list[tuple[Part, ScanOf]]] = {}

    def add(self, partition: int, part: Part, scan: ScanOf) -> None:
        self._new.setdefault(partition, []).append((part, scan))

    def turn(self) -> list[int]:
        """Partitions whose end is wanted now; without linearizable ends every waiting read gets a barrier instead."""
        if not self._new:
            return []
        if self._end_is_linearizable:
            return list(self._new)
        new, self._new = self._new, {}
        for partition, parts in new.items():
            self._lanes[partition].read_after(partial(self._proven, partition, parts))
        return []

    def ends(self, ends: Mapping[int, int]) -> None:
        """End offsets that were asked after `turn` named their partitions."""
        for partition, end in ends.items():
            self._read(partition, self._new.pop(partition, []), end)

    def _proven(self, partition: int, parts: list[tuple[Part, ScanOf]], result: int | RequestError) -> None:
        if isinstance(result, int):
            self._read(partition, parts, result)
            return
        for part, scan in parts:  # that batch proves nothing; the next one will
            if part.pending.reply is None:
                self.add(partition, part, scan)

    def _read(self, partition: int, parts: list[tuple[Part, ScanOf]], offset: int) -> None:
        for part, scan in parts:
            self._reads.add(Want(partition, offset, True, scan), part)
