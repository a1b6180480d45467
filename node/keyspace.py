"""Keys and values of one partition while batches are applied: versions, expiries, digest. [S]

A key's version is `max(previous version + 1, log time in µs)`, at least 1. A deleted key counts as previous as long as log
time has not passed its version, so a version is never used twice for a key; it depends on the key's own history and on
log time, not on positions or on how many partitions there are.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from xxhash import xxh3_128_intdigest

from dimint.node.rows import DIGEST_MASK, HEAD, TAILS, VALUE_AT, VERSION, deleted_key, due_key
from dimint.node.state import State

__all__ = ["Keyspace", "Row"]

Row: TypeAlias = tuple[int, int, bytes]
"""Version, expiry in µs (0: never), stored value."""

_PAGE = 10_000
_pack, _unpack = HEAD.pack, HEAD.unpack_from


class Keyspace:
    """A write-back cache over the data table. `prepare` the keys and change them, as often as you like, then `save`.

    What a key was before is hashed, and what it has become is packed, hashed and written, once for all changes between two
    calls of `settle`: in a rebuild that is a small part of what is done for each change.

    `digest` is exact after `settle`; `key_count` counts the keys that are there.
    """

    def __init__(self, state: State, *, digest: int = 0, key_count: int = 0) -> None:
        self._data, self._side = state.data, state.side
        self.digest, self.key_count = digest, key_count
        self._stored: dict[bytes, bytes] = {}
        """Rows of prepared keys as the table has them."""
        self._rows: dict[bytes, Row | None] = {}
        """What was changed since; None: deleted."""
        self._absent: set[bytes] = set()
        """Prepared keys that neither has."""
        self._side_changes: dict[bytes, bytes | None] = {}
        self.index = 0
        """Place of the event that is being applied; set by whoever applies it."""
        self._made: list[int] = []
        self._deleted = {row[8:]: VERSION.unpack_from(row)[0] for _, row in self._side.scan(b"d", b"d", 1 << 30)}

    def added_up(self) -> tuple[int, int]:
        """Digest and number of the rows that are there. Between batches."""
        digest = count = 0
        start = b""
        while page := list(self._data.scan(start, b"", _PAGE)):
            digest += sum(xxh3_128_intdigest(row + key + TAILS[len(key)]) for key, row in page)
            count += len(page)
            start = page[-1][0] + b"\0"
        return digest & DIGEST_MASK, count

    def prepare(self, keys: set[bytes]) -> int:
        """Load the rows of `keys`, unless they are here; bytes of rows loaded. `get`, `put` and `delete` take only keys that
        were prepared since the last `save`."""
        missing = keys.difference(self._rows).difference(self._stored).difference(self._absent)
        if not missing:
            return 0
        found = self._data.load(sorted(missing))
        self._stored.update(found)
        self._absent |= missing.difference(found)
        return sum(map(len, found.values()))

    def strangers(self, keys: Sequence[bytes | None]) -> Sequence[bytes]:
        """Those of the prepared `keys`, in order, that no batch that counted has set: all others belong here."""
        absent, rows = self._absent, self._rows
        return [key for key in keys if key in absent and key not in rows] if absent else ()

    def get(self, key: bytes) -> Row | None:
        """The key's version, expiry and value."""
        if key in self._rows:
            return self._rows[key]
        packed = self._stored.get(key)
        return None if packed is None else (*_unpack(packed), packed[VALUE_AT:])

    def put_all(self, keys: Sequence[bytes], values: Sequence[bytes], now_us: int) -> list[int]:
        """Store values for ever, as if with `put` one after the other; their versions. Their places are 0, 1, …"""
        rows, stored, deleted = self._rows, self._stored, self._deleted
        get, first = rows.get, now_us or 1
        versions: list[int] = []
        add = versions.append
        new = 0
        for key, value in zip(keys, values, strict=True):
            old: Sequence[Any] | None = get(key)
            if old is None:
                packed = stored.get(key)
                if packed is None or key in rows:
                    if deleted:
                        add(self._put(key, value, 0, now_us))
                    else:
                        new += 1
                        rows[key] = (first, 0, value)
                        add(first)
                    continue
                old = _unpack(packed)
            if old[1]:
                add(self._put(key, value, 0, now_us))
            else:
                version = old[0]
                version = version + 1 if version >= now_us else now_us
                rows[key] = (version, 0, value)
                add(version)
        self.key_count += new
        made = [0] * (2 * len(versions))
        made[::2] = range(len(versions))
        made[1::2] = versions
        self._made += made
        return versions

    def put(self, key: bytes, value: bytes, expires_us: int, now_us: int) -> int:
        """Store a value; its version. `now_us` is the batch's log time."""
        old = self._rows.get(key)
        if old is None or old[1] or expires_us:
            version = self._put(key, value, expires_us, now_us)
        else:
            version = old[0]
            version = version + 1 if version >= now_us else now_us
            self._rows[key] = (version, 0, value)
        made = self._made
        made.append(self.index)
        made.append(version)
        return version

    def _put(self, key: bytes, value: bytes, expires_us: int, now_us: int) -> int:
        head = self._head(key)
        if head is None:
            self.key_count += 1
            version = now_us or 1
            if self._deleted and (last := self._deleted.pop(key, None)) is not None:
                self._side_changes[deleted_key(key)] = None
                if last >= version:
                    version = last + 1
        else:
            version = head[0] + 1 if head[0] >= now_us else now_us
            if head[1]:
                self._side_changes[due_key(head[1], key)] = None
        if expires_us:
            self._side_changes[due_key(expires_us, key)] = VERSION.pack(version) + key
        self._rows[key] = (version, expires_us, value)
        return version

    def _head(self, key: bytes) -> Sequence[Any] | None:
        """A key's row, or at least its version and expiry; None if there is none."""
        packed = self._stored.get(key)
        return self._rows.get(key) if packed is None or key in self._rows else _unpack(packed)

    def delete(self, key: bytes, now_us: int) -> None:
        """Remove a key; nothing happens if there is none."""
        head = self._head(key)
        if head is None:
            return
        version, expires_us = head[:2]
        if expires_us:
            self._side_changes[due_key(expires_us, key)] = None
        if version >= now_us:
            self._deleted[key] = version
            self._side_changes[deleted_key(key)] = VERSION.pack(version) + key
        self.key_count -= 1
        self._rows[key] = None
        self._made += (self.index, version)

    def take_made(self) -> list[int]:
        """[index, version, …] of each change since the last call, in order; of a deletion the version that is gone."""
        made = self._made
        self._made = []
        return made

    def settle(self) -> None:
        """Write the data table and bring the digest up to date. The rows stay prepared."""
        stored, absent = self._stored, self._absent
        for key, packed in self._write().items():
            if packed is None:
                absent.add(key)
                del stored[key]
            else:
                stored[key] = packed

    def _write(self) -> dict[bytes, bytes | None]:
        """What was changed goes to the data table and into the digest; the rows as bytes, None for the deleted."""
        old_row, rows = self._stored.get, self._rows
        digest = self.digest
        changes: dict[bytes, bytes | None] = {}
        for key in sorted(rows):
            row = rows[key]
            tail = key + TAILS[len(key)]
            old = old_row(key)
            if row is not None:
                packed = changes[key] = _pack(row[0], row[1]) + row[2]
                digest += xxh3_128_intdigest(packed + tail)
            elif old is not None:
                changes[key] = None
            if old is not None:
                digest -= xxh3_128_intdigest(old + tail)
        rows.clear()
        self.digest = digest & DIGEST_MASK
        self._data.save(changes)
        return changes

    def save(self, log_time_us: int) -> dict[bytes, bytes | None]:
        """Settle and let go of the rows; the changes of the side table, which the caller writes with its own."""
        self._write()
        self._stored.clear()
        self._absent.clear()
        if self._deleted:
            for key in [key for key, version in self._deleted.items() if version < log_time_us]:
                del self._deleted[key]
                self._side_changes[deleted_key(key)] = None
        changes = self._side_changes
        self._side_changes = {}
        return changes
