"""The read side of the status tables: what pages, alerts and reports see.

A folder holds numbered table files and a small file CURRENT that names the live one; a rebuild writes a new file and
then switches CURRENT, and a reader follows at its next call. What is asked of a host is answered for all hosts that are
merged into it, as one line of time. Every call sees one committed state: a sample is there with
everything that was committed with it. Nothing is created and nothing is waited for.
"""

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import apsw
import msgpack

from dimint.consumers.accounting import Accounting, Question, account
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.intervals import Interval
from dimint.consumers.past import HostAt, SamplePage
from dimint.consumers.reading_accounting import accounting, totals, xids
from dimint.consumers.reading_alerts import alerts_at
from dimint.consumers.reading_file import open_read_only, snapshot
from dimint.consumers.reading_host import LAST_NS
from dimint.consumers.reading_hosts import HostRows
from dimint.consumers.reading_joined import JoinedSamples, owners, parts_by_owner, parts_of
from dimint.consumers.reading_past import fleet_at, page
from dimint.consumers.reading_series import Busy, Series, busy, processes, series
from dimint.consumers.rows import (
    FORMAT,
    GpuTotal,
    HostEvent,
    HostRow,
    PackedSample,
    StoredSample,
    XidCount,
    packed_sample,
    unpack_sample,
)
from dimint.consumers.sealing import Key
from dimint.consumers.tiers import MINUTE_NS
from dimint.consumers.wanted import Wanted
from dimint.errors import UnknownVersion
from dimint.limits import EVENTS_FETCH_MAX, FETCH_MAX_SAMPLES
from dimint.progress import NO_PROGRESS, Progress

__all__ = ["CURRENT", "TABLES_FOLDER", "HostRow", "StatusReader", "StoredSample"]

TABLES_FOLDER: Final = "tables"
"""Folder of the status tables in the data directory: `StatusReader(settings.data_dir / TABLES_FOLDER)`."""
CURRENT: Final = "CURRENT"
PAGE_SAMPLES: Final = 1_000
"""Samples of a page if nobody says how many."""
SERIES_POINTS: Final = 600
"""Slots of a series if nobody says how many: about one a pixel or two."""
_FILE_BITS = 20
"""Versions of different table files never coincide: their upper part counts the switches."""

_NEWEST = "select host, timestamp, n, blob from newest where host in (select value from json_each(?))"
_ALERTS = """select host, rule, subject, severity, since_ns, raised_ns, text, told from alerts
             order by raised_ns desc, host, rule, subject"""
_EVENTS = """select host, n, kind, timestamp, received_ns, fields from events where timestamp between ?1 and ?2
             order by timestamp desc, host desc, n desc limit ?3"""
_EVENTS_OF_HOST = """select host, n, kind, timestamp, received_ns, fields from events
                     where host = ?4 and timestamp between ?1 and ?2 order by timestamp desc, n desc limit ?3"""


