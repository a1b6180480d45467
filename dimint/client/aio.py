"""The asyncio client: the same as `Client`, awaited. Many calls may be under way at once (`asyncio.gather`)."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from dimint.client import operations as ops
from dimint.client.aio_watch import AsyncWatch
from dimint.client.at import AsyncPast, async_pages, diff_pages, history_pages, then_of
from dimint.client.calls import Call
from dimint.client.network import address_of
from dimint.client.operations import MISSING, Aged, CasResult, Key, Operation, Outcome, Versioned
from dimint.client.past import Difference, Moment, PastChange
from dimint.client.session import Session
from dimint.client.sockets import Sockets
from dimint.client.sync import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S
from dimint.client.watch import watch_options
from dimint.client.writes import Unresolved
from dimint.curve import read_key
from dimint.errors import ClientClosed, NotMsgpack, OutcomeUnknown, SettingsError
from dimint.transport import Dealer

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """A client of one DiMint system for asyncio; arguments and errors as of `Client`.

    Belongs to the event loop of its first call. One task of its own receives everything.
    """

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        consistency: str = "session",
        direct_reads: bool = True,
        tokens: Iterable[str] = (),
        key_file: str | Path | None = None,
    ) -> None:
        if not timeout > 0:
            raise SettingsError("`timeout` is a number of seconds above 0")
        self._key = read_key(None if key_file is None else Path(key_file))
        self._timeout_s, self._direct = timeout, direct_reads
        self._seeds = [addresses] if isinstance(addresses, str) else list(addresses)
        self._session = Session(
            self._seeds,
            client=secrets.token_hex(8),
            choose=random.choice,
            consistency=consistency,
            direct_reads=direct_reads,
            tokens=tokens,
        )
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: Sockets | None = None
        self._dealers: dict[Dealer, int] = {}
        self._ready = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    # --- reading -----------------------------------------------------------------------------------------------------
    async def get(self, key: Key, default: Any = None, *, consistency: str | None = None, timeout: float | None = None) -> Any:
        """The value of `key`, or `default` if it is not there."""
        return await self._run(ops.get(key, default, consistency=consistency), timeout)

    async def get_versioned(self, key: Key, *, consistency: str | None = None, timeout: float | None = None) -> Versioned:
        """The value and its version: (None, 0) if the key is not there."""
        return await self._run(ops.get_versioned(key, consistency=consistency), timeout)

    async def get_aged(self, key: Key, *, consistency: str | None = None, timeout: float | None = None) -> Aged:
        """The value, its version and how old they may be: (None, 0, …) if the key is not there."""
        return await self._run(ops.get_aged(key, consistency=consistency), timeout)

    async def mget(self, keys: Iterable[Key], *, consistency: str | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Key → value of the keys that are there. Not one point in time over several partitions."""
        return await self._run(ops.mget(keys, consistency=consistency), timeout)

    async def contains(self, key: Key, *, timeout: float | None = None) -> bool:
        """Whether the key is there."""
        return await self._run(ops.contains(key), timeout)

    async def scan(
        self,
        prefix: str = "",
        *,
        limit: int | None = None,
        page_size: int = 100,
        consistency: str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[str, Any]]:
        """(key, value) of the keys that start with `prefix`, in byte order, at most `limit`; `timeout` is per page."""
        after: str | None = None
        size = page_size
        while limit is None or limit > 0:
            asked = size if limit is None else min(size, limit)
            try:
                page = await self._run(ops.scan_page(prefix, after=after, limit=asked, consistency=consistency), timeout)
            except NotMsgpack:  # binary values and long integers in one page: take smaller ones
                if asked == 1:
                    raise
                size = asked // 2
                continue
            for item in page.items:
                yield item
            after, size = page.next, page_size
            limit = None if limit is None else limit - len(page.items)
            if after is None:
                return

    # --- the past ----------------------------------------------------------------------------------------------------
    def at(self, moment: Moment, *, timeout: float | None = None) -> AsyncPast:
        """The store as it was: `await client.at("-2h").get(key)`. Moments are log times: "-2h", "yesterday 14:00", ISO 8601,
        a datetime, or seconds since 1970; `timeout` is per question. Raises BadTime."""
        return AsyncPast(partial(self._run, timeout=timeout), then_of(moment))

    def history(
        self,
        key: Key,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[PastChange]:
        """Every change of a key, at most `limit`: when, what, by whom; `timeout` is per page."""
        pages = history_pages(key, start, end, newest_first=newest_first)
        return async_pages(partial(self._run, timeout=timeout), pages, limit)

    def diff(
        self,
        start: Moment,
        end: Moment | None = None,
        *,
        prefix: str = "",
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Difference]:
        """The keys that start with `prefix` and are other at `end` (None: now) than at `start`, in byte order."""
        return async_pages(partial(self._run, timeout=timeout), diff_pages(prefix, start, end), limit)

    # --- writing -----------------------------------------------------------------------------------------------------
    async def set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Set the value, for `ttl` seconds if given; whether it was set (False only if a condition did not hold)."""
        if if_absent or if_present:
            return await self._run(ops.set_if(key, value, if_absent=if_absent, if_present=if_present, ttl=ttl), timeout)
        return await self._run(ops.set_value(key, value, ttl=ttl), timeout)

    async def delete(self, key: Key, *, timeout: float | None = None) -> None:
        """Delete the key, whether or not it is there."""
        await self._run(ops.delete(key), timeout)

    async def mset(self, values: Mapping[Any, Any], *, ttl: float | None = None, timeout: float | None = None) -> None:
        """Set many keys, atomically per partition. Raises Partial with `failed` if only some were written."""
        await self._run(ops.mset(values, ttl=ttl), timeout)

    async def incr(self, key: Key, by: int = 1, *, timeout: float | None = None) -> int:
        """Add to an integer (an absent key counts as 0); the new value. Counts once, whatever fails on the way."""
        return await self._run(ops.incr(key, by), timeout)

    async def cas(
        self,
        key: Key,
        value: Any,
        *,
        expected: Any = MISSING,
        version: int | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> CasResult:
        """Set if the value is `expected`, or the version is `version` (0 = absent); true if it applied."""
        return await self._run(ops.cas(key, value, expected=expected, version=version, ttl=ttl), timeout)

    async def result(
        self, key: Key | OutcomeUnknown, client: str | None = None, seq: int | None = None, *, timeout: float | None = None
    ) -> Outcome:
        """What became of a write, for ever: give the OutcomeUnknown that was raised, or key, client and seq."""
        return await self._run(ops.result(key, client, seq), timeout)

    async def publish(self, events: list[list[Any]], *, timeout: float | None = None) -> int:
        """Hand an agent's events to the log; how many were accepted. Repeating samples changes nothing."""
        return await self._run(ops.publish(events), timeout)

    # --- watching ----------------------------------------------------------------------------------------------------
    def watch(
        self,
        key: str | float | None = None,
        *,
        prefix: str | None = None,
        token: str | Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """The changes of one key, or of all keys with a prefix ("" = all), from now on or behind `token`, for ever.

        Once it is entered (`async with`), every change is seen. What this client wrote before is not.
        """
        if self._closed:
            raise ClientClosed("the client is closed")
        timeout_s = self._timeout_s if timeout is None else timeout
        return AsyncWatch(
            watch_options(
                self._session, self._seeds, key, prefix, token, direct=self._direct, timeout_s=timeout_s, key_pair=self._key
            )
        )

    # --- the system --------------------------------------------------------------------------------------------------
    async def state(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """One map a node: role, key count, processor and memory."""
        return list(await self._run(ops.ask("state", "state"), timeout))

    async def overlord_state(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """One map an overlord: processor and memory of its process."""
        return list(await self._run(ops.ask("overlord_state", "overlord_state"), timeout))

    async def overlords(self, *, timeout: float | None = None) -> list[str]:
        """Client addresses ("ip:port") of the live overlords."""
        return list(await self._run(ops.ask("get_overlords", "overlords"), timeout))

    async def topology(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Who is where."""
        return dict(await self._run(ops.ask("topology"), timeout))

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Positions, lag and problems of every partition and replica."""
        return dict(await self._run(ops.ask("status"), timeout))

    # --- this client -------------------------------------------------------------------------------------------------
    @property
    def client_id(self) -> str:
        """The name under which this client's writes count once."""
        return self._session.client

    def tokens(self) -> list[str]:
        """The positions this client has seen; give them to another client to make it read at least that."""
        return self._session.tokens.all()

    def forget_tokens(self) -> None:
        """Go on without what was seen, after the log was replaced (DIMINT_WRONG_LOG)."""
        self._session.tokens.forget()

    def unresolved(self) -> list[Unresolved]:
        """Writes that ended as OutcomeUnknown and were not settled by `result` yet."""
        return self._session.unresolved()

    async def close(self) -> None:
        """End the client; calls that wait end with ClientClosed. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._session.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        if self._sockets is not None:
            self._sockets.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def run(self, op: Operation[T], *, timeout: float | None = None) -> T:
        """Any operation of dimint/client/operations.py or dimint/client/past.py: single pages of a scan or a history."""
        return await self._run(op, timeout)

    # --- driving -----------------------------------------------------------------------------------------------------
    async def _run(self, op: Operation[T], timeout: float | None) -> T:
        timeout_s = self._timeout_s if timeout is None else timeout
        if not timeout_s > 0:
            raise SettingsError("`timeout` is a number of seconds above 0")
        if self._closed:
            raise ClientClosed("the client is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._start(loop)
        waiter: asyncio.Future[None] = loop.create_future()

        def ended(_: Call) -> None:
            if not waiter.done():
                waiter.set_result(None)

        before = self._session.next_wake()
        call = self._session.submit(op, time.monotonic(), timeout_s, ended)
        self._perform()
        if not call.done:
            if before is None or self._is_sooner(before):
                self._ready.set()  # the reader sleeps until another time
            try:
                await waiter
            except asyncio.CancelledError as error:
                self._session.abandon(call, ClientClosed(f"the call was cancelled{error}"))
                raise
        value: T = call.result()
        return value

    def _is_sooner(self, before: float) -> bool:
        wake = self._session.next_wake()
        return wake is not None and wake < before

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise ClientClosed("the client belongs to another event loop")
        sockets = self._sockets = Sockets(self._opened, self._dropping, self._key)
        self._loop = loop
        for seed in self._seeds:
            sockets.open(address_of(seed))
        self._reader = loop.create_task(self._read(), name="dimint-client")

    def _opened(self, dealer: Dealer) -> None:
        assert self._loop is not None
        self._dealers[dealer] = fd = dealer.fileno()
        self._loop.add_reader(fd, self._ready.set)

    def _dropping(self, dealer: Dealer) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._dealers.pop(dealer))

    def _perform(self) -> None:
        assert self._sockets is not None
        effects = self._session.take_effects()
        if effects:
            self._sockets.perform(effects)
            # sending may take in what arrived, and then its descriptor stays silent
            for dealer in self._dealers:
                if dealer.has_frames():
                    self._ready.set()

    async def _read(self) -> None:
        """Receive, let time pass, send; sleep until a socket stirs or the session wants to be woken."""
        assert self._loop is not None
        try:
            while True:
                self._ready.clear()
                now = time.monotonic()
                for dealer in list(self._dealers):
                    for frame in dealer.receive():
                        self._session.received(dealer.address, frame, now)
                self._session.tick(now)
                self._perform()
                wake = self._session.next_wake()
                timer = None if wake is None else self._loop.call_later(max(0.0, wake - time.monotonic()), self._ready.set)
                await self._ready.wait()
                if timer is not None:
                    timer.cancel()
                await asyncio.sleep(0)  # callers whose call ended go first, so that their next calls share a round
        except Exception:
            self._closed = True
            self._session.close()
            raise
