"""Outcomes as small bytes, and the last batches that had any. [S]

::

    packed outcome   one letter of the name, version + 1 (8 bytes, big-endian, 0 = none), the value's text
    ring row         b"q" + slot (2 bytes) → offset (8), writer (16), number (8), {index: packed outcome} as msgpack
    evicted row      b"v" + writer → number of the writer's newest batch that the ring has lost (8)
"""

from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

import msgpack

from dimint.door import Outcome
from dimint.limits import OUTCOME_KEEP_BATCHES
from dimint.node.state import Table

__all__ = ["APPLIED", "PACKED", "Known", "OutcomeRing", "pack", "unpack"]

_LETTERS = {"applied": b"A", "condition": b"C", "not_integer": b"N", "superseded": b"S", "forgotten": b"F", "unused": b"U"}
_NAMES = {letter[0]: name for name, letter in _LETTERS.items()}
_VERSION = Struct(">Q")
_RING = Struct(">Q16sQ")
PACKED = Struct(">cQ")
APPLIED = b"A"
"""First byte of the packed outcome of what was done; `PACKED.pack(APPLIED, version + 1)` is the whole of the usual one."""


def pack(outcome: Outcome) -> bytes:
    """The outcome in some ten bytes."""
    version = 0 if outcome.version is None else outcome.version + 1
    return PACKED.pack(_LETTERS[outcome.name], version) + (outcome.value or "").encode()


def unpack(packed: bytes) -> Outcome:
    """What `pack` packed."""
    version = _VERSION.unpack_from(packed, 1)[0]
    return Outcome(_NAMES[packed[0]], packed[9:].decode() or None, None if version == 0 else version - 1)


class Known(NamedTuple):
    """Outcomes of one batch that counted. `offset` is −1 where there are none; not `kept`: perhaps there were some."""

    offset: int
    outcomes: dict[int, Outcome]
    kept: bool = True


class OutcomeRing:
    """The last OUTCOME_KEEP_BATCHES batches of one partition that had outcomes, by (writer, number).

    Changes stay in memory until `take_changes`; the rows themselves are read from the table when somebody asks.
    """

    def __init__(self, side: Table, *, keep: int = OUTCOME_KEEP_BATCHES) -> None:
        self._side, self._keep = side, keep
        self._slots: dict[tuple[bytes, int], int] = {}
        self._batches: list[tuple[bytes, int]] = []
        self._changes: dict[bytes, bytes | None] = {}
        newest = (-1, -1)
        for key, row in side.scan(b"q", b"q", keep):
            offset, writer, number = _RING.unpack_from(row)
            slot = int.from_bytes(key[1:], "big")
            self._slots[writer, number] = slot
            self._batches.append((writer, number))
            newest = max(newest, (offset, slot))
        self._next = (newest[1] + 1) % keep
        self._evicted = {key[1:]: _VERSION.unpack(row)[0] for key, row in side.scan(b"v", b"v", 1 << 30)}

    def add(self, offset: int, writer: bytes, number: int, outcomes: dict[int, Outcome]) -> None:
        """Keep the outcomes of a batch that was just applied."""
        slot = self._next
        self._next = (slot + 1) % self._keep
        if slot < len(self._batches):
            old = self._batches[slot]
            del self._slots[old]
            self._evicted[old[0]] = old[1]
            self._changes[b"v" + old[0]] = _VERSION.pack(old[1])
            self._batches[slot] = (writer, number)
        else:
            self._batches.append((writer, number))
        self._slots[writer, number] = slot
        packed = msgpack.packb({index: pack(outcome) for index, outcome in outcomes.items()})
        self._changes[self._key(slot)] = _RING.pack(offset, writer, number) + packed

    def find(self, writer: bytes, number: int) -> Known:
        """Outcomes of a batch that counted."""
        slot = self._slots.get((writer, number))
        if slot is None:
            return Known(-1, {}, kept=number > self._evicted.get(writer, 0))
        key = self._key(slot)
        row = self._changes.get(key) or self._side.get(key)
        assert row is not None
        packed = msgpack.unpackb(row[_RING.size :], strict_map_key=False)
        return Known(_RING.unpack_from(row)[0], {index: unpack(outcome) for index, outcome in packed.items()})

    def forget(self, writers: Iterable[bytes]) -> None:
        """Drop what is kept about writers that are gone: nobody asks for their batches any more."""
        for writer in writers:
            if self._evicted.pop(writer, None) is not None:
                self._changes[b"v" + writer] = None

    def take_changes(self) -> dict[bytes, bytes | None]:
        """Rows changed since the last call."""
        changes = self._changes
        self._changes = {}
        return changes

    @staticmethod
    def _key(slot: int) -> bytes:
        return b"q" + slot.to_bytes(2, "big")
