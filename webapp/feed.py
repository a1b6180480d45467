"""One reader of the tables for all pages and streams: keeps the newest snapshot and wakes whoever waits for the next.

All reading runs on one owned thread (an executor with one worker), never on the event loop. A stream does not queue what
it missed: it asks for what changed since the sequence it sent last, so a slow client costs nothing but its own delay.
What two streams of the same page are to get is made once.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from dimint.errors import DimintError
from dimint.webapp.board import Board, Tables
from dimint.webapp.models import Snapshot

__all__ = ["POLL_S", "Feed", "Unreadable"]

POLL_S: Final = 0.25
"""Time between two looks at the tables; a look that finds nothing new costs some µs."""
_FAILING_S: Final = 2.0

log = logging.getLogger("dimint.webapp")
Result = TypeVar("Result")


class Unreadable(DimintError):
    """The tables cannot be read at present. Old data is not shown for new: requests fail until they can be read again."""

    retriable = True


class Feed:
    """Started and stopped with the server's event loop; every method belongs to that loop."""

    def __init__(self, board: Board, *, poll_s: float = POLL_S) -> None:
        self._board = board
        self._poll_s = poll_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webapp-reader")
        self._aside_thread = ThreadPoolExecutor(1, thread_name_prefix="webapp-aside")
        self._aside: Tables | None = None
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[Snapshot] | None = None
        self._news = asyncio.Event()
        self._snapshot: Snapshot | None = None
        self._stopped = False
        self.problem: str | None = None
        """Why the tables cannot be read at present; None while they can."""

    def start(self) -> None:
        """Begin to poll."""
        self._task = asyncio.get_running_loop().create_task(self._poll(), name="webapp-feed")

    async def stop(self) -> None:
        """End the polling, let go of the tables, and wake every waiting stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stopped = True
        self._news.set()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._board.close)
        self._thread.shutdown()
        if self._aside is not None:
            await asyncio.get_running_loop().run_in_executor(self._aside_thread, self._aside.close)
        self._aside_thread.shutdown()

    async def read(self, work: Callable[[Board], Result]) -> Result:
        """Run `work` with the board on the reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._board)

    async def aside(self, work: Callable[[Tables], Result]) -> Result:
        """Run `work`, which may take seconds, with a reader and on a thread of its own, one at a time: live pages go on."""
        if self._aside is None:
            self._aside = await self.read(lambda board: board.another_reader())
        return await asyncio.get_running_loop().run_in_executor(self._aside_thread, work, self._aside)

    async def current(self) -> Snapshot:
        """A snapshot that has everything committed before this call. Concurrent callers share one look.

        Raises Unreadable.
        """
        # a look that is under way may have begun before this call: wait for it, then share the next one
        if (under_way := self._refreshing) is not None:
            await asyncio.wait([under_way])
        if self._refreshing is None or self._refreshing is under_way:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
        return await asyncio.shield(self._refreshing)

    async def after(self, sequence: int, timeout_s: float) -> Snapshot | None:
        """The newest snapshot as soon as it is newer than `sequence`; None after `timeout_s`, or when the feed stops."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._stopped:
                    if self._snapshot is not None and self._snapshot.sequence > sequence:
                        return self._snapshot
                    await self._news.wait()
        except TimeoutError:
            pass
        return None

    @property
    def latest(self) -> Snapshot | None:
        """The newest snapshot that was read, without a look; None before the first one."""
        return self._snapshot

    @property
    def stopped(self) -> bool:
        """Whether streams should end."""
        return self._stopped

    async def _refresh(self) -> Snapshot:
        try:
            snapshot = await self.read(Board.refresh)
        except Exception as error:
            raise Unreadable(f"the status tables cannot be read: {type(error).__name__}: {error}") from error
        self.problem = None
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            news, self._news = self._news, asyncio.Event()
            news.set()
        return snapshot

    async def _poll(self) -> None:
        while True:
            try:
                await self.current()
                await asyncio.sleep(self._poll_s)
            except Unreadable as error:  # others rebuild the tables: keep looking, say it once
                if str(error) != self.problem:
                    log.error("%s", error, exc_info=error)
                self.problem = str(error)
                await asyncio.sleep(_FAILING_S)