class StatusReader:
    """Reads the status tables in the folder `path`; one thread at a time, any thread.

    A folder that is missing or empty is a system without hosts. Raises CorruptRecord where what is stored is damaged, and
    UnknownVersion while the tables are still those of another version of this program.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)
        self._db: apsw.Connection | None = None
        self._file = ""
        self._switches = 0
        self._stamp: tuple[int, int] | None = None
        self._hosts = HostRows()

    def __enter__(self) -> "StatusReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent; the next call opens again."""
        if self._db is not None:
            self._db.close()
        self._db, self._stamp, self._file = None, None, ""

    def another(self) -> "StatusReader":
        """One more reader of the same tables, for another thread."""
        return StatusReader(self._folder)

    # --- hosts ------------------------------------------------------------------------------------------------------
    def hosts(self) -> list[HostRow]:
        """Every host, by name, without those that are merged into others: their times are those of the one that stays."""
        db = self._open()
        if db is None:
            return []
        with snapshot(db):
            return self._hosts.listed(db)

    def merged(self) -> dict[str, tuple[HostRow, str]]:
        """The hosts that are merged into others and so not listed: id → (the host, id of the one that stays)."""
        db = self._open()
        if db is None:
            return {}
        with snapshot(db):
            return self._hosts.merged(db)

    def host(self, id_or_name: str) -> HostRow | None:
        """The host with this id, this unique name (`gpu_01_lab`), or the name that cleans to it (`gpu-01.lab`)."""
        db = self._open()
        if db is None:
            return None
        with snapshot(db):
            return self._hosts.one(db, id_or_name)

    def owner(self, host_id: str) -> str:
        """The id of the host that goes on with this one's history: itself, unless it is merged into another."""
        db = self._open()
        if db is None:
            return host_id
        with snapshot(db):
            return owners(db).get(host_id, host_id)

    # --- samples ----------------------------------------------------------------------------------------------------
    def newest(self, host_ids: Iterable[str]) -> dict[str, PackedSample]:
        """The newest sample of each of these hosts that has one, as it is stored."""
        return {host: packed_sample(*row) for host, row in self._newest(host_ids).items()}

    def latest(self, host_ids: Iterable[str]) -> dict[str, StoredSample]:
        """The newest sample of each of these hosts that has one."""
        return {host: unpack_sample(time_ns, blob) for host, (time_ns, _, blob) in self._newest(host_ids).items()}

    def last(self, host_id: str, n: int) -> list[StoredSample]:
        """The newest `n` samples (at most FETCH_MAX_SAMPLES), oldest first."""
        db = self._open()
        if db is None or n <= 0:
            return []
        n = min(n, FETCH_MAX_SAMPLES)
        with snapshot(db):
            return [stored for _, stored in islice(JoinedSamples(db, parts_of(db, host_id)).down(n), n)][::-1]

    def recent(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]:
        """The samples of the closed range that are not summed up in any tier yet, oldest first."""
        db = self._open()
        if db is None:
            return []
        with snapshot(db):
            return [stored for _, stored in JoinedSamples(db, parts_of(db, host_id)).single(from_ns, to_ns)]

    def between(self, host_id: str, from_ns: int, to_ns: int, limit: int = FETCH_MAX_SAMPLES) -> list[StoredSample]:
        """Samples with from_ns ≤ time_ns ≤ to_ns, oldest first: the oldest `limit` of them (at most FETCH_MAX_SAMPLES)."""
        db = self._open()
        if db is None or limit <= 0:
            return []
        limit = min(limit, FETCH_MAX_SAMPLES)
        with snapshot(db):
            return [stored for _, stored in islice(JoinedSamples(db, parts_of(db, host_id)).up(from_ns, to_ns, limit), limit)]

    def at(self, host_id: str, time_ns: int) -> StoredSample | None:
        """The last sample taken at or before this time."""
        db = self._open()
        if db is None:
            return None
        with snapshot(db):
            found = JoinedSamples(db, parts_of(db, host_id)).newest(time_ns)
        return None if found is None else found[1]

    # --- the past ---------------------------------------------------------------------------------------------------
    def fleet_at(self, at_ns: int, wanted: Wanted | None = None) -> list[HostAt]:
        """Every host known at that instant as it was then, its newest sample included, by its name of then.

        Of a sample at least what is wanted is there; None = all of it.
        """
        db = self._open()
        if db is None:
            return []
        with snapshot(db):
            return fleet_at(db, at_ns, wanted)

    def page(
        self,
        host_id: str,
        from_ns: int,
        to_ns: int,
        *,
        limit: int = PAGE_SAMPLES,
        step_ns: int = 0,
        after: Key | None = None,
        wanted: Wanted | None = None,
    ) -> SamplePage:
        """Up to `limit` samples (at most FETCH_MAX_SAMPLES) with from_ns ≤ time_ns ≤ to_ns, oldest first, and the gaps.

        With a step only the last sample of each step. `after` is the cursor of the page before. Of a sample at least what
        is wanted is there; None = all of it.
        """
        db = self._open()
        if db is None:
            return SamplePage([], [], None)
        limit = max(1, min(limit, FETCH_MAX_SAMPLES))
        with snapshot(db):
            return page(db, host_id, from_ns, to_ns, limit=limit, step_ns=step_ns, after=after, wanted=wanted)

    def series(self, host_id: str, from_ns: int, to_ns: int, points: int = SERIES_POINTS) -> Series:
        """Numbers of one host and its GPUs with from_ns ≤ time_ns ≤ to_ns, summed up to about `points` slots."""
        db = self._open()
        if db is None:
            return Series(MINUTE_NS, MINUTE_NS, {})
        with snapshot(db):
            return series(db, host_id, from_ns, to_ns, max(1, min(points, FETCH_MAX_SAMPLES)))

    def busy(self, host_id: str, from_ns: int, to_ns: int, tier_ns: int) -> Busy:
        """How busy the host's GPUs were in the closed range, and who was on them, as the tier of this length has it."""
        db = self._open()
        if db is None:
            return Busy({}, [])
        with snapshot(db):
            return busy(db, host_id, from_ns, to_ns, tier_ns)

    def processes(self, host_id: str, from_ns: int, to_ns: int, *, limit: int = EVENTS_FETCH_MAX) -> list[Interval]:
        """Which processes were on the host's GPUs within the closed range, by their start: the first `limit` of them."""
        db = self._open()
        if db is None or limit <= 0:
            return []
        with snapshot(db):
            return processes(db, host_id, from_ns, to_ns, min(limit, EVENTS_FETCH_MAX))

    def accounting(
        self, asked: Question, now_ns: int, progress: Callable[[str], Progress] = lambda unit: NO_PROGRESS
    ) -> Accounting:
        """GPU-hours per user and host; what lies after `now_ns` is not counted.

        `progress` gives the progress of work that is counted in this unit: first `hours`, then `hosts`.
        """
        db = self._open()
        if db is None:
            return account(asked, (), 0, 0)
        with snapshot(db):
            return accounting(db, asked, now_ns, progress)

    def gpu_totals(self) -> list[GpuTotal]:
        """GPU time per host and user since the first sample."""
        db = self._open()
        if db is None:
            return []
        with snapshot(db):
            return totals(db)

    def xid_counts(self) -> list[XidCount]:
        """The errors that drivers reported, per host, GPU and number."""
        db = self._open()
        if db is None:
            return []
        with snapshot(db):
            return xids(db)

    def events(self, from_ns: int, to_ns: int, *, host_id: str | None = None, limit: int = EVENTS_FETCH_MAX) -> list[HostEvent]:
        """What happened with from_ns ≤ time_ns ≤ to_ns on one host or on all, oldest first: the newest `limit` of it."""
        db = self._open()
        if db is None or limit <= 0:
            return []
        bounds = max(0, min(from_ns, LAST_NS)), max(-1, min(to_ns, LAST_NS)), min(limit, EVENTS_FETCH_MAX)
        with snapshot(db):
            into = owners(db)
            if host_id is None:
                rows: list[tuple[Any, ...]] = list(db.execute(_EVENTS, bounds))
            else:
                parts = parts_by_owner(into).get(host_id, (host_id,))
                rows = [row for part in parts for row in db.execute(_EVENTS_OF_HOST, (*bounds, part))]
                if len(parts) > 1:
                    rows = sorted(rows, key=lambda row: (row[3], row[1]), reverse=True)[:limit]
        rows.reverse()
        return [
            HostEvent(into.get(host, host), *row)._replace(fields=msgpack.unpackb(row[-1], strict_map_key=False))
            for host, *row in rows
        ]

    def alerts(self) -> list[OpenAlert]:
        """The open alerts of all hosts, the newest first."""
        db = self._open()
        if db is None:
            return []
        with snapshot(db):
            rows = list(db.execute(_ALERTS))
        return [OpenAlert(*row)._replace(told=bool(row[-1])) for row in rows]

    def alerts_at(self, at_ns: int) -> list[OpenAlert]:
        """The alerts of all hosts that were open at a past instant, the newest first."""
        db = self._open()
        if db is None:
            return []
        with snapshot(db):
            return alerts_at(db, max(-1, min(at_ns, LAST_NS)))

    # --- following --------------------------------------------------------------------------------------------------
    def version(self) -> int:
        """A number that differs from the last one if anything was committed in between. A few µs: poll it."""
        db = self._open()
        return 0 if db is None else (self._switches << _FILE_BITS * 2) + int(db.pragma("data_version"))

    def changed_since(self, sequence: int) -> tuple[int, set[str]]:
        """(sequence now, hosts with a new sample or registration since that sequence). Start with -1: every host."""
        db = self._open()
        if db is None:
            return -1, set()
        with snapshot(db):
            now = int(db.execute("select value from meta where name = 'sequence'").get)
            since = sequence if sequence <= now else -1
            into = owners(db)
            changed = {into.get(host, host) for (host,) in db.execute("select id from latest where changed > ?", (since,))}
        return now, changed

    def positions(self) -> dict[int, int]:
        """Partition of the status topic → next offset to be read: what these tables have seen."""
        db = self._open()
        return {} if db is None else dict(db.execute("select partition, position from positions"))

    def generation(self) -> str | None:
        """Generation of the log that these tables are made from."""
        db = self._open()
        return None if db is None else str(db.execute("select value from meta where name = 'generation'").get)

    def counts(self) -> dict[str, int]:
        """What was passed over, and why: name → events or records."""
        db = self._open()
        return {} if db is None else dict(db.execute("select name, n from counts order by name"))

    # --- inside -----------------------------------------------------------------------------------------------------
    def _newest(self, host_ids: Iterable[str]) -> dict[str, tuple[int, int, bytes]]:
        """Of each host time, number and blob of its newest sample."""
        db = self._open()
        if db is None:
            return {}
        with snapshot(db):
            parts = parts_by_owner(owners(db))
            of = {part: host for host in host_ids for part in parts.get(host, (host,))}
            found: dict[str, tuple[int, int, bytes]] = {}
            for part, *row in db.execute(_NEWEST, (json.dumps(list(of)),)):
                host, newest = of[part], (row[0], row[1], row[2])
                found[host] = max(found.get(host, newest), newest)
        return found

    def _open(self) -> apsw.Connection | None:
        """The live file's connection, following a switch; None while there is no live file."""
        pointer = self._folder / CURRENT
        try:
            status = pointer.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return self._db
            file = pointer.read_text().strip()
        except FileNotFoundError:
            self.close()
            return None
        if file != self._file:
            self.close()
            try:
                self._db = open_read_only(self._folder / file)
            except (apsw.CantOpenError, apsw.NotADBError, apsw.CorruptError, apsw.SQLError):
                # switched once more in this moment, or no table file: its consumer will put another one there
                return None
            except apsw.IOError:
                if (self._folder / file).exists():
                    raise
                return None  # it was put aside while it was being opened
            found = self._db.execute("select value from meta where name = 'format'").get
            if found != FORMAT:
                self.close()
                raise UnknownVersion(
                    f"the status tables have format {found}, this program reads {FORMAT}", hint="their consumer fills them anew"
                )
            self._file = file
            self._switches += 1
        self._stamp = stamp
        return self._db
