"""The embedded log: one directory, any number of processes that append and read at once."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from dimint.clock import Clock
from dimint.errors import LogError, RecordTooLarge
from dimint.limits import RECORD_MAX_BYTES
from dimint.log.embedded.commit import COMMIT_MAX_BYTES, QUICK_S, Committer
from dimint.log.embedded.directory import LogDirectory
from dimint.log.embedded.reader import EmbeddedReader
from dimint.log.embedded.topic import TopicFile
from dimint.log.port import Bounds, Entry, LogDescription, LogHealth, Record, TopicHealth, TopicSpec

__all__ = ["EmbeddedLog"]


class EmbeddedLog:
    """See the port's Log. All methods may be called from any thread.

    `append` commits by itself as long as commits take less than `quick_s`; else a thread of the log does.
    """

    def __init__(self, data_dir: str | Path, *, clock: Clock, quick_s: float = QUICK_S) -> None:
        self._directory = LogDirectory(data_dir)
        self._committer = Committer(self._directory, clock, quick_s)
        self._lock = threading.Lock()
        self._files: dict[str, TopicFile] = {}
        self._partitions: dict[str, int] = {}
        self._closed = False

    def describe(self) -> LogDescription:
        topics = {}
        for topic in self._directory.topics():
            try:
                topics[topic] = self._partitions.get(topic) or self._learn(topic)
            except LogError as error:
                if type(error) is not LogError:  # but not for a topic that another process is just making
                    raise
        return LogDescription(
            kind="embedded",
            url=str(self._directory.path.parent),
            generation=self._directory.generation,
            topics=topics,
            durability="fsync before every acknowledgement: survives a power loss of this machine, not the loss of its disk",
            end_is_linearizable=True,
            together_max_bytes=COMMIT_MAX_BYTES,
        )

    def health(self) -> LogHealth:
        self._check_open()
        description = self.describe()
        topics = sorted(description.topics.items())
        return LogHealth(description.durability, (), tuple(TopicHealth(name, count, 1, 1, 0, 0) for name, count in topics))

    def create(self, topics: Sequence[TopicSpec]) -> None:
        self._check_open()
        for spec in topics:
            TopicFile.create(self._directory, spec)

    def append(self, entries: Sequence[Entry]) -> list[Future[int]]:
        for topic, partition, value in entries:
            if not 0 <= partition < (self._partitions.get(topic) or self._learn(topic)):
                raise LogError(f"{topic} has no partition {partition}")
            if len(value) > RECORD_MAX_BYTES:
                raise RecordTooLarge(f"a record of {len(value)} bytes is over the limit of {RECORD_MAX_BYTES}")
        return self._committer.append(entries)

    def read(self, topic: str, partition: int, offset: int, *, max_records: int = 1000, max_bytes: int = 4 << 20) -> list[Record]:
        with self._file(topic, partition) as file:
            return file.read(partition, offset, max_records, max_bytes)[0]

    def bounds(self, topic: str, partition: int) -> Bounds:
        with self._file(topic, partition) as file:
            return file.bounds(partition)

    def offset_at(self, topic: str, partition: int, time_ns: int) -> int:
        with self._file(topic, partition) as file:
            return file.offset_at(partition, time_ns)

    def trim(self, topic: str, partition: int, before: int) -> None:
        with self._file(topic, partition):
            file = TopicFile(self._directory, topic)  # of its own: a long trim must not make other calls wait
        try:
            file.trim(partition, before)
        finally:
            file.close()

    def reader(self) -> EmbeddedReader:
        self._check_open()
        return EmbeddedReader(self._directory)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._committer.close()
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
        self._directory.close()

    def _learn(self, topic: str) -> int:
        with self._file(topic, 0) as file:
            return file.partitions

    @contextmanager
    def _file(self, topic: str, partition: int) -> Iterator[TopicFile]:
        """The shared connection of the calls above, one caller at a time."""
        with self._lock:
            self._check_open()
            file = self._files.get(topic)
            if file is None:
                file = self._files[topic] = TopicFile(self._directory, topic)
                self._partitions[topic] = file.partitions
            if not 0 <= partition < file.partitions:
                raise LogError(f"{topic} has no partition {partition}")
            yield file

    def _check_open(self) -> None:
        if self._closed:
            raise LogError("the log is closed")
