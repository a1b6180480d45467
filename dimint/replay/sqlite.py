"""Projections into a SQLite file: its tables and the checkpoint change in one transaction."""

from pathlib import Path
from typing import ClassVar, Final, Self

import apsw

from dimint.errors import LogMismatch
from dimint.log.embedded.topic import check_sqlite
from dimint.replay.projection import Checkpoint, Projection

__all__ = ["SqliteProjection"]

_BUSY_MS: Final = 10_000


class SqliteProjection(Projection):
    """Subclass it: `schema` makes the tables of a new file, `apply` changes them through `db`, an apsw connection.

    Transactions are the runner's: `apply` executes statements and nothing else. Others may read the file at any time and
    see the state of a commit. Raises LogMismatch if the file holds something else.
    """

    schema: ClassVar[str] = ""
    """SQL statements for a new file."""

    def __init__(self, path: str | Path) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.db = apsw.Connection(str(path))
        self.db.set_busy_timeout(_BUSY_MS)
        self.db.execute("PRAGMA journal_mode = WAL").fetchall()
        self.db.execute("PRAGMA synchronous = FULL")
        try:
            if not self._tables():  # only then: a runner that has read and wants to write would not wait for this lock
                self.db.execute("BEGIN IMMEDIATE")
                if not self._tables():
                    self.db.execute(
                        "CREATE TABLE dimint_checkpoint(id INTEGER PRIMARY KEY CHECK (id = 1), checkpoint BLOB NOT NULL)"
                    )
                    self.db.execute(self.schema)
                self.db.execute("COMMIT")
            if "dimint_checkpoint" not in self._tables():
                raise LogMismatch(f"{path} is no projection of a log", hint="name a new file")
        except BaseException:
            self.db.close()
            raise
        self.db.execute("BEGIN")

    def _tables(self) -> set[str]:
        return {name for (name,) in self.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}

    def load(self) -> Checkpoint | None:
        self.db.execute("ROLLBACK; BEGIN")
        row = self.db.execute("SELECT checkpoint FROM dimint_checkpoint").fetchone()
        return None if row is None else Checkpoint.from_bytes(row[0])

    def commit(self, checkpoint: Checkpoint) -> None:
        self.db.execute("REPLACE INTO dimint_checkpoint VALUES (1, ?)", (checkpoint.to_bytes(),))
        self.db.execute("COMMIT; BEGIN")

    def close(self) -> None:
        """What was not committed is gone, and applied again by the next run. Idempotent."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
