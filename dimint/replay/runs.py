"""Runs of changes: what the history index keeps of a key is rows of several changes each, in the order of the log. [S]

::

    run     msgpack [change, …], at most RUN_CHANGES, fewer where their values pass RUN_BYTES together
    change  [offset − offset of the first, index, number of the kind in KINDS, stored value | nil,
             version − log time, log time − log time of the first, person], times in µs
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgpack

from dimint.batch import BY, KIND

if TYPE_CHECKING:
    from dimint.node.replica import Fresh

__all__ = ["KINDS", "LOG_TIME_US", "OFFSET", "Change", "Run", "Portion", "runs", "unpack", "whole"]

RUN_CHANGES: Final = 64
RUN_BYTES: Final = 16 << 10
"""A run is read whole for any of its changes."""
KINDS: Final = ("set", "delete", "incr", "cas", "expire")
_NUMBERS: Final = {f"kv.{kind}": number for number, kind in enumerate(KINDS)}

Change: TypeAlias = tuple[int, int, int, bytes | None, int, int, int]
"""Offset, index, number of the kind, stored value, version, log time in µs, person."""
OFFSET, LOG_TIME_US = 0, 5
"""Places in a Change."""


class Run(NamedTuple):
    """A row: offsets and log times of the first and of the last change, the changes packed."""

    offset: int
    last: int
    from_us: int
    to_us: int
    changes: bytes


class Portion:
    """Changes of one partition that are to be written; those below `reached` are there already."""

    def __init__(self, reached: int) -> None:
        self.begin(reached)

    def begin(self, reached: int) -> None:
        self.reached, self.count = reached, 0
        self.changes: defaultdict[bytes, list[Change]] = defaultdict(list)

    def add(self, batch: "Fresh", people: Sequence[int]) -> None:
        if batch.offset >= self.reached:
            _collect(batch, people, self.changes)
            self.count += len(batch.made.changes) // 2


def _collect(batch: "Fresh", people: Sequence[int], into: defaultdict[bytes, list[Change]]) -> None:
    """Add what a batch did to the changes of its keys; `people` are the numbers of those in its `by` table."""
    offset, _, prepared, made = batch
    changes, log_time_us, values = made.changes, made.log_time_us, prepared.values
    events, keys = prepared.events, prepared.keys
    if values is not None and len(changes) == 2 * len(values):  # all are sets, and all counted
        rows = zip(range(len(values)), keys, events, values, changes[1::2], repeat(log_time_us), strict=False)
        for index, key, event, value, version, time_us in rows:
            into[key].append((offset, index, 0, value, version, time_us, people[event[BY]]))
        return
    from dimint.node.journal import value_of

    for at in range(0, len(changes), 2):
        index = changes[at]
        event, key = events[index], keys[index]
        assert key is not None, "a barrier changes nothing"
        value = value_of(event, index, made)
        kind, version = _NUMBERS[event[KIND]], changes[at + 1]
        into[key].append((offset, index, kind, value, version, log_time_us, people[event[BY]]))


def runs(changes: Sequence[Change], most: int = RUN_CHANGES) -> Iterator[Run]:
    """The changes of a key in rows."""
    for at in range(0, len(changes), most):
        some = changes[at : at + most]
        if len(some) > 1 and sum([len(change[3] or b"") for change in some]) > RUN_BYTES:
            yield from runs(some, len(some) // 2)
        else:
            yield _run(some)


def _run(changes: Sequence[Change]) -> Run:
    start, begin_us = changes[0][0], changes[0][5]
    packed = msgpack.packb(
        [
            (offset - start, index, kind, value, version - time_us, time_us - begin_us, person)
            for offset, index, kind, value, version, time_us, person in changes
        ]
    )
    return Run(start, changes[-1][0], begin_us, changes[-1][5], packed)


def unpack(packed: bytes) -> Sequence[Change]:
    """The changes of a run, with offsets and times as they are packed: `whole` gives those of one."""
    changes: Sequence[Change] = msgpack.unpackb(packed, use_list=False)
    return changes


def whole(change: Change, start: int, begin_us: int) -> Change:
    """A change of a run, of the offset and log time of its first one."""
    offset, index, kind, value, version, passed_us, person = change
    time_us = begin_us + passed_us
    return start + offset, index, kind, value, version + time_us, time_us, person
