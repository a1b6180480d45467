"""The past as both clients give it: `Past` and `AsyncPast`, which `at` returns, and pages put together."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from dimint.client import past
from dimint.client.operations import Key, Operation
from dimint.client.past import Moment, PastChange, PastPage, Then
from dimint.system_clock import SystemClock
from dimint.zone import local_zone

__all__ = ["AsyncPast", "Past", "all_pages", "async_pages", "diff_pages", "history_pages", "then_of"]

NextPage: TypeAlias = Callable[[str | None, int], Operation[PastPage]]
"""(after, most items) → the question for the page."""


def then_of(moment: Moment) -> Then:
    """A moment by this machine's clock and time zone. Raises BadTime."""
    return past.then_of(moment, now_ns=SystemClock().time_ns(), zone=local_zone())


def history_pages(key: Key, start: Moment | None, end: Moment | None, *, newest_first: bool) -> NextPage:
    """The pages of a key's history between two moments."""
    since, until = 0 if start is None else then_of(start), None if end is None else then_of(end)
    return lambda after, limit: past.history_page(
        key, start=since, end=until, newest_first=newest_first, after=after, limit=limit
    )


def diff_pages(prefix: str, start: Moment, end: Moment | None) -> NextPage:
    """The pages of what differs between two moments."""
    since, until = then_of(start), None if end is None else then_of(end)
    return lambda after, limit: past.diff_page(prefix, start=since, end=until, after=after, limit=limit)


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
    """The store as it was at one log time, or at positions (`then`). What was acknowledged before a question is in its answer."""

    def __init__(self, run: Callable[[Operation[Any]], Any], then: Then) -> None:
        self._run = run
        self.then = then

    def get(self, key: Key, default: Any = None) -> Any:
        """The value that `key` had, or `default` if it was not there."""
        return self._run(past.get_at(key, self.then, lambda change: default if change is None else change.value))

    def get_change(self, key: Key) -> PastChange | None:
        """What had set the key: value, version, when, by whom; None if it was not there."""
        found: PastChange | None = self._run(past.get_at(key, self.then, lambda change: change))
        return found

    def contains(self, key: Key) -> bool:
        """Whether the key was there."""
        return self.get_change(key) is not None

    def scan(self, prefix: str = "", *, limit: int | None = None) -> Iterator[tuple[str, Any]]:
        """(key, value) of the keys that start with `prefix`, in byte order, at most `limit`."""
        return ((one.key, one.value) for one in self.scan_changes(prefix, limit=limit))

    def scan_changes(self, prefix: str = "", *, limit: int | None = None) -> Iterator[PastChange]:
        """The same, each key with what had set it."""
        return all_pages(self._run, _scan_pages(prefix, self.then), limit)


class AsyncPast:
    """`Past` for asyncio."""

    def __init__(self, run: Callable[[Operation[Any]], Awaitable[Any]], then: Then) -> None:
        self._run = run
        self.then = then

    async def get(self, key: Key, default: Any = None) -> Any:
        """The value that `key` had, or `default` if it was not there."""
        return await self._run(past.get_at(key, self.then, lambda change: default if change is None else change.value))

    async def get_change(self, key: Key) -> PastChange | None:
        """What had set the key: value, version, when, by whom; None if it was not there."""
        found: PastChange | None = await self._run(past.get_at(key, self.then, lambda change: change))
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
        return async_pages(self._run, _scan_pages(prefix, self.then), limit)


def _scan_pages(prefix: str, then: Then) -> NextPage:
    return lambda after, limit: past.scan_page(prefix, then, after=after, limit=limit)
