"""Read routing: which replica answers what, and what to do when it does not. [S]

A request's part in one partition is a `Part`; parts of one turn that want the same of one partition travel as one Read, at
most READ_KEYS_MAX keys of them. What a part asks for is an offset that the replica must be at or past:

    weak      what this overlord acknowledged last there; the replica waits at most WEAK_WAIT_MS, then answers anyway
    session   the request's tokens, strictly
    strong    an offset learnt after the request arrived (overlord/strong.py), strictly

A read that fails on one replica (no answer within ANSWER_S, gone, moved, not there yet) goes to another one until its
request's deadline. Without any replica it waits NO_NODE_S for one, then ends in DIMINT_NODE_NOT_AVAILABLE.

Large values would fill the memory of both sides and keep everybody else waiting, so only reads of about WINDOW_BYTES are
under way to a node, as far as the sizes of late tell; the others queue here as keys. Is more than CROWD_BYTES asked for,
connections with many requests under way are refused (DIMINT_BUSY), above FULL_BYTES everybody.
"""

from collections import deque
from collections.abc import Callable, Container, Iterator, Set
from typing import Any, NamedTuple

import msgspec

from dimint.door import MOVED, Answer, Found, Read, Reads, Replica
from dimint.errors import Busy, NodeNotAvailable, RequestError, TimedOut, error_for_code
from dimint.limits import WEAK_WAIT_MS
from dimint.overlord.effects import ToNode
from dimint.overlord.pending import Pending

__all__ = ["Part", "ReadTable", "Want", "parts_by_partition"]

ANSWER_S = 0.5
SLOW_ANSWER_S = 2.0
"""As ANSWER_S, of a node that answers other reads meanwhile."""
STRICT_WAIT_MS = 400
"""Longest that one replica is let wait for a position; below ANSWER_S, so that its answer is in time."""
NO_NODE_S = 2.0
PARK_S = 0.02
"""Pause between two rounds over all replicas."""
READ_KEYS_MAX = 32
SCAN_KEYS = 64
"""What a scan counts as."""
WINDOW_BYTES = 32 << 20
CROWD_BYTES = 128 << 20
FULL_BYTES = 512 << 20
WINDOW_KEYS = 4096
"""More are not under way to a node however small values were lately."""
FIRST_GUESS_BYTES = 256 << 10
"""Size of a value, before any was seen."""
CROWD_LINE = 32
CROWD_S = 0.3
TIMED_OUT = TimedOut.code


class Want(NamedTuple):
    """What a read asks of a replica of `partition`. A get has no `scan`; a scan has (prefix, after, limit)."""

    partition: int
    min_offset: int
    strict: bool
    scan: tuple[str, str | None, int] | None = None


Done = Callable[["Part", Answer | RequestError, dict[str, Found]], None]
"""Called once a part: with the answer and what it found by key, or with the error."""


class Part(msgspec.Struct, eq=False, gc=False):
    """A request's keys in one partition."""

    pending: Pending
    keys: list[str]
    done: Done
    tag: Any = None


class _Group:
    """Parts that travel together. `tried` are the nodes that failed since the last pause, `silent` those without an answer."""

    __slots__ = ("node", "parked_at", "parts", "queued_at", "retry_at", "sent_at", "silent", "tried", "want", "weight")

    def __init__(self, want: Want) -> None:
        self.want = want
        self.parts: list[Part] = []
        self.node = ""
        self.tried: set[str] = set()
        self.silent: set[str] = set()
        self.sent_at = 0.0
        self.parked_at = 0.0
        self.queued_at = 0.0
        self.weight = SCAN_KEYS
        """About how many values it asks for; known from when it is queued or sent."""
        self.retry_at = 0.0


