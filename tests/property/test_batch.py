"""The record format: golden bytes, round trips, and that nothing else is taken for a record."""

import struct
from contextlib import suppress
from typing import TypeAlias

import lz4.block
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from dimint.batch import Batch, By, Header, Origin, copy_record, decode, decode_header, encode
from dimint.errors import CorruptRecord, ForeignRecord, FormatError, RecordTooLarge, UnknownVersion
from dimint.events import KV_TOPIC, problem_of
from dimint.limits import BATCH_MAX_EVENTS, EVENTS_MAX_BYTES, RECORD_MAX_BYTES

WRITER = bytes(range(16))
GOLDEN_TIME_NS = 1_700_000_000_000_000_000
GOLDEN = Batch(
    Header(WRITER, 7, 2, GOLDEN_TIME_NS, None, (By("c1", "gpu-01", "overlord"), By(None, "gpu-01", "overlord"))),
    [["kv.set", "ключ", 0, 0, 41, b'J{"a":1}', None, 0], ["barrier", None, 1500, 1]],
)
GOLDEN_HEX = (
    "444d4e540181a4ade3989b529c0097c410000102030405060708090a0b0c0d0e0f0702cf17979cfe362a0000c09293a26331a66770752d3031"
    "a86f7665726c6f726493c0a66770752d3031a86f7665726c6f72642f9298a66b762e736574a8d0bad0bbd18ed187000029c4084a7b2261223a"
    "317dc00094a762617272696572c0cd05dc01"
)
GOLDEN_FENCE_HEX = "444d4e540184f7ae9f8202f1b50097c410000102030405060708090a0b0c0d0e0f0800cf17979cfe362a0000c0900190"
GOLDEN_LZ4_HEX = (
    "444d4e54014fac165b2cad84be0197c410000102030405060708090a0b0c0d0e0f0914cf17979cfe362a0000cf16345785d8a000009193c0a168"
    "a170cd0157ff05dc001495a96b762e64656c657465a26b300000c01100ff2c506b300000c0"
)

