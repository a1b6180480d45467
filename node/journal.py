"""Which events of the last records changed something, and to which version: with the log, what a watch is served from. [S]

A record alone does not tell what it did: whether a cas applied, what an incr came to, whether a late copy counted. So each
record that changed anything leaves a small row here, in the same commit as the data:

    change row   b"h" + offset (8 bytes) → log time µs (8), then msgpack [[index, version − log time, …], {index: integer}]
    about row    b"k" → floor (8), bytes of all change rows (8)

`index` is the event's place in its batch; of a delete and an expiry the version is the one that was removed; the integers
are those that incr came to, as text: every other value stands in the event itself. The rows cover every record from the
floor on. Rows beyond CHANGES_KEEP_BYTES are dropped, the oldest first, and the floor rises.
"""

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Final, NamedTuple

import msgpack

from dimint.batch import FIELDS, KEY, KIND, Event
from dimint.door import Change, Outcome
from dimint.limits import CHANGES_KEEP_BYTES
from dimint.node.state import Table

__all__ = ["Journal", "Made", "changes_of", "value_of"]

_ROW, _ABOUT = b"h", b"k"
_PAIR: Final = Struct(">QQ")
_NUMBER: Final = Struct(">Q")


class Made(NamedTuple):
    """What one record did: [index, version, index, version, …] of its events that changed something, in order."""

    log_time_us: int
    changes: Sequence[int]
    integers: Mapping[int, str]


def changes_of(offset: int, events: Sequence[Event], made: Made) -> list[Change]:
    """The changes of one record, in order. `events` are its batch's."""
    found = []
    changes = made.changes
    for at in range(0, len(changes), 2):
        index = changes[at]
        event = events[index]
        value = value_of(event, index, made)
        found.append(Change(event[KIND][3:], event[KEY], value, changes[at + 1], offset, index, made.log_time_us))
    return found


def value_of(event: Event, index: int, made: Made) -> bytes | None:
    """The stored value that an event of a record left behind; None if it removed the key."""
    kind = event[KIND]
    value: bytes | None = None
    if kind == "kv.set":
        value = event[FIELDS + 1]
    elif kind == "kv.cas":
        value = event[FIELDS + 3]
    elif kind == "kv.incr":
        value = b"J" + made.integers[index].encode()
    return value


class Journal:
    """The change rows of one partition. What is added stays in memory until `take_changes`.

    `start` is the floor of a table that has no rows yet: nothing is known of what was applied before.
    """

    def __init__(self, side: Table, start: int, *, keep_bytes: int = CHANGES_KEEP_BYTES) -> None:
        self._side, self._keep_bytes = side, keep_bytes
        about = side.get(_ABOUT)
        floor, size = (start, 0) if about is None else _PAIR.unpack(about)
        self.floor: int = floor
        self._bytes: int = size
        self._new: dict[bytes, bytes | None] = {}
        if about is None:
            self._new[_ABOUT] = _PAIR.pack(start, 0)

    def add(self, offset: int, log_time_us: int, changes: Sequence[int], outcomes: Mapping[int, Outcome]) -> Made:
        """Keep what one record did."""
        integers: dict[int, str] = {}
        if outcomes:
            changed = set(changes[::2])
            for index, outcome in outcomes.items():
                if outcome.value is not None and index in changed:
                    integers[index] = outcome.value
        flat = list(changes)
        flat[1::2] = [version - log_time_us for version in changes[1::2]]
        row = _NUMBER.pack(log_time_us) + msgpack.packb([flat, integers])
        self._new[_ROW + _NUMBER.pack(offset)] = row
        self._bytes += len(row)
        return Made(log_time_us, changes, integers)

    def find(self, start: int, limit: int) -> list[tuple[int, Made]]:
        """(offset, what it did) of at most `limit` records from `start` on that changed something. Ask after a save."""
        found = []
        for key, row in self._side.scan(_ROW + _NUMBER.pack(start), _ROW, limit):
            log_time_us = _NUMBER.unpack_from(row)[0]
            flat, integers = msgpack.unpackb(row[_NUMBER.size :], strict_map_key=False)
            flat[1::2] = [version + log_time_us for version in flat[1::2]]
            found.append((_NUMBER.unpack_from(key, 1)[0], Made(log_time_us, flat, integers)))
        return found

    def take_changes(self) -> dict[bytes, bytes | None]:
        """Rows changed since the last call, None for dropped ones."""
        changes, self._new = self._new, {}
        if changes and self._bytes > self._keep_bytes:
            for key, row in self._side.scan(_ROW, _ROW, 2 * len(changes) + 8):
                changes[key] = None
                self._bytes -= len(row)
                self.floor = _NUMBER.unpack_from(key, 1)[0] + 1
                if self._bytes <= self._keep_bytes:
                    break
        if changes:
            changes[_ABOUT] = _PAIR.pack(self.floor, self._bytes)
        return changes
