"""Which parts of samples are wanted: what is not shown is not read out of its chunk. [S]"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

__all__ = ["ANY", "Keys", "Wanted", "keys_under"]

Keys: TypeAlias = Mapping[str, "Keys | None"]
"""The keys of a map that are wanted, each with those of the map under it; None is all that stands there. ANY is any other key."""
ANY: Final = "*"


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
        under = ((key, part, keys_under(keys, key)) for key, part in value.items())
        return {key: _kept(part, found[0]) for key, part, found in under if found}
    return [_kept(part, keys) for part in value] if isinstance(value, list) else value


def keys_under(keys: Keys, key: Any) -> tuple[Keys | None] | None:
    """What is wanted of what stands under `key`; None if it is not wanted at all."""
    if key in keys:
        return (keys[key],)
    return (keys[ANY],) if ANY in keys else None
