"""A dumb model of one partition of the key-value store: dicts, no cleverness, written from the rules alone.

`Model.batch` applies one batch that is appended once; `events` makes random batches of it with hypothesis.
"""

import json
from typing import Any, NamedTuple

from hypothesis import strategies as st

from dimint.batch import By, encode
from dimint.door import Change
from dimint.events import KV_TOPIC
from dimint.log.port import Record

DAY_US = 24 * 3600 * 1_000_000
CLIENTS = (None, "ann", "bob")
PEOPLE = tuple(By(client, "host", "process") for client in CLIENTS)


class Item(NamedTuple):
    value: bytes
    version: int
    expires_us: int


class Model:
    """Keys by name, the versions they ever had, every request of every client."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.last_version: dict[str, int] = {}
        self.numbers: dict[bytes, int] = {}
        self.written: dict[bytes, int] = {}
        self.requests: dict[str, dict[int, tuple[str, str | None, int | None]]] = {}
        self.heard: dict[str, int] = {}
        self.now = 0
        self.outcomes: dict[tuple[bytes, int], dict[int, tuple[str, str | None, int | None]]] = {}
        self.changes: list[Change] = []
        self.offset = self.index = -1

    def batch(self, writer: bytes, number: int, time_us: int, events: list[list[Any]]) -> None:
        self.offset += 1
        if number <= self.numbers.get(writer, 0):
            return
        self.now = max(self.now, time_us)
        self.numbers[writer] = number
        self.written[writer] = self.now
        for quiet in [quiet for quiet, heard in self.written.items() if self.now - heard > DAY_US]:
            del self.written[quiet], self.numbers[quiet]
        outcomes: dict[int, tuple[str, str | None, int | None]] = {}
        at = 0
        while at < len(events):
            self.index = at
            group = [events[at]]
            if events[at][0] == "kv.set" and events[at][4] is not None:
                while at + len(group) < len(events) and self._same_request(events[at], events[at + len(group)]):
                    group.append(events[at + len(group)])
            outcomes.update({at + step: outcome for step, outcome in self._request(group).items()})
            at += len(group)
        self.outcomes[writer, number] = outcomes

    @staticmethod
    def _same_request(one: list[Any], other: list[Any]) -> bool:
        return other[0] == "kv.set" and CLIENTS[one[3]] is not None and other[3:5] == one[3:5]

    def _request(self, group: list[list[Any]]) -> dict[int, tuple[str, str | None, int | None]]:
        kind, _, _, who, *fields = group[0]
        client = CLIENTS[who]
        seq = fields[0] if kind not in ("kv.expire", "barrier") else None
        if client is None or seq is None:
            done = self._do_all(group)
            return {index: outcome for index, outcome in enumerate(done) if outcome is not None}
        if self.now - self.heard.get(client, self.now) > DAY_US:
            self.requests.pop(client)
            self.heard.pop(client)
        known = self.requests.setdefault(client, {})
        highest = max(known, default=0)
        if seq <= highest:
            kept = {number for number in known if not any(other > number and (other - number) % 256 == 0 for other in known)}
            outcome = known[seq] if seq in kept else ("superseded" if seq > highest - 256 else "forgotten", None, None)
            return dict.fromkeys(range(len(group)), outcome)
        self.heard[client] = self.now
        if kind == "kv.resolve":
            known[seq] = ("unused", None, None)
            return {0: known[seq]}
        done = self._do_all(group)
        if len(group) > 1:
            known[seq] = ("applied" if all(one is None or one[0] == "applied" for one in done) else "condition", None, None)
        elif done[0] is not None:
            known[seq] = done[0]
        else:
            version = self.items[group[0][1]].version if kind == "kv.set" else None
            known[seq] = ("applied", None, version)
        return {index: outcome for index, outcome in enumerate(done) if outcome is not None}

    def _do_all(self, group: list[list[Any]]) -> list[tuple[str, str | None, int | None] | None]:
        done = []
        for event in group:
            before = self.items.get(event[1])
            done.append(self._do(event))
            after = self.items.get(event[1])
            if after != before:  # every change has a version of its own
                gone = after or before
                assert gone is not None
                value = after.value if after else None
                self.changes.append(Change(event[0][3:], event[1], value, gone.version, self.offset, self.index, self.now))
            self.index += 1
        return done

    def _put(self, key: str, value: bytes, expires_us: int) -> int:
        version = max(self.last_version.get(key, 0) + 1, self.now)
        self.last_version[key] = version
        self.items[key] = Item(value, version, expires_us)
        return version

    def _do(self, event: list[Any]) -> tuple[str, str | None, int | None] | None:
        kind, key, _, _, *fields = event
        item = self.items.get(key)
        version = item.version if item else 0
        if kind == "kv.set":
            _, value, ttl, mode = fields
            if (mode == 1 and item) or (mode == 2 and not item):
                return ("condition", None, version)
            new = self._put(key, value, self.now + ttl * 1000 if ttl else 0)
            return ("applied", None, new) if mode else None
        if kind == "kv.delete":
            self.items.pop(key, None)
        elif kind == "kv.incr":
            number = json.loads(item.value[1:]) if item and item.value[:1] == b"J" else 0 if item is None else None
            if type(number) is not int:
                return ("not_integer", None, version)
            text = str(number + fields[1])
            return ("applied", text, self._put(key, b"J" + text.encode(), item.expires_us if item else 0))
        elif kind == "kv.cas":
            _, expected, wanted, value, ttl = fields
            holds = (item is not None and item.value == expected) if expected is not None else wanted == version
            if not holds:
                return ("condition", None, version)
            return ("applied", None, self._put(key, value, self.now + ttl * 1000 if ttl else 0))
        elif kind == "kv.expire" and item and item.version == fields[0]:
            del self.items[key]
        return None


class Step(NamedTuple):
    """One record to come: of which writer, its number (perhaps an old one), how far the clock goes on, the events."""

    writer: bytes
    number: int
    time_us: int
    events: list[list[Any]]

    def record(self, offset: int) -> Record:
        return Record(
            KV_TOPIC, 0, offset, self.time_us * 1000 + 7, encode(self.writer, self.number, self.time_us, PEOPLE, self.events)
        )


_keys = st.sampled_from(["a", "b", "ü", "long" * 110])
_values = st.sampled_from([b"J1", b'J"x"', b"J-7", b"M\xc4\x01a", b"Jnull", b"J1.0"])
_ttls = st.sampled_from([None, None, 1, 60_000])
_seqs = st.one_of(st.none(), st.integers(1, 8), st.integers(1, 600))
_people = st.integers(0, len(PEOPLE) - 1)


@st.composite
def _event(draw: st.DrawFn, now_us: int) -> list[Any]:
    kind = draw(st.sampled_from(["set", "set", "set", "delete", "incr", "cas", "expire", "resolve", "barrier"]))
    if kind == "barrier":
        return ["barrier", None, 0, draw(_people)]
    start = ["kv." + kind, draw(_keys), 0, draw(_people)]
    versions = st.one_of(st.just(0), st.integers(now_us, now_us + 3))
    if kind == "expire":
        return [*start, draw(versions)]
    start.append(draw(_seqs))
    if kind == "set":
        return [*start, draw(_values), draw(_ttls), draw(st.sampled_from([0, 0, 0, 1, 2]))]
    if kind == "incr":
        return [*start, draw(st.sampled_from([1, -1, 2**62]))]
    if kind == "cas":
        expected = draw(st.one_of(st.none(), _values))
        return [*start, expected, draw(versions) if expected is None else None, draw(_values), draw(_ttls)]
    return start


@st.composite
def steps(draw: st.DrawFn, max_size: int = 12) -> list[Step]:
    """Records of two writers, with repeated and late numbers, clock jumps and repeated requests."""
    made: list[Step] = []
    now_us = 1_000
    for _ in range(draw(st.integers(1, max_size))):
        if made and draw(st.integers(0, 5)) == 0:
            made.append(draw(st.sampled_from(made)))  # a late copy
            continue
        now_us += draw(st.sampled_from([0, 0, 1, -1, 5_000, 3600 * 1_000_000, DAY_US + 1]))
        writer = draw(st.sampled_from([b"w" * 16, b"v" * 16]))
        number = 1 + max((step.number for step in made if step.writer == writer), default=0)
        made.append(Step(writer, number, max(1, now_us), draw(st.lists(_event(now_us), max_size=8))))
    return made


def fold(made: list[Step]) -> Model:
    """What the records come to."""
    model = Model()
    for step in made:
        model.batch(step.writer, step.number, step.time_us, step.events)
    return model
