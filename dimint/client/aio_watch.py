"""Watches of the asyncio client.

A watch is not part of its client's order of calls: it may be used while the client is used by other tasks.
"""

import asyncio
import contextlib
import time
from types import TracebackType

from dimint.client.network import address_of
from dimint.client.sockets import Sockets
from dimint.client.watch import WatchOptions
from dimint.client.watching import TICK_S, Change
from dimint.errors import ClientClosed, RequestError
from dimint.transport import Dealer

__all__ = ["AsyncWatch"]


class AsyncWatch:
    """The same for asyncio: `async with client.watch(…) as watch: async for change in watch: …`

    It begins when it is entered, or with the first change that is waited for. Belongs to the event loop of that moment.
    """

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._core = options.core()
        self._closed = False
        self._begun = False
        self._stirred = asyncio.Event()
        self._dealers: dict[Dealer, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: Sockets | None = None

    @property
    def token(self) -> str:
        """Goes on behind the last change that was given."""
        return self._core.token

    async def begin(self) -> None:
        """Return when no later change can be missed."""
        if self._begun or self._closed:
            return
        self._loop = asyncio.get_running_loop()
        self._sockets = self._sockets or Sockets(self._opened, self._dropping, self._options.key_pair)
        for address in self._options.addresses:
            self._sockets.open(address_of(address))
        deadline = time.monotonic() + self._options.timeout_s
        while not self._core.has_begun:
            self._core.check(is_late=time.monotonic() >= deadline)
            await self._step(TICK_S)
        self._begun = True

    async def next(self, timeout: float | None = None) -> Change | None:
        """The next change; None if none comes within `timeout` seconds. Raises ClientClosed after `close`."""
        await self.begin()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._closed:
                raise ClientClosed("the watch is closed")
            try:
                change = self._core.take()
            except RequestError:
                await self.close()
                raise
            if change is not None:
                return change
            left = TICK_S if deadline is None else deadline - time.monotonic()
            if left < 0:
                return None
            await self._step(min(left, TICK_S))

    async def close(self) -> None:
        """End it. Idempotent; a task that waits for a change ends too."""
        self._closed = True
        self._stirred.set()
        if self._sockets is not None:
            self._sockets.close()

    def __aiter__(self) -> "AsyncWatch":
        return self

    async def __anext__(self) -> Change:
        try:
            change = await self.next()
        except ClientClosed:
            raise StopAsyncIteration from None
        assert change is not None
        return change

    async def __aenter__(self) -> "AsyncWatch":
        try:
            await self.begin()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _step(self, wait_s: float) -> None:
        if not self._pump():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), wait_s)
            if not self._closed:
                self._pump()

    def _pump(self) -> bool:
        """Take in what is there, send what is to be sent; whether anything came."""
        assert self._sockets is not None
        self._stirred.clear()
        came = False
        now = time.monotonic()
        for dealer in list(self._dealers):
            for frame in dealer.receive():
                came = True
                self._core.received(dealer.address, frame, now)
        self._core.tick(now)
        self._sockets.perform(self._core.take_effects())
        # sending may take in what arrived, and then its descriptor stays silent
        if any(dealer.has_frames() for dealer in self._dealers):
            self._stirred.set()
        return came

    def _opened(self, dealer: Dealer) -> None:
        assert self._loop is not None
        self._dealers[dealer] = fd = dealer.fileno()
        self._loop.add_reader(fd, self._stirred.set)

    def _dropping(self, dealer: Dealer) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._dealers.pop(dealer))
