"""What makes every batch and every request count once. [S]

`WriterTable` is the rule of batch numbers that every reader of the log applies: nodes, status tables, accounting, watch,
history, export. A batch counts only if its number is higher than the last counted one of its writer's incarnation. A
writer hands over n+1 only when n is resolved, so a late copy of n can never count after n+1 did.

`RequestWindows` is the rule of client requests: a request (client, seq) is applied at most once per partition, and its
outcome can be asked for as long as it is remembered.

Both are part of the projection: they are committed together with the projection's position.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import Final, NamedTuple

from dimint.limits import OUTCOME_WINDOW, WRITER_KEEP_S

__all__ = ["FORGOTTEN", "FREE", "SUPERSEDED", "RequestWindows", "WriterRow", "WriterTable"]

_KEEP_US = WRITER_KEEP_S * 1_000_000


class WriterRow(NamedTuple):
    """Last counted batch of one writer incarnation in one partition."""

    number: int
    log_time_us: int


class WriterTable:
    """Incarnation → last counted batch number, for one partition.

    >>> table = WriterTable()
    >>> table.take(b"w" * 16, 1, log_time_us=0), table.take(b"w" * 16, 1, log_time_us=0)
    (True, False)
    """

    def __init__(self, rows: Iterable[tuple[bytes, WriterRow]] = ()) -> None:
        self._rows: dict[bytes, WriterRow] = dict(rows)
        self._changed: set[bytes] = set()
        self._oldest_us: int | None = None

    def counts(self, writer: bytes, number: int) -> bool:
        """Whether `take` would say yes."""
        row = self._rows.get(writer)
        return row is None or number > row.number

    def last(self, writer: bytes) -> int:
        """Number of the writer's last counted batch; 0 if none is known."""
        row = self._rows.get(writer)
        return 0 if row is None else row.number

    def take(self, writer: bytes, number: int, *, log_time_us: int) -> bool:
        """Whether the batch counts; if so it is the writer's last one from now on."""
        row = self._rows.get(writer)
        if row is not None and number <= row.number:
            return False
        self._rows[writer] = WriterRow(number, log_time_us)
        self._changed.add(writer)
        return True

    def forget(self, log_time_us: int) -> None:
        """Drop rows that nothing was counted for in WRITER_KEEP_S of log time. Call it after `take`, at any rate."""
        limit = log_time_us - _KEEP_US
        if self._oldest_us is not None and self._oldest_us >= limit:
            return
        for writer in [writer for writer, row in self._rows.items() if row.log_time_us < limit]:
            del self._rows[writer]
            self._changed.add(writer)
        self._oldest_us = min((row.log_time_us for row in self._rows.values()), default=None)

    def take_changes(self) -> list[tuple[bytes, WriterRow | None]]:
        """Rows changed since the last call, None for dropped ones: what the next commit must store."""
        changes = [(writer, self._rows.get(writer)) for writer in sorted(self._changed)]
        self._changed.clear()
        return changes

    def __iter__(self) -> Iterator[tuple[bytes, WriterRow]]:
        return iter(sorted(self._rows.items()))

    def __len__(self) -> int:
        return len(self._rows)


FREE: Final = 0
SUPERSEDED: Final = 1
FORGOTTEN: Final = 2

_CLIENT = Struct(">QQQ")  # highest seq, log time of the first and of the last request of this life, µs
_STAMP = Struct(">QQ")  # seq, log time µs; the outcome follows
_HOUR_US = 3600 * 1_000_000
_SLOTS = tuple(bytes((slot,)) for slot in range(OUTCOME_WINDOW))
_COLLECT_MAX = 64
_CACHED_MAX = 100_000


