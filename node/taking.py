"""How a node gets a partition that it has nothing of: a peer's snapshot, else the log from its start. [S]

One snapshot is taken at a time. The partition's other holders are asked one after the other; a peer that refuses, falls
silent or sends what is no snapshot of this partition is passed by. Parts are asked for WINDOW_PARTS at a time and the next
one when one was stored, so that nothing piles up on either side. Without any peer left the log is read from its start; if
it was trimmed, all peers are asked again after AGAIN_S.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, Protocol

from dimint.errors import BadSnapshot
from dimint.limits import SNAPSHOT_PART_MAX_BYTES
from dimint.node.peering import Done, FromHolder, FromTaker, Making, Offer, Part, Refused, Take, Want
from dimint.snapshot import Header, Rows, SnapshotReader

__all__ = ["Builder", "Taking", "Way"]

WINDOW_PARTS: Final = 4
ASK_S: Final = 0.2
"""How often it is asked whether a snapshot is made."""
SILENT_S: Final = 5.0
AGAIN_S: Final = 2.0


class Builder(Protocol):
    """Whose partitions are built: node/holdings.py."""

    def awaited(self) -> Collection[int]:
        """Partitions that have to be built from something."""

    def begin(self, partition: int) -> bool:
        """Empty the partition's store; False if that is not possible now."""

    def unfit(self, header: Header) -> str | None:
        """Why a snapshot cannot be used here; None if it can."""

    def load(self, partition: int, rows: Rows) -> bool:
        """Store rows that count only after `finish`; False if there is no room."""

    def finish(self, header: Header) -> str | None:
        """All rows are loaded: use them. Why that is not possible; None if it is done."""

    def replay(self, partition: int, why: str) -> bool:
        """Read the partition from the log's start instead; False if that is not there any more."""


class Way(NamedTuple):
    """How far a snapshot has come: from whom, percent, bytes a second."""

    peer: str
    percent: float
    bytes_per_s: float


class _Fetch:
    """One snapshot under way from one peer."""

    def __init__(self, partition: int, peer: str, now: float) -> None:
        self.partition, self.peer = partition, peer
        self.heard_at = self.began_at = now
        self.asked_at = float("-inf")
        self.id: int | None = None
        self.size = self.wanted = self.taken = 0
        self.reader = SnapshotReader()


