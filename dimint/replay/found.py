"""What looking at a log finds: events that are wanted, and records that no reader took in. [S]"""

from collections.abc import Sequence
from typing import NamedTuple

from dimint.log.port import Record, TopicPartition
from dimint.log.reading import DeadLetter, Halt, Quarantine, Taken
from dimint.replay.event import LoggedEvent
from dimint.replay.positions import format_position

__all__ = ["Found", "Unread", "hex_dump", "unread_of"]


class Found(NamedTuple):
    """Wanted events of one batch, in its order; `total` is how many there are, also where fewer are given."""

    events: Sequence[LoggedEvent]
    total: int

    @property
    def log_time_us(self) -> int:
        return self.events[0].log_time_us


class Unread(NamedTuple):
    """A record that no reader took in.

    reason    "foreign": not a batch of ours; "framing": ours, but ill made; "fields": fields that no writer of ours makes;
              "partition": a key that belongs elsewhere: all four are passed over. "newer": of a newer program; "damaged":
              its checksum does not hold: readers stop
    redriven  position of the batch that was appended in its place, if one was
    """

    place: TopicPartition
    offset: int
    time_ns: int
    size: int
    reason: str
    detail: str
    redriven: str | None = None

    @property
    def position(self) -> str:
        return format_position(*self.place, self.offset)

    @property
    def is_dead(self) -> bool:
        """Whether readers pass over it."""
        return self.reason not in ("newer", "damaged")


def unread_of(record: Record, taken: Taken) -> Unread | None:
    """What is wrong with a record; None for a batch."""
    if isinstance(taken, DeadLetter):
        reason = taken.reason
    elif isinstance(taken, Halt | Quarantine):
        reason = "newer" if isinstance(taken, Halt) else "damaged"
    else:
        return None
    place = TopicPartition(record.topic, record.partition)
    return Unread(place, record.offset, record.timestamp_ns, len(record.value), reason, taken.detail)


def hex_dump(data: bytes) -> str:
    """Sixteen bytes a line: offset, hex, and what is printable ASCII of it.

    >>> print(hex_dump(b"hello\\x00w"))
    00000000  68 65 6c 6c 6f 00 77                             hello.w
    """
    lines = []
    for at in range(0, len(data), 16):
        some = data[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in some)
        lines.append(f"{at:08x}  {some.hex(' '):<47}  {text}")
    return "\n".join(lines)
