"""ZeroMQ sockets: doors that serve, dealers that ask, and the poller that waits for both.

Every socket belongs to the thread that made it (a poller's `wake` may be called from anywhere). Frames are bytes; what
stands in them is dimint/wire.py or dimint/door.py. Nothing here blocks but `Poller.wait` and `Dealer.receive`.

Bounds: a frame over its limit ends the connection in libzmq. A peer that does not read gets at most REPLIES_QUEUED_MAX
small replies queued, or LARGE_QUEUED_MAX_BYTES of large ones; then replies to it are dropped and counted, never waited for.

Speed: `recv_multipart` and `send_multipart` of pyzmq take 3.5 and 2.5 µs a message, because both are Python around two
calls and a `getsockopt` that makes an enum. A plain `recv` and one of a Frame, which knows whether more follows, take
1.1 µs; two plain `send` of pyzmq's inner class 0.6.
"""

import contextlib
import errno
import ipaddress
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import zmq

from dimint.curve import Gate, Key
from dimint.errors import SettingsError
from dimint.limits import REPLIES_QUEUED_MAX, REQUEST_MAX_BYTES

__all__ = ["Context", "Dealer", "Door", "Message", "Peer", "Poller", "is_loopback"]

NODE_FRAME_MAX_BYTES: Final = 64 << 20
"""Largest frame between overlord and node, and largest reply a client takes."""
LARGE_BYTES: Final = 16 << 10
LARGE_QUEUED_MAX_BYTES: Final = 128 << 20
RECEIVED_QUEUE_MAX: Final = 1000
"""Messages of one peer that wait in libzmq; more wait in the peer."""
HEARTBEAT_MS: Final = 5_000
HEARTBEAT_TIMEOUT_MS: Final = 15_000
HANDSHAKE_MS: Final = 10_000

_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE) | _NOBLOCK


class Context:
    """One ZeroMQ context of one process. Everything made from it must be closed before it.

    With a `key` all doors are encrypted and open to its holders only, and all dealers show it.
    """

    def __init__(self, key: Key | None = None) -> None:
        self._zmq: zmq.Context[Any] = zmq.Context()
        self._zmq.max_sockets = 8192
        self._key = key
        self._gate: Gate | None = None

    def door(self, *, frame_max_bytes: int = REQUEST_MAX_BYTES) -> "Door":
        """An unbound ROUTER."""
        router = self._zmq.socket(zmq.ROUTER)
        if self._key is not None:
            self._gate = self._gate or Gate(self._zmq, self._key)
            _set(router, {zmq.CURVE_SERVER: 1, zmq.CURVE_SECRETKEY: self._key.secret})
        return Door(router, frame_max_bytes, encrypted=self._key is not None)

    def dealer(self, address: str, *, queue_max: int = 100_000) -> "Dealer":
        """A DEALER that connects, and connects again, to `address` ("tcp://ip:port")."""
        dealer = self._zmq.socket(zmq.DEALER)
        if (key := self._key) is not None:
            _set(dealer, {zmq.CURVE_SERVERKEY: key.public, zmq.CURVE_PUBLICKEY: key.public, zmq.CURVE_SECRETKEY: key.secret})
        return Dealer(dealer, address, queue_max)

    def poller(self) -> "Poller":
        return Poller()

    def close(self) -> None:
        """Idempotent."""
        if self._gate is not None:
            self._gate.close()
        self._zmq.destroy(linger=0)


