"""The samples of one host in a table file, in order, from its single rows and its chunks."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

import apsw

from dimint.consumers.opened import OpenedChunk
from dimint.consumers.rows import Placed, placed_of, unpack_sample, unseal
from dimint.consumers.sealing import Key
from dimint.consumers.wanted import Wanted

__all__ = ["LAST_NS", "HostSamples"]

LAST_NS: Final = (1 << 63) - 1
"""The last time that a table can hold."""

# the table's name goes into the text: it is made of a checked id only
_TAIL_DOWN: Final = """select n, timestamp, blob from TABLE where sealed = 0 and timestamp <= ?
                       order by timestamp desc, n desc limit ?"""
_TAIL_UP: Final = """select n, timestamp, blob from TABLE where sealed = 0 and (timestamp, n) > (?, ?) and timestamp <= ?
                     order by timestamp, n limit ?"""
_TAIL_NEWEST: Final = """select n, timestamp, blob from TABLE where sealed = 0 and timestamp <= ?
                         order by timestamp desc, n desc limit 1"""
_TAIL_NEXT: Final = "select min(timestamp) from TABLE where sealed = 0 and timestamp >= ?"
_BLOB: Final = "select blob from TABLE where n = ?"
# a statement for each host's table has to be prepared each time, and few questions are for what is in no chunk yet
_CHUNK_BEFORE: Final = """select timestamp, n, until from chunks where host = ? and (timestamp, n) < (?, ?)
                          order by timestamp desc, n desc limit 1"""
_CHUNK_FROM: Final = """select timestamp, n, until from chunks where host = ? and (timestamp, n) >= (?, ?) and timestamp <= ?
                        order by timestamp, n limit 1"""
_SINGLE: Final = "select single_ns from latest where id = ?"


class HostSamples:
    """One host's samples in order: its tail in memory, chunks opened one at a time and only when they are reached.

    Chunks do not overlap each other, but a late row of the tail may stand anywhere.
    """

    def __init__(self, db: apsw.Connection, host: str) -> None:
        self._db, self._host, self._table = db, host, f"host_{host}"
        self._opened: tuple[int, OpenedChunk, list[int]] | None = None
        self._single_ns: int | None = db.execute(_SINGLE, (host,)).get
        """Time of the oldest sample that is in no chunk; None for a host without samples: then there need be no table."""

    def down(self, most: int, to_ns: int = LAST_NS) -> Iterator[Placed]:
        """Samples at or before `to_ns`, newest first; the first `most` of them are sure to be right and complete."""
        to_ns = max(-1, min(to_ns, LAST_NS))
        tail = self._tail(_TAIL_DOWN, to_ns, to_ns, most)
        at = 0
        edge = (to_ns, LAST_NS)
        while span := self._span(_CHUNK_BEFORE, edge):
            time, n, until = span
            edge = (time, n)
            while at < len(tail) and tail[at][1].time_ns > until:
                yield tail[at]
                at += 1
            inside = [placed for placed in self._chunk(n) if placed[1].time_ns <= to_ns]
            while at < len(tail) and _order(tail[at]) > edge:
                inside.append(tail[at])
                at += 1
            yield from sorted(inside, key=_order, reverse=True)
        yield from tail[at:]

    def up(
        self, from_ns: int, to_ns: int, most: int, *, after: Key | None = None, wanted: Wanted | None = None
    ) -> Iterator[Placed]:
        """Samples in the closed range, oldest first; the first `most` of them (-1 = all) are sure to be right.

        With `after` only those behind that key. Of chunks only what is wanted is decoded.
        """
        from_ns, to_ns = max(0, min(from_ns, LAST_NS)), max(-1, min(to_ns, LAST_NS))
        behind = (from_ns, -1) if after is None else max(after, (from_ns, -1))
        from_ns = behind[0]
        tail = self._tail(_TAIL_UP, to_ns, *behind, to_ns, most)
        at = 0
        # of the chunks that start before the range only the last one may reach into it
        time, n, _ = self._span(_CHUNK_BEFORE, (from_ns, -1)) or (from_ns, -1, 0)
        edge = (time, n)
        while span := self._span(_CHUNK_FROM, (*edge, to_ns)):
            time, n, until = span
            edge = (time, n + 1)
            while at < len(tail) and _order(tail[at]) < (time, n):
                yield tail[at]
                at += 1
            if until < from_ns:
                continue
            inside = [placed for placed in self._chunk(n, wanted) if behind < _order(placed) and placed[1].time_ns <= to_ns]
            while at < len(tail) and tail[at][1].time_ns <= until:
                inside.append(tail[at])
                at += 1
            yield from sorted(inside, key=_order)
        yield from tail[at:]

    def single(self, from_ns: int, to_ns: int) -> list[Placed]:
        """The samples of the closed range that are in no chunk yet, and so in no tier, oldest first."""
        from_ns, to_ns = max(0, min(from_ns, LAST_NS)), max(-1, min(to_ns, LAST_NS))
        return self._tail(_TAIL_UP, to_ns, from_ns, -1, to_ns, -1)

    def chunks(self, from_ns: int, to_ns: int) -> Iterator[OpenedChunk]:
        """The chunks with samples in the closed range, in order; they may have others too."""
        time, n, _ = self._span(_CHUNK_BEFORE, (max(0, from_ns), -1)) or (from_ns, -1, 0)
        edge = (time, n)
        while span := self._span(_CHUNK_FROM, (*edge, min(to_ns, LAST_NS))):
            time, n, until = span
            edge = (time, n + 1)
            if until >= from_ns:
                yield self._open(n)[0]

    def newest(self, at_ns: int, wanted: Wanted | None = None) -> Placed | None:
        """The last sample at or before this time; of a chunk only that one is decoded, and only what is wanted of it."""
        at_ns = max(-1, min(at_ns, LAST_NS))
        found = next(iter(self._tail(_TAIL_NEWEST, at_ns, at_ns)), None)
        span = self._span(_CHUNK_BEFORE, (at_ns, LAST_NS))
        if span is not None and (found is None or found[1].time_ns <= span[2]):
            chunk, times = self._open(span[1])
            placed = placed_of(chunk.value(bisect_right(times, at_ns) - 1, wanted))
            found = placed if found is None or _order(placed) > _order(found) else found
        return found

    def next_time(self, from_ns: int) -> int | None:
        """When the first sample at or after this time was taken."""
        if self._single_ns is None:
            return None
        from_ns = max(0, min(from_ns, LAST_NS))
        time: int | None = self._single_ns
        if self._single_ns < from_ns:
            time = self._db.execute(_TAIL_NEXT.replace("TABLE", self._table), (from_ns,)).get
        before = self._span(_CHUNK_BEFORE, (from_ns, -1))
        if before is not None and before[2] >= from_ns:
            times = self._open(before[1])[1]
            found = [times[bisect_left(times, from_ns)]]
        else:
            behind = self._span(_CHUNK_FROM, (from_ns, -1, LAST_NS))
            found = [] if behind is None else [behind[0]]
        return min([*found, *([] if time is None else [time])], default=None)

    def _open(self, n: int) -> tuple[OpenedChunk, list[int]]:
        """The chunk whose first sample has this number, and its times; the last one is kept."""
        if self._opened is None or self._opened[0] != n:
            # read by its place: a statement for each host's table would have to be prepared each time
            with self._db.blob_open("main", self._table, "blob", n, False) as blob:
                chunk = OpenedChunk(blob.read())
            self._opened = n, chunk, chunk.leaves(0)
        return self._opened[1:]

    def _tail(self, sql: str, to_ns: int, *bounds: int) -> list[Placed]:
        """Single rows, of which none is asked for that was taken after `to_ns`."""
        if self._single_ns is None or to_ns < self._single_ns:
            return []
        rows = self._db.execute(sql.replace("TABLE", self._table), bounds)
        return [(n, unpack_sample(time, blob)) for n, time, blob in rows]

    def _span(self, sql: str, bounds: tuple[int, ...]) -> tuple[int, int, int] | None:
        span: tuple[int, int, int] | None = self._db.execute(sql, (self._host, *bounds)).get
        return span

    def _chunk(self, n: int, wanted: Wanted | None = None) -> list[Placed]:
        if wanted is not None:
            return [placed_of(row) for row in self._open(n)[0].values(wanted)]
        return unseal(self._db.execute(_BLOB.replace("TABLE", self._table), (n,)).get)


def _order(placed: Placed) -> tuple[int, int]:
    return placed[1].time_ns, placed[0]