class Taking:
    """Times are seconds of a monotonic clock. Messages to peers pile up until `take`."""

    def __init__(self, generation: str, partitions: int, builder: Builder) -> None:
        self._generation, self._partitions, self._builder = generation, partitions, builder
        self._fetch: _Fetch | None = None
        self._passed: dict[int, dict[str, str]] = {}
        self._again: dict[int, float] = {}
        self._messages: list[tuple[str, FromTaker]] = []

    @property
    def peer(self) -> str | None:
        """Whom a snapshot comes from now."""
        return None if self._fetch is None else self._fetch.peer

    def way(self, partition: int, now: float) -> Way | None:
        """How far the snapshot of a partition is; None if none is under way."""
        fetch = self._fetch
        if fetch is None or fetch.partition != partition:
            return None
        percent = 100 * fetch.taken / fetch.size if fetch.size else 0.0
        return Way(fetch.peer, percent, fetch.taken / max(now - fetch.began_at, 0.001))

    def tick(self, now: float, peers_of: Callable[[int], Sequence[str]]) -> None:
        """Go on with what is under way, or begin with the next one. `peers_of` names other holders, the best first."""
        fetch = self._fetch
        awaited = self._builder.awaited()
        if fetch is not None and fetch.partition not in awaited:
            self._drop()
        elif fetch is not None:
            if now - fetch.heard_at >= SILENT_S:
                self._pass_by(f"it said nothing for {SILENT_S:g} s")
            elif fetch.id is None and now - fetch.asked_at >= ASK_S:
                fetch.asked_at = now
                self._send(fetch, Take(fetch.partition, self._generation))
        for partition in [*self._passed.keys() - awaited]:
            del self._passed[partition]
        for partition in sorted(awaited):
            if self._fetch is not None:
                return
            if self._again.get(partition, 0.0) <= now:
                self._begin(partition, peers_of(partition), now)

    def received(self, peer: str, message: FromHolder, now: float) -> None:
        """What a peer says; from others than the one that is asked it is passed over."""
        fetch = self._fetch
        if fetch is None or fetch.peer != peer:
            return
        fetch.heard_at = now
        if isinstance(message, Refused):
            if message.partition in (fetch.partition, -1):
                self._pass_by(message.text)
        elif isinstance(message, Offer):
            if message.partition == fetch.partition and fetch.id is None:
                fetch.id, fetch.size, fetch.began_at = message.id, message.size, now
                for _ in range(WINDOW_PARTS):
                    self._want(fetch)
        elif isinstance(message, Part):
            self._part(fetch, message, now)
        else:
            assert isinstance(message, Making)

    def next_time(self, now: float) -> float | None:
        """Seconds until `tick` has something to do; None if it has nothing."""
        if self._fetch is not None:
            return ASK_S
        times = [self._again.get(partition, now) for partition in self._builder.awaited()]
        return max(0.0, min(times) - now) if times else None

    def take(self) -> list[tuple[str, FromTaker]]:
        """Messages to send now: peer and message."""
        messages, self._messages = self._messages, []
        return messages

    # --- one partition --------------------------------------------------------------------------------------------------
    def _begin(self, partition: int, peers: Sequence[str], now: float) -> None:
        passed = self._passed.setdefault(partition, {})
        peer = next((one for one in peers if one not in passed), None)
        if peer is None:
            why = "; ".join(f"{one}: {text}" for one, text in passed.items()) or "nobody else has it"
            if not self._builder.replay(partition, why):
                self._again[partition] = now + AGAIN_S
            del self._passed[partition]
        elif self._builder.begin(partition):
            self._fetch = _Fetch(partition, peer, now)
            self._fetch.asked_at = now
            self._send(self._fetch, Take(partition, self._generation))
        else:
            self._again[partition] = now + AGAIN_S

    def _part(self, fetch: _Fetch, message: Part, now: float) -> None:
        if message.id != fetch.id:
            return
        if message.offset != fetch.taken or not message.data or len(message.data) > SNAPSHOT_PART_MAX_BYTES:
            self._pass_by("it sent another part of the snapshot than it was asked for")
            return
        fetch.taken += len(message.data)
        try:
            parts = fetch.reader.feed(message.data)
        except BadSnapshot as error:
            self._pass_by(str(error))
            return
        for part in parts:
            if isinstance(part, Header):
                unfit = self._unfit(fetch, part)
                if unfit is not None:
                    self._pass_by(unfit)
                    return
            elif isinstance(part, Rows) and not self._builder.load(fetch.partition, part):
                self._drop()
                self._again[fetch.partition] = now + AGAIN_S
                return
        if fetch.reader.finished != (fetch.taken == fetch.size):
            self._pass_by(f"its snapshot does not have the {fetch.size} bytes that it said")
        elif fetch.reader.finished:
            self._finish(fetch)
        else:
            self._want(fetch)

    def _unfit(self, fetch: _Fetch, header: Header) -> str | None:
        if header.partition != fetch.partition or header.generation != self._generation:
            return f"its snapshot is of {header.topic}/{header.partition} of the log {header.generation}"
        if header.partitions != self._partitions:
            return f"its snapshot is of a log with {header.partitions} partitions"
        return self._builder.unfit(header)

    def _finish(self, fetch: _Fetch) -> None:
        header = fetch.reader.header
        assert header is not None
        unfit = self._builder.finish(header)
        if unfit is not None:
            self._pass_by(unfit)
            return
        self._passed.pop(fetch.partition, None)
        self._drop()

    def _want(self, fetch: _Fetch) -> None:
        if fetch.id is not None and fetch.wanted < fetch.size:
            size = min(SNAPSHOT_PART_MAX_BYTES, fetch.size - fetch.wanted)
            self._send(fetch, Want(fetch.id, fetch.wanted, size))
            fetch.wanted += size

    def _pass_by(self, why: str) -> None:
        """Not this peer: the next tick asks another one."""
        assert self._fetch is not None
        self._passed.setdefault(self._fetch.partition, {})[self._fetch.peer] = why
        self._drop()

    def _drop(self) -> None:
        fetch, self._fetch = self._fetch, None
        assert fetch is not None
        if fetch.id is not None:
            self._send(fetch, Done(fetch.id))

    def _send(self, fetch: _Fetch, message: FromTaker) -> None:
        self._messages.append((fetch.peer, message))
