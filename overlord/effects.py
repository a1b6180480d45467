"""What the overlord's core asks its driver to do. [S]

The driver performs the effects of a turn in this order: `appends` (all in one call of the batch writer, so that they
can share a commit), `asks` for end offsets (their answer goes back with `Core.ends` before anything else), `sends` to
nodes, `questions` to consumers, `replies` to clients. No effect depends on another one of the same turn having succeeded.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from dimint.batch import By, Event
from dimint.door import AskOutcomes, Disputed, Fetch, Reads, Unfetch
from dimint.door_past import Ask

__all__ = ["Append", "Effects", "Reply", "ToHistorian", "ToNode"]


class Append(NamedTuple):
    """One batch for the log. Its result goes to `Core.appended` or `Core.append_failed`; nothing else of this partition
    is handed over before. `time_ns` is what the events' times are relative to, None for the time of the hand-over.
    """

    topic: str
    partition: int
    by: tuple[By, ...]
    events: Sequence[Event]
    time_ns: int | None = None


class ToNode(NamedTuple):
    node: str
    message: Reads | AskOutcomes | Fetch | Unfetch | Disputed


class ToHistorian(NamedTuple):
    """One question to a consumer. `peer` is whatever the driver gave with its messages."""

    peer: Any
    message: Ask


Reply: TypeAlias = tuple[Any, bytes]
"""One frame to a client: (peer, frame), `peer` being whatever the driver gave with the request."""


class Effects(NamedTuple):
    appends: list[Append]
    asks: list[int]
    """Partitions of the key-value topic whose end offset is wanted."""
    sends: list[ToNode]
    replies: list[Reply]
    questions: list[ToHistorian]