class ReadTable:
    """All reads under way and what is known of the nodes' positions."""

    def __init__(self) -> None:
        self._new: dict[Want, list[_Group]] = {}
        self._sent: dict[int, _Group] = {}
        self._parked: list[_Group] = []
        self._last_id = 0
        self._turn = 0
        self._queue: deque[_Group] = deque()
        self._under_way: dict[str, int] = {}
        """Keys that a node was asked for and has not answered."""
        self._heard: dict[str, float] = {}
        self._size = float(FIRST_GUESS_BYTES)
        """Bytes of a key's value lately."""
        self._nodes: dict[str, dict[int, Replica]] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._ready: set[tuple[str, int]] = set()
        self.disputed: frozenset[tuple[str, int]] = frozenset()
        """(node, partition) that are not asked."""
        self._servers: tuple[tuple[str, ...], ...] = ()

    # --- who is there ------------------------------------------------------------------------------------------------
    def node_is_there(self, node: str) -> None:
        self._nodes.setdefault(node, {})
        self._hurry()

    def node_is_gone(self, node: str) -> None:
        """Its reads go elsewhere at the next turn."""
        if self._nodes.pop(node, None) is None:
            return
        self._positions = {at: position for at, position in self._positions.items() if at[0] != node}
        self._ready = {at for at in self._ready if at[0] != node}
        for id in [id for id, group in self._sent.items() if group.node == node]:
            self._park(self._take_back(id), now=0.0)
        self._under_way.pop(node, None)
        self._heard.pop(node, None)

    def place(self, servers: tuple[tuple[str, ...], ...]) -> None:
        """Who serves each partition, the master first."""
        self._servers = servers
        self._hurry()

    def progress(self, node: str, replicas: list[Replica]) -> None:
        """What a node says of its partitions; replaces what was known of them."""
        known = self._nodes.get(node)
        if known is None:
            return
        self._nodes[node] = {replica.partition: replica for replica in replicas}
        for replica in replicas:
            self._positions[node, replica.partition] = replica.next_offset
            if replica.caught_up:
                self._ready.add((node, replica.partition))
        for partition in known.keys() - self._nodes[node].keys():
            self._ready.discard((node, partition))

    def replicas(self, node: str) -> dict[int, Replica]:
        """What the node said last, by partition."""
        return self._nodes.get(node, {})

    def furthest(self, partition: int) -> int:
        """The highest next offset that any connected node has reported."""
        return max((known[partition].next_offset for known in self._nodes.values() if partition in known), default=0)

    def connected(self) -> set[str]:
        return set(self._nodes)

    def servers_of(self, partition: int) -> list[str]:
        """Connected nodes that serve the partition, the master first."""
        if not self._servers:
            return []
        return [node for node in self._servers[partition] if node in self._nodes and (node, partition) not in self.disputed]

    # --- reads -------------------------------------------------------------------------------------------------------
    def add(self, want: Want, part: Part) -> None:
        """Read at the end of this turn."""
        groups = self._new.get(want)
        if groups is None:
            groups = self._new[want] = [_Group(want)]
        group = groups[-1]
        if len(group.parts) >= READ_KEYS_MAX or (len(part.keys) > 1 and len(group.parts) > 0):
            group = _Group(want)
            groups.append(group)
        group.parts.append(part)

    def turn(self, now: float) -> list[ToNode]:
        """Send what is new and what waited long enough; a message a node."""
        by_node: dict[str, list[Read]] = {}
        if self._queue:
            self._send_queued(now, by_node)
        if self._new:
            new, self._new = self._new, {}
            for groups in new.values():
                for group in groups:
                    self._send(group, now, by_node)
        if self._parked and any(group.retry_at <= now for group in self._parked):
            parked, self._parked = self._parked, []
            for group in parked:
                if group.retry_at > now:
                    self._parked.append(group)
                else:
                    self._retry(group, now, by_node)
        return [ToNode(node, Reads(reads)) for node, reads in by_node.items()]

    def answered(self, node: str, answers: list[Answer], now: float) -> None:
        """Answers of a node; those that nobody waits for any more are passed over."""
        self._heard[node] = now
        for answer in answers:
            asked = self._sent.get(answer.id)
            if asked is None or asked.node != node:
                continue
            group = self._take_back(answer.id)
            group.silent.discard(node)
            if answer.error is None:
                size = sum([len(one.value) for one in answer.found])
                self._size += (size / group.weight - self._size) / 4
                self._positions[node, group.want.partition] = answer.next_offset
                found = {one.key: one for one in answer.found}
                for part in group.parts:
                    part.done(part, answer, found)
            elif answer.error == MOVED or answer.error == TIMED_OUT or answer.error == NodeNotAvailable.code:
                group.tried.add(node)
                self._park(group, now)
            elif len(group.parts) > 1:  # too large together, perhaps: one by one
                for part in group.parts:
                    alone = _Group(group.want)
                    alone.parts.append(part)
                    self._park(alone, now=0.0)
            else:
                for part in group.parts:
                    part.done(part, error_for_code(answer.error), {})

    def tick(self, now: float) -> None:
        """Give up on answers that are late; forget groups whose requests are all over."""
        late = []
        for id, group in self._sent.items():
            if group.sent_at + ANSWER_S > now:
                break  # in the order of sending
            # asked again, one that is busy with large answers would have even more to do
            if group.sent_at + SLOW_ANSWER_S <= now or self._heard.get(group.node, 0.0) + ANSWER_S <= now:
                late.append(id)
        for id in late:
            group = self._take_back(id)
            group.tried.add(group.node)
            group.silent.add(group.node)
            self._park(group, now=0.0)
        keep = []
        for group in self._parked:
            if all(part.pending.reply is not None for part in group.parts):
                continue
            if not group.node and group.parked_at and now - group.parked_at >= NO_NODE_S:
                error = NodeNotAvailable(f"no node serves partition {group.want.partition}")
                for part in group.parts:
                    part.done(part, error, {})
                continue
            keep.append(group)
        self._parked = keep

    def overdue_error(self, pending: Pending) -> RequestError:
        """What a read whose deadline is over gets: the reason that it waited for."""
        for group in (*self._parked, *self._sent.values()):
            if (group.silent or not group.node) and any(part.pending is pending for part in group.parts):
                partition = group.want.partition
                if not group.node and group.parked_at:
                    return NodeNotAvailable(f"no node serves partition {partition}")
                if group.silent and group.silent.issuperset(self.servers_of(partition)):
                    return NodeNotAvailable(f"no node that serves partition {partition} answers")
        return TimedOut("the read did not get its answer in time")

    # --- inside ------------------------------------------------------------------------------------------------------
    def _send(self, group: _Group, now: float, by_node: dict[str, list[Read]]) -> None:
        want = group.want
        node = self.choose(want, group.tried)
        if node is None:
            group.node = ""
            group.parked_at = group.parked_at or now
            group.retry_at = now + 2 * PARK_S
            self._parked.append(group)
            return
        if want.scan is None:
            group.weight = sum([len(part.keys) for part in group.parts])
        under_way = self._under_way.get(node, 0)
        if under_way >= WINDOW_KEYS or under_way * self._size > WINDOW_BYTES:
            group.node = node
            group.queued_at = group.queued_at or now
            self._queue.append(group)
            return
        self._under_way[node] = under_way + group.weight
        self._last_id = id = self._last_id + 1
        group.node, group.sent_at, group.parked_at = node, now, 0.0
        self._sent[id] = group
        reads = by_node.get(node)
        if reads is None:
            reads = by_node[node] = []
        wait_ms = 0 if want.min_offset == 0 else STRICT_WAIT_MS if want.strict else WEAK_WAIT_MS
        if want.scan is not None:
            prefix, after, limit = want.scan
            reads.append(
                Read(id, want.partition, "scan", [prefix], want.min_offset, wait_ms, want.strict, after=after, limit=limit)
            )
            return
        parts = group.parts
        keys = parts[0].keys if len(parts) == 1 else list(dict.fromkeys([key for part in parts for key in part.keys]))
        reads.append(Read(id, want.partition, "get", keys, want.min_offset, wait_ms, want.strict))

    def _take_back(self, id: int) -> _Group:
        """A group that is under way no more."""
        group = self._sent.pop(id)
        if group.node in self._under_way:
            self._under_way[group.node] -= group.weight
        return group

    def _send_queued(self, now: float, by_node: dict[str, list[Read]]) -> None:
        """Send what there is room for now; refuse some if far too much is asked for."""
        queue, self._queue = self._queue, deque()
        asked = (sum(self._under_way.values()) + sum(group.weight for group in queue)) * self._size
        if asked > CROWD_BYTES:
            error = Busy("too many large values are being read")
            for group in queue:
                if now - group.queued_at < CROWD_S:
                    continue  # the sizes may be found smaller in no time
                for part in group.parts:
                    line = part.pending.line
                    if asked > FULL_BYTES or (line is not None and len(line) > CROWD_LINE):
                        part.done(part, error, {})
        nodes = len(self._nodes)
        full: set[str] = set()
        while queue and len(full) < nodes:
            group = queue.popleft()
            group.parts = [part for part in group.parts if part.pending.reply is None]
            if group.parts:
                waiting = len(self._queue)
                self._send(group, now, by_node)
                if len(self._queue) > waiting:
                    full.add(group.node)
        self._queue.extend(queue)

    def choose(self, want: Want, tried: Set[str], *, prefer: Container[str] = ()) -> str | None:
        """A connected replica: one known to be far enough if there is one, a preferred one, in turns; None without any.

        A replica that was never caught up since it is here does not answer weak reads: what it lacks would look deleted.
        """
        partition, min_offset, strict, _ = want
        nodes, positions, ready = self._nodes, self._positions, self._ready
        able = [
            node
            for node in (self._servers[partition] if self._servers else ())
            if node in nodes and (strict or (node, partition) in ready)
        ]
        if self.disputed:
            able = [node for node in able if (node, partition) not in self.disputed]
        if len(able) < 2:
            return able[0] if able else None
        if tried:
            able = [node for node in able if node not in tried] or able
        able = [node for node in able if positions.get((node, partition), 0) >= min_offset] or able
        if prefer:
            able = [node for node in able if node in prefer] or able
        self._turn = turn = self._turn + 1
        return able[turn % len(able)]

    def _retry(self, group: _Group, now: float, by_node: dict[str, list[Read]]) -> None:
        if all(part.pending.reply is not None for part in group.parts):
            return
        if group.tried.issuperset(self.servers_of(group.want.partition)):
            group.tried.clear()
        self._send(group, now, by_node)

    def _park(self, group: _Group, now: float) -> None:
        """Try again: at once if there is another replica, after a pause when all have failed. `now` 0 = at once."""
        all_failed = group.tried.issuperset(self.servers_of(group.want.partition))
        group.retry_at = now + PARK_S if all_failed else 0.0
        self._parked.append(group)

    def _hurry(self) -> None:
        for group in self._parked:
            group.retry_at = 0.0


def parts_by_partition(keys: list[str], partition_of: Callable[[str], int]) -> Iterator[tuple[int, list[str]]]:
    """Keys grouped by partition, at most READ_KEYS_MAX a group, each once."""
    grouped: dict[int, list[str]] = {}
    for key in dict.fromkeys(keys):
        grouped.setdefault(partition_of(key), []).append(key)
    for partition, mine in grouped.items():
        for start in range(0, len(mine), READ_KEYS_MAX):
            yield partition, mine[start : start + READ_KEYS_MAX]
