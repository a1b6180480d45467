"""States of the store in the past, as the history index is asked for them. [S]"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from dimint.replay.runs import LOG_TIME_US, OFFSET, Change

__all__ = ["LAST_US", "Cut", "count_in", "parameter_of", "side"]

Cut: TypeAlias = int | Mapping[int, int]
"""A state of the store: after everything up to a log time in µs, or partition → offset, after everything up to the record
there. Both are in it. Keys of partitions that positions do not name are left out."""

LAST_US: Final = (1 << 63) - 1


def side(cut: Cut, compare: str, parameter: int) -> str:
    """SQL: whether a run has something on this side of a cut, which is the parameter of this number (`parameter_of`)."""
    early = compare.startswith("<")
    if isinstance(cut, int):
        return f"{'from_us' if early else 'to_us'} {compare} ?{parameter}"
    last = f"(select value ->> 1 from json_each(?{parameter}) where value ->> 0 = part)"  # noqa: S608 (a number)
    return f"{'offset' if early else 'last'} {compare} {last}"  # of a partition that is not named: null, which is on no side


def parameter_of(cut: Cut) -> int | str:
    return min(cut, LAST_US) if isinstance(cut, int) else json.dumps(sorted(cut.items()))


def count_in(changes: Sequence[Change], run: Sequence[Any], cut: Cut, *, before: bool = False) -> int:
    """How many of a run's changes, as `unpack` gives them, stand up to a cut, or `before` it. `run` begins with its key,
    partition, offset and log time."""
    _, partition, offset, from_us, *_ = run
    place, most = (LOG_TIME_US, cut - from_us) if isinstance(cut, int) else (OFFSET, cut.get(partition, -1) - offset)
    return (bisect_left if before else bisect_right)(changes, most, key=itemgetter(place))
