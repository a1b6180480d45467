"""Programs that read the log and are no parts of the system tell it what they still need (dimint/readers.py).

A reader that has ended stays known until somebody forgets it: it may come back, and needs what came meanwhile.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final

from dimint.errors import RegistryError, RegistryLost, SettingsError, VersionConflict
from dimint.limits import READER_NAME_MAX_CHARS, READERS_MAX
from dimint.load import load
from dimint.log.port import Log
from dimint.readers import READERS_PATH, ReaderSeen, decode_readers, encode_readers
from dimint.registry.opening import open_registry
from dimint.registry.port import Registry
from dimint.replay.positions import Positions
from dimint.settings import ToolSettings
from dimint.system_clock import SystemClock

__all__ = ["KnownReader", "forget_reader", "known_reader", "readers_in", "tell_reader"]

TELL_S: Final = 10.0
"""How often a reader that goes on tells where it is."""


def readers_in(registry: Registry) -> dict[str, ReaderSeen]:
    """Name → what that reader told last. Raises RegistryError."""
    stored = registry.get(READERS_PATH)
    return decode_readers(None if stored is None else stored.value)


def tell_reader(registry: Registry, name: str, seen: ReaderSeen) -> None:
    """Say what a reader needs. Raises SettingsError for a name that is none or if there are too many, RegistryError."""
    if not 1 <= len(name) <= READER_NAME_MAX_CHARS or not name.isprintable():
        raise SettingsError(f"a reader's name has 1 to {READER_NAME_MAX_CHARS} printable characters")
    _change(registry, {name: seen})


def forget_reader(registry: Registry, name: str) -> bool:
    """Nothing is kept for that reader any more; whether it was known. Raises RegistryError."""
    known = name in readers_in(registry)
    _change(registry, {name: None})
    return known


class KnownReader:
    """A program that tells where it is: `run(projection, log, reader=…)` does so. The registry is the caller's."""

    def __init__(self, name: str, generation: str, registry: Registry) -> None:
        self._name, self._generation, self._registry = name, generation, registry
        self._next_s: float | None = None

    def needs(self, positions: Positions, *, now: bool = False) -> None:
        """The first record of each partition that is needed. It is told now, or if that was not done for a while.

        What was told before stays where the registry does not answer: it keeps more, never less. Raises RegistryLost, and
        the first time RegistryError.
        """
        first = self._next_s is None
        if self._next_s is not None and time.monotonic() < self._next_s and not now:
            return
        try:
            seen = ReaderSeen(self._generation, positions, socket.gethostname(), SystemClock().time_ns())
            tell_reader(self._registry, self._name, seen)
        except RegistryLost:
            raise
        except RegistryError:
            if first:
                raise
        self._next_s = time.monotonic() + TELL_S


@contextmanager
def known_reader(name: str, log: Log, /, **settings: object) -> Iterator[KnownReader]:
    """A reader of this log under a name of its own, for `run`. `settings` say where the registry is, as the flags of every
    command: data_dir, or log and zookeeper_hosts, …

    Raises SettingsError, RegistryError, or LogMismatch if the registry is of another log.
    """
    generation = log.describe().generation
    found = load(ToolSettings, flags=settings, environ=os.environ)
    with closing(open_registry(found, log_id=generation)) as registry:
        yield KnownReader(name, generation, registry)


def _change(registry: Registry, changes: Mapping[str, ReaderSeen | None]) -> None:
    while True:
        stored = registry.get(READERS_PATH)
        readers = decode_readers(None if stored is None else stored.value)
        for name, seen in changes.items():
            if seen is None:
                readers.pop(name, None)
            else:
                readers[name] = seen
        if len(readers) > READERS_MAX:
            raise SettingsError(f"more than {READERS_MAX} readers are known", hint="dimint reader forget removes one")
        try:
            registry.put(READERS_PATH, encode_readers(readers), version=0 if stored is None else stored.version)
        except VersionConflict:  # another reader told something at the same time
            continue
        return
