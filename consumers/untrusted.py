"""Reading what other machines sent: a value of a wrong type, or out of all range, is not available and never an error. [S]"""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["LARGEST", "integer", "mapping", "mappings", "number", "text"]

LARGEST: Final = 1 << 63
"""What a table's integer can hold; NaN and infinity are beyond it too."""


def number(value: object) -> int | float | None:
    """A finite number of a sane size; yes and no are none."""
    return value if (type(value) is int or type(value) is float) and -LARGEST < value < LARGEST else None


def integer(value: object) -> int | None:
    """The same without its fraction."""
    if type(value) is int:  # read some hundred thousand times for a page of a thousand hosts
        return value if -LARGEST < value < LARGEST else None
    return int(value) if type(value) is float and -LARGEST < value < LARGEST else None


def text(value: object) -> str | None:
    """Text that is not empty."""
    return value if isinstance(value, str) and value else None


def mapping(value: object) -> Mapping[str, Any]:
    """A map; anything else is an empty one."""
    return value if type(value) is dict or isinstance(value, Mapping) else {}


def mappings(value: object, most: int) -> list[Mapping[str, Any]]:
    """The maps among the first `most` entries of a list; nothing of anything else."""
    if not isinstance(value, list):
        return []
    return [entry for entry in value[:most] if type(entry) is dict or isinstance(entry, Mapping)]
