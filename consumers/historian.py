"""The historian: answers overlords' questions for the past of keys, from the history index in the data directory.

A thread of the consumer process beside the one of the status tables. The index is begun when somebody asks for the first
time, and from then on it follows the log: at every question up to the log's end, in between at leisure. What it answers
therefore has everything that the log had when it was asked.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from dimint import door
from dimint.clock import Clock
from dimint.curve import Key
from dimint.door_past import Ask, PastChange, Place, Told, decode_ask
from dimint.door_past import Historian as Hello
from dimint.errors import (
    BadPosition,
    LogBroken,
    LogError,
    LogMismatch,
    NodeNotAvailable,
    ParseError,
    PositionGone,
    RegistryError,
    RegistryLost,
    RequestError,
    SettingsError,
)
from dimint.limits import PAST_REPLY_BYTES
from dimint.log.port import Log
from dimint.progress import Progress
from dimint.registry.port import Registry
from dimint.replay.history import Cut, HistoryIndex, HistoryInUse, KeyChange
from dimint.so_far import SoFar
from dimint.transport import Context, Dealer

__all__ = ["Historian", "answer"]

BEAT_S: Final = 1.0
"""How often it tells overlords that it is there, and looks which there are."""
FOLLOW_S: Final = 2.0
"""How often an index that is there follows the log while nobody asks."""
STEP_S: Final = 1.0
"""So long it reads the log at most before it looks after everything else; less if somebody asks."""
ANSWER_S: Final = 0.2
"""So long it looks for one page; then the page is given as it is, and others have their turn before the next one."""
PAUSE_S: Final = 0.05
BACK_OFF_S: Final = 60.0
"""Nothing follows a log for so long that cannot be read."""

log = logging.getLogger("dimint.consumer")


class _Waiting(NamedTuple):
    dealer: Dealer
    ask: Ask
    deadline: float


class _Reading(Progress):
    """How far the log is read, and how fast: since it was last read to its end, rests of the reader included."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.is_over()

    def is_over(self) -> None:
        """The log is read to its end."""
        self._since_s: float | None = None
        self._done = self._total = self._read = 0

    def begin(self, done: int) -> None:
        if self._since_s is None:
            self._since_s = self._clock.monotonic()
        self._done = done

    def at(self, done: int, total: int, count: int) -> None:
        self._read += done - self._done
        self._done, self._total = done, total

    @property
    def so_far(self) -> SoFar | None:
        if self._since_s is None or not self._total:
            return None
        return SoFar.after(self._done, self._total, self._read, self._clock.monotonic() - self._since_s)


class Historian:
    """A process object (see dimint/service.py). `directory` is the index's; log and registry are the caller's."""

    def __init__(self, source: Log, directory: Path, registry: Registry, clock: Clock, key: Key | None = None) -> None:
        self._log, self._directory, self._registry, self._clock = source, directory, registry, clock
        self._generation = source.describe().generation
        self._context = Context(key)
        self._poller = self._context.poller()
        self._dealers: dict[tuple[str, str], Dealer] = {}
        self._waiting: list[_Waiting] = []
        self._index: HistoryIndex | None = None
        self._reading = _Reading(clock)
        self._follow_at = 0.0
        self._beat_at = 0.0
        self._stopping = False

    def run(self) -> None:
        look_at = rest_s = 0.0
        try:
            while not self._stopping:
                now = self._clock.monotonic()
                if now >= look_at:
                    look_at = now + BEAT_S
                    self._follow_overlords()
                    self._beat_at = now
                self._beat(now)
                for member in self._poller.wait(min(rest_s, max(0.0, look_at - now))):
                    assert isinstance(member, Dealer)
                    self._take(member)
                rest_s = self._work()
        finally:
            for dealer in self._dealers.values():
                self._poller.remove(dealer)
                dealer.close()
            self._poller.close()
            self._context.close()
            if self._index is not None:
                self._index.close()

    def stop(self) -> None:
        self._stopping = True
        self._poller.wake()

    # --- overlords --------------------------------------------------------------------------------------------------
    def _follow_overlords(self) -> None:
        try:
            members: Mapping[str, Mapping[str, Any]] = self._registry.members("overlord")
        except RegistryLost:
            raise
        except RegistryError:  # those that were known stay the best that is known
            members = {}
        else:
            there = {(id, str(info.get("node", ""))) for id, info in members.items()}
            for place in self._dealers.keys() - there:
                dealer = self._dealers.pop(place)
                self._waiting = [one for one in self._waiting if one.dealer is not dealer]
                self._poller.remove(dealer)
                dealer.close()
            for place in there - self._dealers.keys():
                with suppress(SettingsError):  # an address that cannot be: its overlord's own matter
                    dealer = self._context.dealer(place[1])
                    self._poller.add(dealer)
                    self._dealers[place] = dealer

    def _beat(self, now: float) -> None:
        """Tell overlords that it is there, and how far it is, if it is time for that."""
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            hello = door.encode(Hello(self._generation, self._reading.so_far))
            for dealer in self._dealers.values():
                dealer.send(hello)

    def _take(self, dealer: Dealer) -> None:
        now = self._clock.monotonic()
        for frame in dealer.receive():
            with suppress(ParseError):
                ask = decode_ask(frame)
                if ask is not None:
                    self._waiting.append(_Waiting(dealer, ask, now + ask.wait_ms / 1000))

    # --- the index --------------------------------------------------------------------------------------------------
    def _work(self) -> float:
        """Go on for a moment; how long to rest if nothing comes."""
        now = self._clock.monotonic()
        if not self._waiting and (now < self._follow_at or (self._index is None and not HistoryIndex.is_in(self._directory))):
            return BEAT_S
        asked = {one.ask.partition for one in self._waiting}
        until = now + STEP_S
        if self._waiting and self._reading.so_far is None:
            self._beat_at = now  # who asks first is soon told how far it is
        problem: RequestError | None = None
        complete = False
        try:
            if self._index is None:
                self._index = HistoryIndex(self._directory, self._generation)
                log.info("the history of keys is kept in %s", self._directory)
            parts = None if -1 in asked or not asked else sorted(asked)
            complete = self._index.advance(
                self._log, partitions=parts, pause=lambda: self._is_wanted(until), progress=self._reading
            )
            if complete:
                self._reading.is_over()
        except HistoryInUse as error:
            problem = NodeNotAvailable(error.message)
        except LogMismatch as error:
            problem = PositionGone(error.message)
        except LogBroken:
            raise
        except LogError as error:
            problem = NodeNotAvailable(error.message)
        if not self._waiting:
            return self._followed(complete, problem)
        self._answer(complete, problem)
        return PAUSE_S if complete or problem is not None else 0.0

    def _is_wanted(self, until: float) -> bool:
        """Whether reading the log has to wait: somebody asks, or it went on for long enough."""
        before = len(self._waiting)
        for member in self._poller.wait(0.0):
            assert isinstance(member, Dealer)
            self._take(member)
        self._beat(self._clock.monotonic())
        return self._stopping or len(self._waiting) > before or self._is_over(until)

    def _is_over(self, until: float) -> bool:
        return self._clock.monotonic() >= until

    def _followed(self, complete: bool, problem: RequestError | None) -> float:
        if problem is None and not complete:
            return PAUSE_S
        if isinstance(problem, PositionGone):
            log.error("the history of keys does not follow the log: %s", problem.message)
        self._follow_at = self._clock.monotonic() + (BACK_OFF_S if isinstance(problem, PositionGone) else FOLLOW_S)
        return FOLLOW_S

    def _answer(self, complete: bool, problem: RequestError | None) -> None:
        now = self._clock.monotonic()
        left = []
        for one in self._waiting:
            ask = one.ask
            known = {} if self._index is None else self._index.known
            if complete and self._index is not None and all(known.get(at, 0) >= end for at, end in ask.min_offsets):
                try:
                    until = self._clock.monotonic() + ANSWER_S
                    told = answer(self._index, ask, enough=partial(self._is_over, until))
                except BadPosition as error:
                    told = _failed(ask, ParseError(error.message))
            elif isinstance(problem, PositionGone):
                told = _failed(ask, problem)
            elif now >= one.deadline:  # the overlord knows how far it is
                if problem is None:
                    continue
                told = _failed(ask, problem)
            else:
                left.append(one)
                continue
            one.dealer.send(door.encode(told))
        self._waiting = left


