"""Keys for the partitions that tests want them in."""

from itertools import count

from dimint.genesis import Genesis

__all__ = ["ONE", "placed"]

ONE = Genesis("g", 10_000, 1, 1)
"""Of a log whose keys are all in partition 0."""


def placed(name: str, partition: int, genesis: Genesis) -> str:
    """A key in this partition: the name itself if it is, else the name, a dot and the first number that makes it so."""
    keys = (f"{name}.{number}" if number else name for number in count())
    return next(key for key in keys if genesis.partition_of_key(key.encode()) == partition)
