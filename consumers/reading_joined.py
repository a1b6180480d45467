"""Hosts that are merged into others: who goes on with whose history, and the samples of all parts as one line of time."""

from collections.abc import Callable, Iterator, Mapping
from heapq import merge
from typing import TypeAlias

import apsw

from dimint.consumers.reading_host import LAST_NS, HostSamples
from dimint.consumers.rows import HostRow, Placed
from dimint.consumers.sealing import Key
from dimint.consumers.wanted import Wanted

__all__ = ["JoinedSamples", "Parts", "joined_row", "owners", "parts_by_owner", "parts_of"]

Parts: TypeAlias = tuple[str, ...]
"""Ids of one host: its own first, then those of the hosts that are merged into it."""


def owners(db: apsw.Connection) -> dict[str, str]:
    """Id of each merged host → id of the one that goes on with its history, at the end of all merges."""
    into: dict[str, str] = dict(db.execute("select id, merged_into from machines where merged_into <> ''"))
    found = {}
    for host, owner in into.items():
        passed = {host}
        while owner in into and owner not in passed:
            passed.add(owner)
            owner = into[owner]
        found[host] = owner
    return found


def parts_by_owner(owned: Mapping[str, str]) -> dict[str, Parts]:
    """The parts of each host that others are merged into."""
    found: dict[str, Parts] = {}
    for host, owner in sorted(owned.items()):
        found[owner] = (*found.get(owner, (owner,)), host)
    return found


def parts_of(db: apsw.Connection, host: str) -> Parts:
    """The parts of one host; of one that is merged itself what was merged into it before."""
    into = owners(db)
    return parts_by_owner(into).get(host, (host,)) if into else (host,)


def joined_row(row: HostRow, parts: Mapping[str, HostRow], ids: Parts) -> HostRow:
    """The row of a host with the times of all its parts."""
    rows = [row, *(parts[one] for one in ids if one in parts and one != row.id)]

    def of(choose: Callable[..., int], times: list[int | None]) -> int | None:
        known = [time for time in times if time is not None]
        return choose(known) if known else None

    return row._replace(
        registered_ns=min(one.registered_ns for one in rows),
        first_sample_ns=of(min, [one.first_sample_ns for one in rows]),
        last_sample_ns=of(max, [one.last_sample_ns for one in rows]),
        received_ns=of(max, [one.received_ns for one in rows]),
    )


class JoinedSamples:
    """The samples of all parts of a host in order: what HostSamples is for one part. See there for each method."""

    def __init__(self, db: apsw.Connection, ids: Parts) -> None:
        self.ids = ids
        self._parts = [HostSamples(db, host) for host in ids]

    def down(self, most: int, to_ns: int = LAST_NS) -> Iterator[Placed]:
        if len(self._parts) == 1:
            return self._parts[0].down(most, to_ns)
        return merge(*(part.down(most, to_ns) for part in self._parts), key=_order, reverse=True)

    def up(self, from_ns: int, to_ns: int, most: int, *, after: Key | None = None) -> Iterator[Placed]:
        if len(self._parts) == 1:
            return self._parts[0].up(from_ns, to_ns, most, after=after)
        return merge(*(part.up(from_ns, to_ns, most, after=after) for part in self._parts), key=_order)

    def single(self, from_ns: int, to_ns: int) -> list[Placed]:
        return sorted((placed for part in self._parts for placed in part.single(from_ns, to_ns)), key=_order)

    def newest(self, at_ns: int, wanted: Wanted | None = None) -> Placed | None:
        found = [placed for part in self._parts if (placed := part.newest(at_ns, wanted)) is not None]
        return max(found, key=_order, default=None)

    def next_time(self, from_ns: int) -> int | None:
        return min((time for part in self._parts if (time := part.next_time(from_ns)) is not None), default=None)


def _order(placed: Placed) -> tuple[int, int]:
    return placed[1].time_ns, placed[0]
