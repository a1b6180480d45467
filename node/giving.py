"""Snapshots for other nodes: written to files on a thread of their own, given out in parts.

The file is written from what was committed last, as fast as the disk takes it, so that neither the store nor a slow taker
has to wait for the other. A second taker of the same partition gets the same file if it is young.
"""

import contextlib
import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from dimint.errors import BadSnapshot, StoreError
from dimint.genesis import Genesis
from dimint.limits import SNAPSHOT_PART_MAX_BYTES, SNAPSHOTS_MAX
from dimint.node.peering import Done, FromHolder, FromTaker, Making, Offer, Part, Refused, Take, Want
from dimint.node.snapshots import snapshot_pieces
from dimint.node.store import Interrupted, Store

__all__ = ["Giving"]

KEEP_S: Final = 30.0
"""A file that nobody asked for so long is removed."""
FRESH_S: Final = 10.0
"""A file that is not older serves another taker too, and one that was asked for more lately is not removed for the next one."""
TAKEN_S: Final = 0.5
"""The same for a file that a taker has had: another one that is at it asks again and again within much less."""
TRIES: Final = 3

logger = logging.getLogger("dimint.node")


class _File:
    """One snapshot: being made, there, or failed."""

    def __init__(self, id: int, partition: int, path: Path, now: float) -> None:
        self.id, self.partition, self.path = id, partition, path
        self.made_at = self.asked_at = now
        self.size = 0
        self.failed: str | None = None
        self.fd = -1
        self.was_taken = False


class Giving:
    """`has` says why a partition cannot be given, None if it can. `answer` and `tick` are called by the node's own thread,
    `run` is the writing one."""

    def __init__(self, store: Store, genesis: Genesis, *, has: Callable[[int], str | None]) -> None:
        self._store, self._genesis, self._has = store, genesis, has
        self._folder = store.directory / "snapshots"
        self._ids = count(1)
        self._files: dict[int, _File] = {}
        self._work: deque[_File] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        shutil.rmtree(self._folder, ignore_errors=True)

    def answer(self, message: FromTaker, now: float) -> FromHolder | None:
        """What to say to a taker; None for nothing."""
        if isinstance(message, Take):
            return self._take(message, now)
        file = self._files.get(message.id)
        if isinstance(message, Done):
            if file is not None:
                file.was_taken = True  # another taker may be at it: it goes when nobody asks any more
            return None
        if file is None or file.fd < 0:
            return Refused(-1, f"there is no snapshot {message.id} here")
        return self._part(file, message, now)

    def tick(self, now: float) -> None:
        """Remove what nobody asks for."""
        for file in list(self._files.values()):
            if now - file.asked_at >= KEEP_S and (file.fd >= 0 or file.failed is not None):
                self._remove(file)

    def run(self) -> None:
        """Write what is asked for, until `stop`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or bool(self._work))
                if self._stopping:
                    return
                file = self._work.popleft()
            self._make(file)

    def stop(self) -> None:
        """From any thread; idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        """After `run` has returned: nothing is left on the disk. Idempotent."""
        for file in list(self._files.values()):
            self._remove(file)
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- the node's thread ----------------------------------------------------------------------------------------------
    def _take(self, message: Take, now: float) -> FromHolder:
        partition = message.partition
        if message.generation != self._genesis.generation:
            return Refused(partition, f"this node's log is {self._genesis.generation}, not {message.generation}")
        lacks = self._has(partition)
        if lacks is not None:
            return Refused(partition, lacks)
        file = next((one for one in self._files.values() if one.partition == partition and now - one.made_at < FRESH_S), None)
        if file is None:
            if len(self._files) >= SNAPSHOTS_MAX and not self._make_room(now):
                return Making(partition)
            file = _File(next(self._ids), partition, self._folder / f"{partition}-{os.urandom(4).hex()}", now)
            self._files[file.id] = file
            with self._changed:
                self._work.append(file)
                self._changed.notify_all()
        file.asked_at = now
        if file.failed is not None:
            self._remove(file)
            return Refused(partition, file.failed)
        if file.fd < 0:
            file.made_at = now
            return Making(partition)
        return Offer(partition, file.id, file.size)

    def _make_room(self, now: float) -> bool:
        """Let the snapshot go that was not asked for the longest, if it was long."""
        files = [file for file in self._files.values() if file.fd >= 0]
        idle = [file for file in files if now - file.asked_at >= (TAKEN_S if file.was_taken else FRESH_S)]
        if not idle:
            return False
        self._remove(min(idle, key=lambda file: file.asked_at))
        return True

    def _part(self, file: _File, message: Want, now: float) -> FromHolder:
        file.asked_at = now
        size = min(message.size, SNAPSHOT_PART_MAX_BYTES)
        if size <= 0 or not 0 <= message.offset < file.size:
            return Refused(file.partition, f"snapshot {file.id} has {file.size} bytes")
        return Part(file.id, message.offset, os.pread(file.fd, size, message.offset))

    def _remove(self, file: _File) -> None:
        self._files.pop(file.id, None)
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1
        file.path.unlink(missing_ok=True)

    # --- the writing thread ---------------------------------------------------------------------------------------------
    def _make(self, file: _File) -> None:
        for attempt in range(TRIES):
            try:
                size = self._write(file)
                fd = os.open(file.path, os.O_RDONLY)
            except Interrupted as error:
                file.failed = f"the snapshot was interrupted: {error}" if attempt == TRIES - 1 else None
                continue
            except (OSError, StoreError, BadSnapshot) as error:
                with contextlib.suppress(OSError):
                    file.path.unlink(missing_ok=True)
                logger.error("no snapshot of partition %d: %s", file.partition, error)
                file.failed = f"the snapshot cannot be written: {error}"
                return
            file.size = size
            file.fd = fd  # last: from now on it is the other thread's
            return

    def _write(self, file: _File) -> int:
        """The bytes written."""
        self._folder.mkdir(exist_ok=True)
        with self._store.frozen(file.partition) as frozen, file.path.open("wb") as output:
            made = snapshot_pieces(frozen, file.partition, self._genesis)
            if made is None:
                raise Interrupted("nothing is committed yet")
            for piece in made[1]:
                output.write(piece)
                if self._stopping:
                    raise Interrupted("the node ends")
            return output.tell()
