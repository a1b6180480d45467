"""What nodes say to each other at the door for clients: give me a snapshot, and its parts. [S]

A node that needs a partition connects to the door of one that has it. It says Take until the answer is an Offer (while the
snapshot is made the answer is Making), then Want for one part after the other, a few at a time, then Done. Every message
is a msgpack array that begins with the type's tag, which no request of a client does. Anything may be lost with the
connection: who waits too long asks somebody else.
"""

from typing import TypeAlias

import msgspec

from dimint.errors import ParseError

__all__ = [
    "Done",
    "FromHolder",
    "FromTaker",
    "Making",
    "Offer",
    "Part",
    "Refused",
    "Take",
    "Want",
    "decode_from_holder",
    "decode_from_taker",
    "encode",
    "is_peering",
]


class Take(msgspec.Struct, frozen=True, tag="take", array_like=True):
    """A snapshot of a partition is wanted, of the log with this generation."""

    partition: int
    generation: str


class Want(msgspec.Struct, frozen=True, tag="want", array_like=True):
    """`size` bytes of an offered snapshot from `offset` on."""

    id: int
    offset: int
    size: int


class Done(msgspec.Struct, frozen=True, tag="done", array_like=True):
    """The offered snapshot is not needed any more."""

    id: int


class Making(msgspec.Struct, frozen=True, tag="making", array_like=True):
    """The snapshot is being made, or will be when others are done."""

    partition: int


class Offer(msgspec.Struct, frozen=True, tag="offer", array_like=True):
    """The snapshot is there, `size` bytes long."""

    partition: int
    id: int
    size: int


class Part(msgspec.Struct, frozen=True, tag="part", array_like=True):
    id: int
    offset: int
    data: bytes


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """There is no such snapshot here; `text` says why."""

    partition: int
    text: str


FromTaker: TypeAlias = Take | Want | Done
FromHolder: TypeAlias = Making | Offer | Part | Refused

encode = msgspec.msgpack.Encoder().encode
_from_taker = msgspec.msgpack.Decoder(FromTaker)
_from_holder = msgspec.msgpack.Decoder(FromHolder)


def is_peering(frame: bytes) -> bool:
    """Whether a frame is a msgpack array, as no request of a client is."""
    return frame[:1] != b"" and frame[0] & 0xF0 == 0x90


def decode_from_taker(frame: bytes) -> FromTaker:
    """Raises ParseError for anything that no taker sends."""
    try:
        message: FromTaker = _from_taker.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"not a message of a node: {error}") from error
    return message


def decode_from_holder(frame: bytes) -> FromHolder:
    """Raises ParseError for anything that no holder sends."""
    try:
        message: FromHolder = _from_holder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"not a message of a node: {error}") from error
    return message