class _Enough(Exception):
    """The page has to end behind this key."""


def answer(index: HistoryIndex, ask: Ask, *, enough: Callable[[], bool] = lambda: False) -> Told:
    """The answer of an index that knows enough. Raises BadPosition.

    When `enough()`, a page of keys ends where it is, with what it has: keys that do not differ take their time too.
    """

    def look(key: str) -> None:
        if enough():
            raise _Enough(key)

    rows: Iterable[tuple[KeyChange | None, KeyChange | None]]
    after = ask.after
    if ask.kind == "history":
        cursor = None if after is None else _cursor(after)
        found = index.history(ask.text, since=_cut(ask.since), until=_cut(ask.until), after=cursor,
                              newest_first=ask.newest_first, limit=ask.limit + 1)  # fmt: skip
        rows = ((None, change) for change in found)
    elif ask.kind == "get":
        rows = [(None, index.at(ask.text, _cut(ask.until)))]
    else:
        start = "" if after is None else f"{after}\0"
        if ask.kind == "scan":
            rows = ((None, change) for change in index.scan(ask.text, _cut(ask.until), start=start, look=look))
        else:
            found_keys = index.diff(_cut(ask.since), _cut(ask.until), ask.text, start=start, look=look)
            rows = ((each.before, each.after) for each in found_keys)
    page, has_more = _page(iter(rows), ask.limit)
    further = None
    if isinstance(has_more, str):
        further = has_more
    elif has_more:
        last = next(one for one in page[-1][::-1] if one is not None)
        further = f"{last.offset}.{last.index}" if ask.kind == "history" else last.key
    return Told(ask.id, page, further, sorted(index.known.items()))


def _page(rows: Iterator[tuple[KeyChange | None, KeyChange | None]], limit: int) -> tuple[list[Any], bool | str]:
    """Rows up to a limit in number and bytes, and whether there are more; behind which key, if that was _Enough."""
    page: list[tuple[PastChange | None, PastChange | None]] = []
    size = 0
    try:
        for row in rows:
            if len(page) == limit or size > PAST_REPLY_BYTES:
                return page, True
            size += sum(len(one.key) + len(one.value or b"") for one in row if one is not None)
            page.append((_change(row[0]), _change(row[1])))
    except _Enough as end:
        return page, str(end)
    return page, False


def _cut(place: Place) -> Cut:
    return place if isinstance(place, int) else dict(place)


def _change(change: KeyChange | None) -> PastChange | None:
    if change is None:
        return None
    return PastChange(change.kind, change.key, change.value, change.version, change.partition, change.offset, change.index,
                      change.log_time_us, *change.by)  # fmt: skip


def _cursor(text: str) -> tuple[int, int]:
    offset, _, index = text.partition(".")
    return int(offset), int(index)


def _failed(ask: Ask, error: RequestError) -> Told:
    return Told(ask.id, error=error.code, message=error.message)
