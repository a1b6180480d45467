"""The folder of the status tables: numbered files, one of them live.

::

    <data_dir>/tables/
        CURRENT                name of the live file; replaced in one step
        status-000001.db       a table file (with SQLite's own -wal and -shm beside it); numbers are never used twice
        building-000002.db     one that a rebuild is filling
        begun.json             what that rebuild was begun for (dimint/begun.py)
        quarantined-000001.db  one that does not fit the log any more, kept for whoever wants to know why
        consumer.lock          held by the one process that writes the live file
        rebuild.lock           held by the one process that rebuilds
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dimint.begun import note_begun, was_begun
from dimint.consumers.reading import CURRENT
from dimint.errors import SettingsError
from dimint.locks import FileLock

__all__ = ["TablesFolder", "first_sequence"]

_NAME: Final = re.compile(r"(status|building|quarantined)-(\d{6,})\.db")
_NOTE: Final = "begun.json"
_SIDES: Final = ("", "-wal", "-shm", "-journal")


class TablesFolder:
    """One folder, which is made if it is not there. Raises SettingsError if that cannot be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"cannot make {path}: {error.strerror}", hint="choose another --data_dir") from error

    def lock_consumer(self) -> FileLock:
        """The right to write the live file. Raises SettingsError if another process has it."""
        return self._lock("consumer.lock", "another status consumer already writes")

    def lock_rebuild(self) -> FileLock:
        """The right to rebuild. Raises SettingsError if another process has it."""
        return self._lock("rebuild.lock", "another rebuild is at work in")

    def live(self) -> Path | None:
        """The live file, if there is one."""
        try:
            name = (self.path / CURRENT).read_text().strip()
        except FileNotFoundError:
            return None
        found = _NAME.fullmatch(name)
        path = self.path / name
        return path if found and path.exists() else None

    def new(self, prefix: str) -> Path:
        """A new empty file with the next number, `status` or `building`."""
        number = max((int(found[2]) for found in self._files()), default=0)
        while True:
            number += 1
            path = self.path / f"{prefix}-{number:06d}.db"
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except FileExistsError:
                continue
            return path

    def switch(self, path: Path) -> Path:
        """Make a closed file the live one, in one step; its name from now on."""
        live = path.with_name(path.name.replace("building-", "status-"))
        if live != path:
            os.replace(path, live)
        pointer = self.path / f"{CURRENT}.new"
        with pointer.open("w") as file:
            file.write(f"{live.name}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(pointer, self.path / CURRENT)
        return live

    def quarantine(self, path: Path) -> Path:
        """Put a closed file aside, in place of the last one that was."""
        for found in self._files():
            if found[1] == "quarantined":
                self.remove(self.path / found[0])
        aside = path.with_name(path.name.replace("status-", "quarantined-"))
        for side in _SIDES:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{side}", f"{aside}{side}")
        return aside

    def remove(self, path: Path) -> None:
        """Remove a file; whoever has it open reads on."""
        for side in _SIDES:
            Path(f"{path}{side}").unlink(missing_ok=True)

    def unfinished(self, what: Mapping[str, object]) -> Path:
        """The file to rebuild in: the one that a rebuild for exactly `what` left unfinished, else a new one.

        What other rebuilds left is removed. Only under the rebuild's lock.
        """
        left = sorted(found[0] for found in self._files() if found[1] == "building")
        note = self.path / _NOTE
        going_on = left[-1] if left and was_begun(note, {**what, "file": left[-1]}) else None
        for name in left:
            if name != going_on:
                self.remove(self.path / name)
        if going_on is not None:
            return self.path / going_on
        path = self.new("building")
        note_begun(note, {**what, "file": path.name})
        return path

    def _files(self) -> list[re.Match[str]]:
        return [found for name in os.listdir(self.path) if (found := _NAME.fullmatch(name))]

    def _lock(self, name: str, problem: str) -> FileLock:
        lock = FileLock(self.path / name)
        if not lock.acquire():
            raise SettingsError(f"{problem} {self.path}", hint="stop it first, or give this one another --data_dir")
        return lock


def first_sequence(path: Path) -> int:
    """Where the sequence of a file starts: above every sequence of files with lower numbers."""
    found = _NAME.fullmatch(path.name)
    return int(found[2]) << 32 if found else 0
