"""The archive's bytes: golden, whole however they are cut, and refused when any of them is not what it was."""

import itertools
import struct

import lz4.block
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from dimint.batch import By, encode
from dimint.errors import BadArchive
from dimint.events import CLUSTER_TOPIC, KV_TOPIC
from dimint.limits import FRAME_MAX_BYTES
from dimint.replay.archive import MAGIC, Decoder, Encoder, End, Frame, Head, Row
from dimint.replay.positions import Range

WRITER = bytes(range(16))
BY = (By(None, "h", "p"),)
GENESIS = Row(CLUSTER_TOPIC, 0, 0, 5, encode(WRITER, 1, 5, BY, [["cluster.genesis", None, 0, 0, {}]]))
HEAD = Head("0a" * 16, GENESIS, (Range(KV_TOPIC, 0, 3, 9), Range(KV_TOPIC, 1, 0, None)), "0.1.0", 1_700_000_000_000_000_000)
REACHED = [(KV_TOPIC, 0, 9), (KV_TOPIC, 1, 8)]
GOLDEN_HEX = (
    "89444d410d0a1a0a48000000a2000000c39d0127af85c68ce5ff0386a776657273696f6e01a36c6f67d920306102000bf336a767656e65736973"
    "930005c443444d4e540185a832683f1d39610097c410000102030405060708090a0b0c0d0e0f010105c09193c0a168a170169195af636c757374"
    "65722e4400f70bc0000080a672616e6765739294a964696d696e742e6b760003090e00f0130100c0a770726f6772616da5302e312e30a76d6164"
    "655f6e73cf17979cfe362a0000420000008600000106a71189b522f0ef10f7499395a964696d696e742e6b760003cf0de0b6b3a7640003c43f44"
    "4d4e540120875ad40cf56d160097c410000102030405060708090a0b0c0d0e0f010107c09193c0a168a170129195a96b762e64656c657465a26b"
    "310000c0570024010057001f005700392400045700130457008f9056d58efb4742beae00011f02ae0005506b320000c0420000005800000058a1"
    "6cdb753d01dbb99195a964696d696e742e6b760107cf0de0b6b3a7640007c43f444d4e54019056d58efb4742be0097c410000102030405060708"
    "090a0b0c0d0e0f020107c09193c0a168a170129195a96b762e64656c657465a26b320000c0450000005100000056c39c40a8a5ac3f6bf72185a6"
    "6672616d657303a76261746368657304a66576656e747304a7726561636865649293a964696d696e742e6b7600090d00f00c0108a66469676573"
    "74c410f3b4e53652d4a6fadfd6b36b4a3d17ef"
)


def row(partition: int, offset: int, number: int = 1) -> Row:
    record = encode(WRITER, number, 7, BY, [["kv.delete", f"k{number}", 0, 0, None]])
    return Row(KV_TOPIC, partition, offset, 10**18 + offset, record)


ROWS = [row(0, 3), row(1, 0), row(0, 4, 2), row(1, 7, 2)]


def archive(rows: list[Row] = ROWS, head: Head = HEAD, frame_rows: int = 3) -> bytes:
    """A small archive with several frames of batches."""
    encoder = Encoder(head)
    made = encoder.start()
    for number, each in enumerate(rows, 1):
        made += encoder.add(each, 1)
        if number % frame_rows == 0:
            made += encoder.flush()
    return made + encoder.finish(REACHED)


def decode(content: bytes, cuts: list[int] | None = None) -> list[Frame]:
    """All frames, fed in pieces. Raises BadArchive if it is not whole."""
    decoder = Decoder()
    places = [0, *sorted(cut for cut in cuts or [] if cut < len(content)), len(content)]
    frames = [frame for start, end in itertools.pairwise(places) for frame in decoder.feed(content[start:end])]
    decoder.close()
    return frames


def take_rows(content: bytes, rows: list[Row]) -> None:
    """Add the rows of an archive one frame after the other. Raises BadArchive if it is not whole."""
    decoder = Decoder()
    for frame in decoder.feed(content):
        rows += frame if isinstance(frame, list) else []
    decoder.close()


def test_golden_bytes() -> None:
    """Stored archives are read for ever; what lz4 makes of a frame may differ between its versions."""
    head, *middle, end = decode(bytes.fromhex(GOLDEN_HEX))
    assert head == HEAD
    assert [each for frame in middle if isinstance(frame, list) for each in frame] == ROWS
    assert isinstance(end, End)
    assert (end.frames, end.batches, end.events) == (3, 4, 4)


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_however_it_is_cut(cuts: list[int]) -> None:
    """Head, rows and end come out as they went in."""
    head, *middle, end = decode(archive(), cuts)
    assert head == HEAD
    assert [each for frame in middle if isinstance(frame, list) for each in frame] == ROWS
    assert isinstance(end, End)
    assert (end.frames, end.batches, end.events, end.reached) == (3, 4, 4, tuple(REACHED))


def test_every_truncation_is_refused() -> None:
    """At any length it is not whole, and what was sound before the cut is still given."""
    content = archive()
    for length in range(len(content)):
        with pytest.raises(BadArchive):
            decode(content[:length])


