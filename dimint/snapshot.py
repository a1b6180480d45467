"""The snapshot format: one partition of the store at one position of the log, as one file or one stream. [S]

::

    byte   size  what
    0      4     magic b"DMSN"
    4      1     format version, now 1
    5      …     frames, to the end: one HEAD, any number of ROWS, one END

    frame  1     kind: 1 HEAD, 2 ROWS, 3 END
           1     codec of the body: 0 = plain, 1 = one lz4 block
           4     bytes of the body as it stands here, big-endian
           4     bytes of the body before compression, big-endian
           8     xxh3_64 of the ten bytes before and the body, big-endian
           …     body: one msgpack array

    HEAD   [topic, partition, generation, next_offset, digest, rows_format, partitions, hash_range, …]
      generation    of the log that next_offset is a position of
      next_offset   every record below it is in the snapshot
      digest        16 bytes, of the contents at next_offset: the sum over all data rows of
                    xxh3_128(row + key + len(key) as 2 bytes) mod 2^128, big-endian
      rows_format   b"1": rows as in dimint/node/rows.py and dimint/node/replica.py
      partitions, hash_range   of the log: they say which keys are the partition's
    ROWS   [table, key, row, key, row, …]
      table         0 data, 1 side. All data rows come before the first side row, each table's in rising order of keys
    END    [data_rows, side_rows, digest, check]
      digest        the one of HEAD, from the rows as they were written
      check         16 bytes, xxh3_128 of the checksums of all frames before, in order

Later versions may add fields at the end of HEAD. A reader feeds bytes as they come and gets every frame checked; the
snapshot is whole when END has come and nothing follows. Nothing in it is trusted before that, so rows are kept apart from
what is served until then. docs/snapshots.md says the same for people, with golden bytes.
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

import lz4.block
import msgpack
from xxhash import xxh3_64_digest, xxh3_128, xxh3_128_intdigest

from dimint.errors import BadSnapshot
from dimint.limits import KEY_MAX_BYTES, SNAPSHOT_FRAME_MAX_BYTES

__all__ = ["DATA", "SIDE", "End", "Header", "Part", "Rows", "SnapshotReader", "encode"]

DATA, SIDE = 0, 1
MAGIC: Final = b"DMSN"
VERSION: Final = 1
ROWS_FORMAT: Final = b"1"
FRAME_TARGET_BYTES: Final = 256 << 10
"""A frame is closed when its rows pass this size."""

_HEAD, _ROWS, _END = 1, 2, 3
_PLAIN, _LZ4 = 0, 1
_FRAME: Final = Struct(">BBII")
_BODY_AT: Final = _FRAME.size + 8
_MASK: Final = (1 << 128) - 1


class Header(NamedTuple):
    """What the snapshot is of; see the module's text."""

    topic: str
    partition: int
    generation: str
    next_offset: int
    digest: int
    rows_format: bytes
    partitions: int
    hash_range: int


class Rows(NamedTuple):
    """Rows of one table, in order; they follow those that came before."""

    table: int
    rows: list[tuple[bytes, bytes]]


class End(NamedTuple):
    """Everything was there, and the contents have the header's digest."""

    data_rows: int
    side_rows: int


Part: TypeAlias = Header | Rows | End


def encode(
    header: Header,
    data: Iterable[tuple[bytes, bytes]],
    side: Iterable[tuple[bytes, bytes]],
    *,
    target_bytes: int = FRAME_TARGET_BYTES,
) -> Iterator[bytes]:
    """The snapshot in pieces of about `target_bytes`. Tables are taken as they are asked for, in order of their keys.

    Raises BadSnapshot if the rows do not have the header's digest: what they were read from is damaged.
    """
    checks = xxh3_128()
    counts = [0, 0]
    digest = 0

    def frame(kind: int, body: list[Any]) -> bytes:
        found = _frame(kind, body)
        checks.update(found[_FRAME.size : _BODY_AT])
        return found

    yield MAGIC + bytes((VERSION,))
    yield frame(_HEAD, [*header._replace(digest=0)[:4], header.digest.to_bytes(16, "big"), *header[5:]])
    for table, rows in ((DATA, data), (SIDE, side)):
        body: list[Any] = [table]
        size = 0
        for key, row in rows:
            counts[table] += 1
            if table == DATA:
                digest += _digest(key, row)
            body.append(key)
            body.append(row)
            size += len(key) + len(row)
            if size >= target_bytes:
                yield frame(_ROWS, body)
                body, size = [table], 0
        if size:
            yield frame(_ROWS, body)
    if digest & _MASK != header.digest:
        raise BadSnapshot(f"the rows of {header.topic}/{header.partition} do not have the digest that they should have")
    yield _frame(_END, [*counts, header.digest.to_bytes(16, "big"), checks.digest()])


