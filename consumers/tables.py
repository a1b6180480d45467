"""The status tables on disk: one SQLite file, written by one process, in which data and position commit together.

Tables of a file (docs/operations.md has them for people):

    meta        format, log generation, sequence (counts commits that changed a host)
    positions   a row a partition: next offset, last record taken and its hash, log time
    writers     dedupe rows of the batch writers (dimint/dedupe.py)
    machines    a row a host: id, name, ip, facts
    versions    what each host said of itself since when, a row a change
    latest      a row a host: how many samples, first, last, received, sequence of its last change, oldest single row
    newest      a row a host: its newest sample once more, so that all hosts are read with one statement
    chunks      a row a chunk: first and last time, and where in the host's table it is
    runs, gaps  samples seen and samples lost, a row a run and a row a gap
    events      what happened on a host, a row an event
    alerts      a row an open alert
    tiers       samples summed up by minute and hour (consumers/tiers.py), processes on GPUs (consumers/intervals.py):
    processes   of the samples in chunks; what is still in single rows is added by who reads
    used        GPU time by hour, host and user, and how much of it is known at all (consumers/usage.py)
    covered
    counts      what was passed over, by reason
    host_<id>   the samples: (timestamp, blob), single rows at the end, chunks before them (consumers/rows.py)

Commits do not wait for the disk: a power cut may take the last ones, and the log has them.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from dimint.consumers.projection import (
    Changes,
    DropAlert,
    DropHost,
    HostFacts,
    HostLatest,
    MakeHost,
    MarkTold,
    PutAlert,
    PutEvent,
    PutGap,
    PutTail,
    PutVersion,
    RunRow,
    Seal,
    Write,
)
from dimint.consumers.rows import FORMAT
from dimint.consumers.status import StatusProjection
from dimint.consumers.tables_sealing import FOR_EVER, Keep, Sealer, let_go
from dimint.consumers.tables_summaries import SUMMARIES_SCHEMA, add_use, add_xid
from dimint.dedupe import WriterRow
from dimint.errors import CorruptRecord, LogMismatch

__all__ = ["FORMAT", "PartitionState", "StatusTables"]

_FACTS: Final = """select id, given_name, claimed_ns, ip, facts, simulated, registered_ns, renamed, merged_into, merged_ns
                   from machines"""
_OF_HOSTS: Final = (
    ("machines", "id"),
    ("latest", "id"),
    *(
        (table, "host")
        for table in (
            "newest", "chunks", "runs", "gaps", "events", "alerts", "versions", "tiers", "processes", "used", "covered", "totals",
            "xids",
        )
    ),
)  # fmt: skip
"""Where rows of hosts stand, and in which column their ids."""
_FULL_WAIT_MS: Final = 30_000

_SCHEMA: Final = """
create table meta(name text primary key, value) without rowid;
create table positions(partition integer primary key, position integer not null, last_offset integer, last_hash blob,
                       log_time_us integer not null);
create table writers(partition integer, writer blob, number integer not null, log_time_us integer not null,
                     primary key(partition, writer)) without rowid;
create table machines(id text primary key, name text not null, ip text not null, given_name text not null,
                      claimed_ns integer not null, simulated integer not null, registered_ns integer not null,
                      facts blob not null, renamed text not null, merged_into text not null, merged_ns integer not null);
create index machines_name on machines(name);
create index machines_merged on machines(merged_into) where merged_into <> '';
create table versions(host text, n integer, since_ns integer not null, given_name text not null, claimed_ns integer not null,
                      ip text not null, facts blob not null, simulated integer not null, renamed text not null,
                      primary key(host, n)) without rowid;
create table latest(id text primary key, samples integer not null, first_ns integer, last_ns integer, received_ns integer,
                    changed integer not null, single_ns integer) without rowid;
create table newest(host text primary key, n integer not null, timestamp integer not null, blob blob not null);
create table chunks(host text, timestamp integer, n integer, until integer not null,
                    primary key(host, timestamp, n)) without rowid;
create table runs(host text, run blob, used_us integer not null, ranges blob not null, primary key(host, run)) without rowid;
create table gaps(host text, run blob, first_seq integer, last_seq integer, reason text not null, timestamp integer not null,
                  primary key(host, run, first_seq, last_seq)) without rowid;
create table events(host text, n integer, kind text not null, timestamp integer not null, received_ns integer not null,
                    fields blob not null, primary key(host, n)) without rowid;
create index events_time on events(timestamp);
create table alerts(host text, rule text, subject text, severity text not null, since_ns integer not null,
                    raised_ns integer not null, text text not null, told integer not null default 0,
                    primary key(host, rule, subject)) without rowid;
