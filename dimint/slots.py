"""Key bytes → slot → partition. [S]

`slot = int(md5(key)) % hash_range` with the digest read as one big-endian number, and
`partition = slot * partitions // hash_range`: partitions are contiguous slot ranges of nearly equal size.
Both numbers stand in the log's genesis event and never change for a log.
"""

from collections.abc import Iterable
from functools import lru_cache

try:
    from _md5 import md5  # type: ignore[import-not-found]  # no stub; half of what OpenSSL costs for a key
except ImportError:  # an interpreter that was built without it
    from hashlib import md5

__all__ = ["Homes", "homes", "partition_of", "slot_of", "slots_of", "stray"]

REMEMBERED_KEYS = 32_768


def slot_of(key: bytes, hash_range: int) -> int:
    """Slot of `key`, 0 ≤ slot < hash_range."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest(), "big") % hash_range


def partition_of(key: bytes, hash_range: int, partitions: int) -> int:
    """Partition of `key`, 0 ≤ partition < partitions; requires 1 ≤ partitions ≤ hash_range."""
    return slot_of(key, hash_range) * partitions // hash_range


class Homes(dict[str, int]):
    """Partition of each key, `homes[key]`: worked out when first asked for, then looked up.

    md5 was a quarter of what an mset costs an overlord, and `lru_cache` around it still a quarter of an mget.
    """

    def __init__(self, hash_range: int, partitions: int) -> None:
        super().__init__()
        self._hash_range, self._partitions = hash_range, partitions

    def __missing__(self, key: str) -> int:
        if len(self) >= REMEMBERED_KEYS:
            self.clear()
        home = self[key] = partition_of(key.encode(), self._hash_range, self._partitions)
        return home


@lru_cache(maxsize=8)
def homes(hash_range: int, partitions: int) -> Homes:
    """The one of this process for logs of these numbers."""
    return Homes(hash_range, partitions)


def slots_of(partition: int, hash_range: int, partitions: int) -> range:
    """Slots of `partition`; empty if there is no such partition."""
    if not 0 <= partition < partitions:
        return range(0)
    return range(-(-partition * hash_range // partitions), -(-(partition + 1) * hash_range // partitions))


def stray(keys: Iterable[bytes], slots: range, hash_range: int) -> bytes | None:
    """The first key whose slot is none of these; None if each has its slot there. Every event of every reader goes through."""
    first, last = slots.start, slots.stop
    number = int.from_bytes
    for key in keys:
        if not first <= number(md5(key, usedforsecurity=False).digest(), "big") % hash_range < last:
            return key
    return None
