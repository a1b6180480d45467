"""Which parts of samples are wanted: what is not shown is not read out of its chunk. [S]"""

from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["Keys", "Wanted"]

Keys: TypeAlias = Mapping[str, "Keys | None"]
"""The keys of a map that are wanted, each with those of the map under it; None is all that stands there."""


class Wanted:
    """The keys of a sample; lists count as each of their entries does. Made once and kept: it is compared by identity."""

    __slots__ = ("keys",)

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def of(self, value: Any) -> Any:
        """The value without what is not wanted, as reading it out of a chunk gives it."""
        return _kept(value, self.keys)


def _kept(value: Any, keys: Keys | None) -> Any:
    if keys is None:
        return value
    if isinstance(value, dict):
        return {key: _kept(part, keys[key]) for key, part in value.items() if key in keys}
    return [_kept(part, keys) for part in value] if isinstance(value, list) else value
