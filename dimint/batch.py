"""The record format: one log record is one batch of events of one partition. [S]

::

    byte   size  what
    0      4     magic b"DMNT"
    4      1     format version, now 1
    5      8     xxh3_64 of every byte from 13 on, big-endian
    13     1     codec of the events: 0 = plain, 1 = one lz4 block
    14     …     header: one msgpack array
    …      …     events: one msgpack array of event arrays, plain or as lz4 block, to the end of the record

    header = [writer, number, event_count, time_ns, logged_at_ns, by, events_bytes, origin?, …]
      writer        16 bytes, the writer's random incarnation
      number        batch number of this writer in this partition, from 1, each used once
      event_count   number of events, 0 for a batch that only takes a number (a fence)
      time_ns       the producer's clock when the batch was made, ns since the epoch, UTC
      logged_at_ns  nil, or the log time to use instead of the record's own timestamp (import, replay)
      by            [[client | nil, host, process], …], the table that events index
      events_bytes  size of the events before compression
      origin        only in copies (import, replay): [generation, partition, offset] of the record that this one is a copy
                    of, in the log that it was read from; the topic is the same. With this log's own generation: of the
                    dead letter that this batch was appended for
      …             readers pass over what newer writers add

    event  = [kind, key, dt_ns, by, field, …]         see dimint/events.py for the fields of each kind
      dt_ns         event time − time_ns
      by            index into the header's table

An event's id is (writer, number, index in the batch). The full text, with golden bytes, is docs/events.md.
Decoding keeps events as plain lists: an object per event halves the speed at which a store is rebuilt.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import lz4.block
import msgpack
from xxhash import xxh3_64_digest

from dimint.errors import CorruptRecord, ForeignRecord, RecordTooLarge, UnknownVersion
from dimint.limits import BATCH_MAX_EVENTS, EVENTS_MAX_BYTES, ORIGIN_MAX_BYTES, RECORD_MAX_BYTES

__all__ = [
    "BY",
    "DT",
    "FIELDS",
    "KEY",
    "KIND",
    "Batch",
    "By",
    "Event",
    "Header",
    "Origin",
    "copy_record",
    "decode",
    "decode_header",
    "encode",
]

MAGIC = b"DMNT"
VERSION = 1
_CODEC_AT = 13
_HEADER_AT = 14
_PLAIN, _LZ4 = 0, 1

KIND, KEY, DT, BY, FIELDS = 0, 1, 2, 3, 4
"""Indexes into an event array; its own fields start at FIELDS."""

Event: TypeAlias = list[Any]
"""One event as decoded: [kind, key, dt_ns, by, field, …]."""


class By(NamedTuple):
    """Who caused an event: the client's own id (None where it gave none), the host and the process that wrote it."""

    client: str | None
    host: str
    process: str


class Origin(NamedTuple):
    """Where a copied batch was read: the log's generation, and the record's place in the same topic."""

    generation: str
    partition: int
    offset: int


class Header(NamedTuple):
    """A batch's header; see the module's text for the units."""

    writer: bytes
    number: int
    event_count: int
    time_ns: int
    logged_at_ns: int | None
    by: tuple[By, ...]
    origin: Origin | None = None


class Batch(NamedTuple):
    """A decoded record."""

    header: Header
    events: list[Event]


def encode(
    writer: bytes,
    number: int,
    time_ns: int,
    by: Sequence[By],
    events: Sequence[Sequence[Any]],
    *,
    logged_at_ns: int | None = None,
    compress: bool = False,
    origin: Origin | None = None,
) -> bytes:
    """Frame one batch. Raises RecordTooLarge; the caller keeps the events."""
    if len(events) > BATCH_MAX_EVENTS:
        raise RecordTooLarge(f"a batch of {len(events)} events is over the limit of {BATCH_MAX_EVENTS}")
    body = msgpack.packb(events)
    size = len(body)
    if size > EVENTS_MAX_BYTES:
        raise RecordTooLarge(f"a batch of {size} bytes is over the limit of {EVENTS_MAX_BYTES}")
    codec = _PLAIN
    if compress:
        packed = lz4.block.compress(body, store_size=False)
        if len(packed) < size:
            body, codec = packed, _LZ4
    fields = [writer, number, len(events), time_ns, logged_at_ns, by, size]
    record = _frame(codec, fields if origin is None else [*fields, list(origin)], body)
    limit = RECORD_MAX_BYTES - ORIGIN_MAX_BYTES  # a copy of it must fit too
    if len(record) > limit:
        raise RecordTooLarge(f"a record of {len(record)} bytes is over the limit of {limit}")
    return record


