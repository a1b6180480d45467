r"""The archive file: any stretch of a log in one file that can be checked, piped and kept. [S]

::

    file    = magic frame … frame                         the first frame is the head, the last one the end
    magic   = 89 "DMA" 0d 0a 1a 0a                        what a transfer as text would break
    frame   = kind size raw_size checksum payload
      kind      1 byte   "H" head, "B" batches, "E" end
      size      4 bytes  of the payload as it stands here, big-endian
      raw_size  4 bytes  of the payload unpacked; equal to size where it is not packed, else it is one lz4 block
      checksum  8 bytes  xxh3_64, with the frame's number (head = 0) as seed, of kind, sizes and payload, big-endian

    head    = msgpack map
      version   1; a reader refuses others
      log       generation of the log that was read
      genesis   [offset, logged_at_ns, record]: the batch of the log's `cluster.genesis`
      ranges    [[topic, partition, start, end], …]: offsets in [start, end), one range a partition; an end of nil is open
      program   version of the program that wrote it
      made_ns   when, ns since 1970, UTC
    batches = msgpack array of [topic, partition, offset, logged_at_ns, record]
      offset        where the batch stood, inside its range, rising within a partition
      logged_at_ns  log time of the batch
      record        the record as it stood there (docs/events.md)
    end     = msgpack map
      frames, batches, events   how many: frames with the head and without this one
      reached   [[topic, partition, end], …]: for each range, the offset that it was read to
      digest    xxh3_128 (seed 0) of every byte of the file before this frame

Batches that do not count (repeated ones) are left out, and so is what is not a batch. No bound of the file's length; each
frame is bounded by FRAME_MAX_BYTES. Bytes after the end are an error.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import lz4.block
import msgpack
from xxhash import xxh3_64_intdigest, xxh3_128

from dimint.errors import BadArchive
from dimint.limits import FRAME_MAX_BYTES, FRAME_TARGET_BYTES
from dimint.log.port import TopicPartition
from dimint.replay.positions import Range

__all__ = ["MAGIC", "Decoder", "Encoder", "End", "Frame", "Head", "Row"]

MAGIC: Final = b"\x89DMA\r\n\x1a\n"
VERSION: Final = 1
_FRAME: Final = struct.Struct(">cIIQ")
_SEALED: Final = struct.Struct(">cII")
_HEAD, _BATCHES, _END = b"H", b"B", b"E"


class Row(NamedTuple):
    """One batch: where it stood, its log time in ns, and its record's bytes."""

    topic: str
    partition: int
    offset: int
    logged_at_ns: int
    record: bytes

    @property
    def place(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Head(NamedTuple):
    """What an archive says of itself. `genesis` is the batch that holds the log's genesis."""

    log: str
    genesis: Row
    ranges: tuple[Range, ...]
    program: str
    made_ns: int


class End(NamedTuple):
    """What an archive held, by its own account, which the decoder has checked."""

    frames: int
    batches: int
    events: int
    reached: tuple[tuple[str, int, int], ...]
    digest: bytes


Frame: TypeAlias = Head | list[Row] | End


class Encoder:
    """Makes the file's bytes. Feed `add` in the order of the file; each call gives the bytes to write next.

    After `resume` an encoder goes on behind frames that another one wrote.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._rows: list[Row] = []
        self._bytes = 0
        self._frames = self._batches = self._events = 0
        self._digest = xxh3_128()

    def start(self) -> bytes:
        """Magic and head."""
        head = self._head
        genesis = [head.genesis.offset, head.genesis.logged_at_ns, head.genesis.record]
        fields = {
            "version": VERSION,
            "log": head.log,
            "genesis": genesis,
            "ranges": [list(each) for each in head.ranges],
            "program": head.program,
            "made_ns": head.made_ns,
        }
        self._digest.update(MAGIC)
        return MAGIC + self._frame(_HEAD, fields)

    def add(self, row: Row, events: int) -> bytes:
        """Take one batch of so many events; bytes when a frame is full, else none."""
        self._rows.append(row)
        self._bytes += len(row.record)
        self._batches += 1
        self._events += events
        return self.flush() if self._bytes >= FRAME_TARGET_BYTES else b""

    def flush(self) -> bytes:
        """The frame of what was added since the last one, if anything was."""
        if not self._rows:
            return b""
        rows, self._rows, self._bytes = self._rows, [], 0
        return self._frame(_BATCHES, [list(row) for row in rows])

    def finish(self, reached: Iterable[tuple[str, int, int]]) -> bytes:
        """The last bytes of the file. `reached` names for each range the offset that it was read to."""
        last = self.flush()
        fields = {
            "frames": self._frames,
            "batches": self._batches,
            "events": self._events,
            "reached": [list(each) for each in reached],
            "digest": self._digest.digest(),
        }
        return last + self._frame(_END, fields)

    def resume(self, frames: int, batches: int, events: int, written: Iterable[bytes]) -> None:
        """Go on behind sound frames, instead of `start`: their counts, and all bytes of the file up to here."""
        self._frames, self._batches, self._events = frames, batches, events
        for piece in written:
            self._digest.update(piece)

    def _frame(self, kind: bytes, content: Any) -> bytes:
        raw: bytes = msgpack.packb(content)
        packed: bytes = lz4.block.compress(raw, store_size=False)
        payload = packed if len(packed) < len(raw) else raw
        sealed = _SEALED.pack(kind, len(payload), len(raw)) + payload
        frame: bytes = _FRAME.pack(kind, len(payload), len(raw), xxh3_64_intdigest(sealed, self._frames)) + payload
        self._frames += 1
        self._digest.update(frame)
        return frame


class Decoder:
    """Reads the file's bytes, however they are cut, and refuses what is not exactly an archive.

    >>> decoder = Decoder()
    >>> list(decoder.feed(MAGIC)), decoder.complete
    ([], False)
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self.end: End | None = None
        self.sound = 0
        """Bytes of the file up to the last sound frame."""
        self.frames = self.batches = 0
        self._buffer = bytearray()
        self._digest = xxh3_128()
        self._before_last = b""
        self._last: dict[TopicPartition, int] = {}
        self._ranges: dict[TopicPartition, Range] = {}

    @property
    def complete(self) -> bool:
        """Whether the end was read, with nothing behind it."""
        return self.end is not None and not self._buffer

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Take the next bytes; every frame that they complete. Raises BadArchive, after the sound frames before."""
        self._buffer += piece
        if self.sound == 0:
            if not MAGIC.startswith(self._buffer[: len(MAGIC)]):
                raise BadArchive("this is not an archive of a log", hint="dimint export makes one")
            if len(self._buffer) < len(MAGIC):
                return
            self._advance(len(MAGIC))
        while len(self._buffer) >= _FRAME.size:
            frame = self._take()
            if frame is None:
                return
            yield frame
        if self.end is not None and self._buffer:
            raise BadArchive("there are bytes behind the archive's end")

    def close(self) -> None:
        """Say that there are no more bytes. Raises BadArchive if the archive is not whole."""
        if not self.complete:
            raise BadArchive(
                f"the archive is cut short after {self.batches} batches, at byte {self.sound + len(self._buffer)}",
                hint="export it again, or take what is sound",
            )

    def _take(self) -> Frame | None:
        """The next frame if all of it is there."""
        if self.end is not None:
            raise BadArchive("there are bytes behind the archive's end")
        kind, size, raw_size, checksum = _FRAME.unpack_from(self._buffer)
        if size > FRAME_MAX_BYTES or raw_size > FRAME_MAX_BYTES or kind not in (_HEAD, _BATCHES, _END):
            raise self._damaged("its head makes no sense")
        if len(self._buffer) < _FRAME.size + size:
            return None
        payload = bytes(self._buffer[_FRAME.size : _FRAME.size + size])
        if xxh3_64_intdigest(_SEALED.pack(kind, size, raw_size) + payload, self.frames) != checksum:
            raise self._damaged("its checksum does not match")
        if (kind == _HEAD) != (self.frames == 0):
            raise self._damaged("it does not belong here")
        try:
            content = msgpack.unpackb(lz4.block.decompress(payload, raw_size) if raw_size != size else payload)
            frame = self._read(kind, content)
        except (ValueError, TypeError, KeyError, lz4.block.LZ4BlockError, msgpack.UnpackException) as error:
            raise self._damaged(f"its content is not what it should be: {error!r:.200}") from error
        self._advance(_FRAME.size + size)
        self.frames += 1
        return frame

    def _advance(self, size: int) -> None:
        self._digest.update(bytes(self._buffer[:size]))
        del self._buffer[:size]
        self.sound += size

    def _read(self, kind: bytes, content: Any) -> Frame:
        if kind == _HEAD:
            self.head = _read_head(content)
            self._ranges = {each.place: each for each in self.head.ranges}
            return self.head
        if kind == _BATCHES:
            rows = [Row(*row) for row in content]
            last = dict(self._last)
            for row in rows:
                self._check(row, last)
            self._last = last
            self.batches += len(rows)
            return rows
        self.end = self._read_end(content)
        return self.end

    def _check(self, row: Row, last: dict[TopicPartition, int]) -> None:
        place = row.place
        _need(type(row.record) is bytes and type(row.offset) is int and _is_natural(row.logged_at_ns), "a row's types")
        bounds = self._ranges[place]
        _need(last.get(place, bounds.start - 1) < row.offset, "offsets must rise from their range's start")
        _need(bounds.end is None or row.offset < bounds.end, "an offset past its range's end")
        last[place] = row.offset

    def _read_end(self, content: Any) -> End:
        reached = tuple((topic, partition, offset) for topic, partition, offset in content["reached"])
        end = End(content["frames"], content["batches"], content["events"], reached, content["digest"])
        _need(end.frames == self.frames and end.batches == self.batches, "the counts differ")
        _need(_is_natural(end.events), "the events' count")
        _need(end.digest == self._digest.digest(), "the digest differs")
        _need({(topic, partition) for topic, partition, _ in reached} == set(self._ranges), "the ranges differ")
        for topic, partition, offset in reached:
            bounds = self._ranges[TopicPartition(topic, partition)]
            _need(type(offset) is int and bounds.start <= offset, "a range's reach")
        return end

    def _damaged(self, what: str) -> BadArchive:
        return BadArchive(f"frame {self.frames} of the archive, at byte {self.sound}, is damaged: {what}")


def _read_head(content: Any) -> Head:
    if content["version"] != VERSION:
        raise BadArchive(f"archive version {content['version']!r:.20}, this program reads {VERSION}", hint="upgrade this program")
    ranges = tuple(Range(*each) for each in content["ranges"])
    for each in ranges:
        _need(
            type(each.topic) is str and all(map(_is_natural, each[1:3])) and (each.end is None or _is_natural(each.end)),
            "a range",
        )
    _need(len({each.place for each in ranges}) == len(ranges), "one range a partition")
    offset, logged_at_ns, record = content["genesis"]
    _need(_is_natural(offset) and _is_natural(logged_at_ns) and type(record) is bytes, "the genesis")
    _need(type(content["log"]) is str and type(content["program"]) is str and _is_natural(content["made_ns"]), "the head's types")
    genesis = Row("dimint.cluster", 0, offset, logged_at_ns, record)
    return Head(content["log"], genesis, ranges, content["program"], content["made_ns"])


def _is_natural(value: object) -> bool:
    return type(value) is int and value >= 0


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
