"""Ports for what tests start."""

import random
import socket
from contextlib import ExitStack

__all__ = ["free_ports"]

LOWEST, HIGHEST = 10_000, 32_767
"""Below those that the system gives to outgoing connections, which might take one before it is listened at."""

_chance = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that were free just now, all different."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            taken = stack.enter_context(socket.socket())
            port = _chance.randint(LOWEST, HIGHEST)
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found
