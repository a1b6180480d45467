"""The node's own door for clients: get, mget, scan and watch of the partitions that it serves (docs/protocol.md). [S]

Peer is whatever the driver calls one connection by. Replies keep the order of a connection's requests unless those carry
an `id`. A strong read needs the log's end, asked after the read came: `wants_ends` names the partitions, `ends` goes on.
"""

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

from dimint import wire
from dimint.door import MOVED, Found
from dimint.errors import (
    Busy,
    NodeNotAvailable,
    ParseError,
    PositionGone,
    RequestError,
    TimedOut,
    TooLarge,
    UnknownCommand,
    error_for_code,
)
from dimint.genesis import Genesis
from dimint.limits import SCAN_MAX_BYTES
from dimint.node.ages import Ages
from dimint.node.pending import Pending
from dimint.node.replica import Page, Replica
from dimint.node.watches import Found as Changes
from dimint.node.watches import Watch as Waiting
from dimint.node.watches import Watches
from dimint.slots import homes
from dimint.wire_types import JSON, Form, Get, Mget, Request, Scan, Unwatch, Watch
from dimint.wire_watch import gone, watched, where_to_begin

__all__ = ["Direct"]

DEFAULT_TIMEOUT_S: Final = 5.0
MGET_MAX_BYTES: Final = 32 << 20
LINE_MAX: Final = 10_000
"""Requests without `id` of one connection that may wait for an earlier one."""

Peer = TypeVar("Peer")


class _Job(Generic[Peer]):
    """One request under way. `frame` is its reply once there is one."""

    __slots__ = ("deadline", "form", "frame", "left", "offsets", "peer", "request")

    def __init__(
        self,
        peer: Peer,
        form: Form,
        request: Get | Mget | Scan | Watch | Unwatch,
        offsets: dict[int, int],
        deadline: float,
    ) -> None:
        self.peer, self.form, self.request, self.offsets, self.deadline = peer, form, request, offsets, deadline
        self.left = 0
        self.frame: bytes | None = None