create index events_of_host on events(host, timestamp);
create table counts(name text primary key, n integer not null) without rowid;
"""
_NEWEST_VERSIONS: Final = "select host, max(n) + 1, max(since_ns) from versions group by host"
_NEWEST: Final = """insert into newest values(?1, ?2, ?3, ?4) on conflict do update set n = ?2, timestamp = ?3, blob = ?4
                    where (?3, ?2) > (timestamp, n)"""
_LATEST: Final = """insert into latest values(?1, ?2, ?3, ?4, ?5, ?6, ?7) on conflict do update
                    set samples = ?2, first_ns = ?3, last_ns = ?4, received_ns = ?5, changed = ?6,
                        single_ns = min(ifnull(single_ns, ?7), ifnull(?7, single_ns))"""
_OLDEST_SINGLE: Final = "update latest set single_ns = (select min(timestamp) from TABLE where sealed = 0) where id = ?"
_HOST_TABLE: Final = """
create table TABLE(n integer primary key, timestamp integer not null, sealed integer not null, blob blob not null);
create index TABLE_time on TABLE(sealed, timestamp);
"""


class PartitionState(NamedTuple):
    """How far one partition was read. `last_offset` is the last record taken and `last_hash` the xxh3_128 of its value."""

    position: int
    last_offset: int | None
    last_hash: bytes | None
    log_time_us: int


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """SQLite's word for a damaged file becomes ours."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise CorruptRecord(f"{path} is damaged: {error}", hint="rebuild the status tables") from error


