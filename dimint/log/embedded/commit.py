"""Group commit, by the caller as long as that is quick, else by a thread of the log.

The thread takes everything that was handed over since its last commit, of all topics and partitions. But waking a thread and
being woken by it costs a busy machine as much as a small commit on a quick disk. So `append` commits by itself if nothing is
before it, no other process is just committing, and the last commit did not take long; else the caller goes on with other
things meanwhile. Checkpoints and retention are always the thread's.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple

from dimint.clock import Clock
from dimint.errors import LogBroken, LogError
from dimint.log.embedded.directory import LogDirectory
from dimint.log.embedded.topic import WAL_MAX_PAGES, TopicFile
from dimint.log.port import Entry

__all__ = ["COMMIT_MAX_BYTES", "QUICK_S", "Committer"]

COMMIT_MAX_BYTES = 8 << 20
"""A commit is closed when its records pass this: others wait for its lock."""
_CHECKPOINT_RETRY_PAGES = 512
QUICK_S = 0.002
"""After a commit that took longer than this the next one is the thread's."""
_EXPIRE_EVERY_S = 60.0
_EXPIRE_MORE_S = 0.25
"""Pause between two slices while there is more to expire."""


class _Handed(NamedTuple):
    entry: Entry
    future: Future[int]


class _Open:
    """An open topic: its file, its readers, and the log's length that calls for a checkpoint."""

    def __init__(self, directory: LogDirectory, topic: str) -> None:
        self.file = TopicFile(directory, topic)
        self.waker = directory.waker(topic)
        self.pages, self.checkpoint_at = 0, WAL_MAX_PAGES

    def close(self) -> None:
        self.file.close()
        self.waker.close()


class Committer:
    """Commits records; its thread starts with the first append.

    `append` may be called from any thread. Retention is done here too, for the topics of the directory, at most once a
    minute while this process appends.
    """

    def __init__(self, directory: LogDirectory, clock: Clock, quick_s: float = QUICK_S) -> None:
        self._directory, self._clock, self._quick_s = directory, clock, quick_s
        self._queue: SimpleQueue[list[_Handed] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        """Held by whoever uses the files; who holds `_lock` never waits for it."""
        self._queued = 0
        """What the thread was handed and has not finished: while there is any, nobody overtakes it."""
        self._thread: threading.Thread | None = None
        self._closed = False
        self._broken: LogBroken | None = None
        self._topics: dict[str, _Open] = {}
        self._took_s = 0.0
        self._expire_at = 0.0

    def append(self, entries: Sequence[Entry]) -> list[Future[int]]:
        """Hand over; see the port."""
        handed = []
        futures = []
        for entry in entries:
            future: Future[int] = Future()
            future.set_running_or_notify_cancel()  # nobody can take back what may be in a commit already
            handed.append(_Handed(entry, future))
            futures.append(future)
        if handed and self._take_or_queue(handed):
            try:
                left = self._commit_all(handed, wait=False)
                if left or any(opened.pages > opened.checkpoint_at for opened in self._topics.values()):
                    with self._lock:
                        self._hand_over(left)
            finally:
                self._turn.release()
        return futures

    def close(self) -> None:
        """Commit what was handed over, then end. Idempotent."""
        with self._lock:
            self._closed = True
            thread = self._thread
        with self._turn:  # so that this is the last of the queue
            self._queue.put(None)
        if thread is not None:
            thread.join()

    def _take_or_queue(self, handed: list[_Handed]) -> bool:
        """True: it is the caller's turn. False: the thread has it now."""
        with self._lock:
            if self._closed:
                raise LogError("the log is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-commit", daemon=True)
                self._thread.start()
            if not self._queued and self._took_s < self._quick_s and self._turn.acquire(blocking=False):
                return True
            self._hand_over(handed)
            return False

    def _hand_over(self, handed: list[_Handed]) -> None:
        """To the thread; `_lock` is held."""
        self._queued += 1
        self._queue.put(handed)

    def _run(self) -> None:
        try:
            while self._take_turn():
                pass
        finally:
            with self._turn:
                for opened in self._topics.values():
                    opened.close()

    def _take_turn(self) -> bool:
        """One group commit; False when the log is closed and everything is done."""
        handed: list[_Handed] = []
        count = 0
        going_on = True
        try:
            got = self._queue.get(timeout=None if self._broken else max(0.0, self._expire_at - time.monotonic()))
            while True:
                if got is None:
                    going_on = False
                else:
                    handed += got
                    count += 1
                got = self._queue.get_nowait()
        except Empty:
            pass
        with self._turn:
            if handed:
                self._commit_all(handed, wait=True)
            for opened in self._topics.values():
                if opened.pages > opened.checkpoint_at:
                    self._checkpoint(opened)
            if self._broken is None and time.monotonic() >= self._expire_at:
                self._expire_at = time.monotonic() + (_EXPIRE_MORE_S if self._expire() else _EXPIRE_EVERY_S)
        with self._lock:
            self._queued -= count
        return going_on

    def _commit_all(self, handed: list[_Handed], *, wait: bool) -> list[_Handed]:
        """Commit, group by group; what is left would have to `wait` for other processes, or come after such records."""
        start = time.monotonic()
        left: list[_Handed] = []
        for topic, group in _split(handed):
            if left or not self._commit(topic, group, wait):
                left += group
        self._took_s = time.monotonic() - start
        return left

    def _commit(self, topic: str, group: list[_Handed], wait: bool) -> bool:
        try:
            if self._broken is not None:
                raise self._broken
            opened = self._open(topic)
            rows = [(entry.partition, entry.value) for entry, _ in group]
            written = opened.file.append(rows, self._clock.time_ns(), wait=wait)
            if written is None:
                return False
            opened.pages = written.wal_pages
        except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever: the futures carry it
            failure = error if isinstance(error, LogError) else LogBroken(f"the commit failed: {error!r}")
            if isinstance(failure, LogBroken):
                self._broken = failure
            for _, future in group:
                future.set_exception(failure)
            return True
        opened.waker.wake(time.time_ns())
        for (_, future), offset in zip(group, written.offsets, strict=True):
            future.set_result(offset)
        return True

    def _checkpoint(self, opened: _Open) -> None:
        try:
            done = opened.file.checkpoint()
        except LogBroken as error:
            self._broken = error
            return
        opened.checkpoint_at = WAL_MAX_PAGES if done else opened.pages + _CHECKPOINT_RETRY_PAGES
        if done:
            opened.pages = 0

    def _expire(self) -> bool:
        """Drop some of what is too old; whether there is more."""
        more = False
        try:
            for topic in self._directory.topics():
                more |= self._open(topic).file.expire(self._clock.time_ns())
        except LogBroken as error:
            self._broken = error
        except LogError:
            return False  # busy, no room, or a topic in the making: the next round finds it
        return more

    def _open(self, topic: str) -> _Open:
        if topic not in self._topics:
            self._topics[topic] = _Open(self._directory, topic)
        return self._topics[topic]


def _split(handed: list[_Handed]) -> list[tuple[str, list[_Handed]]]:
    """Groups of one topic in the order handed over, each small enough for one commit."""
    groups: list[tuple[str, list[_Handed]]] = []
    latest: dict[str, tuple[list[_Handed], int]] = {}
    for item in handed:
        topic, size = item.entry.topic, len(item.entry.value)
        group, total = latest.get(topic, ([], 0))
        if not group or total + size > COMMIT_MAX_BYTES:
            group, total = [], 0
            groups.append((topic, group))
        group.append(item)
        latest[topic] = (group, total + size)
    return groups
