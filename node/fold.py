"""What the events of one batch do to a partition. [S]

`prepare` checks every event before anything of the batch is applied: a batch counts whole or not at all
(dimint/log/reading.py says what becomes of one that does not). `fold` then applies it. Nothing here asks a clock, draws a
random number or depends on the order of a set, so every replica does the same.
"""

from collections.abc import Sequence
from typing import Final

from dimint.batch import BY, FIELDS, KEY, KIND, Batch, Event
from dimint.dedupe import FREE, SUPERSEDED, RequestWindows
from dimint.door import Outcome
from dimint.errors import DimintError
from dimint.events import KINDS, KV_TOPIC, MODE_ABSENT, MODE_ANY, problem_of
from dimint.limits import CLIENT_ID_MAX_BYTES, KEY_MAX_BYTES, TTL_MAX_MS
from dimint.node.keyspace import Keyspace, Row
from dimint.node.outcomes import APPLIED, PACKED, pack, unpack
from dimint.values import equal, integer

__all__ = ["Prepared", "Unusable", "fold", "prepare"]

_SEQ: Final = FIELDS
_SET_END: Final = FIELDS + 4
_CAS_END: Final = FIELDS + 5
_TAGS: Final = frozenset((b"J", b"M"))
_REFUSED: Final = (Outcome("superseded"), Outcome("forgotten"))
_APPLIED: Final = pack(Outcome("applied"))
"""Of a request with several keys: no single version."""


class Unusable(Exception):
    """An event that this program must not pass over; the text says why."""


class Prepared:
    """A checked batch: its events, their keys as bytes (None for a barrier), and the clients of its `by` table. `values` are
    those of a batch of plain sets, else None; `requests` their by and seq, if any of them can be a numbered request."""

    __slots__ = ("clients", "events", "keys", "requests", "values")

    def __init__(self, batch: Batch, keys: Sequence[bytes | None], clients: Sequence[bytes | None]) -> None:
        self.events, self.keys, self.clients = batch.events, keys, clients
        self.values: Sequence[bytes] | None = None
        self.requests: Sequence[tuple[int, int | None]] | None = None


def prepare(batch: Batch) -> Prepared:
    """Check every event. Raises Unusable for what no writer of ours makes."""
    if batch.plain:
        _, texts, _, people, seqs, values, _, _ = zip(*batch.events, strict=True)
        keys = list(map(str.encode, texts))
        numbers = set(seqs)
        numbers.discard(None)
        if (
            all(keys)
            and max(map(len, keys)) <= KEY_MAX_BYTES
            and _TAGS.issuperset([value[:1] for value in values])
            and min(numbers, default=1) > 0
        ):
            prepared = Prepared(batch, keys, _clients(batch))
            prepared.values = values
            if numbers and any(prepared.clients):
                prepared.requests = list(zip(people, seqs, strict=True))
            return prepared
    return Prepared(batch, [_check(event) for event in batch.events], _clients(batch))


def _clients(batch: Batch) -> list[bytes | None]:
    clients = [None if person.client is None else person.client.encode() for person in batch.header.by]
    for client in clients:
        if client is not None and not 0 < len(client) <= CLIENT_ID_MAX_BYTES:
            raise Unusable(f"a client id of {len(client)} bytes")
    return clients


def _check(event: Event) -> bytes | None:
    """The key of any event as bytes, None for a barrier."""
    kind = event[KIND]
    if kind not in KINDS:
        raise Unusable(f"unknown kind {kind[:80]!r}")
    problem = problem_of(event, KV_TOPIC)
    if problem is not None:
        raise Unusable(problem)
    if kind == "barrier":
        return None
    key: bytes = event[KEY].encode()
    if not 0 < len(key) <= KEY_MAX_BYTES:
        raise Unusable(f"{kind}: the key takes {len(key)} bytes")
    if kind == "kv.expire":
        return key
    seq = event[_SEQ]
    if seq is not None and seq < 1:
        raise Unusable(f"{kind}: seq is {seq}")
    value, ttl_ms, mode = b"J", None, MODE_ANY
    if kind == "kv.set":
        _, value, ttl_ms, mode = event[FIELDS:_SET_END]
    elif kind == "kv.cas":
        *_, value, ttl_ms = event[FIELDS:_CAS_END]
    if value[:1] not in _TAGS:
        raise Unusable(f"{kind}: the value has no known tag")
    if ttl_ms is not None and not 0 < ttl_ms <= TTL_MAX_MS:
        raise Unusable(f"{kind}: ttl_ms is {ttl_ms}")
    if not 0 <= mode <= 2:
        raise Unusable(f"{kind}: mode is {mode}")
    return key