class Peer(NamedTuple):
    """A connection at a door: ZMQ's own identity of it, and whether it is a REQ that wants its empty frame back."""

    identity: bytes
    delimited: bool = False


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message at a door; `frame` None stands for one that has no frame or more than one."""

    peer: Peer
    frame: bytes | None


class Door:
    """A ROUTER: receives frames from many peers, sends frames to any of them."""

    def __init__(self, router: "zmq.Socket[bytes]", frame_max_bytes: int, *, encrypted: bool = False) -> None:
        self._socket = router
        self._encrypted = encrypted
        _set(
            router,
            {
                zmq.LINGER: 0,
                zmq.MAXMSGSIZE: frame_max_bytes,
                zmq.RCVHWM: RECEIVED_QUEUE_MAX,
                zmq.SNDHWM: REPLIES_QUEUED_MAX,
                zmq.ROUTER_MANDATORY: 1,
                zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
                zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
                zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
                zmq.BACKLOG: 1024,
            },
        )
        self._recv: Any = router.recv
        self._send: Any = super(zmq.Socket, router).send
        self._peers: dict[bytes, Peer] = {}
        self._large: dict[bytes, _LargeQueue] = {}
        self._large_bytes = 0
        self.address = ""
        """Where it is bound, with the real port."""
        self.dropped_count = 0
        """Frames that were not sent because their peer is gone or does not read."""

    def bind(self, host: str, port: int, *, allow_plain: bool = False) -> str:
        """Listen on `host`:`port` (0 = any free port); the address. Raises SettingsError.

        Off loopback everybody who reaches a port without a key may use it, so `allow_plain` must say that this is wanted.
        """
        if not (self._encrypted or allow_plain or is_loopback(host)):
            raise SettingsError(
                f"binding {host} would let every machine in the network in",
                hint="give a --key_file (dimint key create), or add --allow_plain if that is wanted",
            )
        where = f"[{host}]" if ":" in host else host
        if ":" in host:
            self._socket.setsockopt(zmq.IPV6, 1)
        try:
            self._socket.bind(f"tcp://{where}:{port or '*'}")
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                raise SettingsError(
                    f"port {port} of {host} is in use", hint="choose another port or stop the program that has it"
                ) from error
            raise SettingsError(f"cannot listen on {host}:{port}: {error}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return self.address

    def receive(self, limit: int) -> list[Message]:
        """Messages that are there, at most `limit`; empty if none is. Never blocks."""
        received: list[Message] = []
        recv, peers = self._recv, self._peers
        try:
            for _ in range(limit):
                identity = recv(_NOBLOCK)
                part = recv(_NOBLOCK, False)  # an object that knows whether more follows; a message is never cut in two
                if part.more:
                    received.append(self._unusual(identity, part.bytes))
                else:
                    received.append(Message(peers.get(identity) or self._peer(identity), part.bytes))
        except zmq.Again:
            pass
        return received

    def send(self, peer: Peer, frame: bytes) -> bool:
        """Queue one frame; False if the peer is gone or does not read, and the frame is dropped. Never blocks."""
        large = len(frame) >= LARGE_BYTES
        if large and not self._has_room(peer.identity, len(frame)):
            self.dropped_count += 1
            return False
        send = self._send
        try:
            send(peer.identity, _MORE)
            if peer.delimited:
                send(b"", _MORE)
            if large:
                self._send_large(peer.identity, frame)
            else:
                send(frame, _NOBLOCK)
        except (zmq.Again, zmq.ZMQError):
            self.dropped_count += 1
            self._peers.pop(peer.identity, None)
            return False
        return True

    def close(self, *, linger_ms: int = 0) -> None:
        """Idempotent; what is queued is still sent for `linger_ms`, while the context closes."""
        self._socket.close(linger=linger_ms)

    def _peer(self, identity: bytes) -> Peer:
        if len(self._peers) > 10_000:  # identities of connections that are long gone
            self._peers.clear()
        peer = self._peers[identity] = Peer(identity)
        return peer

    def _unusual(self, identity: bytes, first: bytes) -> Message:
        """A REQ's message (an empty frame before the request), or one with frames that nobody sends."""
        frames = [first]
        more = True
        while more:
            part = self._recv(_NOBLOCK, False)
            frames.append(part.bytes)
            more = part.more
        if len(frames) == 2 and not first:
            return Message(Peer(identity, delimited=True), frames[1])
        return Message(Peer(identity, delimited=not first), None)

    def _has_room(self, identity: bytes, size: int) -> bool:
        """Count what of the large replies has left this process, and whether one more may be queued to the peer."""
        queue = self._large.get(identity)
        if queue is not None:
            self._large_bytes -= queue.settle()
            if not queue.bytes:
                del self._large[identity]
            elif queue.bytes + size > LARGE_QUEUED_MAX_BYTES:
                return False
        if self._large_bytes + size > 2 * LARGE_QUEUED_MAX_BYTES:
            for known in list(self._large):
                self._large_bytes -= self._large[known].settle()
                if not self._large[known].bytes:
                    del self._large[known]
        return self._large_bytes + size <= 2 * LARGE_QUEUED_MAX_BYTES

    def _send_large(self, identity: bytes, frame: bytes) -> None:
        # only libzmq knows when a frame has left; its tracker tells, but costs too much for small frames
        tracker = self._socket.send(frame, _NOBLOCK, copy=False, track=True)
        self._large.setdefault(identity, _LargeQueue()).add(tracker, len(frame))
        self._large_bytes += len(frame)

    @property
    def zmq_socket(self) -> "zmq.Socket[bytes]":
        """For the poller."""
        return self._socket