_numbers = st.integers(0, 2**63 - 1)
_people = st.builds(By, st.none() | st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
_fields = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def _batches(draw: st.DrawFn) -> Batch:
    people = tuple(draw(st.lists(_people, min_size=1, max_size=3)))
    events = draw(
        st.lists(
            st.tuples(
                st.text(max_size=9),
                st.none() | st.text(max_size=9),
                st.integers(-(2**63), 2**63 - 1),
                st.integers(0, len(people) - 1),
            ).flatmap(lambda head: st.lists(_fields, max_size=4).map(lambda fields: [*head, *fields])),
            max_size=5,
        )
    )
    header = Header(
        draw(st.binary(min_size=16, max_size=16)),
        draw(st.integers(1, 2**63 - 1)),
        len(events),
        draw(_numbers),
        draw(st.none() | _numbers),
        people,
    )
    return Batch(header, events)


def _encode(batch: Batch, *, compress: bool = False) -> bytes:
    writer, number, _, time_ns, logged_at_ns, by, _ = batch.header
    return encode(writer, number, time_ns, by, batch.events, logged_at_ns=logged_at_ns, compress=compress)


def _frame(codec: int, header: object, body: bytes) -> bytes:
    """A record with a right checksum around anything."""
    rest = bytes((codec,)) + (header if isinstance(header, bytes) else msgpack.packb(header)) + body
    return b"DMNT\x01" + bytes(xxh3_64_digest(rest)) + rest


def test_golden_bytes() -> None:
    """The format does not change: these bytes are what the events always were and will be."""
    assert _encode(GOLDEN).hex() == GOLDEN_HEX
    assert decode(bytes.fromhex(GOLDEN_HEX)) == GOLDEN
    assert encode(WRITER, 8, GOLDEN_TIME_NS, [], []).hex() == GOLDEN_FENCE_HEX
    assert decode(bytes.fromhex(GOLDEN_FENCE_HEX)).events == []


def test_golden_compressed_bytes() -> None:
    """A compressed record is read; its bytes may differ between versions of lz4, so they are not compared."""
    header, events, _ = decode(bytes.fromhex(GOLDEN_LZ4_HEX))
    assert events == [["kv.delete", "k0", 0, 0, None]] * 20
    assert header == Header(WRITER, 9, 20, GOLDEN_TIME_NS, 1_600_000_000_000_000_000, (By(None, "h", "p"),))


@given(_batches(), st.booleans())
def test_round_trip(batch: Batch, compress: bool) -> None:
    """decode(encode(x)) is x, for the header alone too, and types survive."""
    record = _encode(batch, compress=compress)
    assert decode(record) == batch
    assert repr(decode(record).events) == repr(batch.events)
    assert decode_header(record) == batch.header


@given(_batches(), st.booleans())
@settings(max_examples=20)
def test_no_proper_prefix_and_no_longer_record_decodes(batch: Batch, compress: bool) -> None:
    """Cut anywhere or with bytes behind it, a record is refused."""
    record = _encode(batch, compress=compress)
    for length in range(len(record)):
        with pytest.raises(FormatError):
            decode(record[:length])
    with pytest.raises(FormatError):
        decode(record + b"\x00")


@given(_batches(), st.booleans(), st.data())
@settings(max_examples=50)
def test_any_changed_byte_is_noticed(batch: Batch, compress: bool, data: st.DataObject) -> None:
    """Every byte counts: the magic, the version, the checksum and what it covers."""
    record = _encode(batch, compress=compress)
    at = data.draw(st.integers(0, len(record) - 1))
    bits = data.draw(st.integers(1, 255))
    broken = record[:at] + bytes((record[at] ^ bits,)) + record[at + 1 :]
    expected = ForeignRecord if at < 4 else UnknownVersion if at == 4 else CorruptRecord
    with pytest.raises(expected):
        decode(broken)
    with pytest.raises(expected):
        decode_header(broken)


@given(st.integers(0, 3), st.binary(max_size=60), st.binary(max_size=60))
def test_anything_with_a_right_checksum_is_a_batch_or_a_named_error(codec: int, header: bytes, body: bytes) -> None:
    """Hostile bytes in a right frame end in a FormatError, never in another exception."""
    with suppress(FormatError):
        decode(_frame(codec, header, body))


@given(_fields, st.lists(_fields, max_size=6), _batches())
def test_anything_msgpack_in_a_frame_is_a_batch_or_a_named_error(header: object, events: list[object], batch: Batch) -> None:
    """Right msgpack of the wrong shape, in the header or in the events, ends in a FormatError."""
    body = msgpack.packb(events)
    good = [*batch.header[:2], len(events), *batch.header[3:], len(body)]
    for part in (header, good, [*good[:-1], len(body) + 1], [header, *good[1:]], good[1:]):
        with suppress(FormatError):
            decode(_frame(0, part, body))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, WRITER + b"x"),
        (0, "w" * 16),
        (1, 0),
        (1, True),
        (1, -1),
        (2, 1),
        (2, -1),
        (3, -1),
        (3, 1.5),
        (4, -1),
        (4, "x"),
        (5, None),
        (5, [[1, "h", "p"]]),
        (5, [["c", "h"]]),
        (6, 0),
        (6, "1"),
    ],
)
def test_header_fields_have_types_and_ranges(place: int, value: object) -> None:
    """Each field of the header is checked."""
    header: list[object] = [WRITER, 1, 0, 0, None, [], 1]
    assert decode(_frame(0, header, b"\x90")).events == []
    header[place] = value
    with pytest.raises(ForeignRecord):
        decode(_frame(0, header, b"\x90"))


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        [],
        ["k", "x", 0],
        [b"k", "x", 0, 0],
        [None, "x", 0, 0],
        ["k", b"x", 0, 0],
        ["k", 1, 0, 0],
        ["k", "x", 0.0, 0],
        ["k", "x", True, 0],
        ["k", "x", 0, 1],
        ["k", "x", 0, -1],
        ["k", "x", 0, None],
    ],
)
def test_events_start_with_kind_key_time_and_who(event: object) -> None:
    """An event of another shape makes its whole batch foreign."""
    body = msgpack.packb([event])
    with pytest.raises(ForeignRecord):
        decode(_frame(0, [WRITER, 1, 1, 0, None, [[None, "h", "p"]], len(body)], body))


def test_bombs_are_refused_before_they_are_inflated() -> None:
    """A size over the limit, or an lz4 block that is longer than its header says, costs no memory."""
    bomb = lz4.block.compress(bytes(EVENTS_MAX_BYTES + 1), store_size=False)
    with pytest.raises(ForeignRecord, match="over the limits"):
        decode(_frame(1, [WRITER, 1, 1, 0, None, [], EVENTS_MAX_BYTES + 1], bomb))
    with pytest.raises(CorruptRecord):
        decode(_frame(1, [WRITER, 1, 1, 0, None, [], 1000], bomb))
    with pytest.raises(FormatError):
        decode(_frame(1, [WRITER, 1, 1, 0, None, [], EVENTS_MAX_BYTES], lz4.block.compress(b"x" * 50, store_size=False)))
    deep = b"\x91" * 100_000 + b"\x90"
    with pytest.raises(ForeignRecord):
        decode(_frame(0, [WRITER, 1, 1, 0, None, [], len(deep)], deep))
    long = b"\xdd" + struct.pack(">I", 2**32 - 1)
    with pytest.raises(ForeignRecord):
        decode(_frame(0, [WRITER, 1, 1, 0, None, [], len(long)], long))


