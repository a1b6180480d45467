"""One number for all that the status tables hold, equal for equal content however it was committed."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgpack

from dimint.consumers.reading import CURRENT
from dimint.consumers.reading_file import open_read_only, samples_in_order
from dimint.consumers.tiers import unpack_block

__all__ = ["table_digest", "table_rows"]

_HOSTS: Final = """select m.id, m.name, m.given_name, m.claimed_ns, m.ip, m.simulated, m.registered_ns, m.facts, m.renamed,
                          m.merged_into, m.merged_ns,
                          l.samples, l.first_ns, l.last_ns, l.received_ns
                   from machines m left join latest l on l.id = m.id order by m.id"""


def table_digest(path: str | Path) -> str:
    """sha256 over every decoded row, in order, of a tables folder (its live file) or of one table file.

    Hosts with name and facts and what they said before, every sample with its times, tiers, processes, use, gaps, what
    happened, open alerts. Positions, dedupe rows and counts are left out: they also move with events that leave no row. An
    empty system has a digest too.
    """
    digest = sha256()
    for row in table_rows(Path(path)):
        digest.update(msgpack.packb(row))
    return digest.hexdigest()


def table_rows(path: Path) -> Iterator[list[Any]]:
    """What the digest is of, row by row."""
    if path.is_dir():
        try:
            path = path / (path / CURRENT).read_text().strip()
        except FileNotFoundError:
            return
    db = open_read_only(path)
    try:
        with db:
            hosts = list(db.execute(_HOSTS))
            for host in hosts:
                yield ["host", *host]
                for n, stored in samples_in_order(db, host[0]):
                    yield ["sample", n, *stored]
            for host, length, block, blob in db.execute("select host, length_ns, block, blob from tiers order by 1, 2, 3"):
                yield ["tier", host, length, block, *sorted(unpack_block(blob).items())]
            for process in db.execute("select * from processes order by 1, 2, 3, 4, 5"):
                yield ["process", *process]
            for use in db.execute("select * from used order by 1, 2, 3"):
                yield ["used", *use]
            for covered in db.execute("select * from covered order by 1, 2"):
                yield ["covered", *covered]
            for total in db.execute("select * from totals order by 1, 2"):
                yield ["total", *total]
            for xid in db.execute("select * from xids order by 1, 2, 3"):
                yield ["xid", *xid]
            for version in db.execute("select * from versions order by host, n"):
                yield ["version", *version]
            for gap in db.execute("select host, run, first_seq, last_seq, reason, timestamp from gaps order by 1, 2, 3, 4"):
                yield ["gap", *gap]
            for event in db.execute("select host, n, kind, timestamp, received_ns, fields from events order by 1, 2"):
                yield ["event", *event]
            for alert in db.execute("select * from alerts order by host, rule, subject"):
                yield ["alert", *alert]
    finally:
        db.close()
