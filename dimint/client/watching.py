"""A watch as seen from the client: which node is asked for which partitions, and what the user has been given. [S]

Each node is asked for its partitions by itself, and asked again as soon as its answer is there, so a change arrives after
one way over the network. The nodes keep nothing between two questions: whoever does not answer in time, says that a
partition moved or is unreachable is replaced by another replica, or by an overlord, which is asked from the same position.

A driver (watch.py) performs `take_effects()` and hands in frames and time, as with dimint/client/session.py. While more
than WATCH_QUEUE_MAX changes wait for the user, nothing is asked.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from dimint.client.content import Form, carried_value
from dimint.client.network import Effect, Network, Part
from dimint.errors import ParseError, PositionGone, RequestError, TimedOut, WrongLog, error_for_code
from dimint.limits import WATCH_QUEUE_MAX
from dimint.positions import Position, format_positions, parse_positions

__all__ = ["TICK_S", "Change", "Watching", "merge_tokens"]

NODE_WAIT_S: Final = 1.0
OVERLORD_WAIT_S: Final = 5.0
LATE_S: Final = 0.5
"""An answer that comes so long after its time does not come."""
PAUSE_S: Final = 0.05
TICK_S: Final = 0.1
AWAY_S: Final = 1.0
"""A driver that did not look for so long cannot tell who was silent."""


class Change(NamedTuple):
    """One change of a key as it counted.

    kind         "set", "cas", "incr", "delete" or "expire"
    value        what the key has now; None of a deleted or expired one
    version      the key's version from now on; of a deleted or expired one the version that is gone
    log_time_us  when the log took it, µs since 1970, UTC
    position     token of the place just after it in its partition
    """

    kind: str
    key: str
    value: Any
    version: int
    log_time_us: int
    position: str


class _Asked(NamedTuple):
    """Partitions that one node or overlord is asked for."""

    partitions: tuple[int, ...]
    late_at: float


def merge_tokens(tokens: str | Iterable[str]) -> tuple[str, dict[int, Position]]:
    """The log's generation and the furthest position of each partition. Raises ParseError or WrongLog."""
    texts = [tokens] if isinstance(tokens, str) else list(tokens)
    generation = ""
    furthest: dict[int, Position] = {}
    for text in texts:
        of, positions = parse_positions(text)
        if generation not in ("", of):
            raise WrongLog("the tokens are of different logs")
        generation = of
        for partition, position in positions.items():
            furthest[partition] = max(position, furthest.get(partition, position))
    return generation, furthest


