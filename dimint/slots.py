"""Key bytes → slot → partition. [S]

`slot = int(md5(key)) % hash_range` with the digest read as one big-endian number, and
`partition = slot * partitions // hash_range`: partitions are contiguous slot ranges of nearly equal size.
Both numbers stand in the log's genesis event and never change for a log.
"""

from functools import lru_cache
from hashlib import md5

__all__ = ["partition_of", "slot_of"]

CACHED_KEYS = 32_768
"""Hot keys are looked up instead of hashed: md5 was a quarter of what an mset costs an overlord."""


def slot_of(key: bytes, hash_range: int) -> int:
    """Slot of `key`, 0 ≤ slot < hash_range."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest(), "big") % hash_range


@lru_cache(maxsize=CACHED_KEYS)
def partition_of(key: bytes, hash_range: int, partitions: int) -> int:
    """Partition of `key`, 0 ≤ partition < partitions; requires 1 ≤ partitions ≤ hash_range."""
    return slot_of(key, hash_range) * partitions // hash_range
