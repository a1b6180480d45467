"""The snapshot format: golden bytes, every cut, every flipped byte, and what no writer makes."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_intdigest

from dimint import snapshot
from dimint.errors import BadSnapshot
from dimint.limits import SNAPSHOT_FRAME_MAX_BYTES
from dimint.snapshot import DATA, SIDE, End, Header, Part, Rows, SnapshotReader, encode

GOLDEN = (
    "444d534e01"
    "01000000002a0000002a54d1797ec054fc93"
    "98a964696d696e742e6b7603a36f6e6507c410fd3a2d1c586065d0c75735b809b45c8ac4013108cd2710"
    "02010000001100000019b28b2ddfba72fef8"
    "889300c40161c412000100500000004a31"
    "02000000000b0000000b699ebadc729b922c"
    "9301c4016dc4046d657461"
    "03000000002700000027e0a67e9ba98ae75f"
    "940101c410fd3a2d1c586065d0c75735b809b45c8ac410c34a8914d6f7fc35c7390f246bd27ea9"
)

Table = dict[bytes, bytes]


def digest_of(data: Table) -> int:
    return sum(xxh3_128_intdigest(row + key + len(key).to_bytes(2, "big")) for key, row in data.items()) % (1 << 128)


def header(data: Table, **changes: object) -> Header:
    made = Header("dimint.kv", 3, "one", 7, digest_of(data), b"1", 8, 10000)
    return made._replace(**changes)  # type: ignore[arg-type]


def write(data: Table, side: Table, *, target_bytes: int = 1 << 18, **changes: object) -> bytes:
    return b"".join(encode(header(data, **changes), sorted(data.items()), sorted(side.items()), target_bytes=target_bytes))


def read(whole: bytes, size: int = 1 << 20) -> tuple[Table, Table]:
    """Both tables of a whole snapshot, fed in pieces of `size`. Raises BadSnapshot also for one that does not end."""
    reader = SnapshotReader()
    tables: list[Table] = [{}, {}]
    for part in feed(reader, whole, size):
        if isinstance(part, Rows):
            tables[part.table].update(part.rows)
    if not reader.finished:
        raise BadSnapshot("cut")
    return tables[DATA], tables[SIDE]


def feed(reader: SnapshotReader, whole: bytes, size: int) -> Iterator[Part]:
    for start in range(0, len(whole), size):
        yield from reader.feed(whole[start : start + size])


DATA_ROWS = {b"a": b"\x00" * 16 + b"J1", b"b" * 511: b"\x01" * 16 + b"J" + b"2" * 300}
SIDE_ROWS = {b"m": b"meta", b"w" + b"\x07" * 16: b"row"}


@given(
    st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=60), max_size=30),
    st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=60), max_size=30),
    st.integers(1, 400),
    st.integers(1, 300),
)
def test_what_was_written_is_read(data: Table, side: Table, target_bytes: int, size: int) -> None:
    """Whatever rows, whatever frames, however the bytes are cut."""
    assert read(write(data, side, target_bytes=target_bytes), size) == (data, side)


def test_parts_come_in_order() -> None:
    """The header first, then the rows, then the end with what was counted."""
    parts = SnapshotReader().feed(write(DATA_ROWS, SIDE_ROWS))
    assert parts == [
        header(DATA_ROWS),
        Rows(DATA, sorted(DATA_ROWS.items())),
        Rows(SIDE, sorted(SIDE_ROWS.items())),
        End(2, 2),
    ]


def test_no_part_of_a_snapshot_is_one() -> None:
    """Cut at every byte it is not finished; with a byte more it is refused."""
    whole = write(DATA_ROWS, SIDE_ROWS)
    for length in range(len(whole)):
        reader = SnapshotReader()
        reader.feed(whole[:length])
        assert not reader.finished
    with pytest.raises(BadSnapshot, match="follows the end"):
        SnapshotReader().feed(whole + b"\x00")


def test_every_flipped_byte_is_noticed() -> None:
    """No byte can change without the snapshot being refused or staying unfinished."""
    whole = write(DATA_ROWS, SIDE_ROWS)
    for at in range(len(whole)):
        with pytest.raises(BadSnapshot):
            read(whole[:at] + bytes((whole[at] ^ 0x41,)) + whole[at + 1 :])


def frames_of(whole: bytes) -> list[bytes]:
    """The start and every frame."""
    cuts = [0, 5]
    while cuts[-1] < len(whole):
        cuts.append(cuts[-1] + 18 + int.from_bytes(whole[cuts[-1] + 2 : cuts[-1] + 6], "big"))
    return [whole[start:end] for start, end in pairwise(cuts)]


def test_frames_cannot_be_left_out_or_repeated_or_exchanged() -> None:
    """Each frame alone is right, the whole is not."""
    start, head, *rows, end = frames_of(write(DATA_ROWS, SIDE_ROWS, target_bytes=1))
    assert len(rows) == 4
    for wrong in (
        [start, head, *rows[1:], end],
        [start, head, rows[1], rows[0], *rows[2:], end],
        [start, head, *rows, rows[-1], end],
        [start, head, head, *rows, end],
        [start, *rows, end],
        [start, head, *rows[2:], *rows[:2], end],
        [start, head, *rows[:-1], end],
    ):
        with pytest.raises(BadSnapshot):
            read(b"".join(wrong))


def test_contents_with_another_digest_are_refused_on_both_sides() -> None:
    """A damaged store cannot be written as a snapshot; one that was written has its digest checked against the rows."""
    with pytest.raises(BadSnapshot, match="do not have the digest"):
        write(DATA_ROWS, SIDE_ROWS, digest=1)
    start, head, *_ = frames_of(write({}, SIDE_ROWS))
    _, _, *rows, end = frames_of(write({b"a": b"1"}, SIDE_ROWS))
    with pytest.raises(BadSnapshot):
        read(b"".join([start, head, *rows, end]))


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        (b"D", None),
        (b"DMNT\x01", "no snapshot"),
        (b"DMSN\x02", "format version 2"),
        (b"\x00" * 100, "no snapshot"),
        (b"DMSN\x01" + snapshot._FRAME.pack(1, 0, SNAPSHOT_FRAME_MAX_BYTES + 1, 1) + bytes(8), "damaged"),
        (b"DMSN\x01" + snapshot._FRAME.pack(1, 1, 1, SNAPSHOT_FRAME_MAX_BYTES + 1) + bytes(9), "damaged"),
        (b"DMSN\x01" + snapshot._frame(9, []), "out of order"),
        (b"DMSN\x01" + snapshot._frame(1, ["t", 1]), "cannot be read"),
        (b"DMSN\x01" + snapshot._frame(1, ["t", -1, "g", 0, bytes(16), b"1", 8, 10000]), "other fields"),
        (b"DMSN\x01" + snapshot._frame(1, ["t", 1, "g", 0, bytes(15), b"1", 8, 10000]), "other fields"),
        (b"DMSN\x01" + snapshot._frame(1, ["t", 1, "g", 0, bytes(16), b"2", 8, 10000]), "format that this program"),
    ],
)
def test_what_no_writer_makes(whole: bytes, text: str | None) -> None:
    """Refused in words, before anything large is taken in; a mere beginning is waited for."""
    reader = SnapshotReader()
    if text is None:
        assert reader.feed(whole) == []
        return
    with pytest.raises(BadSnapshot, match=text):
        reader.feed(whole)


def test_a_bomb_is_not_inflated() -> None:
    """A body that says it is small and is not ends as damaged, whatever is in it."""
    import lz4.block
    from xxhash import xxh3_64_digest

    body = lz4.block.compress(msgpack.packb([bytes(4 << 20)]), store_size=False)
    head = snapshot._FRAME.pack(1, 1, len(body), 100)
    with pytest.raises(BadSnapshot, match="cannot be read"):
        SnapshotReader().feed(b"DMSN\x01" + head + xxh3_64_digest(head + body) + body)


def test_golden_bytes() -> None:
    """The format does not change by accident; docs/snapshots.md shows the same bytes."""
    assert write({b"a": b"\x00" * 16 + b"J1"}, {b"m": b"meta"}).hex() == GOLDEN
    document = (Path(__file__).parents[3] / "docs" / "snapshots.md").read_text()
    assert GOLDEN in document.replace("\n", "")