class _Window:
    """One client in memory. `fresh` has the rows of its outcomes, by slot, that are still to be stored."""

    __slots__ = ("fresh", "highest", "hour_end_us", "last_us", "since_us")

    def __init__(self, highest: int, since_us: int, last_us: int) -> None:
        self.highest, self.since_us, self.last_us = highest, since_us, last_us
        self.hour_end_us = (last_us // _HOUR_US + 1) * _HOUR_US
        self.fresh: dict[int, bytes] = {}


class RequestWindows:
    """Client → highest seq and the last OUTCOME_WINDOW outcomes, for one partition.

    A client's requests carry rising numbers. `find` says what a number is: free (higher than all before), answered (its
    stored outcome), superseded (lower than the highest, without an outcome, inside the window) or forgotten (older).
    A client without a request for WRITER_KEEP_S of log time is forgotten whole; log time alone decides that, at look-up,
    so that it does not matter when the rows are really removed.

    Rows live in a table given as two functions, one row by key and rows by prefix; `take_changes` gives what to store:

        b"c" + client          → highest seq, first and last log time µs
        b"o" + client + slot   → seq, log time µs, outcome          slot = seq % 256, one byte
        b"t" + hour + client   → nothing; finds the clients that went quiet

    >>> windows = RequestWindows(lambda key: None, lambda prefix, limit: [])
    >>> windows.find(b"me", 7, 0) == FREE, windows.settle(b"me", 7, b"done", 0)
    (True, None)
    >>> windows.find(b"me", 7, 0), windows.find(b"me", 6, 0) == SUPERSEDED, windows.find(b"me", 8, 0) == FREE
    (b'done', True, True)
    """

    def __init__(
        self, load: Callable[[bytes], bytes | None], scan: Callable[[bytes, int], Iterable[tuple[bytes, bytes]]]
    ) -> None:
        self._load, self._scan = load, scan
        self._windows: dict[bytes, _Window] = {}
        self._free = _Window(0, 0, 0)  # of the last `find`
        self._all_free: dict[int, tuple[bytes, _Window]] = {}  # of the last `all_free`, by place of the client
        self._touched: list[bytes] = []
        self._quiet: dict[bytes, bytes] = {}  # rows b"t" to write
        self._collected_hour = -1

    def find(self, client: bytes, seq: int, log_time_us: int) -> bytes | int:
        """FREE, SUPERSEDED, FORGOTTEN, or the stored outcome. `client` is 1 to 64 bytes, `seq` ≥ 1."""
        window = self._windows.get(client)
        if window is None or window.last_us < log_time_us - _KEEP_US:
            window = self._open(client, log_time_us)
        if seq > window.highest:
            self._free = window
            return FREE
        slot = seq % OUTCOME_WINDOW
        row = window.fresh.get(slot) or self._load(b"o" + client + _SLOTS[slot])
        if row is not None:
            known, time_us = _STAMP.unpack_from(row)
            if known == seq and time_us >= window.since_us:
                return row[_STAMP.size :]
        return SUPERSEDED if seq > window.highest - OUTCOME_WINDOW else FORGOTTEN

    def settle(self, client: bytes, seq: int, outcome: bytes, log_time_us: int) -> None:
        """Store the outcome of the request that the last `find` called free; again to replace it."""
        window = self._free
        self._raise(client, window, seq, log_time_us)
        window.fresh[seq % OUTCOME_WINDOW] = _STAMP.pack(seq, log_time_us) + outcome

    def all_free(self, clients: Sequence[bytes | None], requests: Iterable[tuple[int, int | None]], log_time_us: int) -> bool:
        """Whether `find` and `settle`, one after the other, would call each of `requests` free: (place in `clients`, seq).
        No for requests without a client or a seq, and for a client with two places, which are rare."""
        highest: dict[int, int] = {}
        opened: dict[int, tuple[bytes, _Window]] = {}
        for place, seq in requests:
            if seq is None:
                return False
            known = highest.get(place)
            if known is None:
                client = clients[place]
                if client is None:
                    return False
                window = self._windows.get(client)
                if window is None or window.last_us < log_time_us - _KEEP_US:
                    window = self._open(client, log_time_us)
                opened[place] = client, window
                known = window.highest
            if seq <= known:
                return False
            highest[place] = seq
        self._all_free = opened
        return len({client for client, _ in opened.values()}) == len(opened)

    def settle_all(self, requests: Iterable[tuple[int, int]], outcomes: Iterable[bytes], log_time_us: int) -> None:
        """Store the outcomes of the requests that the last `all_free` said yes to."""
        opened = self._all_free
        fresh = {place: window.fresh for place, (_, window) in opened.items()}
        highest = dict(requests)  # the last of each client
        for place, (client, window) in opened.items():
            self._raise(client, window, highest[place], log_time_us)
        stamp = _STAMP.pack
        for (place, seq), outcome in zip(requests, outcomes, strict=True):
            fresh[place][seq % OUTCOME_WINDOW] = stamp(seq, log_time_us) + outcome

    def _raise(self, client: bytes, window: _Window, seq: int, log_time_us: int) -> None:
        """A request is about to be stored."""
        if seq > window.highest:
            window.highest = seq
        if log_time_us >= window.hour_end_us:
            hour = log_time_us // _HOUR_US
            window.hour_end_us = (hour + 1) * _HOUR_US
            self._quiet[b"t" + hour.to_bytes(4, "big") + client] = b""
        window.last_us = log_time_us
        if not window.fresh:
            self._touched.append(client)

    def take_changes(self, log_time_us: int) -> dict[bytes, bytes | None]:
        """Rows changed since the last call, None for dropped ones; among them some clients whose time is over."""
        changes: dict[bytes, bytes | None] = dict(self._quiet)
        touched = sorted(self._touched)
        for client in touched:
            window = self._windows[client]
            changes[b"c" + client] = _CLIENT.pack(window.highest, window.since_us, window.last_us)
        for client in touched:  # in the order of the keys, which the table's owner is about to sort
            prefix, fresh = b"o" + client, self._windows[client].fresh
            for slot in sorted(fresh):
                changes[prefix + _SLOTS[slot]] = fresh[slot]
            fresh.clear()
        self._touched.clear()
        self._quiet.clear()
        self._collect(log_time_us, changes)
        if len(self._windows) > _CACHED_MAX:
            self._windows.clear()  # everything is in `changes` now
        return changes

    def _open(self, client: bytes, log_time_us: int) -> _Window:
        known = self._windows.get(client)
        if known is None:
            row = self._load(b"c" + client)
            if row is not None:
                known = _Window(*_CLIENT.unpack(row))
        if known is None or known.last_us < log_time_us - _KEEP_US:
            # rows of an earlier life are still there perhaps: older than since_us, they do not count
            known = _Window(0, log_time_us, -_HOUR_US)
        self._windows[client] = known
        return known

    def _collect(self, log_time_us: int, changes: dict[bytes, bytes | None]) -> None:
        """Remove rows of some clients that went quiet long ago, a bounded number at a time."""
        limit_us = log_time_us - _KEEP_US
        hour = limit_us // _HOUR_US
        if hour <= self._collected_hour:
            return
        found = 0
        for key, _ in self._scan(b"t", _COLLECT_MAX):
            if int.from_bytes(key[1:5], "big") >= hour:
                break
            found += 1
            changes[key] = None
            client = key[5:]
            window = self._windows.get(client)
            if window is None and (row := self._load(b"c" + client)) is not None:
                window = _Window(*_CLIENT.unpack(row))
            if window is not None and window.last_us < limit_us and b"c" + client not in changes:
                self._windows.pop(client, None)
                changes[b"c" + client] = None
                changes.update((b"o" + client + slot, None) for slot in _SLOTS)
        if found < _COLLECT_MAX:
            self._collected_hour = hour
