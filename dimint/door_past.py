"""Messages between overlords and consumers that keep the history of keys, at the overlord's node door; their bytes. [S]

A consumer opens one DEALER to the node door of every live overlord and says Historian, again and again: an overlord that
does not hear it for a while asks another one. The overlord sends Ask, the consumer answers each with Told. One frame is one
message, as in dimint/door.py.
"""

from typing import TypeAlias

import msgspec

from dimint.errors import ParseError
from dimint.so_far import SoFar

__all__ = ["Ask", "Historian", "PastChange", "Place", "Told", "decode_ask"]

Place: TypeAlias = int | list[tuple[int, int]]
"""A log time in µs, or [partition, offset]; `Cut` of dimint/replay/history.py."""


class Historian(msgspec.Struct, frozen=True, tag="historian", array_like=True):
    """This consumer answers questions for the past of the log with this generation, once it has read it. `so_far` while it
    reads: how far it is."""

    generation: str
    so_far: SoFar | None = None


class Ask(msgspec.Struct, frozen=True, tag="ask_past", array_like=True):
    """One question.

    kind        "history": the changes of the key `text`
                "get": what set the key `text` as it was at `until`; "scan": the same of the keys that start with `text`
                "diff": keys that start with `text` and are other at `until` than at `since`
    after       where the page before ended: a key, of a history "offset.index"; None for the first page
    partition   the only one that matters, −1: all of them do
    min_offsets [partition, offset]: what has to be known before the answer
    wait_ms     after so long the answer is an error
    """

    id: int
    kind: str
    text: str
    since: Place
    until: Place
    limit: int
    after: str | None = None
    newest_first: bool = False
    partition: int = -1
    min_offsets: list[tuple[int, int]] = []
    wait_ms: int = 5000


class PastChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One change of a key as it counted; fields as in dimint/replay/history.py, who it was last."""

    kind: str
    key: str
    value: bytes | None
    version: int
    partition: int
    offset: int
    index: int
    log_time_us: int
    client: str | None
    host: str
    process: str


class Told(msgspec.Struct, frozen=True, tag="told_past", array_like=True):
    """Answer to an Ask.

    rows       a history's changes, or what set each key; of a diff also what set it before
    next       `after` for the next page, None on the last one
    positions  [partition, offset]: everything below is in the answer
    error, message   a wire code, and what is wrong in words
    """

    id: int
    rows: list[tuple[PastChange | None, PastChange | None]] = []
    next: str | None = None
    positions: list[tuple[int, int]] = []
    error: str | None = None
    message: str = ""


_ask = msgspec.msgpack.Decoder(Ask)


def decode_ask(frame: bytes) -> Ask | None:
    """A question; None for another message of an overlord. Raises ParseError for anything that is none."""
    try:
        return _ask.decode(frame)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseError(f"not a message of an overlord: {error}") from error
