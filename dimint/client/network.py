"""Links, liveness and the cached topology: which requests are under way on which connection, and which one is dead. [S]

The client has one *home*: the overlord that its requests go to, the first one that answered a topology question. ZeroMQ
does not tell of a lost connection, so a link with unanswered requests and silence for PROBE_AFTER_S is asked for the
topology, and so is every other overlord. Silent for PROBE_TIMEOUT_S more while another one answers: dead. With nobody
else to go to, a link is given up only after GIVE_UP_S, in case its process was restarted. A slow answer to a request
is no sign of death, since the log may be slow; no answer to a topology question is.

What is to be done comes out as effects, in the order in which they must be performed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from dimint.client.content import Form, decode, encode
from dimint.errors import ParseError, RequestError, SettingsError
from dimint.slots import homes

__all__ = ["Drop", "Effect", "Network", "Part", "Send", "Topology", "address_of"]

PROBE_AFTER_S: Final = 0.25
PROBE_TIMEOUT_S: Final = 0.3
GIVE_UP_S: Final = 2.0
PROBE_AGAIN_S: Final = 0.2
REFRESH_AFTER_S: Final = 10.0
"""Age at which the topology is asked for again, beside the next request."""
STALE_PAUSE_S: Final = 0.1
NODE_PAUSE_S: Final = 2.0
"""How long a node that did not answer in time gets no reads; doubles up to NODE_PAUSE_MAX_S."""
NODE_PAUSE_MAX_S: Final = 60.0
DEFAULT_PORT: Final = 5556
_NO_ANSWER_HINT: Final = "check the address, that an overlord runs there, and the key_file if there is one"

E = TypeVar("E", bound=RequestError)


class Send(NamedTuple):
    """Send one frame; connect first if there is no connection to the address."""

    address: str
    frame: bytes


class Drop(NamedTuple):
    """Close the connection, with whatever it still queues."""

    address: str


Effect = Send | Drop


@dataclass(slots=True, eq=False)
class Part:
    """One request under way. `call` None is a question for the topology; `asks_result` settles a write."""

    id: int
    address: str
    keys: tuple[str, ...]
    form: Form
    sent_at: float
    call: Any = None
    asks_result: bool = False
    is_direct: bool = False


class Topology(NamedTuple):
    """Who is where, as one overlord said."""

    hash_range: int
    partitions: int
    overlords: tuple[str, ...]
    nodes: dict[str, str]
    replicas: tuple[tuple[str, ...], ...]

    def partition_of(self, key: str) -> int:
        return homes(self.hash_range, self.partitions)[key]

    def addresses(self, partition: int) -> list[str]:
        """Client doors of the nodes that serve a partition."""
        if partition >= len(self.replicas):
            return []
        return [self.nodes[node] for node in self.replicas[partition] if self.nodes.get(node)]


@dataclass(slots=True, eq=False)
class _Link:
    """One connection: `waiting` are ids without an answer, `silent_since` the time since when nothing came though asked."""

    waiting: dict[int, None] = field(default_factory=dict)
    silent_since: float | None = None
    probe: int | None = None
    probe_at: float = -1e9
    heard_at: float = -1e9
    avoid_until: float = -1e9
    pause_s: float = NODE_PAUSE_S


class Network:
    """All links of one client."""

    def __init__(self, seeds: Sequence[str], choose: Callable[[Sequence[str]], str]) -> None:
        self.effects: list[Effect] = []
        self.topology: Topology | None = None
        self.home: str | None = None
        self._seeds = tuple(dict.fromkeys(address_of(seed) for seed in seeds))
        if not self._seeds:
            raise SettingsError("a client needs the address of an overlord")
        self._choose = choose
        self._links: dict[str, _Link] = {}
        self._parts: dict[int, Part] = {}
        self._last_id = 0
        self._topology_at = -1e9
        self._is_stale = False
        self._doubted_at: float | None = None

    # --- requests ----------------------------------------------------------------------------------------------------
    def send(self, part: Part, request: dict[str, Any], now: float) -> None:
        """Put one request under way. Raises TooLarge or ParseError, and nothing is sent."""
        request["id"] = part.id
        frame = encode(part.form, request)
        link = self._link(part.address)
        link.waiting[part.id] = None
        if link.silent_since is None:
            link.silent_since = now
        self._parts[part.id] = part
        self.effects.append(Send(part.address, frame))

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def forget(self, part: Part) -> None:
        """Nobody waits for it any more. Its link still does: never answering is what makes a link dead."""
        self._parts.pop(part.id, None)
        if part.is_direct and (link := self._links.get(part.address)):
            link.waiting.pop(part.id, None)

    def received(self, address: str, frame: bytes, now: float) -> tuple[Part, dict[str, Any]] | None:
        """The request that a frame answers, and the reply; None for what nobody waits for."""
        link = self._links.get(address)
        if link is None:
            return None
        try:
            reply = decode(frame)
        except ParseError:
            return None
        link.heard_at = now
        part_id = reply.get("id")
        part = self._parts.pop(part_id, None) if type(part_id) is int else None
        link.waiting.pop(part_id, None)  # type: ignore[arg-type]
        link.silent_since = now if link.waiting else None
        if part is None:
            return None
        if part.call is None:
            self._learn(part, link, reply, now)
            return None
        if part.is_direct:
            link.pause_s = NODE_PAUSE_S
        return part, reply

    def nobody(self, error: type[E], *, more: str = "") -> E:
        """The error for who waited, and no overlord ever answered."""
        seeds = ", ".join(address.removeprefix("tcp://") for address in self._seeds)
        return error(f"no overlord answered at {seeds}{more}", hint=_NO_ANSWER_HINT)

    # --- topology and home -------------------------------------------------------------------------------------------
    def want_home(self, now: float) -> None:
        """Ask whoever may be an overlord; the first answer makes the home."""
        for address in self._overlords():
            self._probe(address, now)

    def want_topology(self, now: float) -> None:
        """What is cached proved wrong, or is old."""
        self._is_stale = True
        self._refresh(now)

    def touch(self, now: float) -> None:
        """Before a new request: refresh what is old."""
        if now - self._topology_at > REFRESH_AFTER_S and self.home is not None:
            self.want_topology(now)

    def replica(self, key: str, now: float) -> str | None:
        """A node to read the key from; None to ask an overlord."""
        if self.topology is None:
            return None
        usable = self.replicas_of(self.topology.partition_of(key), now)
        if not usable:
            return None
        return usable[0] if len(usable) == 1 else self._choose(usable)

    def replicas_of(self, partition: int, now: float) -> list[str]:
        """Nodes that a partition can be read from."""
        addresses = [] if self.topology is None else self.topology.addresses(partition)
        return [address for address in addresses if self._usable(address, now)]

    def overlord_for_reads(self, now: float) -> str | None:
        """The home, or another overlord while the home is one that answers but cannot serve reads; None without a home.

        An overlord that is cut off from the nodes or from the log is such a one. Writes stay at the home, whose order counts.
        """
        if self.home is None or self._usable(self.home, now):
            return self.home
        others = [address for address in self._overlords() if address != self.home and self._usable(address, now)]
        return self._choose(others) if others else self.home

    def doubt_home(self, address: str, now: float) -> None:
        """A write got no answer from the home in time. It may answer probes and still be cut off from the log or the nodes: if
        another overlord answers, that one becomes the home, and what the old one was sent counts as lost."""
        if address == self.home:
            self._doubted_at = now
            self.want_home(now)

    def served(self, address: str) -> None:
        """An overlord served a read."""
        self._link(address).pause_s = NODE_PAUSE_S

    def avoid(self, address: str, now: float) -> None:
        """A node or an overlord did not answer in time, or could not: no reads for it for a while."""
        link = self._link(address)
        if now >= link.avoid_until:
            link.avoid_until = now + link.pause_s
            link.pause_s = min(2 * link.pause_s, NODE_PAUSE_MAX_S)
        self.want_topology(now)

    # --- time --------------------------------------------------------------------------------------------------------
    def rebase(self, now: float) -> None:
        """The owner was away and did not read: silence until now means nothing."""
        for link in self._links.values():
            if link.silent_since is not None:
                link.silent_since = now
            if link.probe is not None:
                link.probe_at = now

    def tick(self, now: float) -> list[Part]:
        """Probe what is silent; the requests of links that were found dead."""
        self._refresh(now)
        lost: list[Part] = []
        if self._doubted_at is not None and now - self._doubted_at > GIVE_UP_S:
            self._doubted_at = None  # there is no better one
        if self.home is None:
            self.want_home(now)
        for address, link in list(self._links.items()):
            is_home = address == self.home
            if is_home and self._doubted_at is not None and self._another(self._doubted_at):
                lost += self._bury(address, now)
            elif link.probe is None:
                if is_home and link.silent_since is not None and now - link.silent_since >= PROBE_AFTER_S:
                    self.want_home(now)
            elif now - link.probe_at >= GIVE_UP_S or (
                is_home and now - link.probe_at >= PROBE_TIMEOUT_S and self._another(link.probe_at)
            ):
                lost += self._bury(address, now)
            elif is_home and now - link.probe_at >= PROBE_AFTER_S:
                self.want_home(now)  # those that were asked a moment before
        return lost

    def close(self) -> None:
        """Drop every link."""
        self.effects = [Drop(address) for address in self._links]
        self._links.clear()
        self._parts.clear()

    def _overlords(self) -> list[str]:
        known = self.topology.overlords if self.topology else ()
        home = () if self.home is None else (self.home,)
        return list(dict.fromkeys((*known, *self._seeds, *home)))

    def _link(self, address: str) -> _Link:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = _Link()
        return link

    def _usable(self, address: str, now: float) -> bool:
        link = self._links.get(address)
        return link is None or now >= link.avoid_until

    def _probe(self, address: str, now: float) -> None:
        link = self._link(address)
        if link.probe is not None or (address != self.home and now - link.probe_at < PROBE_AGAIN_S):
            return
        part = Part(self.next_id(), address, (), Form.JSON, now)
        link.probe, link.probe_at = part.id, now
        self.send(part, {"cmd": "topology"}, now)

    def _refresh(self, now: float) -> None:
        if self._is_stale and self.home is not None and now - self._topology_at >= STALE_PAUSE_S:
            self._probe(self.home, now)

    def _another(self, since: float) -> bool:
        """Whether some other overlord answered since then."""
        return any(address != self.home and self._heard(address, since) for address in self._overlords())

    def _heard(self, address: str, since: float) -> bool:
        link = self._links.get(address)
        return link is not None and link.heard_at >= since

    def _bury(self, address: str, now: float) -> list[Part]:
        link = self._links.pop(address)
        self.effects.append(Drop(address))
        parts = [self._parts.pop(part_id) for part_id in link.waiting if part_id in self._parts]
        if address == self.home:
            since = link.probe_at if self._doubted_at is None else self._doubted_at
            self.home, self._is_stale, self._doubted_at = None, True, None
            alive = [other for other in self._overlords() if other != address and self._heard(other, since)]
            if alive:
                self.home = alive[0] if len(alive) == 1 else self._choose(alive)
            else:
                self.want_home(now)
        return [part for part in parts if part.call is not None]

    def _learn(self, part: Part, link: _Link, reply: dict[str, Any], now: float) -> None:
        link.probe = None
        for part_id in [waiting for waiting in link.waiting if waiting not in self._parts]:
            del link.waiting[part_id]  # given up, and older than what was just answered
        if not link.waiting:
            link.silent_since = None
        topology = _topology(reply)
        if topology is None:
            return
        if self.home is None:
            self.home = part.address
        if part.address == self.home:
            self.topology, self._topology_at, self._is_stale = topology, now, False
            places = {*self._overlords(), *topology.nodes.values(), self.home}
            for address in [address for address in self._links if address not in places and not self._links[address].waiting]:
                del self._links[address]
                self.effects.append(Drop(address))


def _topology(reply: dict[str, Any]) -> Topology | None:
    """The topology in a reply; None if this overlord cannot say (yet)."""
    try:
        return Topology(
            int(reply["hash_range"]),
            int(reply["partitions"]),
            tuple(address_of(text) for text in reply["overlords"]),
            {node: address_of(text) for node, text in reply["nodes"].items() if text},
            tuple(tuple(nodes) for nodes in reply["replicas"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, SettingsError):
        return None


def address_of(text: str) -> str:
    """The ZeroMQ address of "host", "host:port", "[v6]:port" or "tcp://…". Raises SettingsError.

    >>> address_of("127.0.0.1"), address_of("tcp://10.0.0.1:7000"), address_of("[::1]:5556")
    ('tcp://127.0.0.1:5556', 'tcp://10.0.0.1:7000', 'tcp://[::1]:5556')
    """
    if "://" in text:
        return text
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise SettingsError(f"{text!r} is not an address", hint="write host:port")
    return f"tcp://{host}:{port}"
