"""Which tail rows go into which chunk. [S]

Chunks of a host never overlap in the order of (time_ns, n). Tail rows that are newer than every chunk make new chunks.
A late row that falls inside a chunk is merged into it; one between two chunks makes a chunk there. Merging costs a chunk's
decoding and encoding, so at most MERGES_MAX chunks are touched at once: rows that would touch more stay in the tail, where
readers find them as well, until a later seal.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final, NamedTuple, TypeAlias

__all__ = ["CHUNK_MAX_BYTES", "CHUNK_MAX_SAMPLES", "KEEP_TAIL", "MERGES_MAX", "SEAL_LEAST", "SEAL_MOST", "ChunkSpan", "Group",
           "Key", "group_rows", "split_sizes"]  # fmt: skip

KEEP_TAIL: Final = 60
"""Newest rows of a host that always stay single: what most pages ask for is read without opening a chunk."""
SEAL_LEAST: Final = 60
"""Fewer rows than this are not worth a chunk yet."""
SEAL_MOST: Final = 480
"""Rows sealed at once; what is more waits for the next time."""
CHUNK_MAX_SAMPLES: Final = 480
CHUNK_MAX_BYTES: Final = 4 << 20
"""Samples of one chunk before compression; one larger sample is a chunk of its own."""
MERGES_MAX: Final = 4

Key: TypeAlias = tuple[int, int]
"""(time_ns, n) of a sample."""


class ChunkSpan(NamedTuple):
    """A chunk's first key and its last time; its row is found by the n of its first sample."""

    first: Key
    until_ns: int


class Group(NamedTuple):
    """Rows that become one chunk or more, together with the chunk `into` if there is one."""

    into: ChunkSpan | None
    rows: list[Key]


def group_rows(rows: Sequence[Key], chunks: Sequence[ChunkSpan]) -> list[Group]:
    """Share out the rows. `chunks` are those that start at or after the last chunk before the first row; both ascend."""
    groups: list[Group] = []
    merges = 0
    at = -1
    for row in rows:
        moved = False
        while at + 1 < len(chunks) and chunks[at + 1].first <= row:
            at += 1
            moved = True
        into = chunks[at] if at >= 0 and row[0] <= chunks[at].until_ns else None
        if groups and not moved and groups[-1].into == into:
            groups[-1].rows.append(row)
            continue
        if into is not None:
            merges += 1
            if merges > MERGES_MAX:
                break
        groups.append(Group(into, [row]))
    return groups


def split_sizes(sizes: Sequence[int]) -> Iterator[int]:
    """Cut a run of samples, given by their plain sizes, into chunks of even length: how many samples each one takes."""
    most = ceil(len(sizes) / max(1, ceil(len(sizes) / CHUNK_MAX_SAMPLES)))
    count, total = 0, 0
    for size in sizes:
        if count and (count == most or total + size > CHUNK_MAX_BYTES):
            yield count
            count, total = 0, 0
        count, total = count + 1, total + size
    if count:
        yield count
