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

Decoding keeps events as plain sequences: an object per event halves the speed at which a store is rebuilt. The most
frequent batch has plain sets only; those are decoded and checked in one go, to tuples, in a third of the time.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import lz4.block
import msgpack
import msgspec
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
    "NewEvent",
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
_HEADER_USUAL = 4096
"""Headers of more bytes are looked at twice."""
_PLAIN, _LZ4 = 0, 1

KIND, KEY, DT, BY, FIELDS = 0, 1, 2, 3, 4
"""Indexes into an event array; its own fields start at FIELDS."""

Event: TypeAlias = Sequence[Any]
"""One event as decoded: [kind, key, dt_ns, by, field, …], a list or a tuple."""
NewEvent: TypeAlias = list[Any]
"""One event that is being made."""

_Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_PLAIN_START: Final = b"\x98\xa6kv.set"
_decode_plain: Final[Callable[[bytes], list[tuple[Any, ...]]]] = msgspec.msgpack.Decoder(
    # kv.set, key, dt_ns, by, seq, value, ttl_ms, mode: dimint/events.py
    list[tuple[Literal["kv.set"], str, int, _Natural, int | None, bytes, None, Literal[0]]]
).decode


class By(NamedTuple):
    """Who caused an event: the client's own id (None where it gave none), the host and the process that wrote it."""

    client: str | None
    host: str
    process: str


class Origin(NamedTuple):
    """Where a copied batch was read: the log's generation, and the record's place in the same topic."""

    generation: str
    partition: _Natural
    offset: _Natural


class Header(NamedTuple):
    """A batch's header; see the module's text for the units."""

    writer: bytes
    number: int
    event_count: int
    time_ns: int
    logged_at_ns: int | None
    by: tuple[By, ...]
    origin: Origin | None = None


class _Fields(msgspec.Struct, array_like=True):
    """The header's array; what stands behind these is passed over."""

    writer: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    number: _Positive
    event_count: _Natural
    time_ns: _Natural
    logged_at_ns: _Natural | None
    by: tuple[By, ...]
    events_bytes: _Positive
    origin: Origin | None = None


_decode_header: Final = msgspec.msgpack.Decoder(_Fields).decode


class Batch(NamedTuple):
    """A decoded record. `plain`: it has events, and each is a `kv.set` of eight fields, sound in their types, without a
    condition and for ever; so nothing is left to check but ranges."""

    header: Header
    events: Sequence[Event]
    plain: bool = False


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
    header, body, size = _open(record)
    people = [list(by) for by in header.by]
    fields = [header.writer, header.number, header.event_count, header.time_ns, logged_at_ns, people, size, list(origin)]
    copied = _frame(record[_CODEC_AT], fields, body)
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
    header, body, size = _open(record)
    if record[_CODEC_AT] == _LZ4:
        try:
            body = lz4.block.decompress(body, uncompressed_size=size)
        except lz4.block.LZ4BlockError as error:
            raise CorruptRecord(f"lz4 block does not decompress: {error}") from error
    if len(body) != size:
        raise ForeignRecord(f"events take {len(body)} bytes, the header says {size}")
    if body.find(_PLAIN_START, 0, 13) > 0 and (plain := _plain(body, header)) is not None:
        return plain
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


def _plain(body: bytes, header: Header) -> Batch | None:
    try:
        events = _decode_plain(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # not all plain, or not sound: looked at event by event
    if len(events) != header.event_count or max([event[BY] for event in events]) >= len(header.by):
        return None
    return Batch(header, events, plain=True)


def _open(record: bytes) -> tuple[Header, bytes, int]:
    """Check frame and checksum; the header, the events as they stand behind it, and their plain size."""
    if len(record) < _HEADER_AT or record[:4] != MAGIC:
        raise ForeignRecord("the record does not start with the magic bytes of a batch")
    if record[4] != VERSION:
        raise UnknownVersion(f"record format {record[4]}, this program reads {VERSION}", hint="upgrade this program")
    if xxh3_64_digest(record[_CODEC_AT:]) != record[5:_CODEC_AT]:
        raise CorruptRecord("the record's checksum does not match its bytes")
    if record[_CODEC_AT] not in (_PLAIN, _LZ4):
        raise CorruptRecord(f"unknown codec {record[_CODEC_AT]}", hint="upgrade this program")
    try:
        end = _HEADER_AT + _length(record)
        fields = _decode_header(record[_HEADER_AT:end])
    except (ValueError, msgpack.UnpackException, msgpack.BufferFull, msgspec.DecodeError) as error:
        raise ForeignRecord(f"the header is not one: {error}") from error
    if fields.events_bytes > EVENTS_MAX_BYTES or fields.event_count > BATCH_MAX_EVENTS:
        raise ForeignRecord(f"{fields.event_count} events in {fields.events_bytes} bytes are over the limits")
    header = Header(
        fields.writer, fields.number, fields.event_count, fields.time_ns, fields.logged_at_ns, fields.by, fields.origin
    )
    return header, record[end:], fields.events_bytes


def _length(record: bytes) -> int:
    """Bytes of the header."""
    unpacker = msgpack.Unpacker(max_buffer_size=RECORD_MAX_BYTES)
    unpacker.feed(memoryview(record)[_HEADER_AT : _HEADER_AT + _HEADER_USUAL])
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        unpacker = msgpack.Unpacker(max_buffer_size=RECORD_MAX_BYTES)
        unpacker.feed(memoryview(record)[_HEADER_AT:])
        unpacker.skip()
    length: int = unpacker.tell()
    return length
