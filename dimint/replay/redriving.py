"""Redriving dead letters: what a record should have been is appended as a new batch that says which one it stands for.

The batch's header names the dead letter as its origin, so the log itself tells what was redriven. Its writer's incarnation
is made of the dead letter's place and its number is 1: however often it is appended, by whomever, killed wherever, readers
count it once. It gets its own log time; what was written meanwhile stands before it.

A dead letter whose keys belong into several partitions becomes a batch in each.
"""

import json
import socket
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from dimint import values
from dimint.batch import FIELDS, KEY, KIND, By, Event, NewEvent, Origin, decode, decode_header, encode
from dimint.errors import AppendUnknown, BadEvent, FormatError, RequestError
from dimint.events import CLUSTER_TOPIC, KINDS, KV_TOPIC, describe, problem_of
from dimint.genesis import Genesis
from dimint.log.port import Entry, Log, Record, TopicPartition
from dimint.log.reading import Intake
from dimint.replay.event import text_of
from dimint.replay.found import Unread, unread_of
from dimint.replay.positions import format_position
from dimint.wire import canonical_key

__all__ = ["Letter", "events_from_lines", "events_lines", "find_letter", "redrive", "redriven_to", "sound_events"]

_APPEND_S: Final = 30.0
_STORED: Final = ("value", "expected")


class Letter(NamedTuple):
    """A dead letter with its record, and partition → position of the batches that were appended for it."""

    unread: Unread
    record: Record
    redriven: Mapping[int, str]


def find_letter(log: Log, genesis: Genesis, place: TopicPartition, offset: int) -> Letter | None:
    """The record there, if no reader took it in; None for one that could be read, or if there is none."""
    if not 0 <= place.partition < log.describe().topics.get(place.topic, 0):
        return None
    start, end = log.bounds(*place)
    records = log.read(*place, offset, max_records=1) if start <= offset < end else []
    if not records or records[0].offset != offset:
        return None
    unread = unread_of(records[0], Intake(*place, genesis, position=offset).take(records[0]))
    if unread is None:
        return None
    redriven = redriven_to(log, records[0])
    return Letter(unread._replace(redriven=next(iter(redriven.values()), None)), records[0], redriven)


def redriven_to(log: Log, record: Record) -> dict[int, str]:
    """Partition → position of the batches that stand for the record; headers of what came after it are read."""
    origin = Origin(log.describe().generation, record.partition, record.offset)
    found: dict[int, str] = {}
    for partition in range(log.describe().topics[record.topic]):
        offset = log.offset_at(record.topic, partition, record.timestamp_ns)
        end = log.bounds(record.topic, partition).end
        while offset < end and partition not in found:
            records = log.read(record.topic, partition, offset)
            if not records:
                break
            for one in records:
                if _origin(one) == origin:
                    found[partition] = format_position(record.topic, partition, one.offset)
                    break
            offset = records[-1].offset + 1
    return found


def sound_events(record: Record) -> list[Event]:
    """The events of a record that is a batch of ours in the wrong place, or JSON lines as `events_from_lines` takes them.

    Raises BadEvent, which says that somebody has to tell what it should have been.
    """
    try:
        events = list(decode(record.value).events)
    except FormatError:
        try:
            return events_from_lines(record.value.decode().splitlines(), record.topic)
        except (UnicodeDecodeError, BadEvent) as error:
            line = f"the record does not tell what it should have been ({error})"
            raise BadEvent(line, hint="give the events with --as FILE, one JSON map a line, as `dimint events --json`") from None
    for event in events:
        _check(event, record.topic)
    return events


def events_from_lines(lines: Iterable[str], topic: str) -> list[Event]:
    """Events from lines as `dimint events --json` prints them: `kind`, `key` and `fields` by name; the rest is passed over.

    Raises BadEvent with the number of the line.
    """
    events = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                events.append(_event(json.loads(line), topic))
            except (ValueError, RequestError, BadEvent) as error:
                raise BadEvent(f"line {number}: {error}") from None
    if not events:
        raise BadEvent("there are no events")
    return events


