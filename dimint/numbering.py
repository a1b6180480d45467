"""The numbers of one writer's batches in one partition, and what became of them. [S]

A number is used once, whatever became of the send. While batch n is unknown, nothing but fences follows it: empty batches
n+1, n+2 …, until one is acknowledged. From then on n can never count any more unless it is already in the log before that
fence, so the headers between the last acknowledged record and the fence say for good whether it does.

`Numbering` holds one partition's state. Its owner reports what the log answered and gets back what to do next.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

__all__ = ["Applied", "Effect", "Fence", "Lost", "NotThere", "Numbering", "Scan", "Seen"]


class Applied(NamedTuple):
    """Batch `number` counts; it is the record at `offset`."""

    number: int
    offset: int


class NotThere(NamedTuple):
    """Batch `number` does not count and never will."""

    number: int


class Lost(NamedTuple):
    """What became of batch `number` can never be known: the log was trimmed where it might stand."""

    number: int


class Fence(NamedTuple):
    """Append an empty batch with this number, now."""

    number: int


class Scan(NamedTuple):
    """Read the headers of the records in [start, end) and report them with `scanned`."""

    start: int
    end: int


Effect: TypeAlias = Applied | NotThere | Lost | Fence | Scan


class Seen(NamedTuple):
    """A header of this writer found by a scan."""

    offset: int
    number: int


class Numbering:
    """One partition. `scan_from` is an end offset from before the writer's first batch.

    >>> numbering = Numbering(scan_from=7)
    >>> numbering.take(), numbering.unknown(1), numbering.acknowledged(2, offset=8)
    (1, Fence(number=2), Scan(start=7, end=9))
    >>> numbering.scanned([Seen(offset=7, number=1), Seen(offset=8, number=2)])
    Applied(number=1, offset=7)
    """

    def __init__(self, *, scan_from: int) -> None:
        self._last = 0
        self._open: int | None = None
        self._fence: int | None = None
        self._scan_from = scan_from
        self._scan_end: int | None = None
        self._counted = 0  # the highest number of ours below _scan_from that counts

    @property
    def next_number(self) -> int:
        """The number that `take` will give."""
        return self._last + 1

    def take(self) -> int:
        """Use the next number for a batch that is handed over now."""
        assert self._open is None, "the batch before is not settled"
        self._last += 1
        self._open = self._last
        return self._last

    def acknowledged(self, number: int, offset: int) -> Effect:
        """The log has the batch or fence `number` at `offset`."""
        if number == self._open:
            assert self._fence is None, "the log had called it unknown"
            return self._settle(number, offset, counted=number, end=offset + 1)
        assert number == self._fence
        self._scan_end = offset + 1
        return Scan(self._scan_from, self._scan_end)

    def failed(self, number: int) -> Effect:
        """The log certainly does not have `number` and never will."""
        if number == self._open:
            assert self._fence is None, "the log had called it unknown"
            return self._settle(number, None, counted=self._counted, end=self._scan_from)
        assert number == self._fence
        return self._next_fence()

    def unknown(self, number: int) -> Effect:
        """The log may have `number`, now or later."""
        assert number in (self._open, self._fence)
        return self._next_fence()

    def scanned(self, seen: Iterable[Seen]) -> Effect:
        """The headers of this writer in the range of the Scan, in log order, as every reader will take them."""
        assert self._open is not None
        assert self._fence is not None
        assert self._scan_end is not None
        counted, found = self._counted, None
        for offset, number in seen:
            if number > counted:
                counted = number
                if number == self._open:
                    found = offset
        assert counted == self._fence, "the scan must cover the acknowledged fence"
        return self._settle(self._open, found, counted=self._fence, end=self._scan_end)

    def trimmed(self) -> Effect:
        """A part of the Scan's range is gone, so that it says nothing. Numbers up to the fence are used up all the same."""
        assert self._open is not None
        assert self._fence is not None
        assert self._scan_end is not None
        number = self._open
        self._settle(number, None, counted=self._fence, end=self._scan_end)
        return Lost(number)

    def _next_fence(self) -> Fence:
        self._last += 1
        self._fence = self._last
        return Fence(self._last)

    def _settle(self, number: int, offset: int | None, *, counted: int, end: int) -> Effect:
        self._open = self._fence = self._scan_end = None
        self._counted, self._scan_from = counted, end
        return NotThere(number) if offset is None else Applied(number, offset)
