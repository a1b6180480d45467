"""Watches of the client: iterators over changes, each with connections of its own.

A watch is not part of its client's order of calls: it may be used while the client is used by other threads or tasks.
"""

import random
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

from dimint.client.content import canonical_key
from dimint.client.network import Network, address_of
from dimint.client.session import Session
from dimint.client.sockets import Sockets
from dimint.client.watching import TICK_S, Change, Watching
from dimint.curve import Key
from dimint.errors import ClientClosed, RequestError, SettingsError
from dimint.transport import Dealer, Poller

__all__ = ["Watch", "WatchOptions", "watch_options"]


class WatchOptions(NamedTuple):
    """What a client gives to a watch. `timeout_s` is how long it may take to begin."""

    addresses: Sequence[str]
    key: str | None
    prefix: str | None
    after: str | Iterable[str] | None
    seen: Sequence[str]
    direct: bool
    timeout_s: float
    key_pair: Key | None

    def core(self) -> Watching:
        if not self.timeout_s > 0:
            raise SettingsError("`timeout` is a number of seconds above 0")
        return Watching(
            Network(self.addresses, random.choice),
            key=self.key,
            prefix=self.prefix,
            after=self.after,
            seen=self.seen,
            choose=random.choice,
            direct=self.direct,
        )


def watch_options(
    session: Session,
    seeds: Sequence[str],
    key: str | float | None,
    prefix: str | None,
    after: str | Iterable[str] | None,
    *,
    direct: bool,
    timeout_s: float,
    key_pair: Key | None,
) -> WatchOptions:
    """What a watch takes over from the session of its client: the overlords and positions that it knows."""
    addresses = list(dict.fromkeys((*seeds, *session.overlords)))
    plain = None if key is None else canonical_key(key)
    return WatchOptions(addresses, plain, prefix, after, session.tokens.all(), direct, timeout_s, key_pair)


class Watch:
    """Iterates over the changes of one key or prefix for ever; `with client.watch(…) as watch: for change in watch: …`

    It connects again by itself, to any overlord and node, without leaving a change out or giving one twice. `token` is
    where another watch goes on behind the last change given. What ends it is raised: PositionGone if it was to begin
    before what is still known, WrongLog for a token of another log. `close` ends an iteration in any thread.
    """

    def __init__(self, options: WatchOptions) -> None:
        self._core = options.core()
        self._lock = threading.Lock()
        self._closed = False
        self._poller = Poller()
        self._sockets = Sockets(self._poller.add, self._poller.remove, options.key_pair)
        try:
            for address in options.addresses:
                self._sockets.open(address_of(address))
            deadline = time.monotonic() + options.timeout_s
            while not self._core.has_begun:
                self._core.check(is_late=time.monotonic() >= deadline)
                self._step(TICK_S)
        except BaseException:
            self.close()
            raise

    @property
    def token(self) -> str:
        """Goes on behind the last change that was given."""
        return self._core.token

    def next(self, timeout: float | None = None) -> Change | None:
        """The next change; None if none comes within `timeout` seconds. Raises ClientClosed after `close`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with self._lock:
                while True:
                    if self._closed:
                        raise ClientClosed("the watch is closed")
                    change = self._core.take()
                    if change is not None:
                        return change
                    left = TICK_S if deadline is None else deadline - time.monotonic()
                    if left < 0:
                        return None
                    self._step(min(left, TICK_S))
        except RequestError:
            self.close()
            raise

    def close(self) -> None:
        """End it. Idempotent; an iteration in another thread ends too."""
        self._closed = True
        self._poller.wake()
        with self._lock:
            self._sockets.close()
            self._poller.close()

    def __iter__(self) -> "Watch":
        return self

    def __next__(self) -> Change:
        try:
            change = self.next()
        except ClientClosed:
            raise StopIteration from None
        assert change is not None
        return change

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _step(self, wait_s: float) -> None:
        core = self._core
        core.tick(time.monotonic())
        self._sockets.perform(core.take_effects())
        ready = self._poller.wait(wait_s)
        now = time.monotonic()
        for dealer in ready:
            assert isinstance(dealer, Dealer)
            for frame in dealer.receive():
                core.received(dealer.address, frame, now)
        core.tick(now)
        self._sockets.perform(core.take_effects())
