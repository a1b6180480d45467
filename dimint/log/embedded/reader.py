"""Following partitions of an embedded log."""

import os
import select
import threading
import time
from collections.abc import Mapping

from dimint.errors import LogError
from dimint.log.embedded.directory import LogDirectory, WakeSocket
from dimint.log.embedded.topic import READ_MAX_RECORDS, TopicFile
from dimint.log.port import Record, TopicPartition

__all__ = ["EmbeddedReader"]

_FALLBACK_S = 0.05
"""How often a waiting reader looks by itself, in case a committer died between its commit and the datagram."""


class _Followed:
    """One topic that the reader follows: its own connection, its socket, and whether there may be something new."""

    def __init__(self, directory: LogDirectory, topic: str) -> None:
        self.socket: WakeSocket = directory.bind_wake(topic)
        try:
            self.file = TopicFile(directory, topic)
        except BaseException:
            self.socket.close()
            raise
        self.version = -1
        self.dirty = True

    def look(self) -> None:
        """Ask the file itself whether anybody committed."""
        version = self.file.version()
        if version != self.version:
            self.version, self.dirty = version, True

    def close(self) -> None:
        self.socket.close()
        self.file.close()


class EmbeddedReader:
    """See the port's Reader. Belongs to one thread, but for `wake`."""

    def __init__(self, directory: LogDirectory) -> None:
        self._directory = directory
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        self._topics: dict[str, _Followed] = {}
        self._by_fd: dict[int, _Followed] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._order: list[TopicPartition] = []
        self._woken = False
        self._lock = threading.Lock()
        self._closed = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._check_open()
        wanted = {topic for topic, _ in positions}
        for topic in wanted - self._topics.keys():
            followed = self._topics[topic] = _Followed(self._directory, topic)
            self._by_fd[followed.socket.fileno()] = followed
            self._poll.register(followed.socket.fileno(), select.POLLIN)
        for topic in self._topics.keys() - wanted:
            self._drop(topic)
        for topic, partition in positions:
            if not 0 <= partition < self._topics[topic].file.partitions:
                raise LogError(f"{topic} has no partition {partition}")
        self._positions = dict(positions)
        self._order = sorted(positions)
        for followed in self._topics.values():
            followed.dirty = True

    def poll(self, timeout_s: float, *, max_bytes: int = 4 << 20) -> list[Record]:
        self._check_open()
        deadline = time.monotonic() + timeout_s
        self._wait(0.0)
        while True:
            for followed in self._topics.values():
                if not followed.dirty:
                    followed.look()
            records = self._read(max_bytes)
            left = deadline - time.monotonic()
            if records or self._woken or left <= 0:
                self._woken = False
                return records
            self._wait(min(left, _FALLBACK_S))

    def wake(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._wake_fd)
        for topic in list(self._topics):
            self._drop(topic)

    def _read(self, max_bytes: int) -> list[Record]:
        """What is there, at most READ_MAX_RECORDS; every partition comes first in its turn."""
        dirty = {topic for topic, followed in self._topics.items() if followed.dirty}
        for topic in dirty:
            followed = self._topics[topic]
            # asked before the read, so that what is committed after it shows as a change
            followed.version, followed.dirty = followed.file.version(), False
        records: list[Record] = []
        advanced: dict[TopicPartition, int] = {}
        left = max_bytes
        for place in self._order:
            topic, partition = place
            if topic not in dirty:
                continue
            followed = self._topics[topic]
            room = READ_MAX_RECORDS - len(records)
            if room <= 0 or left <= 0:
                followed.dirty = True
                continue
            try:
                got, cut = followed.file.read(partition, self._positions[place], room, left)
            except BaseException:
                for topic in dirty:  # nothing of this round is handed out
                    self._topics[topic].dirty = True
                raise
            if cut:
                followed.dirty = True
            if got:
                left -= sum([len(record.value) for record in got])
                records += got
                advanced[place] = got[-1].offset + 1
        self._positions.update(advanced)
        if self._order:
            self._order.append(self._order.pop(0))
        return records

    def _wait(self, timeout_s: float) -> None:
        for fd, _ in self._poll.poll(timeout_s * 1000):
            if fd == self._wake_fd:
                os.eventfd_read(fd)
                self._woken = True
            else:
                followed = self._by_fd[fd]
                followed.socket.drain()
                followed.dirty = True

    def _drop(self, topic: str) -> None:
        followed = self._topics.pop(topic)
        self._poll.unregister(followed.socket.fileno())
        del self._by_fd[followed.socket.fileno()]
        followed.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError("the reader is closed")
