"""Opening a log that must be there, to be closed by `with`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dimint.errors import SettingsError
from dimint.log import opening
from dimint.log.port import Log
from dimint.system_clock import SystemClock

__all__ = ["open_log"]


@contextmanager
def open_log(location: str | Path) -> Iterator[Log]:
    """The log at a data directory or `kafka://host:port[,…][/name]`. Raises SettingsError if there is none."""
    if opening.is_missing(location):
        raise SettingsError(f"there is no log in {location}", hint="name a data directory with one, or kafka://host:port")
    log = opening.open_log(location, clock=SystemClock())
    try:
        yield log
    finally:
        log.close()
