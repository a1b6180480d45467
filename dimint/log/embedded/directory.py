"""Where an embedded log lies: the directory, its generation, its locks, and the sockets that wake readers.

::

    <data_dir>/log/
        generation               32 hex digits, made once; what identifies this log for ever
        lock                     flock: making the generation and topics
        <topic>.sqlite           one file a topic (with SQLite's own -wal and -shm beside it)
        <topic>.lock             flock: every commit and every checkpoint of that file
        wake/<topic>/<random>    one datagram socket a waiting reader
"""

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dimint.errors import LogError, LogMismatch, SettingsError

__all__ = ["LOG_FOLDER", "LogDirectory", "network_filesystem"]

LOG_FOLDER = "log"
"""The log's folder in a data directory."""

_TOPIC = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_GENERATION = re.compile(r"[0-9a-f]{32}")
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|ncpfs|afs|coda|9p|ceph|lustre|gpfs|beegfs|pvfs2|orangefs|gfs2?|ocfs2"
    r"|fuse\.(sshfs|glusterfs|ceph|ceph-fuse|s3fs|rclone|gcsfuse|davfs2|curlftpfs|moosefs|mfs|lizardfs|juicefs).*"
)


def network_filesystem(mountinfo: str, path: str) -> str | None:
    """Type of the file system that holds the absolute `path`, if it is reached over a network; else None.

    `mountinfo` is the text of /proc/self/mountinfo. SQLite's shared memory and locks do not work across machines.
    """
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        mount = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        inside = mount == "/" or path == mount or path.startswith(mount + "/")
        if inside and len(mount) >= best:  # of equal ones the later mount covers the earlier
            best, kind = len(mount), fields[fields.index("-", 6) + 1]
    return kind if _NETWORK.fullmatch(kind) else None


class LogDirectory:
    """The directory of one embedded log; makes it if it is not there. Safe to open from many processes at once.

    Raises SettingsError if the directory cannot be made or lies on a network file system, LogMismatch if its generation
    is unreadable or lost.
    """

    def __init__(self, data_dir: str | Path) -> None:
        self.path = Path(data_dir).absolute() / LOG_FOLDER
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            real = os.path.realpath(self.path)
            kind = network_filesystem(_read_text("/proc/self/mountinfo"), real)
        except OSError as error:
            raise SettingsError(f"cannot keep a log in {self.path}: {error.strerror}") from error
        if kind is not None:
            raise SettingsError(
                f"{self.path} lies on a network file system ({kind})", hint="put the embedded log on a local disk"
            )
        with self.lock("lock"):
            self.generation = self._read_or_make_generation()
        self._fd: int | None = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    def topics(self) -> list[str]:
        """Names of the topics whose files are there, sorted."""
        return sorted(file.name.removesuffix(".sqlite") for file in self.path.glob("*.sqlite"))

    def topic_file(self, topic: str) -> Path:
        """Raises LogError for a name that cannot be a file's."""
        if not _TOPIC.fullmatch(topic):
            raise LogError(f"{topic!r} cannot be the name of a topic")
        return self.path / f"{topic}.sqlite"

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the flock on the file `name`; the kernel frees it when the holder dies."""
        fd = self.open_lock(name)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def open_lock(self, name: str) -> int:
        """A descriptor to call flock on; the caller closes it."""
        return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def sync(self) -> None:
        """Make the directory's entries durable."""
        _sync_directory(self.path)

    def bind_wake(self, topic: str) -> "WakeSocket":
        """A new socket that gets one datagram after each commit to the topic."""
        if self._fd is None:
            raise LogError("the log is closed")
        (self.path / "wake" / topic).mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"wake/{topic}/{secrets.token_hex(8)}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind(self._short(name))
        except OSError:
            sock.close()
            raise
        return WakeSocket(sock, self.path / name)

    def waker(self, topic: str) -> "Waker":
        assert self._fd is not None
        return Waker(self.path / "wake" / topic, self._short(f"wake/{topic}"))

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _short(self, name: str) -> str:
        # a socket's address takes 108 bytes at most; through the descriptor the data directory may lie as deep as it likes
        return f"/proc/self/fd/{self._fd}/{name}"

    def _read_or_make_generation(self) -> str:
        file = self.path / "generation"
        try:
            text = file.read_text().strip()
        except FileNotFoundError:
            if self.topics():
                raise LogMismatch(
                    f"{file} is missing, but there are topics", hint="restore it, or move the directory away"
                ) from None
            text = secrets.token_hex(16)
            fresh = self.path / "generation.new"
            with open(fresh, "w") as stream:
                stream.write(text + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(fresh, file)
            self.sync()
            _sync_directory(self.path.parent)
        if not _GENERATION.fullmatch(text):
            raise LogMismatch(f"{file} does not hold a generation", hint="restore it, or move the directory away")
        return text


class WakeSocket:
    """A reader's end: readable when something was committed since `drain`."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self._socket, self._path = sock, path

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(16)

    def close(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()
        self._socket.close()


class Waker:
    """The committer's end: one datagram to every reader of a topic; sockets whose reader died are removed."""

    _FRESH_NS = 100_000_000
    """A listing is trusted only if the directory had not changed for so long: two changes may share one mtime."""

    def __init__(self, directory: Path, short: str) -> None:
        self._directory, self._short = directory, short
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._names: list[str] = []
        self._listed_at_ns = -1

    def wake(self, now_ns: int) -> None:
        """Wake all. A reader that cannot be reached finds out by itself within its fallback interval."""
        try:
            changed_ns = os.stat(self._directory).st_mtime_ns
            if self._listed_at_ns < changed_ns + self._FRESH_NS:
                self._names = [f"{self._short}/{name}" for name in os.listdir(self._directory)]
                self._listed_at_ns = now_ns
        except OSError:
            return  # no reader has ever been there, or nobody can be found
        for name in self._names:
            try:
                self._socket.sendto(b"", name)
            except ConnectionRefusedError:
                with suppress(OSError):
                    os.unlink(name)
            except OSError:
                continue  # woken already and not awake yet, or gone since the listing

    def close(self) -> None:
        self._socket.close()


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