class _LargeQueue:
    """Large frames of one peer that libzmq still holds."""

    __slots__ = ("_frames", "bytes")

    def __init__(self) -> None:
        self._frames: deque[tuple[Any, int]] = deque()
        self.bytes = 0

    def add(self, tracker: Any, size: int) -> None:
        self._frames.append((tracker, size))
        self.bytes += size

    def settle(self) -> int:
        """Forget what has left; how many bytes that were."""
        freed = 0
        while self._frames and self._frames[0][0].done:
            freed += self._frames.popleft()[1]
        self.bytes -= freed
        return freed


class Dealer:
    """A DEALER to one address. It connects by itself and again after every loss; what was under way is lost then."""

    def __init__(self, dealer: "zmq.Socket[bytes]", address: str, queue_max: int) -> None:
        self._socket = dealer
        self.address = address
        _set(dealer, _dealer_options(queue_max))
        self._recv: Any = dealer.recv
        self._send: Any = super(zmq.Socket, dealer).send
        try:
            dealer.connect(address)
        except zmq.ZMQError as error:
            dealer.close(linger=0)
            raise SettingsError(f"{address!r} is not an address: {error}", hint="write tcp://host:port") from error

    def send(self, frame: bytes) -> bool:
        """Queue one frame; False if the queue is full. Never blocks."""
        try:
            self._send(frame, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, limit: int = 1000) -> list[bytes]:
        """Frames that are there, at most `limit`. Never blocks."""
        frames: list[bytes] = []
        recv = self._recv
        with contextlib.suppress(zmq.Again):
            for _ in range(limit):
                frames.append(recv(_NOBLOCK))
        return frames

    def wait(self, timeout_s: float | None) -> bool:
        """Whether a frame is there within `timeout_s` (None = however long it takes)."""
        return bool(self._socket.poll(None if timeout_s is None else _milliseconds(timeout_s), zmq.POLLIN))

    def fileno(self) -> int:
        """For an event loop: readable whenever something changed. After that, and after every `send`, ask `has_frames`."""
        return int(self._socket.getsockopt(zmq.FD))

    def has_frames(self) -> bool:
        """Whether `receive` would give something."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def close(self) -> None:
        """Idempotent."""
        self._socket.close(linger=0)

    @property
    def zmq_socket(self) -> "zmq.Socket[bytes]":
        """For the poller."""
        return self._socket


class Poller:
    """Waits for doors and dealers of one thread, or for a `wake` from any other."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._fd = self._read.fileno()
        self._poller.register(self._fd, zmq.POLLIN)
        self._by_socket: dict[Any, Door | Dealer] = {}

    def add(self, member: Door | Dealer) -> None:
        self._by_socket[member.zmq_socket] = member
        self._poller.register(member.zmq_socket, zmq.POLLIN)

    def remove(self, member: Door | Dealer) -> None:
        """Before the member is closed. Does nothing for one that was not added."""
        if self._by_socket.pop(member.zmq_socket, None) is not None:
            self._poller.unregister(member.zmq_socket)

    def wait(self, timeout_s: float) -> list[Door | Dealer]:
        """Members with something to receive; empty after `timeout_s` or a `wake`."""
        ready = self._poller.poll(_milliseconds(timeout_s))
        found = []
        for source, _ in ready:
            if source == self._fd:
                with contextlib.suppress(BlockingIOError):
                    while len(self._read.recv(4096)) == 4096:
                        pass
            else:
                found.append(self._by_socket[source])
        return found

    def wake(self) -> None:
        """Make a `wait` that waits now, or the next one, return. From any thread; also harmless after `close`."""
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody waits
            self._write.send(b"w")

    def close(self) -> None:
        """Idempotent."""
        self._read.close()
        self._write.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than localhost counts as no."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _dealer_options(queue_max: int) -> dict[int, int | bytes]:
    return {
        zmq.LINGER: 0,
        zmq.MAXMSGSIZE: NODE_FRAME_MAX_BYTES,
        zmq.SNDHWM: queue_max,
        zmq.RCVHWM: queue_max,
        zmq.RECONNECT_IVL: 50,
        zmq.RECONNECT_IVL_MAX: 1000,
        zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
        zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
        zmq.TCP_KEEPALIVE: 1,
    }


def _set(target: Any, options: Mapping[int, int | bytes]) -> None:
    for option, value in options.items():
        target.setsockopt(option, value)


def _milliseconds(seconds: float) -> int:
    # rounded up: a wait that is cut to 0 would spin until its time is there
    return max(0, -int(-seconds * 1000 // 1))