def copy_record(record: bytes, *, logged_at_ns: int, origin: Origin) -> bytes:
    """The same batch for another log: same writer, number, times, people and events, with its log time and where it was.

    Raises what `decode_header` does, and RecordTooLarge if no program of ours can have made the record.
    """
    header, unpacker, size = _open(record)
    people = [list(by) for by in header.by]
    fields = [header.writer, header.number, header.event_count, header.time_ns, logged_at_ns, people, size, list(origin)]
    copied = _frame(record[_CODEC_AT], fields, record[_HEADER_AT + unpacker.tell() :])
    if len(copied) > RECORD_MAX_BYTES:
        raise RecordTooLarge(f"a copy of {len(copied)} bytes is over the limit of {RECORD_MAX_BYTES}")
    return copied


def _frame(codec: int, header: list[Any], body: bytes) -> bytes:
    rest = bytes((codec,)) + msgpack.packb(header) + body
    record: bytes = MAGIC + bytes((VERSION,)) + xxh3_64_digest(rest) + rest
    return record


def decode_header(record: bytes) -> Header:
    """The header alone, checksum included; a few microseconds whatever the batch's size.

    Raises ForeignRecord, UnknownVersion or CorruptRecord as `decode` does.
    """
    return _open(record)[0]


def decode(record: bytes) -> Batch:
    """The whole batch.

    Raises:
        ForeignRecord: not ours, or ours with bad framing although the checksum is right.
        UnknownVersion: a format version this program does not know.
        CorruptRecord: ours, but the checksum or the codec fails.
    """
    header, unpacker, size = _open(record)
    body: bytes = record[_HEADER_AT + unpacker.tell() :]
    if record[_CODEC_AT] == _LZ4:
        try:
            body = lz4.block.decompress(body, uncompressed_size=size)
        except lz4.block.LZ4BlockError as error:
            raise CorruptRecord(f"lz4 block does not decompress: {error}") from error
    if len(body) != size:
        raise ForeignRecord(f"events take {len(body)} bytes, the header says {size}")
    try:
        events = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise ForeignRecord(f"events are not msgpack: {error}") from error
    if type(events) is not list or len(events) != header.event_count:
        raise ForeignRecord(f"the header counts {header.event_count} events, the record holds something else")
    people = len(header.by)
    for event in events:
        if (
            type(event) is not list
            or len(event) < FIELDS
            or type(event[0]) is not str
            or (type(event[1]) is not str and event[1] is not None)
            or type(event[2]) is not int
            or type(event[3]) is not int
            or not 0 <= event[3] < people
        ):
            raise ForeignRecord("an event is not [kind, key, dt_ns, by, …]")
    return Batch(header, events)


def _open(record: bytes) -> tuple[Header, Any, int]:
    """Check frame and checksum; the header, the unpacker standing behind it, and the events' plain size."""
    if len(record) < _HEADER_AT or record[:4] != MAGIC:
        raise ForeignRecord("the record does not start with the magic bytes of a batch")
    if record[4] != VERSION:
        raise UnknownVersion(f"record format {record[4]}, this program reads {VERSION}", hint="upgrade this program")
    if xxh3_64_digest(record[_CODEC_AT:]) != record[5:_CODEC_AT]:
        raise CorruptRecord("the record's checksum does not match its bytes")
    if record[_CODEC_AT] not in (_PLAIN, _LZ4):
        raise CorruptRecord(f"unknown codec {record[_CODEC_AT]}", hint="upgrade this program")
    unpacker = msgpack.Unpacker(max_buffer_size=RECORD_MAX_BYTES)
    try:
        unpacker.feed(record[_HEADER_AT:])
        writer, number, count, time_ns, logged_at_ns, by, size, *more = unpacker.unpack()
        people = tuple(By(client, host, process) for client, host, process in by)
        origin = None if not more or more[0] is None else Origin._make(more[0])
    except (ValueError, TypeError, msgpack.UnpackException, msgpack.BufferFull) as error:
        raise ForeignRecord(f"the header is not one: {error}") from error
    if not (
        type(writer) is bytes
        and len(writer) == 16
        and _is_int(number, 1)
        and _is_int(count, 0)
        and _is_int(time_ns, 0)
        and (logged_at_ns is None or _is_int(logged_at_ns, 0))
        and _is_int(size, 1)
        and (origin is None or (type(origin[0]) is str and _is_int(origin[1], 0) and _is_int(origin[2], 0)))
        and all(
            (client is None or type(client) is str) and type(host) is str and type(process) is str
            for client, host, process in people
        )
    ):
        raise ForeignRecord("a field of the header has the wrong type or range")
    if size > EVENTS_MAX_BYTES or count > BATCH_MAX_EVENTS:
        raise ForeignRecord(f"{count} events in {size} bytes are over the limits")
    return Header(writer, number, count, time_ns, logged_at_ns, people, origin), unpacker, size


def _is_int(value: object, least: int) -> bool:
    return type(value) is int and value >= least
