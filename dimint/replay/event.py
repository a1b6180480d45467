"""One event of the log as people and programs look at it. [S]"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from dimint import values
from dimint.batch import BY, DT, KEY, KIND, By, Event
from dimint.client.content import to_text
from dimint.errors import ParseError
from dimint.events import KV_TOPIC, describe
from dimint.log.port import TopicPartition
from dimint.log.reading import Counted
from dimint.replay.positions import format_position

__all__ = ["EventId", "LoggedEvent", "events_of", "json_line", "shown_fields", "text_of"]

_STORED: Final = ("value", "expected")
"""Fields of kv events that are stored values (dimint/values.py)."""


class EventId(NamedTuple):
    """What names an event for ever, in every copy of the log: its writer numbers batches per partition.

    >>> str(EventId(TopicPartition("dimint.kv", 3), bytes(16), 7, 0))
    'dimint.kv/3/00000000000000000000000000000000/7/0'
    """

    place: TopicPartition
    writer: bytes
    number: int
    at: int

    def __str__(self) -> str:
        return f"{self.place.topic}/{self.place.partition}/{self.writer.hex()}/{self.number}/{self.at}"


class LoggedEvent:
    """An event with its place and times. `raw` is the event as decoded: [kind, key, dt_ns, by, field, …]."""

    __slots__ = ("_batch", "index", "place", "raw")

    def __init__(self, place: TopicPartition, batch: Counted, index: int) -> None:
        self.place, self._batch, self.index = place, batch, index
        self.raw: Event = batch.events[index]

    @property
    def topic(self) -> str:
        return self.place.topic

    @property
    def partition(self) -> int:
        return self.place.partition

    @property
    def offset(self) -> int:
        """Offset of its record; the events of one record share it and differ in `index`."""
        return self._batch.offset

    @property
    def position(self) -> str:
        """`dimint.kv/3@1234`, which every command takes."""
        return format_position(*self.place, self._batch.offset)

    @property
    def id(self) -> EventId:
        return EventId(self.place, self._batch.header.writer, self._batch.header.number, self.index)

    @property
    def kind(self) -> str:
        kind: str = self.raw[KIND]
        return kind

    @property
    def key(self) -> str | None:
        key: str | None = self.raw[KEY]
        return key

    @property
    def by(self) -> By:
        """Who: the client's own id or None, the host and the process that wrote it."""
        return self._batch.header.by[self.raw[BY]]

    @property
    def time_ns(self) -> int:
        """By the writer's clock, ns since 1970, UTC; of a sample: when it was taken."""
        time_ns: int = self._batch.header.time_ns + self.raw[DT]
        return time_ns

    @property
    def log_time_us(self) -> int:
        """Log time of its partition, µs since 1970, UTC; never goes back within a partition."""
        return self._batch.log_time_us

    @property
    def fields(self) -> dict[str, Any]:
        """The kind's own fields by name (docs/events.md); stored values are bytes."""
        named = describe(self.raw)
        del named["kind"], named["key"]
        return named

    @property
    def value(self) -> Any:
        """What a kv.set or kv.cas stores, as Python objects; None for other kinds."""
        stored = self.fields.get("value")
        return values.to_object(stored) if isinstance(stored, bytes) and self.topic == KV_TOPIC else None


def events_of(place: TopicPartition, batch: Counted) -> Iterator[LoggedEvent]:
    """The events of one batch, in its order."""
    return (LoggedEvent(place, batch, index) for index in range(len(batch.events)))


def shown_fields(event: LoggedEvent) -> dict[str, Any]:
    """The fields by name, stored values as the values that they are."""
    fields = event.fields
    if event.topic == KV_TOPIC:
        for name in _STORED:
            if isinstance(stored := fields.get(name), bytes):
                fields[name] = _value(stored)
    return fields


def json_line(event: LoggedEvent) -> str:
    """The event as one line of JSON: stored values as the values that they are, other bytes as base64."""
    line = {
        "position": event.position,
        "index": event.index,
        "id": str(event.id),
        "kind": event.kind,
        "key": event.key,
        "time_ns": event.time_ns,
        "log_time_us": event.log_time_us,
        "by": event.by._asdict(),
    }
    return f'{to_text(line)[:-1]},"fields":{text_of(shown_fields(event))}}}'


def text_of(value: Any) -> str:
    """JSON of anything that an event can hold; what JSON has no form for as a string of its Python form."""
    try:
        return to_text(value)
    except ParseError:
        return to_text(repr(value))


def _value(stored: bytes) -> Any:
    try:
        return values.to_object(stored)
    except (ParseError, ValueError, IndexError):
        return stored  # written by somebody else than our doors: as it is