def fold(batch: Prepared, keys: Keyspace, windows: RequestWindows, now_us: int) -> dict[int, Outcome]:
    """Apply a batch at log time `now_us`; the outcomes that somebody may want, by index of the event.

    A plain set or delete that was applied has none. Consecutive kv.set of one client and seq are one request: one
    decision, one stored outcome.
    """
    if batch.values is not None:
        if batch.requests is not None:
            return _fold_sets(batch, batch.values, batch.requests, keys, windows, now_us)
        keys.put_all(batch.keys, batch.values, now_us)  # type: ignore[arg-type]  # sets have keys
        return {}
    outcomes: dict[int, Outcome] = {}
    clients, encoded = batch.clients, batch.keys
    set_by = set_seq = -1  # of the kv.set before this event, if it was numbered
    whole = True
    verdict: bytes | int = FREE
    for index, event in enumerate(batch.events):
        kind = event[0]
        key = encoded[index]
        if key is None:
            set_by = -1
            continue
        keys.index = index
        if kind == "kv.expire":
            set_by = -1
            row = keys.get(key)
            if row is not None and row[0] == event[FIELDS]:
                keys.delete(key, now_us)
            continue
        by, seq = event[BY], event[_SEQ]
        client = clients[by]
        if client is None or seq is None:
            set_by = -1
            if kind == "kv.set" and event[7] == MODE_ANY:
                keys.put(key, event[5], 0 if event[6] is None else now_us + event[6] * 1000, now_us)
            elif (done := _act(event, key, keys, now_us)) is not None:
                outcomes[index] = done
            continue
        first = True
        if kind != "kv.set":
            set_by = -1
            verdict = windows.find(client, seq, now_us)
        elif by == set_by and seq == set_seq:
            first = False
        else:
            set_by, set_seq = by, seq
            whole = True
            verdict = windows.find(client, seq, now_us)
        if verdict is not FREE:
            outcomes[index] = _refused(verdict)
            continue
        if kind == "kv.set" and event[7] == MODE_ANY:
            version = keys.put(key, event[5], 0 if event[6] is None else now_us + event[6] * 1000, now_us)
            packed = PACKED.pack(APPLIED, version + 1)
        elif kind == "kv.resolve":
            outcomes[index] = Outcome("unused")
            packed = pack(outcomes[index])
        else:
            done = _act(event, key, keys, now_us)
            if done is not None:
                outcomes[index] = done
                whole = whole and done.name == "applied"
            packed = pack(done or Outcome("applied"))
        if not first:  # several keys: no single version
            packed = _APPLIED if whole else pack(Outcome("condition"))
        windows.settle(client, seq, packed, now_us)
    return outcomes


def _fold_sets(
    batch: Prepared,
    values: Sequence[bytes],
    requests: Sequence[tuple[int, int | None]],
    keys: Keyspace,
    windows: RequestWindows,
    now_us: int,
) -> dict[int, Outcome]:
    """`fold` for a batch of plain sets with numbered requests among them."""
    if windows.all_free(batch.clients, requests, now_us):
        versions = keys.put_all(batch.keys, values, now_us)  # type: ignore[arg-type]  # sets have keys
        usual = PACKED.pack(APPLIED, now_us + 1)
        packed = [usual if version == now_us else PACKED.pack(APPLIED, version + 1) for version in versions]
        windows.settle_all(requests, packed, now_us)  # type: ignore[arg-type]  # and all of these a seq
        return {}
    outcomes: dict[int, Outcome] = {}
    clients, put, find, settle, pack_version = batch.clients, keys.put, windows.find, windows.settle, PACKED.pack
    set_by = set_seq = -1
    verdict: bytes | int = FREE
    for index, (key, value, (by, seq)) in enumerate(zip(batch.keys, values, requests, strict=True)):
        keys.index = index
        client = clients[by]
        if client is None or seq is None:
            set_by = -1
            put(key, value, 0, now_us)  # type: ignore[arg-type]
            continue
        first = by != set_by or seq != set_seq
        if first:
            set_by, set_seq = by, seq
            verdict = find(client, seq, now_us)
        if verdict is not FREE:
            outcomes[index] = _refused(verdict)
            continue
        version = put(key, value, 0, now_us)  # type: ignore[arg-type]
        settle(client, seq, pack_version(APPLIED, version + 1) if first else _APPLIED, now_us)
    return outcomes


def _refused(verdict: bytes | int) -> Outcome:
    """Why a request does not count: it was answered before, or is too old."""
    return _REFUSED[verdict - SUPERSEDED] if isinstance(verdict, int) else unpack(verdict)


def _act(event: Sequence[object], key: bytes, keys: Keyspace, now_us: int) -> Outcome | None:
    """Apply one event of any kind but kv.expire and a plain kv.set; its outcome, if it has one."""
    kind = event[KIND]
    row = keys.get(key)
    version, expires_us = (0, 0) if row is None else row[:2]
    if kind == "kv.set":
        _, _, _, _, _, value, ttl_ms, mode = event[:_SET_END]
        if (row is None) != (mode == MODE_ABSENT):
            return Outcome("condition", None, version)
        return Outcome("applied", None, _store(keys, key, value, ttl_ms, now_us))
    if kind == "kv.delete":
        keys.delete(key, now_us)
        return None
    if kind == "kv.incr":
        try:
            number = 0 if row is None else integer(row[2])
        except DimintError:
            return Outcome("not_integer", None, version)
        amount = event[FIELDS + 1]
        assert isinstance(amount, int)
        text = str(number + amount)
        return Outcome("applied", text, keys.put(key, b"J" + text.encode(), expires_us, now_us))
    if kind == "kv.cas":
        _, _, _, _, _, expected, wanted, value, ttl_ms = event[:_CAS_END]
        if not _matches(row, expected, wanted):
            return Outcome("condition", None, version)
        return Outcome("applied", None, _store(keys, key, value, ttl_ms, now_us))
    assert kind == "kv.resolve", f"no rule for {kind}"
    return None  # without a client there is nothing to settle


def _store(keys: Keyspace, key: bytes, value: object, ttl_ms: object, now_us: int) -> int:
    assert isinstance(value, bytes)
    expires_us = now_us + ttl_ms * 1000 if isinstance(ttl_ms, int) else 0
    return keys.put(key, value, expires_us, now_us)


def _matches(row: Row | None, expected: object, wanted: object) -> bool:
    """Whether a cas applies: the value if one is expected, the version if one is wanted, never without either."""
    if expected is None and wanted is None:
        return False
    if wanted is not None and wanted != (0 if row is None else row[0]):
        return False
    if not isinstance(expected, bytes):
        return True
    if row is None:
        return False
    try:
        return equal(row[2], expected)
    except (DimintError, ValueError, IndexError):  # one of the two is no value at all
        return False