def events_lines(record: Record) -> list[str]:
    """The events of a record that is a batch of ours, sound or not, as lines that can be corrected; of another its text.

    Raises BadEvent if it is neither.
    """
    try:
        batch = decode(record.value)
    except FormatError as error:
        try:
            return record.value.decode().splitlines()
        except UnicodeDecodeError:
            raise BadEvent(f"the record has neither events nor text ({error})") from None
    lines = []
    for event in batch.events:
        fields = describe(event)
        kind, key = fields.pop("kind"), fields.pop("key")
        shown = {name: _shown(name, value) for name, value in fields.items()}
        lines.append(f'{{"kind":{text_of(kind)},"key":{text_of(key)},"fields":{text_of(shown)}}}')
    return lines


def redrive(log: Log, genesis: Genesis, letter: Letter, events: Sequence[Event], *, dry_run: bool = False) -> dict[int, str]:
    """Append what is not there yet; partition → position of each batch, "" where it would be appended.

    Raises AppendUnknown, AppendFailed or LogUnavailable; doing it again is always right.
    """
    record = letter.record
    place = f"{log.describe().generation}/{format_position(record.topic, record.partition, record.offset)}"
    writer = blake2b(place.encode(), digest_size=16).digest()
    by = (By(None, socket.gethostname(), "deadletters"),)
    origin = Origin(log.describe().generation, record.partition, record.offset)
    done = dict(letter.redriven)
    parts: dict[int, list[Event]] = {}
    for event in events:
        parts.setdefault(_home(genesis, record, event), []).append([event[KIND], event[KEY], 0, 0, *event[FIELDS:]])
    for partition, some in sorted(parts.items()):
        if partition in done:
            continue
        value = encode(writer, 1, record.timestamp_ns, by, some, origin=origin)
        if dry_run:
            done[partition] = ""
            continue
        (appended,) = log.append([Entry(record.topic, partition, value)])
        try:
            done[partition] = format_position(record.topic, partition, appended.result(_APPEND_S))
        except TimeoutError:
            raise AppendUnknown("the log did not answer in time", hint="run it again: nothing counts twice") from None
    return done


def _shown(name: str, value: Any) -> Any:
    if name in _STORED and isinstance(value, bytes):
        try:
            return values.to_object(value)
        except (RequestError, ValueError, IndexError):
            return value
    return value


def _home(genesis: Genesis, record: Record, event: Event) -> int:
    key = event[KEY]
    if key is None:
        return record.partition
    return genesis.partition_of_key(key.encode()) if record.topic == KV_TOPIC else genesis.status_partition(key)


def _event(fields: Any, topic: str) -> Event:
    if not isinstance(fields, dict):
        raise BadEvent("not a map")
    kind = KINDS.get(str(fields.get("kind")))
    if kind is None:
        raise BadEvent(f"there is no kind of event {str(fields.get('kind'))[:60]!r}")
    named = fields.get("fields")
    given: dict[str, Any] = named if isinstance(named, dict) else {}
    unknown = given.keys() - {field.name for field in kind.fields}
    if unknown:
        raise BadEvent(f"{kind.name} has no {sorted(unknown)[0]!r:.60}")
    event: NewEvent = [kind.name, fields.get("key"), 0, 0]
    for field in kind.fields:
        value = given.get(field.name)
        if topic == KV_TOPIC and field.name in _STORED and field.name in given:
            value = values.from_object(value)
        elif bytes in field.types and isinstance(value, str):
            try:
                value = b64decode(value, validate=True)
            except NotBase64:
                raise BadEvent(f"{kind.name}: {field.name} is not base64") from None
        elif field.name == "mode" and value is None:
            value = 0
        event.append(value)
    _check(event, topic)
    return event


def _check(event: Event, topic: str) -> None:
    if topic == CLUSTER_TOPIC:
        raise BadEvent("the cluster's history is written by overlords alone")
    if event[KIND] not in KINDS:
        raise BadEvent(f"there is no kind of event {event[KIND]!r:.60}")
    problem = problem_of(event, topic)
    if problem is not None:
        raise BadEvent(problem)
    if topic == KV_TOPIC and event[KEY] is not None:
        canonical_key(event[KEY])
        for name, stored in describe(event).items():
            if name in _STORED and isinstance(stored, bytes):
                values.to_object(stored)


def _origin(record: Record) -> Origin | None:
    try:
        return decode_header(record.value).origin
    except FormatError:
        return None
