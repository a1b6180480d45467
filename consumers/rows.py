"""Rows of the status tables: what they mean and the bytes of their blobs. [S]

A host's table has two sorts of rows. A *tail row* is one sample; its blob is an lz4 block (with its size in front) of
msgpack `[received_ns − time_ns, run, seq, sample]`. A *sealed row* is a chunk of older samples (consumers/chunk.py), each
of them `[time_ns, n, received_ns − time_ns, run, seq, sample]`, in the order of (time_ns, n). n counts the samples of a
host in log order, so it is the same in every rebuild; it orders samples of the same nanosecond.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import lz4.block
import msgpack

from dimint.consumers import chunk
from dimint.errors import CorruptRecord
from dimint.limits import SAMPLE_MAX_BYTES

__all__ = [
    "FORMAT", "GpuTotal", "HostEvent", "HostRow", "PackedSample", "Placed", "StoredSample", "XidCount", "is_host_id",
    "pack_sample", "packed_sample", "placed_of", "seal", "unpack_row", "unpack_sample", "unseal",
]  # fmt: skip

FORMAT: Final = 12
"""Of a table file: its tables, and what stands in their blobs. A file of another one is filled anew from the log."""

_HEX = frozenset("0123456789abcdef")


class HostRow(NamedTuple):
    """One host. Times are ns since the epoch, UTC.

    `name` is unique and has the form that the pages and `/states/` use; `given_name` is what the host calls itself.
    `received_ns` is the log time of whatever sample came last, however old that sample is. The times are None for a host
    that has not sent a sample.
    """

    id: str
    name: str
    ip: str
    facts: dict[str, Any]
    simulated: bool
    registered_ns: int
    first_sample_ns: int | None
    last_sample_ns: int | None
    received_ns: int | None
    given_name: str


class HostEvent(NamedTuple):
    """Something that happened on or to a host: `kind` and `fields` as in docs/events.md, times as of a sample.

    `n` counts what happened to the host in log order.
    """

    host: str
    n: int
    kind: str
    time_ns: int
    received_ns: int
    fields: dict[str, Any]


class GpuTotal(NamedTuple):
    """What a user held of a host's GPUs since its first sample, each GPU whole however many share it, µs."""

    host: str
    user: str
    held_us: int
    active_us: int


class XidCount(NamedTuple):
    """How often a GPU's driver reported an error, and when last; `gpu` is the UUID, empty where the driver names none."""

    host: str
    gpu: str
    xid: int
    errors: int
    last_ns: int


class StoredSample(NamedTuple):
    """One sample: taken at `time_ns` by the host's clock, in the log at `received_ns` by the log's clock."""

    time_ns: int
    received_ns: int
    run: bytes
    seq: int
    sample: dict[str, Any]


class PackedSample(NamedTuple):
    """A sample for who has a decoder of his own. `n` is its number in the host's log order, `row` a tail row's msgpack."""

    time_ns: int
    n: int
    row: bytes


Placed: TypeAlias = tuple[int, StoredSample]
"""(n, sample): a sample with its number in the host's log order."""


def is_host_id(text: object) -> bool:
    """Whether this is 32 hex digits, small letters: the only thing a host's table is ever named after."""
    return type(text) is str and len(text) == 32 and _HEX.issuperset(text)


def pack_sample(stored: StoredSample) -> tuple[bytes, int]:
    """Blob of a tail row, and its size before compression. Raises ValueError for a sample too big or too deep."""
    time_ns, received_ns, run, seq, sample = stored
    plain = msgpack.packb([received_ns - time_ns, run, seq, sample])
    if len(plain) > SAMPLE_MAX_BYTES:
        raise ValueError(f"a sample of {len(plain)} bytes is over the limit of {SAMPLE_MAX_BYTES}")
    return lz4.block.compress(plain), len(plain)


def unpack_sample(time_ns: int, blob: bytes) -> StoredSample:
    """A tail row's sample. Raises CorruptRecord."""
    return unpack_row(time_ns, packed_sample(time_ns, 0, blob).row)


def unpack_row(time_ns: int, row: bytes) -> StoredSample:
    """The same of a row that is inflated already."""
    with _damage_named():
        late_ns, run, seq, sample = msgpack.unpackb(row, strict_map_key=False)
        return StoredSample(time_ns, time_ns + late_ns, run, seq, sample)


def packed_sample(time_ns: int, n: int, blob: bytes) -> PackedSample:
    """A tail row's sample, not decoded. Raises CorruptRecord."""
    with _damage_named():
        return PackedSample(time_ns, n, _inflated(blob))


def seal(placed: Sequence[Placed]) -> bytes:
    """Blob of a sealed row. `placed` is in the order of (time_ns, n)."""
    return chunk.encode([[s.time_ns, n, s.received_ns - s.time_ns, s.run, s.seq, s.sample] for n, s in placed])


def unseal(blob: bytes) -> list[Placed]:
    """The samples of a sealed row, in order. Raises CorruptRecord."""
    return [placed_of(row) for row in chunk.decode(blob)]


def placed_of(row: Sequence[Any]) -> Placed:
    """A sample as it stands in a sealed row's chunk."""
    time, n, late, run, seq, sample = row
    return n, StoredSample(time, time + late, run, seq, sample)


def _inflated(blob: bytes) -> bytes:
    size = int.from_bytes(blob[:4], "little")
    if size > SAMPLE_MAX_BYTES:
        raise ValueError(f"{size} bytes")
    plain: bytes = lz4.block.decompress(blob)
    return plain


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, lz4.block.LZ4BlockError, msgpack.UnpackException) as error:
        raise CorruptRecord(f"a stored sample is damaged: {error}", hint="rebuild the status tables") from error
