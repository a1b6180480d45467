"""Keys and values of one partition while batches are applied: versions, expiries, digest. [S]

A key's version is `max(previous version + 1, log time in µs)`, at least 1. A deleted key counts as previous as long as log
time has not passed its version, so a version is never used twice for a key; it depends on the key's own history and on
log time, not on positions or on how many partitions there are.
"""

from collections.abc import Iterable

from xxhash import xxh3_128_intdigest

from dimint.node.rows import DIGEST_MASK, HEAD, TAILS, VERSION, deleted_key, due_key
from dimint.node.state import State

__all__ = ["Keyspace"]

_PAGE = 10_000
_pack, _unpack = HEAD.pack, HEAD.unpack_from


class Keyspace:
    """A write-back cache over the data table. `prepare` the keys, change them, then `save`.

    `digest` is exact between batches; `key_count` counts the keys that are there.
    """

    def __init__(self, state: State, *, digest: int = 0, key_count: int = 0) -> None:
        self._data, self._side = state.data, state.side
        self.digest, self.key_count = digest, key_count
        self._rows: dict[bytes, bytes | None] = {}  # None: deleted
        self._changed: set[bytes] = set()
        self._order: list[bytes] = []
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

    def prepare(self, keys: Iterable[bytes]) -> None:
        """Load the rows of `keys`; `get`, `put` and `delete` take only these until the next `save`."""
        self._order = sorted(keys)
        self._rows = dict(self._data.load(self._order))

    def get(self, key: bytes) -> bytes | None:
        """The key's row (dimint/node/rows.py)."""
        return self._rows.get(key)

    def put(self, key: bytes, value: bytes, expires_us: int, now_us: int) -> int:
        """Store a value; its version. `now_us` is the batch's log time."""
        tail = key + TAILS[len(key)]
        digest = self.digest
        old = self._rows.get(key)
        if old is None:
            self.key_count += 1
            version = now_us or 1
            if self._deleted and (last := self._deleted.pop(key, None)) is not None:
                self._side_changes[deleted_key(key)] = None
                if last >= version:
                    version = last + 1
        else:
            last, old_expires_us = _unpack(old)
            if old_expires_us:
                self._side_changes[due_key(old_expires_us, key)] = None
            version = last + 1 if last >= now_us else now_us
            digest -= xxh3_128_intdigest(old + tail)
        row = _pack(version, expires_us) + value
        if expires_us:
            self._side_changes[due_key(expires_us, key)] = VERSION.pack(version) + key
        self.digest = (digest + xxh3_128_intdigest(row + tail)) & DIGEST_MASK
        self._rows[key] = row
        self._changed.add(key)
        made = self._made
        made.append(self.index)
        made.append(version)
        return version

    def delete(self, key: bytes, now_us: int) -> None:
        """Remove a key; nothing happens if there is none."""
        old = self._rows.get(key)
        if old is None:
            return
        version, expires_us = _unpack(old)
        if expires_us:
            self._side_changes[due_key(expires_us, key)] = None
        if version >= now_us:
            self._deleted[key] = version
            self._side_changes[deleted_key(key)] = VERSION.pack(version) + key
        self.digest = (self.digest - xxh3_128_intdigest(old + key + TAILS[len(key)])) & DIGEST_MASK
        self.key_count -= 1
        self._rows[key] = None
        self._changed.add(key)
        self._made += (self.index, version)

    def take_made(self) -> list[int]:
        """[index, version, …] of each change since the last call, in order; of a deletion the version that is gone."""
        made = self._made
        self._made = []
        return made

    def save(self, log_time_us: int) -> dict[bytes, bytes | None]:
        """Write the data table; the changes of the side table, which the caller writes with its own."""
        rows = self._rows
        changed = self._changed
        self._data.save({key: rows[key] for key in self._order if key in changed})
        self._rows, self._order = {}, []
        changed.clear()
        if self._deleted:
            for key in [key for key, version in self._deleted.items() if version < log_time_us]:
                del self._deleted[key]
                self._side_changes[deleted_key(key)] = None
        changes = self._side_changes
        self._side_changes = {}
        return changes
