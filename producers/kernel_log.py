"""The kernel's log, as far as it tells of XIDs: what is new since the last look. Nothing where it may not be read."""

import os
from collections.abc import Iterator
from pathlib import Path

from dimint.producers.xid import KernelXid, kernel_xid

__all__ = ["KernelLog"]

_RECORDS_MAX = 1000
_RECORD_MAX_BYTES = 8192


class KernelLog:
    """Belongs to one thread. It begins at the log's end: what happened before the agent's start was somebody else's."""

    def __init__(self, path: Path = Path("/dev/kmsg")) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self._fd = -1

    @property
    def readable(self) -> bool:
        return self._fd >= 0

    def xids(self) -> Iterator[KernelXid]:
        """What came since the last call; of a storm the rest comes with the next call."""
        for _ in range(_RECORDS_MAX if self.readable else 0):
            try:
                data = os.read(self._fd, _RECORD_MAX_BYTES)
            except BrokenPipeError:  # records were overwritten before we came: go on with the oldest one that is left
                continue
            except OSError:  # nothing new
                return
            if not data:
                return
            for record in data.decode("utf-8", "replace").splitlines():
                found = kernel_xid(record)
                if found is not None:
                    yield found

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
