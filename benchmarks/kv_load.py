"""A lean load generator, run in a process of its own: raw sockets, prepared requests, nothing between it and the server.

    python -m benchmarks.kv_load dimint 127.0.0.1:5556 set --outstanding 64 --seconds 2

prints one JSON map: operations a second, latencies in microseconds, errors. It keeps so many requests under way, on one
DEALER here; for Redis on `outstanding / depth` connections with `depth` pipelined requests each. An mset or mget of 50
keys is one operation.
"""

import argparse
import json
import random
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import zmq

KEYS = 10_000
VALUE = "v" * 100
MANY = 50
VARIANTS = 2_000
"""Different requests that are prepared; they repeat."""


def dimint_requests(op: str) -> list[bytes]:
    """Frames of the original protocol: no id, so replies come in order."""
    rng = random.Random(1)
    count = VARIANTS // 10 if op in ("mset", "mget") else VARIANTS

    def key() -> str:
        return f"key:{rng.randrange(KEYS):06}"

    def one() -> dict[str, Any]:
        if op == "set":
            return {"cmd": "set", "key": key(), "value": VALUE}
        if op in ("weak", "strong"):
            return {"cmd": "get", "key": key(), "consistency": op}
        if op == "mset":
            return {"cmd": "mset", "values": {key(): VALUE for _ in range(MANY)}}
        return {"cmd": "mget", "keys": [key() for _ in range(MANY)]}

    return [json.dumps(one(), separators=(",", ":")).encode() for _ in range(count)]


def load_dimint(address: str, op: str, outstanding: int, seconds: float) -> dict[str, float]:
    context: zmq.Context[Any] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.connect(f"tcp://{address}")
    requests = cycle(dimint_requests(op))
    raw: Any = super(zmq.Socket, dealer)
    # pyzmq's Python layers would be a third of this process
    send: Callable[[bytes, int], None] = raw.send
    recv: Callable[[int], bytes] = raw.recv
    poll = dealer.poll
    clock = time.perf_counter
    sent: deque[float] = deque()
    latencies = array("d")
    errors = 0
    for _ in range(outstanding):
        sent.append(clock())
        send(next(requests), zmq.NOBLOCK)
    start = clock()
    end = start + seconds
    now = start
    while now < end:
        if not poll(10_000):
            raise SystemExit("no reply for 10 s")
        try:
            while True:
                reply = recv(zmq.NOBLOCK)
                now = clock()
                latencies.append(now - sent.popleft())
                if reply.startswith(b'{"error"'):
                    errors += 1
                sent.append(now)
                send(next(requests), zmq.NOBLOCK)
        except zmq.Again:
            continue
    context.destroy(linger=0)
    return report(latencies, now - start, errors)


def resp(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


def redis_requests(op: str) -> tuple[list[bytes], int]:
    """Prepared commands, and how long every good reply is."""
    rng = random.Random(1)

    def key() -> str:
        return f"key:{rng.randrange(KEYS):06}"

    bulk = len(f"${len(VALUE)}\r\n{VALUE}\r\n")
    if op == "set":
        return [resp("SET", key(), VALUE) for _ in range(VARIANTS)], len("+OK\r\n")
    if op in ("weak", "strong"):
        return [resp("GET", key()) for _ in range(VARIANTS)], bulk
    if op == "mset":
        return [resp("MSET", *(word for _ in range(MANY) for word in (key(), VALUE))) for _ in range(200)], len("+OK\r\n")
    return [resp("MGET", *(key() for _ in range(MANY))) for _ in range(200)], len(f"*{MANY}\r\n") + MANY * bulk


def load_redis(address: str, op: str, outstanding: int, seconds: float, depth: int) -> dict[str, float]:
    prepared, reply_bytes = redis_requests(op)
    requests = cycle(prepared)
    host, _, port = address.rpartition(":")
    clock = time.perf_counter
    epoll = select.epoll()
    connections: dict[int, tuple[socket.socket, deque[float], list[int]]] = {}
    for _ in range(max(1, outstanding // depth)):
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[connection.fileno()] = (connection, deque(), [0])
        epoll.register(connection.fileno(), select.EPOLLIN)
    latencies = array("d")
    errors = 0
    start = clock()
    for connection, sent, _ in connections.values():
        for _ in range(min(depth, outstanding)):
            sent.append(clock())
        connection.sendall(b"".join(next(requests) for _ in range(min(depth, outstanding))))
    end = start + seconds
    now = start
    while now < end:
        for fd, _ in epoll.poll(10):
            connection, sent, rest = connections[fd]
            data = connection.recv(1 << 18)
            now = clock()
            if data[:1] == b"-" or not data:
                errors += 1
                raise SystemExit(f"redis says {data[:100]!r}")
            done, rest[0] = divmod(rest[0] + len(data), reply_bytes)
            for _ in range(done):
                latencies.append(now - sent.popleft())
                sent.append(now)
            if done == 1:
                connection.sendall(next(requests))
            elif done:
                connection.sendall(b"".join([next(requests) for _ in range(done)]))
    for connection, _, _ in connections.values():
        connection.close()
    epoll.close()
    return report(latencies, now - start, errors)


def report(latencies: Sequence[float], seconds: float, errors: int) -> dict[str, float]:
    ordered = sorted(latencies)
    count = len(ordered)
    return {
        "per_s": count / seconds,
        "p50_us": 1e6 * ordered[count // 2],
        "p99_us": 1e6 * ordered[min(count - 1, count * 99 // 100)],
        "errors": errors,
    }


def fill(kind: str, address: str) -> None:
    """Put every key in."""
    keys = [f"key:{number:06}" for number in range(KEYS)]
    if kind == "dimint":
        from dimint.client import Client

        with Client(address, timeout=30) as client:
            for at in range(0, KEYS, 500):
                client.mset(dict.fromkeys(keys[at : at + 500], VALUE))
            client.get(keys[-1], consistency="strong")
        return
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        for at in range(0, KEYS, 500):
            connection.sendall(resp("MSET", *(word for key in keys[at : at + 500] for word in (key, VALUE))))
            assert connection.recv(100) == b"+OK\r\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["dimint", "redis"])
    parser.add_argument("address")
    parser.add_argument("op", choices=["fill", "set", "weak", "strong", "mset", "mget"])
    parser.add_argument("--outstanding", type=int, default=1)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    if chosen.op == "fill":
        fill(chosen.kind, chosen.address)
        found: dict[str, float] = {}
    elif chosen.kind == "dimint":
        found = load_dimint(chosen.address, chosen.op, chosen.outstanding, chosen.seconds)
    else:
        found = load_redis(chosen.address, chosen.op, chosen.outstanding, chosen.seconds, chosen.depth)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
