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

__all__ = ["partition_of", "slot_of", "slots_of", "stray"]

CACHED_KEYS = 32_768
"""Hot keys are looked up instead of hashed: md5 was a quarter of what an mset costs an overlord."""


def slot_of(key: bytes, hash_range: int) -> int:
    """Slot of `key`, 0 ≤ slot < hash_range."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest(), "big") % hash_range


@lru_cache(maxsize=CACHED_KEYS)
def partition_of(key: bytes, hash_range: int, partitions: int) -> int:
    """Partition of `key`, 0 ≤ partition < partitions; requires 1 ≤ partitions ≤ hash_range."""
    return slot_of(key, hash_range) * partitions // hash_range


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
