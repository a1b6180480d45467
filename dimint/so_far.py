"""How far a server is that reads its log before it can answer, as it tells who asks meanwhile. [S]"""

import math
from typing import Any, Self

import msgspec

__all__ = ["SoFar", "so_far_of"]


class SoFar(msgspec.Struct, frozen=True):
    """`done` of `total` records are read; after about `left_s` seconds it is worth asking again, None: not to be told yet.

    >>> print(SoFar(120, 1000, 39.2))
    12 % of the log is read, ask again in about 40 s
    """

    done: int
    total: int
    left_s: float | None = None

    @classmethod
    def after(cls, done: int, total: int, read: int, took_s: float) -> Self:
        """When the last `read` of these records took so long."""
        return cls(done, total, round((total - done) * took_s / read, 1) if read > 0 else None)

    @property
    def ask_again_s(self) -> int:
        """Whole seconds, at least 1."""
        return 1 if self.left_s is None else max(1, math.ceil(self.left_s))

    def __str__(self) -> str:
        share = min(99, 100 * self.done // self.total) if self.total else 0
        when = "" if self.left_s is None else f" in about {self.ask_again_s} s"
        return f"{share} % of the log is read, ask again{when}"


def so_far_of(fields: Any) -> SoFar | None:
    """What a reply says; None if it says nothing of the kind."""
    try:
        return msgspec.convert(fields, SoFar)
    except msgspec.ValidationError:
        return None
