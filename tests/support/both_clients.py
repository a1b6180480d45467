"""The two clients behind one face, so that one set of tests checks both."""

import asyncio
import inspect
from types import TracebackType
from typing import Any

from dimint.client import AsyncClient, AsyncPast, Client

KINDS = ("sync", "asyncio")


class BlockingAsyncClient:
    """An AsyncClient whose methods are waited for, on an event loop of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.inner = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return _blocking(self.loop, getattr(self.inner, name))

    def at(self, *arguments: Any, **options: Any) -> Any:
        return _BlockingPast(self.loop, self.inner.at(*arguments, **options))

    def together(self, *calls: tuple[Any, ...]) -> list[Any]:
        """(method, argument, …) all under way at once; their results in order."""

        async def run() -> list[Any]:
            return await asyncio.gather(*(getattr(self.inner, name)(*arguments) for name, *arguments in calls))

        return self.loop.run_until_complete(run())

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.inner.close())
            self.loop.close()

    def __enter__(self) -> "BlockingAsyncClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class PlainClient(Client):
    """A Client with the same extra method."""

    def together(self, *calls: tuple[Any, ...]) -> list[Any]:
        with self.pipeline() as pipeline:
            pending = [getattr(pipeline, name)(*arguments) for name, *arguments in calls]
        return [one.result() for one in pending]


class _BlockingPast:
    """An AsyncPast in the same way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: AsyncPast) -> None:
        self._loop, self._inner = loop, inner

    def __getattr__(self, name: str) -> Any:
        return _blocking(self._loop, getattr(self._inner, name))


def _blocking(loop: asyncio.AbstractEventLoop, found: Any) -> Any:
    if not callable(found):
        return found

    def call(*arguments: Any, **options: Any) -> Any:
        answer = found(*arguments, **options)
        if inspect.isasyncgen(answer):
            return loop.run_until_complete(_collect(answer))
        return loop.run_until_complete(answer) if inspect.isawaitable(answer) else answer

    return call


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


def make_client(kind: str, *arguments: Any, **options: Any) -> Any:
    """A client of one of KINDS."""
    return (PlainClient if kind == "sync" else BlockingAsyncClient)(*arguments, **options)
