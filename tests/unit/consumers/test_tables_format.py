"""The number of the tables' format says what is in a file."""

import sqlite3
from contextlib import closing
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from dimint.consumers import chunk
from dimint.consumers.rows import FORMAT
from dimint.consumers.tables import StatusTables


def test_other_tables_have_another_number(tmp_path: Path) -> None:
    """Whoever changes the tables or the chunks gives FORMAT a number that no other version has, and writes both down here."""
    StatusTables(tmp_path / "status.db", generation="g").close()
    with closing(sqlite3.connect(tmp_path / "status.db")) as db:
        schema = "\n".join(sql for (sql,) in db.execute("select sql from sqlite_schema where sql not null order by name"))
    assert (FORMAT, chunk.VERSION, xxh3_64_hexdigest(schema.encode())) == (12, 2, "8498704ea4193ed7")
