"""The past as both clients give it: `Past` and `AsyncPast`, which `at` returns, and pages put together."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from dimint.client import past
from dimint.client.operations import Key, Operation
from dimint.client.past import Moment, PastChange, PastPage
from dimint.system_clock import SystemClock
from dimint.zone import local_zone

__all__ = ["AsyncPast", "Past", "all_pages", "async_pages", "diff_pages", "history_pages", "log_time_us"]

NextPage: TypeAlias = Callable[[str | None, int], Operation[PastPage]]
"""(after, most items) → the question for the page."""


def log_time_us(moment: Moment) -> int:
    """A moment by this machine's clock and time zone. Raises BadTime."""
    return past.micros(moment, now_ns=SystemClock().time_ns(), zone=local_zone())


def history_pages(key: Key, start: Moment | None, end: Moment | None, *, newest_first: bool) -> NextPage:
    """The pages of a key's history between two moments."""
    from_us, to_us = 0 if start is None else log_time_us(start), None if end is None else log_time_us(end)
    return lambda after, limit: past.history_page(
        key, from_us=from_us, to_us=to_us, newest_first=newest_first, after=after, limit=limit
    )


def diff_pages(prefix: str, start: Moment, end: Moment | None) -> NextPage:
    """The pages of what differs between two moments."""
    from_us, to_us = log_time_us(start), None if end is None else log_time_us(end)
    return lambda after, limit: past.diff_page(prefix, from_us=from_us, to_us=to_us, after=after, limit=limit)


def all_pages(run: Callable[[Operation[PastPage]], PastPage], page: NextPage, limit: int | None) -> Iterator[Any]:
    """The items of page after page, at most `limit`."""
    after: str | None = None
    while limit is None or limit > 0:
        found = run(page(after, past.PAGE if limit is None else min(past.PAGE, limit)))
        yield from found.items
        limit = None if limit is None else limit - len(found.items)
        after = found.next
        if after is None:
            return


async def async_pages(
    run: Callable[[Operation[PastPage]], Awaitable[PastPage]], page: NextPage, limit: int | None
) -> AsyncIterator[Any]:
    """The same for asyncio."""
    after: str | None = None
    while limit is None or limit > 0:
        found = await run(page(after, past.PAGE if limit is None else min(past.PAGE, limit)))
        for item in found.items:
            yield item
        limit = None if limit is None else limit - len(found.items)
        after = found.next
        if after is None:
            return


class Past:
    """The store as it was at one log time. What was acknowledged before a question is in its answer."""

    def __init__(self, run: Callable[[Operation[Any]], Any], at_us: int) -> None:
        self._run = run
        self.log_time_us = at_us

    def get(self, key: Key, default: Any = None) -> Any:
        """The value that `key` had, or `default` if it was not there."""
        return self._run(past.get_at(key, self.log_time_us, lambda change: default if change is None else change.value))

    def get_change(self, key: Key) -> PastChange | None:
        """What had set the key: value, version, when, by whom; None if it was not there."""
        found: PastChange | None = self._run(past.get_at(key, self.log_time_us, lambda change: change))
        return found

    def contains(self, key: Key) -> bool:
        """Whether the key was there."""
        return self.get_change(key) is not None

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[tuple[str, Any]]:
        """(key, value) of the keys that start with `prefix`, in byte order, at most `limit`."""
        return ((one.key, one.value) for one in self.scan_changes(prefix, limit=limit))

    def scan_changes(self, prefix: str = "", *, limit: int | None = None) -> Iterator[PastChange]:
        """The same, each key with what had set it."""
        return all_pages(self._run, _scan_pages(prefix, self.log_time_us), limit)


class AsyncPast:
    """`Past` for asyncio."""

    def __init__(self, run: Callable[[Operation[Any]], Awaitable[Any]], at_us: int) -> None:
        self._run = run
        self.log_time_us = at_us

    async def get(self, key: Key, default: Any = None) -> Any:
        """The value that `key` had, or `default` if it was not there."""
        return await self._run(past.get_at(key, self.log_time_us, lambda change: default if change is None else change.value))

    async def get_change(self, key: Key) -> PastChange | None:
        """What had set the key: value, version, when, by whom; None if it was not there."""
        found: PastChange | None = await self._run(past.get_at(key, self.log_time_us, lambda change: change))
        return found

    async def contains(self, key: Key) -> bool:
        """Whether the key was there."""
        return await self.get_change(key) is not None

    async def scan(self, prefix: str = "", *, limit: int | None = None) -> AsyncIterator[tuple[str, Any]]:
        """(key, value) of the keys that start with `prefix`, in byte order, at most `limit`."""
        async for one in self.scan_changes(prefix, limit=limit):
            yield one.key, one.value

    def scan_changes(self, prefix: str = "", *, limit: int | None = None) -> AsyncIterator[PastChange]:
        """The same, each key with what had set it."""
        return async_pages(self._run, _scan_pages(prefix, self.log_time_us), limit)


def _scan_pages(prefix: str, at_us: int) -> NextPage:
    return lambda after, limit: past.scan_page(prefix, at_us, after=after, limit=limit)
