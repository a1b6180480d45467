"""Key bytes → slot → partition. [S]

`slot = int(md5(key)) % hash_range` with the digest read as one big-endian number, and
`partition = slot * partitions // hash_range`: partitions are contiguous slot ranges of nearly equal size.
Both numbers stand in the log's genesis event and never change for a log.
"""

from hashlib import md5

__all__ = ["partition_of", "slot_of"]


def slot_of(key: bytes, hash_range: int) -> int:
    """Slot of `key`, 0 ≤ slot < hash_range."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest(), "big") % hash_range


def partition_of(key: bytes, hash_range: int, partitions: int) -> int:
    """Partition of `key`, 0 ≤ partition < partitions; requires 1 ≤ partitions ≤ hash_range."""
    return int.from_bytes(md5(key, usedforsecurity=False).digest(), "big") % hash_range * partitions // hash_range