class Watching:
    """One watch. Exactly one of `key` and `prefix` is given. `after` are tokens to go on from; partitions without one begin
    now, where the log is at or past the tokens `seen`."""

    def __init__(
        self,
        network: Network,
        *,
        key: str | None,
        prefix: str | None,
        after: str | Iterable[str] | None,
        seen: Sequence[str],
        choose: Callable[[Sequence[str]], str],
        direct: bool,
    ) -> None:
        if (key is None) == (prefix is None):
            raise ParseError("watch needs either a key or a prefix")
        self._network, self._key, self._prefix = network, key, prefix
        self._seen, self._choose, self._direct = list(seen), choose, direct
        self._generation, self._positions = ("", {}) if after is None else merge_tokens(after)
        self._given = dict(self._positions)
        self._queue: deque[Change | Mapping[int, Position]] = deque()
        self._waiting = 0
        self._partitions: tuple[int, ...] = ()
        self._asked: dict[int, tuple[Part, _Asked]] = {}
        self._idle: dict[int, float] = {}
        """Partitions that nobody is asked for, and before when nobody is to be."""
        self._last_at: float | None = None
        self._problem: RequestError | None = None
        self._error: RequestError | None = None

    # --- the user's side ---------------------------------------------------------------------------------------------
    @property
    def has_begun(self) -> bool:
        """Whether it is known of every partition where the watch begins: no later change can be missed."""
        return bool(self._partitions) and all(partition in self._positions for partition in self._partitions)

    @property
    def token(self) -> str:
        """What `after` must be to go on behind the last change that was taken."""
        self._pass_markers()
        return format_positions(self._generation, self._given)

    def take(self) -> Change | None:
        """The next change; None if there is none yet. Raises what ended the watch, once all before it was taken."""
        self._pass_markers()
        if not self._queue:
            if self._error is not None:
                raise self._error
            return None
        change = self._queue.popleft()
        assert isinstance(change, Change)
        self._waiting -= 1
        self._given.update(parse_positions(change.position)[1])
        self._pass_markers()
        return change

    def check(self, *, is_late: bool) -> None:
        """Raise what ended it before it has begun, or why it has not begun in time."""
        if self._error is not None:
            raise self._error
        if is_late:
            raise self._problem or self._network.nobody(TimedOut)

    # --- the driver's side -------------------------------------------------------------------------------------------
    def received(self, address: str, frame: bytes, now: float) -> None:
        """Take in one frame from an address."""
        answered = self._network.received(address, frame, now)
        if answered is None:
            return
        part, reply = answered
        found = self._asked.pop(part.id, None)
        if found is None:
            return
        asked = found[1]
        if "error" in reply:
            self._refused(asked, error_for_code(str(reply["error"]), str(reply.get("message") or "")), reply, now)
            return
        self._generation, reached = parse_positions(reply["token"])
        for one in reply["changes"]:
            self._queue.append(_change(one))
            self._waiting += 1
        self._positions.update(reached)
        self._queue.append(reached)
        self._idle.update(dict.fromkeys(asked.partitions, now))
        self._problem = None

    def tick(self, now: float) -> None:
        """Let time pass, after everything that has come was handed in: at least every TICK_S while somebody waits."""
        was_away = self._last_at is not None and now - self._last_at > AWAY_S
        self._last_at = now
        network = self._network
        if was_away:
            network.rebase(now)
        for part in network.tick(now):
            self._lost(part, now)
        for part, asked in list(self._asked.values()):
            if was_away:
                self._asked[part.id] = part, asked._replace(late_at=now + LATE_S)
            elif now >= asked.late_at:
                network.forget(part)
                if part.is_direct:
                    network.avoid(part.address, now)
                self._lost(part, now)
        self._ask(now)

    def take_effects(self) -> list[Effect]:
        """What is to be performed now, in this order."""
        effects, self._network.effects = self._network.effects, []
        return effects

    # --- inside ------------------------------------------------------------------------------------------------------
    def _ask(self, now: float) -> None:
        network = self._network
        network.touch(now)
        topology = network.topology
        if topology is None or network.home is None:
            network.want_home(now)
            return
        if not self._partitions:
            every = range(topology.partitions) if self._key is None else (topology.partition_of(self._key),)
            self._partitions = tuple(every)
            self._positions = {at: position for at, position in self._positions.items() if at in every}
            self._given = dict(self._positions)
            self._idle = dict.fromkeys(every, now)
        if self._waiting >= WATCH_QUEUE_MAX or self._error is not None:
            return
        places: dict[str, list[int]] = {}
        for partition, not_before in self._idle.items():
            if not_before <= now:
                places.setdefault(self._place_of(partition, places, now), []).append(partition)
        for address, partitions in places.items():
            self._send(address, tuple(partitions), now)

    def _place_of(self, partition: int, chosen: Mapping[str, object], now: float) -> str:
        home = self._network.home
        assert home is not None
        usable = self._network.replicas_of(partition, now) if self._direct else []
        return next((address for address in usable if address in chosen), None) or (self._choose(usable) if usable else home)

    def _send(self, address: str, partitions: tuple[int, ...], now: float) -> None:
        is_direct = address != self._network.home
        wait_s = NODE_WAIT_S if is_direct else OVERLORD_WAIT_S
        request: dict[str, Any] = {"cmd": "watch", "partitions": list(partitions), "timeout": wait_s}
        request |= {"key": self._key} if self._key is not None else {"prefix": self._prefix}
        known = {at: self._positions[at] for at in partitions if at in self._positions}
        if known:
            request["from"] = format_positions(self._generation, known)
        if len(known) < len(partitions) and self._seen:
            request["min_position"] = self._seen
        asked = _Asked(partitions, now + wait_s + LATE_S)
        part = Part(self._network.next_id(), address, (), Form.JSON, now, asked, is_direct=is_direct)
        self._network.send(part, request, now)
        self._asked[part.id] = part, asked
        for partition in partitions:
            del self._idle[partition]

    def _lost(self, part: Part, now: float) -> None:
        found = self._asked.pop(part.id, None)
        if found is not None:
            self._idle.update(dict.fromkeys(found[1].partitions, now))

    def _refused(self, asked: _Asked, error: RequestError, reply: Mapping[str, Any], now: float) -> None:
        if isinstance(error, PositionGone):
            error.oldest = str(reply.get("oldest", ""))
        if not error.retriable:
            self._error = error
            return
        self._problem = error
        self._network.want_topology(now)
        self._idle.update(dict.fromkeys(asked.partitions, now + PAUSE_S))

    def _pass_markers(self) -> None:
        while self._queue and not isinstance(marker := self._queue[0], Change):
            self._given.update(marker)
            self._queue.popleft()


def _change(fields: Mapping[str, Any]) -> Change:
    value, version = carried_value(fields), fields["version"]
    return Change(fields["kind"], fields["key"], value, version, fields["log_time_us"], fields["position"])
