"""The status consumer: follows the status topic and keeps the live tables at most a moment behind it."""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from dimint.clock import Clock
from dimint.consumers.feeder import Feeder
from dimint.consumers.folder import TablesFolder, first_sequence
from dimint.consumers.rebuild import rebuild_tables
from dimint.consumers.tables_sealing import Keep
from dimint.errors import BadArchive, CorruptRecord, DimintError, LogMismatch, OffsetOutOfRange, SettingsError
from dimint.log.port import Log, Reader

__all__ = ["COMMIT_EVENTS", "COMMIT_S", "StatusConsumer"]

COMMIT_S: Final = 0.2
"""Longest time that a record which was read waits for its commit."""
COMMIT_EVENTS: Final = 2_000
_TELL_S: Final = 5.0
"""How often it tells how far it is, while that changes."""
_LOOK_S: Final = 1.0
"""How often it looks whether a rebuild has switched the tables while nothing comes."""

log = logging.getLogger("dimint.consumer")


class Announce(Protocol):
    """Tells others what this consumer is doing (a registry membership's `update`)."""

    def __call__(self, info: Mapping[str, Any]) -> None: ...


class StatusConsumer:
    """A process object (see dimint/service.py). Owns its reader and its table file; the log is the caller's, and so is the
    folder's consumer lock, which has to be held.

    Tables that do not fit the log are put aside and filled anew from the log, loudly. A partition with a record that
    cannot be read stops, loudly; the others go on.
    """

    def __init__(
        self,
        source: Log,
        folder: TablesFolder,
        clock: Clock,
        announce: Announce = lambda info: None,
        *,
        keep: Keep | None = None,
        archives: Callable[[], Sequence[Path]] = tuple,
    ) -> None:
        """`archives` says which files hold what the log does not have any more: new tables are filled from them first."""
        self._keep, self._archives = keep, archives
        self._log, self._folder, self._clock, self._announce = source, folder, clock, announce
        self._stopping = threading.Event()
        self._put_aside_once = False
        self._told: dict[str, Any] = {}
        self._tell_at = 0.0
        self._reader: Reader = source.reader()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                with contextlib.closing(self._open()) as feeder:
                    self._follow(feeder)
        finally:
            self._reader.close()

    def stop(self) -> None:
        self._stopping.set()
        self._reader.wake()

    # --- inside -----------------------------------------------------------------------------------------------------
    def _open(self) -> Feeder:
        path = self._folder.live()
        if path is not None:
            try:
                return self._opened(path)
            except (LogMismatch, CorruptRecord) as error:
                self._put_aside(path, error)
        path = self._filled_from_archives() or self._folder.new("status")
        feeder = self._opened(path)
        self._folder.switch(path)
        return feeder

    def _filled_from_archives(self) -> Path | None:
        """New tables with everything that ever was in the log, as far as archives and log have it; None without archives."""
        try:
            archives = self._archives()
            if not archives:
                return None
            log.info("new tables are filled from %d archives first", len(archives))
            return rebuild_tables(self._log, self._folder, archives=archives, more=self._archives, keep=self._keep).path
        except (BadArchive, SettingsError) as error:
            log.critical("new tables are filled from the log alone: %s. `dimint rebuild status` repairs it", error)
            return None

    def _put_aside(self, path: Path, error: DimintError) -> None:
        """Once a process: tables that come out damaged again are not a matter of the tables."""
        if self._put_aside_once:
            raise error
        self._put_aside_once = True
        aside = self._folder.quarantine(path)
        log.critical("%s. The file is kept as %s; new tables are filled from the log", error.message, aside.name)

    def _opened(self, path: Path) -> Feeder:
        feeder = Feeder(self._log, path, first_sequence=first_sequence(path), keep=self._keep)
        self._tell(feeder)
        return feeder

    def _tell(self, feeder: Feeder) -> None:
        found = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "tables": str(feeder.tables.path),
            "stopped": {str(partition): why for partition, why in feeder.stopped.items()},
            "positions": {str(place.partition): position for place, position in feeder.positions().items()},
            "dead_letters": feeder.dead_letters,
        }
        self._tell_at = self._clock.monotonic() + _TELL_S
        if found != self._told:
            self._announce(found)
            self._told = found

    def _follow(self, feeder: Feeder) -> None:
        """Feed one table file until it is not the live one any more."""
        try:
            self._feed(feeder)
        except CorruptRecord as error:
            feeder.close()
            self._put_aside(feeder.tables.path, error)

    def _feed(self, feeder: Feeder) -> None:
        self._reader.assign(feeder.positions())
        commit_at: float | None = None
        while not self._stopping.is_set():
            now = self._clock.monotonic()
            if commit_at is not None and (now >= commit_at or feeder.events >= COMMIT_EVENTS):
                feeder.commit()
                commit_at = None
            if commit_at is None and self._folder.live() != feeder.tables.path:
                log.info("the live tables were switched: following them")
                return
            if commit_at is None and now >= self._tell_at:
                self._tell(feeder)
            self._read(feeder, _LOOK_S if commit_at is None else commit_at - now)
            if commit_at is None and feeder.pending:
                commit_at = self._clock.monotonic() + COMMIT_S
        feeder.commit()

    def _read(self, feeder: Feeder, timeout_s: float) -> None:
        try:
            records = self._reader.poll(max(0.0, timeout_s))
        except OffsetOutOfRange as error:
            if error.offset >= error.start:
                raise CorruptRecord(f"the log has lost records that the tables have: {error}") from error
            feeder.skip_trimmed(error.partition, error.start)
            self._reader.assign(feeder.positions())
            return
        if not feeder.take(records):
            self._reader.assign(feeder.positions())
            self._tell(feeder)