def test_what_is_too_large_is_not_framed() -> None:
    """Events, bytes and records over their limits are refused with a named error."""
    by = [By(None, "h", "p")]
    with pytest.raises(RecordTooLarge):
        encode(WRITER, 1, 0, by, [["k", None, 0, 0]] * (BATCH_MAX_EVENTS + 1))
    with pytest.raises(RecordTooLarge):
        encode(WRITER, 1, 0, by, [["k", None, 0, 0, b"x" * RECORD_MAX_BYTES]])
    with pytest.raises(RecordTooLarge):
        encode(WRITER, 1, 0, by, [["k", None, 0, 0, b"x" * EVENTS_MAX_BYTES]], compress=True)
    assert len(encode(WRITER, 1, 0, by, [["k", None, 0, 0, b"x" * RECORD_MAX_BYTES]], compress=True)) < RECORD_MAX_BYTES


@pytest.mark.parametrize("record", [b"", b"D", b"DMNT", b"DMNT\x01" + bytes(8), b"KMNT\x01" + bytes(20), bytes(100)])
def test_foreign_records(record: bytes) -> None:
    """What does not start as a record is foreign."""
    with pytest.raises(ForeignRecord):
        decode(record)


@given(_batches(), st.booleans(), _numbers, st.builds(Origin, st.text(max_size=40), st.integers(0, 1023), _numbers))
def test_copies_differ_in_log_time_and_origin_alone(batch: Batch, compress: bool, logged_at_ns: int, origin: Origin) -> None:
    """A copy, and a copy of the copy, carry the same batch; the nearest origin counts."""
    record = _encode(batch, compress=compress)
    far = copy_record(record, logged_at_ns=1, origin=Origin("another", 1023, 2**63 - 1))
    copied = copy_record(record, logged_at_ns=logged_at_ns, origin=origin)
    assert copied == copy_record(far, logged_at_ns=logged_at_ns, origin=origin)
    assert decode(copied) == Batch(batch.header._replace(logged_at_ns=logged_at_ns, origin=origin), batch.events)
    assert decode_header(copied).origin == origin


def test_headers_may_grow() -> None:
    """Readers pass over what a newer writer adds at a header's end, and refuse an origin that is none."""
    header = [WRITER, 1, 0, 5, None, [], 1]
    assert decode(_frame(0, [*header, None, "more", 7], b"\x90")).header == Header(WRITER, 1, 0, 5, None, ())
    for origin in ("g", ["g", 1], ["g", -1, 0], ["g", 0, None], [7, 0, 0], {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(ForeignRecord):
            decode(_frame(0, [*header, origin], b"\x90"))


_Event: TypeAlias = tuple[object, ...]
_key = st.text(max_size=9)
_plain = st.tuples(st.just("kv.set"), _key, st.integers(-(2**63), 2**63 - 1), st.integers(0, 1), st.none() | _numbers,
                   st.binary(max_size=9), st.none(), st.just(0))  # fmt: skip


def _but(event: _Event, at: int, field: object) -> _Event:
    return (*event[:at], field, *event[at + 1 :])


_nearly_plain = (
    st.builds(_but, _plain, st.integers(0, 8), _fields)
    | st.builds(lambda event, length: event[:length], _plain, st.integers(4, 7))
    | st.builds(_but, _plain, st.sampled_from([2, 3, 4, 7]), st.sampled_from([0, 1, 2, True, False, 0.0, 2**64 - 1, -1, None]))
)


@given(st.lists(_plain, min_size=1, max_size=4), st.lists(_nearly_plain, max_size=1), st.booleans())
def test_plain_sets_are_decoded_as_any_events(sound: list[_Event], other: list[_Event], compress: bool) -> None:
    """The quick way gives the events that the slow way gives, takes what is all plain, and nothing else."""
    events = [*sound, *other]
    header = Header(WRITER, 1, len(events), 0, None, (By(None, "h", "p"), By("c", "h", "p")))
    record = _encode(Batch(header, events), compress=compress)
    people = len(header.by)
    fits = all(
        isinstance(kind, str) and isinstance(key, str | None) and type(dt) is int and type(by) is int and 0 <= by < people
        for kind, key, dt, by, *_ in events
    )
    if not fits:
        with pytest.raises(ForeignRecord, match="an event is not"):
            decode(record)
        return
    batch = decode(record)
    assert [list(event) for event in batch.events] == _as_read(events)
    assert [list(map(type, event)) for event in batch.events] == [list(map(type, event)) for event in _as_read(events)]
    assert batch.plain == all(
        len(event) == 8
        and event[0] == "kv.set"
        and event[1] is not None
        and problem_of(event, KV_TOPIC) is None
        and event[6] is None
        and event[7] == 0
        for event in events
    )


def _as_read(events: list[_Event]) -> list[list[object]]:
    """As a reader without the quick way sees them."""
    found: list[list[object]] = msgpack.unpackb(msgpack.packb(events))
    return found
