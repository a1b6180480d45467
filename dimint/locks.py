"""Kernel locks on files: held by one open file, gone with the process that holds it, however it ends.

`flock` is used, so a lock belongs to the open file and not to the thread. Files are opened close-on-exec: a program
started by this one does not hold our locks. A child made by `os.fork` alone would; its copies are closed at the fork.
Works on local file systems only.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FileLock", "drop", "is_held", "keep", "locked", "try_flock"]

_RETRY_S = 0.005


class FileLock:
    """An exclusive lock on a file, which is created if need be and never removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Try once; whether this object holds the lock now. Raises OSError if the file cannot be opened."""
        if self._fd is not None:
            return True
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if try_flock(fd, fcntl.LOCK_EX):
            self._fd = keep(fd)
            return True
        os.close(fd)
        return False

    def release(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            drop(fd)


def try_flock(fd: int, kind: int) -> bool:
    """Take the lock on an open file if nobody else is in the way."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def is_held(fd: int) -> bool:
    """Whether another open file holds the exclusive lock on the file behind `fd`. Closing `fd` must be the next step."""
    return not try_flock(fd, fcntl.LOCK_SH)


@contextlib.contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock on `path` for the block. Raises TimeoutError when others hold it for longer than `timeout_s`."""
    lock = FileLock(path)
    deadline = time.monotonic() + timeout_s
    while not lock.acquire():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} is locked by another process")
        time.sleep(_RETRY_S)
    try:
        yield
    finally:
        lock.release()


# --- forks ----------------------------------------------------------------------------------------------------------
_held: set[int] = set()


def keep(fd: int) -> int:
    """Remember a descriptor whose lock must not outlive this process in a forked child."""
    _held.add(fd)
    return fd


def drop(fd: int) -> None:
    """Close a descriptor given to `keep`."""
    _held.discard(fd)
    os.close(fd)


def _close_copies() -> None:
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_copies)
