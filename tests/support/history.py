"""Judges what clients saw by the order that the log gives.

`Replay` applies one partition of the log to a dumb model, written from the rules alone. `check` then takes every operation
that clients recorded and looks for its place in that order:

- an acknowledged write is one event, which no other operation has, with the outcome that the client was told;
- a refused write has no event that was applied;
- a read saw the state at its position, or, without a position, some state in which the key had that value;
- whatever ended before a write or a strong read began has its place before it; a session's reads and writes have theirs
  in the order of the session.

Places are counted in events: state n is the state after the first n events of the partition. The earliest place that fits
is taken; since earlier ends only ever raise the least place of later operations, that finds a fitting order if there is one.
Operations that overlap may be in any order, unknown ones anywhere or nowhere.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dimint.batch import Event, decode
from dimint.log.port import Record

__all__ = ["ABSENT", "Op", "Replay", "check"]

ABSENT = "(absent)"
"""What a read of a missing key saw."""


class Op(NamedTuple):
    """One operation on one key. A many-key command is one operation a key.

    kind       set, absent (set if absent), cas, delete, incr or get
    status     ok, refused (it did not and will not happen), or unknown
    written    what a set, absent or cas wants to store: unique in the whole history
    seen       of a get: the value or ABSENT; of an incr: the new value; of absent and cas: whether it applied
    version    the version in the reply, None if there was none
    level      of a get: strong, session or weak
    client, seq  as sent; a library numbers its requests itself: then only `client` is known
    state_at   of a get: the position in its reply, an offset
    expected   of a cas: the value that it was to replace, or ABSENT
    """

    session: str
    kind: str
    key: str
    started: float
    ended: float
    status: str
    written: Any = None
    seen: Any = None
    version: int | None = None
    level: str = ""
    client: str | None = None
    seq: int | None = None
    state_at: int | None = None
    expected: Any = None


class Done(NamedTuple):
    """One event of a request: its number in the partition, whether it was applied, and what the client is to hear."""

    event: int
    name: str
    value: Any
    version: int


class Replay:
    """One partition of the log, applied to a dict."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[Any, int]] = {}
        self.states: dict[str, list[tuple[int, Any, int]]] = {}
        """Key → (state from which on, value or ABSENT, version), in order."""
        self.offsets: list[int] = []
        """Offset of every event."""
        self.done: dict[tuple[Any, ...], list[Done]] = {}
        """By ("value", key, value written or counted to) and by ("from", key, kind, client), in order."""
        self.numbered: dict[tuple[str, int], list[Done]] = {}
        self._numbers: dict[bytes, int] = {}
        self._versions: dict[str, int] = {}
        self._known: dict[str, dict[int, Done]] = {}
        self._highest: dict[str, int] = {}
        self._now_us = 0

    def take(self, record: Record) -> None:
        """The next record."""
        header, events, _ = decode(record.value)
        if header.number <= self._numbers.get(header.writer, 0):
            return
        self._numbers[header.writer] = header.number
        self._now_us = max(self._now_us, (header.logged_at_ns or record.timestamp_ns) // 1000)
        group: tuple[str, int] | None = None
        free = True
        for event in events:
            kind, _, _, who, *fields = event
            client = header.by[who].client
            index = len(self.offsets)
            self.offsets.append(record.offset)
            if kind == "barrier":
                continue
            seq = fields[0] if kind != "kv.expire" else None
            if client is None or seq is None:
                group = None
                self._do(index, event, None)
                continue
            name = (client, seq)
            if kind != "kv.set" or group != name:  # several kv.set of one request count together
                free = seq > self._highest.get(client, 0)
            group = name if kind == "kv.set" else None
            if not free:
                known = self._known[client].get(seq) if seq > self._highest[client] - 256 else None
                self.numbered.setdefault(name, []).append(known or Done(index, "superseded", None, 0))
                continue
            self._highest[client] = seq
            self._known.setdefault(client, {})[seq] = self._do(index, event, name)

    def state(self, offset: int) -> int:
        """How many events are below an offset."""
        return bisect_left(self.offsets, offset)

    def _do(self, index: int, event: Event, name: tuple[str, int] | None) -> Done:
        kind, key, _, _, *fields = event
        value, version = self.items.get(key, (ABSENT, 0))
        written: Any = None
        outcome = "applied"
        if kind == "kv.set":
            _, stored, _, mode = fields
            written = _plain(stored)
            if (mode == 1 and version) or (mode == 2 and not version):
                outcome = "condition"
            else:
                version = self._put(index, key, written)
        elif kind == "kv.cas":
            _, expected, wanted, stored, _ = fields
            written = _plain(stored)
            if (expected is not None and _plain(expected) != value) or (wanted is not None and wanted != version):
                outcome = "condition"
            else:
                version = self._put(index, key, written)
        elif kind == "kv.incr":
            if version and type(value) is not int:
                outcome = "not_integer"
            else:
                value = (value if version else 0) + fields[1]
                written = value
                version = self._put(index, key, value)
        elif kind == "kv.resolve":
            outcome = "unused"
        elif (kind == "kv.delete" or version == fields[0]) and self.items.pop(key, None) is not None:
            self.states.setdefault(key, []).append((index + 1, ABSENT, 0))
        done = Done(index, outcome, value, version)
        self.done.setdefault(("value", key, _hashable(written)), []).append(done)
        self.done.setdefault(("from", key, kind, name[0] if name else None), []).append(done)
        if name is not None:
            self.numbered.setdefault(name, []).append(done)
        return done

    def _put(self, index: int, key: str, value: Any) -> int:
        version = self._versions[key] = max(self._versions.get(key, 0) + 1, self._now_us)
        self.items[key] = (value, version)
        self.states.setdefault(key, []).append((index + 1, value, version))
        return version


def check(replays: list[Replay], partition_of: Callable[[str], int], ops: Iterable[Op]) -> list[str]:
    """What does not fit, in words; empty for a sound history."""
    return _Check(replays, partition_of).run(list(ops))


class _Check:
    def __init__(self, replays: list[Replay], partition_of: Callable[[str], int]) -> None:
        self._replays, self._partition_of = replays, partition_of
        self._used: set[tuple[int, int]] = set()
        self._problems: list[str] = []

    def run(self, ops: list[Op]) -> list[str]:
        floors: dict[int, int] = {}
        sessions: dict[tuple[str, int], int] = {}
        begun: dict[int, tuple[int, int]] = {}
        moments = [(op.started, 0, number) for number, op in enumerate(ops)]
        moments += [(op.ended, 1, number) for number, op in enumerate(ops)]
        for _, is_end, number in sorted(moments):
            op = ops[number]
            partition = self._partition_of(op.key)
            if not is_end:
                begun[number] = floors.get(partition, 0), sessions.get((op.session, partition), 0)
                continue
            anywhere, own = begun.pop(number)
            ordered = op.kind != "get" or op.level == "strong"
            floor = max(anywhere, own) if ordered else own if op.level == "session" else 0
            after = self._place(op, partition, floor)
            if after is None:
                continue
            if ordered:
                floors[partition] = max(floors.get(partition, 0), after)
            if op.level != "weak":
                sessions[op.session, partition] = max(sessions.get((op.session, partition), 0), after)
        return self._problems

    def _place(self, op: Op, partition: int, floor: int) -> int | None:
        """The state that was certainly there when the operation ended; None if it says nothing."""
        replay = self._replays[partition]
        if op.kind == "get":
            return self._read(op, replay, floor) if op.status == "ok" else None
        if op.status == "refused":
            found = self._candidates(op, replay)
            if found is not None and any(done.name == "applied" for done in found):
                self._problems.append(f"refused, but applied: {op}")
            return None
        if op.status != "ok":
            return None
        found = self._candidates(op, replay)
        if found is None:
            kind = "kv." + op.kind
            found = replay.done.get(("from", op.key, kind, op.client), [])
        told = False
        for done in found:
            if done.event < floor or (partition, done.event) in self._used:
                continue
            told = True
            if self._agrees(op, done):
                self._used.add((partition, done.event))
                return done.event + 1
        what = "has an outcome of its own" if told else f"is not in the log at or after event {floor}"
        self._problems.append(f"acknowledged, but {what}: {op}; events {found[:5]}")
        return None

    def _candidates(self, op: Op, replay: Replay) -> list[Done] | None:
        """Events that may be this write; None if only its kind and client tell."""
        if op.client is not None and op.seq is not None:
            numbered = replay.numbered.get((op.client, op.seq), [])
            if op.written is None or op.kind == "incr":
                return numbered
            mine = replay.done.get(("value", op.key, _hashable(op.written)), [])  # an mset has several events
            return [done for done in numbered if done in mine]
        if op.kind == "delete":
            return None
        if op.kind == "incr":
            return replay.done.get(("value", op.key, op.seen), []) if op.status == "ok" else []
        return replay.done.get(("value", op.key, _hashable(op.written)), [])

    @staticmethod
    def _agrees(op: Op, done: Done) -> bool:
        if op.version is not None and op.version != done.version:
            return False
        if op.kind in ("cas", "absent"):
            return done.name == ("applied" if op.seen else "condition")
        if op.kind == "incr" and op.seen != done.value:
            return False
        return done.name == "applied"

    def _read(self, op: Op, replay: Replay, floor: int) -> int | None:
        states = [(0, ABSENT, 0), *replay.states.get(op.key, ())]
        end = len(replay.offsets)
        low, high = (0, end) if op.state_at is None else (replay.state(op.state_at),) * 2
        for number, (since, value, version) in enumerate(states):
            until = states[number + 1][0] - 1 if number + 1 < len(states) else end
            place: int = max(low, floor, since)
            if place <= min(until, high) and value == op.seen and op.version in (None, version):
                return place
        self._problems.append(f"no state from {max(low, floor)} to {high} has what was read: {op}")
        return None


def _plain(stored: bytes) -> Any:
    """A stored JSON value."""
    assert stored[:1] == b"J", stored
    return json.loads(stored[1:])


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)