class StatusTables:
    """Owns one table file. One thread; `close` it.

    Raises LogMismatch for a file of another format and CorruptRecord for a damaged one, at any time.
    """

    def __init__(self, path: Path, *, generation: str = "", sequence: int = 0, keep: Keep | None = None) -> None:
        """Open the file, or make it for the log `generation` with a first `sequence`.

        `keep` counts from now on; None goes on with what counted before, in a new file for ever.
        """
        self.path = path
        self.keep = FOR_EVER
        self._db = apsw.Connection(str(path), statementcachesize=512)
        try:
            with _damage_named(path):
                self._prepare(generation, sequence, keep)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, generation: str, sequence: int, keep: Keep | None) -> None:
        self._db.set_busy_timeout(_FULL_WAIT_MS)
        self._db.pragma("journal_mode", "wal")
        self._db.pragma("synchronous", 1)
        self._db.pragma("cache_size", -65536)
        if not self._db.table_exists("main", "meta"):
            with self._db:
                self._db.execute(_SCHEMA + SUMMARIES_SCHEMA)
                rows = [("format", FORMAT), ("generation", generation), ("sequence", sequence)]
                self._db.executemany("insert into meta values(?, ?)", rows)
        found = self._meta("format")
        if found != FORMAT:
            raise LogMismatch(f"{self.path} has format {found}, this program writes {FORMAT}", hint="rebuild the status tables")
        self.generation: str = self._meta("generation")
        if keep is not None and keep != self._kept():
            self._db.execute("insert or replace into meta values('keep', ?)", (json.dumps(keep),))
        self.keep = self._kept()
        self._sequence: int = self._meta("sequence")

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    @property
    def sequence(self) -> int:
        """Counts commits that changed a host."""
        return self._sequence

    # --- loading ----------------------------------------------------------------------------------------------------
    def partitions(self) -> dict[int, PartitionState]:
        """How far every partition was read of which anything was."""
        with _damage_named(self.path):
            rows = self._db.execute("select partition, position, last_offset, last_hash, log_time_us from positions")
            return {row[0]: PartitionState(*row[1:]) for row in rows}

    def writers(self, partition: int) -> list[tuple[bytes, WriterRow]]:
        """The dedupe rows of one partition."""
        with _damage_named(self.path):
            rows = self._db.execute("select writer, number, log_time_us from writers where partition = ?", (partition,))
            return [(writer, WriterRow(number, time)) for writer, number, time in rows]

    def projection(self, partitions: int) -> StatusProjection:
        """The projection as it was at the last commit."""
        with _damage_named(self.path):
            execute = self._db.execute
            facts = execute(_FACTS)
            return StatusProjection(
                partitions,
                facts=[HostFacts(*row)._replace(simulated=bool(row[5])) for row in facts],
                latest=[HostLatest(*row) for row in execute("select id, samples, first_ns, last_ns, received_ns from latest")],
                runs=[RunRow(*row) for row in execute("select host, run, used_us, ranges from runs")],
                names=dict(execute("select id, name from machines")),
                events=dict(execute("select host, max(n) + 1 from events group by host")),
                versions={
                    row[0]: row[1:] for row in execute("select host, max(n) + 1, max(since_ns) from versions group by host")
                },
            )

    # --- committing -------------------------------------------------------------------------------------------------
    def commit(
        self,
        changes: Changes,
        partitions: Mapping[int, PartitionState],
        writers: Iterable[tuple[int, bytes, WriterRow | None]],
    ) -> None:
        """Store everything or nothing: data, dedupe rows and positions."""
        with _damage_named(self.path):
            self._commit(changes, partitions, writers)

    def _commit(
        self,
        changes: Changes,
        partitions: Mapping[int, PartitionState],
        writers: Iterable[tuple[int, bytes, WriterRow | None]],
    ) -> None:
        db = self._db
        db.execute("begin immediate")
        try:
            self._put(changes)
            db.executemany(
                "insert or replace into positions values(?, ?, ?, ?, ?)", [(at, *state) for at, state in partitions.items()]
            )
            for partition, writer, row in writers:
                if row is None:
                    db.execute("delete from writers where partition = ? and writer = ?", (partition, writer))
                else:
                    db.execute("insert or replace into writers values(?, ?, ?, ?)", (partition, writer, *row))
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise

    def _put(self, changes: Changes) -> None:
        db = self._db
        if changes.latest:
            self._sequence += 1
            db.execute("update meta set value = ? where name = 'sequence'", (self._sequence,))
        newest: dict[str, PutTail] = {}
        oldest: dict[str, int] = {}
        sealed: set[str] = set()
        for write in changes.writes:
            self._write(write)
            if isinstance(write, PutTail):
                known = newest.get(write.host)
                if known is None or (write.time_ns, write.n) > (known.time_ns, known.n):
                    newest[write.host] = write
                oldest[write.host] = min(write.time_ns, oldest.get(write.host, write.time_ns))
            elif isinstance(write, Seal):
                sealed.add(write.host)
            elif isinstance(write, DropHost):
                newest.pop(write.host, None)
                oldest.pop(write.host, None)
                sealed.discard(write.host)
        db.executemany(_NEWEST, newest.values())
        db.executemany(
            """insert into machines(id, name, given_name, claimed_ns, ip, facts, simulated, registered_ns, renamed, merged_into,
                                    merged_ns) values(?1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
               on conflict do update set given_name = ?2, claimed_ns = ?3, ip = ?4, facts = ?5, simulated = ?6, renamed = ?8,
                                         merged_into = ?9, merged_ns = ?10""",
            changes.facts,
        )
        db.executemany("update machines set name = ?2 where id = ?1", changes.names.items())
        db.executemany(_LATEST, [(*row, self._sequence, oldest.get(row.id)) for row in changes.latest])
        for host in sealed:
            db.execute(_OLDEST_SINGLE.replace("TABLE", f"host_{host}"), (host,))
        add_use(db, changes.used, changes.covered)
        for run in changes.runs:
            if run.ranges is None:
                db.execute("delete from runs where host = ? and run = ?", run[:2])
            else:
                db.execute("insert or replace into runs values(?, ?, ?, ?)", run)
        db.executemany("insert into counts values(?1, ?2) on conflict do update set n = n + ?2", changes.counts.items())

    def _write(self, write: Write) -> None:
        if isinstance(write, MakeHost):
            self._db.execute(_HOST_TABLE.replace("TABLE", f"host_{write.host}"))
        elif isinstance(write, DropHost):
            self._db.execute(f"drop table host_{write.host}")
            for table, column in _OF_HOSTS:
                self._db.execute(f"delete from {table} where {column} = ?1", (write.host,))  # noqa: S608  # names of our own
        elif isinstance(write, PutTail):
            sql = f"insert into host_{write.host} values(?, ?, 0, ?)"
            self._db.execute(sql, write[1:])
        elif isinstance(write, Seal):
            Sealer(self._db, write.host).run()
            let_go(self._db, write.host, write.now_ns, self.keep)
        elif isinstance(write, PutGap):
            self._db.execute("insert or ignore into gaps values(?, ?, ?, ?, ?, ?)", write)
        elif isinstance(write, PutEvent):
            self._db.execute("insert into events values(?, ?, ?, ?, ?, ?)", write)
            if write.kind == "gpu.xid":
                add_xid(self._db, write)
        elif isinstance(write, PutVersion):
            self._db.execute("insert into versions values(?, ?, ?, ?, ?, ?, ?, ?, ?)", write)
        elif isinstance(write, PutAlert):
            self._db.execute("insert or ignore into alerts values(?, ?, ?, ?, ?, ?, ?, 0)", write)
        elif isinstance(write, DropAlert):
            self._db.execute("delete from alerts where host = ? and rule = ? and subject = ?", write)
        elif isinstance(write, MarkTold):
            self._db.execute("update alerts set told = 1 where host = ? and rule = ? and subject = ?", write)

    def _kept(self) -> Keep:
        stored = self._meta("keep")
        return FOR_EVER if stored is None else Keep(*json.loads(stored))

    def _meta(self, name: str) -> Any:
        return self._db.execute("select value from meta where name = ?", (name,)).get