class Direct(Generic[Peer]):
    """`replicas` is the live map of what the node holds; `serve` says which of them it may serve."""

    def __init__(
        self,
        genesis: Genesis,
        replicas: Mapping[int, Replica],
        watches: Watches,
        ages: Ages | None = None,
        *,
        end_is_linearizable: bool,
    ) -> None:
        self._genesis, self._replicas, self._watches = genesis, replicas, watches
        self._home_of = homes(genesis.hash_range, genesis.kv_partitions).__getitem__
        self._ages = ages or Ages(replicas)
        self._watching: dict[tuple[Peer, Any], Waiting] = {}
        self._linearizable = end_is_linearizable
        self._serving: frozenset[int] = frozenset()
        self._behind: frozenset[int] = frozenset()
        self._waiting: Pending[_Job[Peer]] = Pending()
        self._lines: dict[Peer, deque[_Job[Peer]]] = {}
        self._strong: list[_Job[Peer]] = []
        self._replies: list[tuple[Peer, bytes]] = []

    def serve(self, partitions: frozenset[int], behind: frozenset[int] = frozenset()) -> None:
        """Serve exactly these from now on; what waits for others is told that they moved.

        Those `behind` answer only reads that wait for a position: what the replica still lacks would look deleted.
        """
        gone = self._serving - partitions
        self._serving, self._behind = partitions, behind
        for partition in gone:
            self._watches.drop(partition)
            for job in self._waiting.drop(partition):
                self._fail(job, _moved(), moved=True)

    @property
    def is_behind(self) -> bool:
        """Whether any partition served is."""
        return bool(self._behind)

    def receive(self, peer: Peer, frame: bytes | None, now: float) -> None:
        """One frame of a client; None for a message that is none."""
        try:
            request = wire.parse(frame or b"")
            if not isinstance(request, Get | Mget | Scan | Watch | Unwatch):
                raise UnknownCommand("a node's own door answers get, mget, scan and watch; ask an overlord")
        except RequestError as error:
            blank, reply = wire.refused(frame or b"", error)
            self._answer_in_line(peer, blank, reply)
            return
        assert frame is not None
        job = _Job[Peer](peer, wire.form_of(frame), request, {}, now + (request.timeout or DEFAULT_TIMEOUT_S))
        if request.id is None and not self._stand_in_line(job):
            return
        if isinstance(request, Unwatch):
            self._unwatch(job, request)
            return
        try:
            partitions = self._partitions_of(request)
            if isinstance(request, Watch):
                self._watch(job, request, partitions, now)
                return
            asked = wire.min_offsets(request, self._genesis.generation, self._genesis.kv_partitions)
        except RequestError as error:
            self._fail(job, error)
            return
        lacking = self._behind - asked.keys() if request.consistency != "strong" else ()
        if not partitions <= self._serving or not partitions.isdisjoint(lacking):
            self._fail(job, _moved(), moved=True)
            return
        job.offsets = {partition: asked.get(partition, 0) for partition in partitions}
        if request.consistency != "strong":
            self._start(job)
        elif self._linearizable:
            self._strong.append(job)
        else:
            self._fail(job, NodeNotAvailable("strong reads go through an overlord here"))

    def wants_ends(self) -> set[int]:
        """Partitions whose end offset the strong reads wait for."""
        return {partition for job in self._strong for partition in job.offsets}

    def ends(self, ends: Mapping[int, int]) -> None:
        """The end offsets of `wants_ends`, asked after it."""
        jobs, self._strong = self._strong, []
        for job in jobs:
            for partition, offset in job.offsets.items():
                job.offsets[partition] = max(offset, ends[partition])
            self._start(job)

    def came_on(self, partition: int) -> None:
        """The partition's replica has applied something."""
        replica = self._replicas.get(partition)
        if replica is not None:
            for job in self._waiting.reached(partition, replica.next_offset):
                job.left -= 1
                if not job.left:
                    self._serve(job)

    def expire(self, now: float) -> None:
        """Answer what waited until its deadline."""
        for partition, job in self._waiting.expire(now):
            self._fail(job, TimedOut(f"partition {partition} of this node did not come to the position in time"))

    def next_deadline(self) -> float | None:
        """When `expire` has something to answer."""
        return self._waiting.next_deadline()

    def take(self) -> list[tuple[Peer, bytes]]:
        """Replies to send now, in this order."""
        replies, self._replies = self._replies, []
        return replies

    # --- one request ----------------------------------------------------------------------------------------------------
    def _partitions_of(self, request: Get | Mget | Scan | Watch) -> frozenset[int]:
        if isinstance(request, Get | Watch) and request.key is not None:
            return frozenset((self._home_of(request.key),))
        if isinstance(request, Mget):
            return frozenset(map(self._home_of, request.keys))
        if request.partitions is None:
            return self._serving
        if not all(0 <= partition < self._genesis.kv_partitions for partition in request.partitions):
            raise ParseError(f"the log has {self._genesis.kv_partitions} partitions")
        return frozenset(request.partitions)

    def _watch(self, job: _Job[Peer], request: Watch, partitions: frozenset[int], now: float) -> None:
        positions = where_to_begin(request, self._genesis.generation, partitions, self._genesis.kv_partitions)
        starts = wire.min_offsets(request, self._genesis.generation, self._genesis.kv_partitions)
        # what a replica that is behind still lacks would look new
        lacking = {at for at, position in positions.items() if position is None and at not in starts} & self._behind
        if not partitions or not partitions <= self._serving or lacking:
            self._fail(job, _moved(), moved=True)
            return
        answer = partial(self._watched, job, request)
        waiting = Waiting(answer, request.key, request.prefix or "", positions, job.deadline, starts)
        if request.id is not None:
            self._watching[job.peer, request.id] = waiting
        self._watches.start(waiting, now)

    def _watched(self, job: _Job[Peer], request: Watch, found: Changes) -> None:
        if request.id is not None:
            self._watching.pop((job.peer, request.id), None)
        generation = self._genesis.generation
        if found.error is None:
            self._finish(job, watched(job.form, request, generation, found.positions, found.changes.items()))
        elif found.error == PositionGone.code:
            self._finish(job, gone(job.form, request, generation, found.oldest))
        elif found.error == MOVED:
            self._fail(job, _moved(), moved=True)
        else:
            self._fail(job, error_for_code(found.error))

    def _unwatch(self, job: _Job[Peer], request: Unwatch) -> None:
        waiting = self._watching.get((job.peer, request.watch))
        if waiting is not None:
            self._watches.end(waiting)
        self._finish(job, wire.reply(job.form, request, {"ok": True}))

    def _start(self, job: _Job[Peer]) -> None:
        for partition, offset in job.offsets.items():
            replica = self._replicas.get(partition)
            if replica is None:
                self._fail(job, _moved(), moved=True)
                return
            if replica.next_offset < offset:
                if not self._waiting.add(partition, offset, job.deadline, job):
                    self._fail(job, Busy("too many reads wait"))
                    return
                job.left += 1
        if not job.left:
            self._serve(job)

    def _serve(self, job: _Job[Peer]) -> None:
        if job.frame is not None:
            return
        try:
            if isinstance(job.request, Get):
                frame = self._get(job, job.request)
            elif isinstance(job.request, Mget):
                frame = self._mget(job, job.request)
            else:
                assert isinstance(job.request, Scan)
                frame = self._scan(job, job.request)
        except RequestError as error:
            self._fail(job, error, moved=isinstance(error, NodeNotAvailable))
            return
        self._finish(job, frame)

    def _get(self, job: _Job[Peer], request: Get) -> bytes:
        (partition,) = job.offsets
        found = self._replica(partition).get([request.key])
        token = self._token(partition)
        if not found:
            return wire.got(job.form, request, None, 0, token, self._ages.age_ms(partition))
        return wire.got(job.form, request, found[0].value, found[0].version, token, self._ages.age_ms(partition))

    def _mget(self, job: _Job[Peer], request: Mget) -> bytes:
        by_partition: dict[int, list[str]] = {}
        keys = list(dict.fromkeys(request.keys))
        for key in keys:
            by_partition.setdefault(self._home_of(key), []).append(key)
        found: dict[str, Found] = {}
        for partition, wanted in by_partition.items():
            found.update((one.key, one) for one in self._replica(partition).get(wanted))
        if sum(len(one.value) for one in found.values()) > MGET_MAX_BYTES:
            raise TooLarge(f"the values take more than {MGET_MAX_BYTES} bytes; ask for fewer keys")
        there = [found[key] for key in keys if key in found]
        values = {one.key: job.form.load(one.value) for one in there}
        versions = {one.key: one.version for one in there}
        more = {"positions": self._tokens(job), "versions": versions, "age": self._age(job)}
        return wire.reply(job.form, request, {"values": values}, **more)

    def _scan(self, job: _Job[Peer], request: Scan) -> bytes:
        pages = [self._replica(partition).scan(request.prefix, request.after, request.limit) for partition in job.offsets]
        items, after = _merge(pages, request.limit)
        fields: dict[str, Any] = {"items": [[one.key, job.form.load(one.value)] for one in items], "next": after}
        return wire.reply(job.form, request, fields, positions=self._tokens(job), age=self._age(job))

    def _replica(self, partition: int) -> Replica:
        replica = self._replicas.get(partition)
        if replica is None:
            raise _moved()
        return replica

    def _token(self, partition: int) -> str:
        return wire.format_token(self._genesis.generation, partition, self._replica(partition).next_offset)

    def _tokens(self, job: _Job[Peer]) -> list[str]:
        return [self._token(partition) for partition in sorted(job.offsets)]

    def _age(self, job: _Job[Peer]) -> float | None:
        ages = [self._ages.age_ms(partition) for partition in job.offsets]
        return None if not ages or min(ages) < 0 else wire.age_of(max(ages))

    # --- replies in order -----------------------------------------------------------------------------------------------
    def _stand_in_line(self, job: _Job[Peer]) -> bool:
        line = self._lines.setdefault(job.peer, deque())
        if len(line) >= LINE_MAX:
            return False  # a client that sends so much without reading gets no more replies
        line.append(job)
        return True

    def _answer_in_line(self, peer: Peer, request: Request, frame: bytes) -> None:
        line = self._lines.get(peer) if request.id is None else None
        if not line:
            self._replies.append((peer, frame))
        elif len(line) < LINE_MAX:
            job = _Job[Peer](peer, JSON, Get(key="-"), {}, 0.0)
            job.frame = frame
            line.append(job)

    def _fail(self, job: _Job[Peer], error: RequestError, **fields: Any) -> None:
        if job.frame is None:
            more = {name: value for name, value in fields.items() if value}
            self._finish(job, wire.failed(job.form, job.request, error, **more))

    def _finish(self, job: _Job[Peer], frame: bytes) -> None:
        job.frame = frame
        if job.request.id is not None:
            self._replies.append((job.peer, frame))
            return
        line = self._lines[job.peer]
        while line and (done := line[0].frame) is not None:
            line.popleft()
            self._replies.append((job.peer, done))
        if not line:
            del self._lines[job.peer]


def _moved() -> NodeNotAvailable:
    return NodeNotAvailable("this node does not serve the key")


def _merge(pages: list[Page], limit: int) -> tuple[list[Found], str | None]:
    """One page of all partitions' pages, and where the next one starts. Byte order of UTF-8 is that of Python's strings."""
    # nothing is known about what comes after the last key of a page that was cut
    certain = min((page.found[-1].key for page in pages if page.more and page.found), default=None)
    merged = sorted((one for page in pages for one in page.found), key=lambda one: one.key)
    items: list[Found] = []
    size = 0
    for one in merged:
        size += len(one.key) + len(one.value)
        if len(items) == limit or (certain is not None and one.key > certain) or (items and size > SCAN_MAX_BYTES):
            break
        items.append(one)
    more = len(items) < len(merged) or certain is not None
    return items, items[-1].key if more and items else None
