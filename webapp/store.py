"""The key-value store as the web app asks it: through the overlords, as every client does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from dimint.client import AsyncClient
from dimint.client.operations import Operation
from dimint.errors import NodeNotAvailable, RegistryError, TimedOut

__all__ = ["Store", "SystemStore"]

T = TypeVar("T")
TIMEOUT_S: Final = 8.0
"""Below the time that an answer over HTTP may take."""


class Store(Protocol):
    """What the routes need of the store."""

    async def ask(self, op: Operation[T]) -> T:
        """The answer to one operation of dimint/client. Raises RequestError."""

    async def close(self) -> None: ...


class SystemStore:
    """`overlords()` gives the client addresses of the live ones; it may block. Belongs to the server's event loop."""

    def __init__(self, overlords: Callable[[], list[str]], key_file: Path | None = None) -> None:
        self._overlords, self._key_file = overlords, key_file
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def ask(self, op: Operation[T]) -> T:
        client = await self._opened()
        try:
            return await client.run(op)
        except TimedOut as error:  # perhaps none of the overlords that it knew lives any more: look again next time
            if error.so_far is None and self._client is client:
                self._client = None
                await client.close()
            raise

    async def close(self) -> None:
        """Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _opened(self) -> AsyncClient:
        async with self._opening:
            if self._client is None:
                try:
                    addresses = await asyncio.to_thread(self._overlords)
                except RegistryError as error:
                    raise NodeNotAvailable(f"the registry does not answer: {error}") from error
                if not addresses:
                    raise NodeNotAvailable("no overlord is there")
                self._client = AsyncClient(addresses, timeout=TIMEOUT_S, consistency="strong", key_file=self._key_file)
            return self._client
