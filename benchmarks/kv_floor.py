"""A server that does the least a durable store over ZeroMQ in Python can do: the floor under the figures of `benchmarks.kv`.

    python -m benchmarks.kv_floor PORT FILE

It takes whatever has arrived, writes it to FILE, syncs that, and answers each request with the same few bytes. It parses
nothing, keeps no key and serves nobody else; requests that read are answered without the disk. What a store does beyond
this can only make it slower.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, Final

import zmq

ROUND: Final = 2048
"""Requests at most between two syncs."""

FILE_BYTES: Final = 64 << 20
"""The file is allocated once and written around, so that a sync has data to write and no new size."""

ANSWER: Final = b'{"result":"OK"}'
READS: Final = (b'{"cmd":"get"', b'{"cmd":"mget"')


def main() -> None:
    """Serve until killed."""
    port, path = sys.argv[1:]
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(f"tcp://127.0.0.1:{port}")
    # pyzmq's Python layers are left out, as in the load generator
    raw: Any = super(zmq.Socket, router)
    receive: Callable[[int], bytes] = raw.recv
    send: Callable[[bytes, int], None] = raw.send
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(file, 0, FILE_BYTES)
    at = 0
    while True:
        router.poll()
        asked: list[tuple[bytes, bytes]] = []
        try:
            while len(asked) < ROUND:
                asked.append((receive(zmq.NOBLOCK), receive(0)))
        except zmq.Again:
            pass
        written = b"".join([body for _, body in asked if not body.startswith(READS)])
        if written:
            if at + len(written) > FILE_BYTES:
                at = 0
            os.pwrite(file, written, at)
            os.fdatasync(file)
            at += len(written)
        for sender, _ in asked:
            send(sender, zmq.SNDMORE)
            send(ANSWER, 0)


if __name__ == "__main__":
    main()