def test_every_flipped_bit_is_refused() -> None:
    """In any byte, and no rows come from the damaged frame."""
    content = archive()
    for at in range(len(content)):
        for bit in (0, 7):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            rows: list[Row] = []
            with pytest.raises(BadArchive):
                take_rows(bytes(damaged), rows)
            assert rows == ROWS[: len(rows)]


@given(st.binary(max_size=200), st.booleans())
def test_what_is_no_archive(content: bytes, with_magic: bool) -> None:
    """Any bytes are refused, with one error."""
    with pytest.raises(BadArchive):
        decode(MAGIC + content if with_magic else content)


def seal(frames: list[tuple[bytes, object]], *, size: int | None = None) -> bytes:
    """An archive with right checksums around any content."""
    made = MAGIC
    for number, (kind, content) in enumerate(frames):
        raw = msgpack.packb(content)
        head = struct.pack(">cII", kind, len(raw) if size is None else size, len(raw))
        made += head + struct.pack(">Q", xxh3_64_intdigest(head + raw, number)) + raw
    return made


HEAD_FIELDS = {
    "version": 1,
    "log": "g",
    "genesis": [0, 5, GENESIS.record],
    "ranges": [[KV_TOPIC, 0, 0, 9]],
    "program": "x",
    "made_ns": 1,
}


@pytest.mark.parametrize(
    "frames",
    [
        [(b"H", HEAD_FIELDS | {"version": 2})],
        [(b"H", [])],
        [(b"H", HEAD_FIELDS | {"ranges": [[KV_TOPIC, 0, 0, 9]] * 2})],
        [(b"H", HEAD_FIELDS | {"ranges": [[KV_TOPIC, 0, -1, 9]]})],
        [(b"H", HEAD_FIELDS | {"ranges": 7})],
        [(b"H", HEAD_FIELDS | {"genesis": [0, 5]})],
        [(b"H", HEAD_FIELDS | {"log": b"g"})],
        [(b"B", [])],
        [(b"H", HEAD_FIELDS), (b"H", HEAD_FIELDS)],
        [(b"H", HEAD_FIELDS), (b"X", [])],
        [(b"H", HEAD_FIELDS), (b"B", [[KV_TOPIC, 0, 0, 5, "text"]])],
        [(b"H", HEAD_FIELDS), (b"B", [[KV_TOPIC, 0, 9, 5, b""]])],
        [(b"H", HEAD_FIELDS), (b"B", [[KV_TOPIC, 1, 0, 5, b""]])],
        [(b"H", HEAD_FIELDS), (b"B", [[[], 1, 0, 5, b""]])],
        [(b"H", HEAD_FIELDS), (b"B", [[KV_TOPIC, 0, 1, 5, b""], [KV_TOPIC, 0, 1, 5, b""]])],
        [(b"H", HEAD_FIELDS), (b"B", {"a": 1})],
        [(b"H", HEAD_FIELDS), (b"E", {})],
        [(b"H", HEAD_FIELDS), (b"E", {"frames": 1, "batches": 2**63, "events": 0, "reached": [], "digest": b""})],
    ],
)
def test_right_checksums_around_nonsense(frames: list[tuple[bytes, object]]) -> None:
    """Nothing but an archive gets through, and nothing but BadArchive comes of it."""
    with pytest.raises(BadArchive):
        decode(seal(frames))


def test_bombs_and_lies_about_sizes() -> None:
    """A size over the limit is refused before anything is kept or inflated; a lie about the unpacked size is damage."""
    decoder = Decoder()
    with pytest.raises(BadArchive, match="makes no sense"):
        list(decoder.feed(seal([(b"H", HEAD_FIELDS)], size=FRAME_MAX_BYTES + 1)))
    packed = lz4.block.compress(msgpack.packb(HEAD_FIELDS), store_size=False)
    for raw_size in (1, 10_000, FRAME_MAX_BYTES):
        head = struct.pack(">cII", b"H", len(packed), raw_size)
        with pytest.raises(BadArchive):
            decode(MAGIC + head + struct.pack(">Q", xxh3_64_intdigest(head + packed, 0)) + packed)


def test_bytes_behind_the_end() -> None:
    """Two archives in a row are not one."""
    with pytest.raises(BadArchive, match="behind the archive's end"):
        decode(archive() + b"x")
    with pytest.raises(BadArchive, match="behind the archive's end"):
        decode(archive() + archive())


@pytest.mark.parametrize("frames", [1, 2])
def test_an_encoder_goes_on_behind_sound_frames(frames: int) -> None:
    """The same bytes as if nothing had stopped it."""
    whole = archive()
    decoder = Decoder()
    at = 0
    while decoder.frames < frames:
        list(decoder.feed(whole[at : at + 1]))
        at += 1
    encoder = Encoder(HEAD)
    encoder.resume(decoder.frames, decoder.batches, decoder.batches, [whole[:5], whole[5 : decoder.sound]])
    rest = b""
    for number, each in enumerate(ROWS, 1):
        if number > decoder.batches:
            rest += encoder.add(each, 1)
            rest += encoder.flush() if number == 3 else b""
    assert whole[: decoder.sound] + rest + encoder.finish(REACHED) == whole
