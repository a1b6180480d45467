"""What stands on a time axis beside numbers: something that happened. [S]"""

from typing import NamedTuple

__all__ = ["Mark"]


class Mark(NamedTuple):
    """Something that happened: symbol, class (`bad`, `warn`, `wait`, `ok`, `plain`) and words."""

    time_ns: int
    symbol: str
    cls: str
    words: str