class SnapshotReader:
    """Takes a snapshot apart as its bytes come, however they are cut. One reader, one snapshot.

    `feed` raises BadSnapshot for what cannot be a snapshot or is damaged; the reader is of no use after that.
    """

    def __init__(self) -> None:
        self.header: Header | None = None
        self.finished = False
        self._buffer = bytearray()
        self._begun = False
        self._checks = xxh3_128()
        self._counts = [0, 0]
        self._digest = 0
        self._table = DATA
        self._last = b""

    def feed(self, data: bytes) -> list[Part]:
        """Take the next bytes; the parts that are complete with them."""
        self._buffer += data
        parts: list[Part] = []
        if not self._begun and not self._begin():
            return parts
        while (part := self._next()) is not None:
            parts.append(part)
        if self.finished and self._buffer:
            raise BadSnapshot("something follows the end of the snapshot")
        return parts

    def _begin(self) -> bool:
        start = bytes(self._buffer[: len(MAGIC) + 1])
        if not MAGIC.startswith(start[: len(MAGIC)]):
            raise BadSnapshot("this is no snapshot")
        if len(start) <= len(MAGIC):
            return False
        if start[-1] != VERSION:
            raise BadSnapshot(f"the snapshot has format version {start[-1]}, this program knows {VERSION}")
        del self._buffer[: len(start)]
        self._begun = True
        return True

    def _next(self) -> Part | None:
        """The next frame, if all of it is there."""
        buffer = self._buffer
        if self.finished or len(buffer) < _BODY_AT:
            return None
        kind, codec, size, plain_size = _FRAME.unpack_from(buffer)
        if max(size, plain_size) > SNAPSHOT_FRAME_MAX_BYTES or codec not in (_PLAIN, _LZ4):
            raise BadSnapshot("a frame of the snapshot is damaged")
        if len(buffer) < _BODY_AT + size:
            return None
        check, body = bytes(buffer[_FRAME.size : _BODY_AT]), bytes(buffer[_BODY_AT : _BODY_AT + size])
        if xxh3_64_digest(bytes(buffer[: _FRAME.size]) + body) != check:
            raise BadSnapshot("a frame of the snapshot is damaged: its checksum is wrong")
        del buffer[: _BODY_AT + size]
        try:
            if codec == _LZ4:
                body = lz4.block.decompress(body, uncompressed_size=plain_size)
            fields = msgpack.unpackb(body, strict_map_key=True)
            if len(body) != plain_size or type(fields) is not list:
                raise ValueError("a body of another size")
            part = self._read(kind, fields)
        except (ValueError, TypeError, IndexError, lz4.block.LZ4BlockError, msgpack.UnpackException) as error:
            raise BadSnapshot(f"a frame of the snapshot cannot be read: {error}") from error
        self._checks.update(check)
        return part

    def _read(self, kind: int, fields: list[Any]) -> Part:
        if (kind == _HEAD) != (self.header is None):
            raise BadSnapshot("the snapshot's frames are out of order")
        if kind == _HEAD:
            self.header = _header(fields)
            return self.header
        if kind == _ROWS:
            return self._rows(fields)
        if kind == _END:
            return self._end(fields)
        raise BadSnapshot(f"the snapshot has a frame of unknown kind {kind}")

    def _rows(self, fields: list[Any]) -> Rows:
        table, keys, rows = fields[0], fields[1::2], fields[2::2]
        if table not in (DATA, SIDE) or table < self._table or len(keys) != len(rows) or not keys:
            raise BadSnapshot("the snapshot's rows are out of order")
        if table != self._table:
            self._table, self._last = table, b""
        last = self._last
        for key, row in zip(keys, rows, strict=True):
            if type(key) is not bytes or type(row) is not bytes or not last < key or len(key) > KEY_MAX_BYTES:
                raise BadSnapshot("the snapshot's rows are out of order")
            last = key
            if table == DATA:
                self._digest += _digest(key, row)
        self._last = last
        self._counts[table] += len(keys)
        return Rows(table, list(zip(keys, rows, strict=True)))

    def _end(self, fields: list[Any]) -> End:
        assert self.header is not None
        data_rows, side_rows, digest, check = fields[:4]
        if check != self._checks.digest() or [data_rows, side_rows] != self._counts:
            raise BadSnapshot("frames of the snapshot are missing, or stand twice in it")
        whole = self._digest & _MASK
        if whole != self.header.digest or digest != whole.to_bytes(16, "big"):
            raise BadSnapshot(f"the snapshot's contents have the digest {whole:032x}, not {self.header.digest:032x}")
        self.finished = True
        return End(data_rows, side_rows)


def _digest(key: bytes, row: bytes) -> int:
    return xxh3_128_intdigest(row + key + len(key).to_bytes(2, "big"))


def _frame(kind: int, fields: list[Any]) -> bytes:
    body = msgpack.packb(fields)
    plain_size = len(body)
    if plain_size > SNAPSHOT_FRAME_MAX_BYTES:
        raise BadSnapshot(f"a row of {plain_size} bytes does not fit a snapshot")
    codec = _PLAIN
    packed = lz4.block.compress(body, store_size=False)
    if len(packed) < plain_size:
        body, codec = packed, _LZ4
    head = _FRAME.pack(kind, codec, len(body), plain_size)
    framed: bytes = head + xxh3_64_digest(head + body) + body
    return framed


def _header(fields: list[Any]) -> Header:
    topic, partition, generation, next_offset, digest, rows_format, partitions, hash_range = fields[:8]
    numbers = (partition, next_offset, partitions, hash_range)
    if not (type(topic) is str and type(generation) is str and type(digest) is bytes and len(digest) == 16):
        raise BadSnapshot("the snapshot's header has other fields than it should")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise BadSnapshot("the snapshot's header has other fields than it should")
    if rows_format != ROWS_FORMAT:
        raise BadSnapshot("the snapshot's rows have a format that this program does not know")
    whole = int.from_bytes(digest, "big")
    return Header(topic, partition, generation, next_offset, whole, rows_format, partitions, hash_range)
