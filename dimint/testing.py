"""Fakes for tests, of this project and of programs that use it. They speak the real ports and pass the contract suites.

`memory_log()` is a log in memory; `FaultyLog` wraps any log and breaks it on purpose.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from dimint.clock import Clock, ManualClock
from dimint.errors import AppendFailed, AppendUnknown, LogBroken, LogUnavailable
from dimint.log.memory import MemoryBroker, MemoryLog
from dimint.log.port import Bounds, Entry, Log, LogDescription, LogHealth, Reader, Record, TopicSpec

__all__ = ["FaultyLog", "memory_log"]

_LANDING = ("pass", "hide")
"""Fates of a record that reach the log inside."""


def memory_log(topics: Sequence[TopicSpec] = (), *, clock: Clock | None = None) -> MemoryLog:
    """A new log in memory with these topics."""
    log = MemoryLog(MemoryBroker(clock=clock or ManualClock()))
    log.create(topics)
    return log


class FaultyLog:
    """A log whose appends go wrong as told; everything else goes straight to the log inside.

    Each switch counts records (entries of `append`), in the order in which they come. Switches queue up: `fail(1)` then
    `lose(1)` breaks the first record in one way and the second in the other; what no switch is left for goes well.

    >>> log = FaultyLog(memory_log([TopicSpec("t", 1)]))
    >>> log.park(1)
    >>> late, = log.append([Entry("t", 0, b"late")]); late.exception()
    AppendUnknown('the connection broke')
    >>> log.append([Entry("t", 0, b"next")])[0].result(), log.land(), log.bounds("t", 0).end
    (0, 1, 2)
    """

    def __init__(self, inner: Log) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._script: deque[str] = deque()
        self._parked: list[Entry] = []
        self._held: list[tuple[Future[int], Future[int]]] = []
        self._holding = False
        self._broken = False
        self._away = 0

    # --- switches ----------------------------------------------------------------------------------------------------

    def pass_on(self, records: int) -> None:
        """The next records go well: a pause between two faults."""
        self._plan("pass", records)

    def fail(self, records: int) -> None:
        """The next records fail with AppendFailed and are not appended."""
        self._plan("fail", records)

    def lose(self, records: int) -> None:
        """The next records fail with AppendUnknown and never land."""
        self._plan("lose", records)

    def hide(self, records: int) -> None:
        """The next records are appended at once, but their futures fail with AppendUnknown."""
        self._plan("hide", records)

    def park(self, records: int) -> None:
        """The next records fail with AppendUnknown at once and land when `land` is called."""
        self._plan("park", records)

    def land(self, records: int | None = None) -> int:
        """Append the first parked records (all by default), in order; how many there were."""
        with self._lock:
            count = len(self._parked) if records is None else min(records, len(self._parked))
            landing, self._parked = self._parked[:count], self._parked[count:]
        for entry in landing:
            self._inner.append([entry])[0].result()
        return len(landing)

    def hold_acks(self) -> None:
        """From now on records are appended, but their futures stay open until `release_acks`."""
        with self._lock:
            self._holding = True

    def release_acks(self) -> int:
        """Answer what was held, in order; how many there were."""
        with self._lock:
            held, self._held, self._holding = self._held, [], False
        for outer, inner in held:
            _copy(inner, outer)
        return len(held)

    def heal(self) -> None:
        """Forget the switches that are left; what is parked or held stays so."""
        with self._lock:
            self._script.clear()
            self._away = 0

    def go_away(self, calls: int) -> None:
        """The next calls of `read` and `bounds` raise LogUnavailable."""
        with self._lock:
            self._away = calls

    def break_down(self) -> None:
        """From now on every append fails with LogBroken."""
        with self._lock:
            self._broken = True

    def _plan(self, what: str, records: int) -> None:
        with self._lock:
            self._script.extend([what] * records)

    # --- the port ----------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> list[Future[int]]:
        futures: list[Future[int]] = [Future() for _ in entries]
        answers: list[tuple[str, Future[int], Future[int] | None]] = []
        with self._lock:
            fates = self._fates(len(entries))
            # a call that the log inside refuses uses up no switches
            inner = iter(self._inner.append([entry for entry, fate in zip(entries, fates, strict=True) if fate in _LANDING]))
            for _ in range(0 if self._broken else min(len(entries), len(self._script))):
                self._script.popleft()
            for entry, fate, future in zip(entries, fates, futures, strict=True):
                sent = next(inner) if fate in _LANDING else None
                if fate == "park":
                    self._parked.append(entry)
                if fate == "pass" and self._holding and sent is not None:
                    self._held.append((future, sent))
                else:
                    answers.append((fate, future, sent))
        for fate, future, sent in answers:
            _answer(fate, future, sent)
        return futures

    def _fates(self, count: int) -> list[str]:
        if self._broken:
            return ["break"] * count
        script = list(self._script)[:count]
        return script + ["pass"] * (count - len(script))

    def describe(self) -> LogDescription:
        return self._inner.describe()._replace(together_max_bytes=0)  # every record has its own fate here

    def health(self) -> LogHealth:
        self._check_there()
        return self._inner.health()

    def create(self, topics: Sequence[TopicSpec]) -> None:
        self._inner.create(topics)

    def read(self, topic: str, partition: int, offset: int, *, max_records: int = 1000, max_bytes: int = 4 << 20) -> list[Record]:
        self._check_there()
        return self._inner.read(topic, partition, offset, max_records=max_records, max_bytes=max_bytes)

    def bounds(self, topic: str, partition: int) -> Bounds:
        self._check_there()
        return self._inner.bounds(topic, partition)

    def offset_at(self, topic: str, partition: int, time_ns: int) -> int:
        return self._inner.offset_at(topic, partition, time_ns)

    def trim(self, topic: str, partition: int, before: int) -> None:
        self._inner.trim(topic, partition, before)

    def reader(self) -> Reader:
        return self._inner.reader()

    def _check_there(self) -> None:
        with self._lock:
            if self._away:
                self._away -= 1
                raise LogUnavailable("nobody answers")

    def close(self) -> None:
        """Answers that are still held are released first."""
        self.release_acks()
        self._inner.close()


def _answer(fate: str, future: Future[int], sent: Future[int] | None) -> None:
    if fate == "break":
        future.set_exception(LogBroken("the disk is gone"))
    elif fate == "fail":
        future.set_exception(AppendFailed("the log took nothing"))
    elif fate == "pass":
        assert sent is not None
        sent.add_done_callback(lambda done: _copy(done, future))
    else:
        if sent is not None:
            sent.exception()  # hidden, but there
        future.set_exception(AppendUnknown("the connection broke"))


def _copy(done: Future[int], to: Future[int]) -> None:
    error = done.exception()
    if error is None:
        to.set_result(done.result())
    else:
        to.set_exception(error)
