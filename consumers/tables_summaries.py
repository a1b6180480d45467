"""What a table file keeps beside samples: tiers, process intervals, use of GPUs. Whoever writes has a transaction open."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

import apsw
import msgpack

from dimint.consumers.intervals import Interval, joined, processes_of
from dimint.consumers.past import GAP_INTERVALS
from dimint.consumers.projection import CoveredRow, PutEvent, UsedRow
from dimint.consumers.rows import StoredSample
from dimint.consumers.tiers import HOUR_NS, MINUTE_NS, Slots, block_of, coarser, merge, pack_block, sum_up, unpack_block
from dimint.consumers.usage import CAP_US
from dimint.limits import PROCESS_NAME_MAX_CHARS

__all__ = ["INTERVAL_COLUMNS", "SUMMARIES_SCHEMA", "add_samples", "add_use", "add_xid", "interval_of"]

SUMMARIES_SCHEMA: Final = """
create table tiers(n integer primary key, host text not null, length_ns integer not null, block integer not null,
                   blob blob not null, unique(host, length_ns, block));
create table processes(host text, gpu text, pid integer, created_ms integer, start_ns integer, end_ns integer not null,
                       samples integer not null, interval_ns integer not null, gpu_ns integer not null, peak_memory integer,
                       user text not null, name text, pod text, job text,
                       primary key(host, gpu, pid, created_ms, start_ns)) without rowid;
create index processes_time on processes(host, end_ns);
create table used(hour integer, host text, user text, full_held_us integer not null, full_active_us integer not null,
                  full_unknown_us integer not null, equal_held_us integer not null, equal_active_us integer not null,
                  equal_unknown_us integer not null, memory_held_us integer not null, memory_active_us integer not null,
                  memory_unknown_us integer not null, primary key(hour, host, user)) without rowid;
create table covered(hour integer, host text, gpus integer not null, known_us integer not null, longest_us integer not null,
                     primary key(hour, host)) without rowid;
create index covered_of_host on covered(host, hour);
create table totals(host text, user text, held_us integer not null, active_us integer not null,
                    primary key(host, user)) without rowid;
create table xids(host text, gpu text, xid integer, count integer not null, last_ns integer not null,
                  primary key(host, gpu, xid)) without rowid;
"""
INTERVAL_COLUMNS: Final = (
    "gpu, pid, created_ms, start_ns, end_ns, samples, interval_ns, gpu_ns, peak_memory, user, name, pod, job"
)
_OF_PROCESS: Final = "from processes where host = ? and gpu = ? and pid = ? and created_ms = ?"
_NEAR: Final = f"select {INTERVAL_COLUMNS} {_OF_PROCESS} and end_ns >= ? and start_ns <= ?"


_USED: Final = ("full_held_us", "full_active_us", "full_unknown_us", "equal_held_us", "equal_active_us", "equal_unknown_us",
                "memory_held_us", "memory_active_us", "memory_unknown_us")  # fmt: skip
_ADD_USED: Final = "insert into used values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set " + ", ".join(
    f"{column} = min({column} + excluded.{column}, {CAP_US})" for column in _USED
)
_ADD_COVERED: Final = """insert into covered values(?1, ?2, ?3, ?4, ?5) on conflict do update
    set gpus = max(gpus, ?3), known_us = min(known_us + ?4, ?6), longest_us = max(longest_us, ?5)"""
_TOTAL_CAP_US: Final = 1 << 62
_ADD_TOTAL: Final = f"""insert into totals values(?1, ?2, ?3, ?4) on conflict do update
    set held_us = min(held_us + ?3, {_TOTAL_CAP_US}), active_us = min(active_us + ?4, {_TOTAL_CAP_US})"""  # noqa: S608  # numbers of our own
_ADD_XID: Final = """insert into xids values(?1, ?2, ?3, 1, ?4) on conflict do update
    set count = count + 1, last_ns = max(last_ns, ?4)"""


def add_use(db: apsw.Connection, used: Iterable[UsedRow], covered: Iterable[CoveredRow]) -> None:
    """Add to the sums of hours, and to those of all time."""
    rows = [(*row[:3], *(min(part, CAP_US) for part in row.used)) for row in used]
    db.executemany(_ADD_USED, rows)
    db.executemany(_ADD_TOTAL, [row[1:5] for row in rows])  # held and active by the rule `full`
    db.executemany(_ADD_COVERED, [(*row[:3], min(row.known_us, CAP_US), row.longest_us, CAP_US) for row in covered])


def add_xid(db: apsw.Connection, event: PutEvent) -> None:
    """Count an error that a GPU's driver reported; one that the driver gave to no GPU counts under an empty UUID."""
    fields = msgpack.unpackb(event.fields, strict_map_key=False)
    uuid, xid = fields.get("uuid"), fields.get("xid")
    if type(xid) is int and 0 <= xid < 1 << 31:
        known = uuid[:PROCESS_NAME_MAX_CHARS] if type(uuid) is str else ""
        db.execute(_ADD_XID, (event.host, known, xid, event.time_ns))


def add_samples(db: apsw.Connection, host: str, samples: Sequence[StoredSample]) -> None:
    """Add samples of a host, in the order of their times, that were not added before."""
    minutes = sum_up(samples, MINUTE_NS)
    hours = coarser(minutes, MINUTE_NS, HOUR_NS)
    _add_slots(db, host, MINUTE_NS, minutes)
    _add_slots(db, host, HOUR_NS, hours)
    for _, mine in groupby(processes_of(samples), key=lambda interval: interval.key):
        _add_intervals(db, host, list(mine))


def _add_slots(db: apsw.Connection, host: str, length_ns: int, slots: Slots) -> None:
    for block, numbers in groupby(sorted(slots), key=block_of):
        more = {number: slots[number] for number in numbers}
        found = db.execute("select blob from tiers where host = ? and length_ns = ? and block = ?", (host, length_ns, block)).get
        whole = more if found is None else merge(unpack_block(found), more)
        db.execute(
            """insert into tiers(host, length_ns, block, blob) values(?, ?, ?, ?)
               on conflict(host, length_ns, block) do update set blob = excluded.blob""",
            (host, length_ns, block, pack_block(whole)),
        )


def _add_intervals(db: apsw.Connection, host: str, intervals: list[Interval]) -> None:
    """Intervals of one process: with the stored ones that they touch they become one."""
    key = (host, *intervals[0].key)
    first, last = intervals[0].start_ns, max(interval.end_ns for interval in intervals)
    # a stored interval of a slower sampling reaches further than these do
    slowest = db.execute(f"select max(interval_ns) {_OF_PROCESS}", key).get or 0
    reach_ns = GAP_INTERVALS * max(slowest, *(interval.sample_interval_ns for interval in intervals))
    near = [interval_of(row) for row in db.execute(_NEAR, (*key, first - reach_ns, last + reach_ns))]
    db.executemany(f"delete {_OF_PROCESS} and start_ns = ?", [(*key, interval.start_ns) for interval in near])
    db.executemany(
        "insert into processes values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(host, *interval.key, *interval[3:]) for interval in joined([*near, *intervals])],
    )


def interval_of(row: Iterable[object]) -> Interval:
    """An interval from its INTERVAL_COLUMNS."""
    interval = Interval(*row)  # type: ignore[arg-type]  # columns of our own table
    return interval._replace(created_ms=None) if interval.created_ms == -1 else interval
