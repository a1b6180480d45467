"""The bytes of a node's store: rows of the data, their digest, the index of expiries. [S]

::

    data      key → version (8 bytes, big-endian), expires_us (8 bytes, 0 = never), stored value
    digest    sum over all keys of xxh3_128(row + key + len(key) as 2 bytes) mod 2^128
    due       b"e" + expires_us (8 bytes) + short(key) → version (8 bytes) + key
    deleted   b"d" + short(key) → version (8 bytes) + key

`short(key)` is the key, or for a long one its beginning and a hash, because a prefix and 511 bytes do not fit a store's
key. The length at the end makes the digest's bytes unambiguous.
"""

from hashlib import blake2b
from struct import Struct

from dimint.limits import KEY_MAX_BYTES

__all__ = ["DIGEST_MASK", "HEAD", "TAILS", "VALUE_AT", "VERSION", "deleted_key", "due_key"]

HEAD = Struct(">QQ")
"""version, expires_us"""
VERSION = Struct(">Q")
VALUE_AT = HEAD.size
DIGEST_MASK = (1 << 128) - 1
TAILS = tuple(length.to_bytes(2, "big") for length in range(KEY_MAX_BYTES + 1))
"""What ends the digest's bytes, by the length of the key."""

_SHORT_MAX = 400


def _short(key: bytes) -> bytes:
    # a shortened key is one byte longer than any that stays as it is, so the two never meet
    return key if len(key) <= _SHORT_MAX else key[: _SHORT_MAX - 31] + blake2b(key, digest_size=32).digest()


def due_key(expires_us: int, key: bytes) -> bytes:
    """Key of the index row of a key that expires."""
    return b"e" + VERSION.pack(expires_us) + _short(key)


def deleted_key(key: bytes) -> bytes:
    """Key of the row that keeps the version of a deleted key."""
    return b"d" + _short(key)
