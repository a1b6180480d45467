"""The synchronous client."""

import random
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from dimint.client import operations as ops
from dimint.client.at import Past, all_pages, diff_pages, history_pages, then_of
from dimint.client.calls import Call
from dimint.client.network import address_of
from dimint.client.operations import MISSING, Aged, CasResult, Key, Operation, Outcome, Versioned
from dimint.client.past import Difference, Moment, PastChange
from dimint.client.pipeline import Pipeline
from dimint.client.session import Session
from dimint.client.sockets import Sockets
from dimint.client.watch import Watch, watch_options
from dimint.client.writes import Unresolved
from dimint.curve import read_key
from dimint.errors import ClientClosed, NotMsgpack, OutcomeUnknown, SettingsError, TimedOut
from dimint.transport import Dealer, Poller

__all__ = ["Client"]

T = TypeVar("T")
DEFAULT_ADDRESS: Final = "127.0.0.1:5556"
DEFAULT_TIMEOUT_S: Final = 5.0


class Client:
    """A client of one DiMint system; also a mapping of its keys.

    addresses     one or more overlords ("host:port"); the others are found by asking
    timeout       seconds that a call may take; then it ends with TimedOut (reads), NotApplied (writes that certainly
                  did not happen) or OutcomeUnknown (`result` tells what became of the write)
    consistency   of reads: "session" (read your writes, monotonic reads), "weak" or "strong"
    direct_reads  whether weak and session reads of keys go to the nodes instead of through an overlord
    tokens        what another client has seen (its `tokens()`), to read at least that
    key_file      the system's key, where its doors are encrypted (`dimint key create`)

    May be used by several threads: their calls take turns. Not usable in a forked child. Values and their rules:
    dimint/client/content.py. Any call may raise the errors of dimint.errors.RequestError, and ClientClosed.
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
        self._seeds = seeds = [addresses] if isinstance(addresses, str) else list(addresses)
        self._session = Session(
            seeds,
            client=secrets.token_hex(8),
            choose=random.choice,
            consistency=consistency,
            direct_reads=direct_reads,
            tokens=tokens,
        )
        self._lock = threading.Lock()
        self._poller = Poller()
        self._closed = False
        self._sockets = Sockets(self._poller.add, self._poller.remove, self._key)
        try:
            for seed in seeds:
                self._sockets.open(address_of(seed))
        except SettingsError:
            self.close()
            raise

    # --- reading -----------------------------------------------------------------------------------------------------
    def get(self, key: Key, default: Any = None, *, consistency: str | None = None, timeout: float | None = None) -> Any:
        """The value of `key`, or `default` if it is not there."""
        return self._run(ops.get(key, default, consistency=consistency), timeout)

    def get_versioned(self, key: Key, *, consistency: str | None = None, timeout: float | None = None) -> Versioned:
        """The value and its version: (None, 0) if the key is not there."""
        return self._run(ops.get_versioned(key, consistency=consistency), timeout)

    def get_aged(self, key: Key, *, consistency: str | None = None, timeout: float | None = None) -> Aged:
        """The value, its version and how old they may be: (None, 0, …) if the key is not there."""
        return self._run(ops.get_aged(key, consistency=consistency), timeout)

    def mget(self, keys: Iterable[Key], *, consistency: str | None = None, timeout: float | None = None) -> dict[str, Any]:
        """Key → value of the keys that are there. Not one point in time over several partitions."""
        return self._run(ops.mget(keys, consistency=consistency), timeout)

    def contains(self, key: Key, *, timeout: float | None = None) -> bool:
        """Whether the key is there."""
        return self._run(ops.contains(key), timeout)

    def scan(
        self,
        prefix: str = "",
        *,
        limit: int | None = None,
        page_size: int = 100,
        consistency: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """(key, value) of the keys that start with `prefix`, in byte order, at most `limit`; `timeout` is per page."""
        after: str | None = None
        size = page_size
        while limit is None or limit > 0:
            asked = size if limit is None else min(size, limit)
            try:
                page = self._run(ops.scan_page(prefix, after=after, limit=asked, consistency=consistency), timeout)
            except NotMsgpack:  # binary values and long integers in one page: take smaller ones
                if asked == 1:
                    raise
                size = asked // 2
                continue
            yield from page.items
            after, size = page.next, page_size
            limit = None if limit is None else limit - len(page.items)
            if after is None:
                return

    # --- the past ----------------------------------------------------------------------------------------------------
    def at(self, moment: Moment, *, timeout: float | None = None) -> Past:
        """The store as it was: `client.at("-2h").get(key)`. Moments are log times: "-2h", "yesterday 14:00", ISO 8601, a
        datetime, or seconds since 1970; or the `position` of a change. `timeout` is per question. Raises BadTime."""
        return Past(partial(self._run, timeout=timeout), then_of(moment))

    def history(
        self,
        key: Key,
        *,
        start: Moment | None = None,
        end: Moment | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[PastChange]:
        """Every change of a key, at most `limit`: when, what, by whom; `timeout` is per page."""
        pages = history_pages(key, start, end, newest_first=newest_first)
        return all_pages(partial(self._run, timeout=timeout), pages, limit)

    def diff(
        self,
        start: Moment,
        end: Moment | None = None,
        *,
        prefix: str = "",
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[Difference]:
        """The keys that start with `prefix` and are other at `end` (None: now) than at `start`, in byte order."""
        return all_pages(partial(self._run, timeout=timeout), diff_pages(prefix, start, end), limit)

    # --- writing -----------------------------------------------------------------------------------------------------
    def set(
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
            return self._run(ops.set_if(key, value, if_absent=if_absent, if_present=if_present, ttl=ttl), timeout)
        return self._run(ops.set_value(key, value, ttl=ttl), timeout)

    def delete(self, key: Key, *, timeout: float | None = None) -> None:
        """Delete the key, whether or not it is there."""
        self._run(ops.delete(key), timeout)

    def mset(self, values: Mapping[Any, Any], *, ttl: float | None = None, timeout: float | None = None) -> None:
        """Set many keys, atomically per partition. Raises Partial with `failed` if only some were written."""
        self._run(ops.mset(values, ttl=ttl), timeout)

    def incr(self, key: Key, by: int = 1, *, timeout: float | None = None) -> int:
        """Add to an integer (an absent key counts as 0); the new value. Counts once, whatever fails on the way."""
        return self._run(ops.incr(key, by), timeout)

    def cas(
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
        return self._run(ops.cas(key, value, expected=expected, version=version, ttl=ttl), timeout)

    def result(
        self, key: Key | OutcomeUnknown, client: str | None = None, seq: int | None = None, *, timeout: float | None = None
    ) -> Outcome:
        """What became of a write, for ever: give the OutcomeUnknown that was raised, or key, client and seq."""
        return self._run(ops.result(key, client, seq), timeout)

    def publish(self, events: list[list[Any]], *, timeout: float | None = None) -> int:
        """Hand an agent's events to the log; how many were accepted. Repeating samples changes nothing."""
        return self._run(ops.publish(events), timeout)

    def pipeline(self, *, timeout: float | None = None) -> Pipeline:
        """Many calls at once: each is sent at once, the end of the `with` block waits for all of them."""
        return Pipeline(self._submit, self._finish, self._timeout_s if timeout is None else timeout)

    # --- watching ----------------------------------------------------------------------------------------------------
    def watch(
        self,
        key: str | float | None = None,
        *,
        prefix: str | None = None,
        token: str | Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """The changes of one key, or of all keys with a prefix ("" = all), from now on or behind `token`, for ever.

        Begins within `timeout`, or raises; every change after that is seen. What this client wrote before is not.
        """
        with self._lock:
            if self._closed:
                raise ClientClosed("the client is closed")
            timeout_s = self._timeout_s if timeout is None else timeout
            options = watch_options(
                self._session, self._seeds, key, prefix, token, direct=self._direct, timeout_s=timeout_s, key_pair=self._key
            )
        return Watch(options)

    # --- the system --------------------------------------------------------------------------------------------------
    def state(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """One map a node: role, key count, processor and memory."""
        return list(self._run(ops.ask("state", "state"), timeout))

    def overlord_state(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """One map an overlord: processor and memory of its process."""
        return list(self._run(ops.ask("overlord_state", "overlord_state"), timeout))

    def overlords(self, *, timeout: float | None = None) -> list[str]:
        """Client addresses ("ip:port") of the live overlords."""
        return list(self._run(ops.ask("get_overlords", "overlords"), timeout))

    def topology(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Who is where."""
        return dict(self._run(ops.ask("topology"), timeout))

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Positions, lag and problems of every partition and replica."""
        return dict(self._run(ops.ask("status"), timeout))

    # --- this client -------------------------------------------------------------------------------------------------
    @property
    def client_id(self) -> str:
        """The name under which this client's writes count once."""
        return self._session.client

    def tokens(self) -> list[str]:
        """The positions this client has seen; give them to another client to make it read at least that."""
        with self._lock:
            return self._session.tokens.all()

    def forget_tokens(self) -> None:
        """Go on without what was seen, after the log was replaced (DIMINT_WRONG_LOG)."""
        with self._lock:
            self._session.tokens.forget()

    def unresolved(self) -> list[Unresolved]:
        """Writes that ended as OutcomeUnknown and were not settled by `result` yet."""
        with self._lock:
            return self._session.unresolved()

    def close(self) -> None:
        """End the client; calls that wait in other threads finish first. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._session.close()
                self._sockets.close()
                self._poller.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- as a mapping ------------------------------------------------------------------------------------------------
    def __getitem__(self, key: Key) -> Any:
        return self._run(ops.require(key), None)

    def __setitem__(self, key: Key, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Key) -> None:
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return (key is None or isinstance(key, str | int | float)) and self.contains(key)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.scan())

    def run(self, op: Operation[T], *, timeout: float | None = None) -> T:
        """Any operation of dimint/client/operations.py or dimint/client/past.py: single pages of a scan or a history."""
        return self._run(op, timeout)

    # --- driving -----------------------------------------------------------------------------------------------------
    def _run(self, op: Operation[T], timeout: float | None) -> T:
        call = self._submit(op, self._timeout_s if timeout is None else timeout)
        self._finish([call])
        value: T = call.result()
        return value

    def _submit(self, op: Operation[Any], timeout_s: float) -> Call:
        if not timeout_s > 0:
            raise SettingsError("`timeout` is a number of seconds above 0")
        if not self._lock.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
            raise TimedOut("other threads kept the client busy; nothing was sent")
        try:
            if self._closed:
                raise ClientClosed("the client is closed")
            call = self._session.submit(op, time.monotonic(), timeout_s)
            self._sockets.perform(self._session.take_effects())
            return call
        finally:
            self._lock.release()

    def _finish(self, calls: Sequence[Call]) -> None:
        """Receive until these calls are done. They end by their deadlines, whatever happens."""
        with self._lock:
            try:
                for call in calls:
                    while not call.done:
                        self._step()
            except BaseException as error:
                for call in calls:
                    self._session.abandon(call, error if isinstance(error, Exception) else ClientClosed("interrupted"))
                raise

    def _step(self) -> None:
        session = self._session
        wake = session.next_wake()
        assert wake is not None
        ready: list[Any] = self._poller.wait(max(0.0, wake - time.monotonic()))
        now = time.monotonic()
        for dealer in ready:
            assert isinstance(dealer, Dealer)
            for frame in dealer.receive():
                session.received(dealer.address, frame, now)
        session.tick(now)
        self._sockets.perform(session.take_effects())
