"""One table file for reading: opening it, a look at one commit, a copy, and the samples of a host in order."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw

from dimint.consumers.reading_host import LAST_NS, HostSamples
from dimint.consumers.rows import Placed
from dimint.errors import CorruptRecord

__all__ = ["copy_tables", "open_read_only", "samples_in_order", "snapshot"]

_BUSY_MS: Final = 5_000


def copy_tables(path: Path, into: Path) -> None:
    """A copy of the live table file, as one commit left it, while others go on. Raises what apsw raises."""
    source, target = open_read_only(path), apsw.Connection(str(into))
    try:
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(10_000)
    finally:
        target.close()
        source.close()


def open_read_only(path: Path) -> apsw.Connection:
    """A connection that cannot write. Raises what apsw raises if that is no table file."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=256)
    try:
        db.set_busy_timeout(_BUSY_MS)
        db.execute("select value from meta where name = 'sequence'").fetchall()
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def snapshot(db: apsw.Connection) -> Iterator[None]:
    """One read transaction: everything inside sees the same commit. Raises CorruptRecord for a damaged file."""
    try:
        with db:
            yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise CorruptRecord(f"the status tables are damaged: {error}", hint="rebuild them") from error


def samples_in_order(db: apsw.Connection, host: str) -> Iterator[Placed]:
    """Every sample of a host, oldest first; for whoever checks or copies whole tables."""
    return HostSamples(db, host).up(0, LAST_NS, -1)
