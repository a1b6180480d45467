"""Questions to a table file about the use of GPUs (consumers/accounting.py)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import apsw

from dimint.consumers.accounting import Accounting, Question, Span, Used, WholeHours, account, coverage
from dimint.consumers.past import INTERVAL_NS
from dimint.consumers.reading_host import HostSamples
from dimint.consumers.rows import GpuTotal, XidCount
from dimint.consumers.usage import CAP_US, HOUR_US, READ, SHARINGS, use_between
from dimint.consumers.usage_columns import use_of_chunks
from dimint.progress import Progress

__all__ = ["accounting", "totals", "xids"]

# a merged host's use is that of the one it was merged into
_USED: Final = """select user, ifnull(o.name, m.name), sum(HELD), sum(ACTIVE), sum(UNKNOWN)
                  from used u join machines m on m.id = u.host left join machines o on o.id = m.merged_into
                  where hour >= ? and hour < ? group by u.host, user order by 2, u.host, user"""
_FIRST_HOUR: Final = "select min((select min(hour) from covered), (select min(hour) from used))"
_COVERED: Final = """select host, hour, gpus, known_us, longest_us from covered where hour >= ? and hour < ?
                     order by hour, host"""
_COVERED_ONCE: Final = "select gpus, longest_us from covered where hour = ? and host = ?"
_BEFORE: Final = "select gpus from covered where host = ? and hour < ? order by hour desc limit 1"
_HOSTS: Final = """select l.id, ifnull(o.name, m.name), l.first_ns, l.last_ns, m.merged_ns > 0
                   from latest l join machines m on m.id = l.id left join machines o on o.id = m.merged_into
                   where l.first_ns is not null"""

# what a merged host did counts for the one that goes on with its history
_TOTALS: Final = """select ifnull(nullif(m.merged_into, ''), m.id), user, sum(held_us), sum(active_us)
                    from totals t join machines m on m.id = t.host group by 1, 2 order by 1, 2"""
_XIDS: Final = """select ifnull(nullif(m.merged_into, ''), m.id), gpu, xid, sum(count), max(last_ns)
                  from xids x join machines m on m.id = x.host group by 1, 2, 3 order by 1, 2, 3"""

_STEP_HOURS: Final = 168
"""Whole hours that are added up at once: half a second for a thousand hosts with three users each."""

assert SHARINGS == ("full", "equal", "memory"), "columns of the table are named after the rules"


def totals(db: apsw.Connection) -> list[GpuTotal]:
    """By host id and user. Inside the caller's transaction."""
    return [GpuTotal(*row) for row in db.execute(_TOTALS)]


def xids(db: apsw.Connection) -> list[XidCount]:
    """By host id, GPU and number. Inside the caller's transaction."""
    return [XidCount(*row) for row in db.execute(_XIDS)]


def accounting(db: apsw.Connection, asked: Question, now_ns: int, progress: Callable[[str], Progress]) -> Accounting:
    """The answer; what lies after `now_ns` is not counted. Inside the caller's transaction.

    `progress` is asked for one that counts hours, whose sums are read, then for one that counts hosts, whose samples of the
    range's ends are.
    """
    hosts = [_Host(*row) for row in db.execute(_HOSTS)]
    asked = _kept(db, hosts, asked)
    from_us, to_us = asked.from_ns // 1000, asked.to_ns // 1000
    whole = range(-(-from_us // HOUR_US), max(-(-from_us // HOUR_US), to_us // HOUR_US))
    edges = [edge for edge in _edges(from_us, to_us, whole) if edge[0] < edge[1]]
    # a host that is merged into another has no time of its own after its last sample
    times = {
        host.id: (
            max(asked.from_ns, host.first_ns) // 1000,
            min(asked.to_ns, now_ns, host.last_ns if host.merged else now_ns) // 1000,
        )
        for host in hosts
    }
    hours = {id: WholeHours(*time) for id, time in times.items()}
    used, longest_us = _whole_hours(db, whole, asked.sharing, hours, progress("hours"))
    capacity_us = nobody_us = 0
    hosts_read = progress("hosts")
    for number, host in enumerate(hosts):
        hosts_read.at(number, len(hosts), number)
        start_us, end_us = times[host.id]
        if start_us >= end_us:
            continue
        spans = hours[host.id].spans()
        for begin_us, stop_us in edges:
            for gpus, long_us in list(db.execute(_COVERED_ONCE, (begin_us // HOUR_US, host.id))):
                longest_us = max(longest_us, long_us)
                known_us, mine = _edge(db, host, begin_us, stop_us, asked.sharing)
                spans.append(Span(begin_us, stop_us, gpus, known_us))
                used += mine
        before = int(db.execute(_BEFORE, (host.id, from_us // HOUR_US)).get or 0)
        all_us, unknown_us = coverage(sorted(spans), before, start_us, end_us)
        capacity_us, nobody_us = capacity_us + all_us, nobody_us + unknown_us
        used.append(Used(None, host.name, 0, 0, 0, unknown_us))
    hosts_read.end(len(hosts), len(hosts), len(hosts))
    return account(asked, used, capacity_us, nobody_us, longest_us)


def _whole_hours(
    db: apsw.Connection, whole: range, sharing: str, into: Mapping[str, WholeHours], progress: Progress
) -> tuple[list[Used], int]:
    """What users held on hosts in these hours, a week at a time; the longest time of a sample. `into` gets what has samples."""
    sql = _USED
    for part in ("held", "active", "unknown"):
        sql = sql.replace(part.upper(), f"{sharing}_{part}_us")
    first = db.execute(_FIRST_HOUR).get
    hours = range(whole.stop if first is None else max(whole.start, first), whole.stop)
    used: list[Used] = []
    longest_us = 0
    for begin in hours[::_STEP_HOURS]:
        end = min(begin + _STEP_HOURS, hours.stop)
        used += (Used(*row) for row in db.execute(sql, (begin, end)))
        for host, hour, gpus, known_us, long_us in db.execute(_COVERED, (begin, end)):
            longest_us = max(longest_us, long_us)
            if host in into:
                into[host].add(hour, gpus, known_us)
        progress.at(end - hours.start, len(hours), end - hours.start)
    progress.end(len(hours), len(hours), len(hours))
    return used, longest_us


class _Host(NamedTuple):
    id: str
    name: str
    first_ns: int
    last_ns: int
    merged: bool


def _edges(from_us: int, to_us: int, whole: range) -> tuple[tuple[int, int], ...]:
    """The parts of the range that are no whole hours."""
    if not whole:
        middle = -(-from_us // HOUR_US) * HOUR_US
        return ((from_us, to_us),) if middle >= to_us else ((from_us, middle), (middle, to_us))
    return (from_us, whole.start * HOUR_US), (whole.stop * HOUR_US, to_us)


def _edge(db: apsw.Connection, host: _Host, from_us: int, to_us: int, sharing: str) -> tuple[int, list[Used]]:
    """(known µs, use by users) of a host in a part of an hour; of its samples, unless the hour's sums are of the same ones."""
    from_ns, to_ns = from_us * 1000, to_us * 1000
    hour = from_us // HOUR_US
    if max(hour * HOUR_US * 1000, host.first_ns) >= from_ns and (host.last_ns < to_ns or to_us == (hour + 1) * HOUR_US):
        at = 3 * SHARINGS.index(sharing)
        sums = db.execute("select user, * from used where hour = ? and host = ?", (hour, host.id))
        found = [Used(row[0], host.name, *row[4 + at : 7 + at]) for row in sums]
        return int(db.execute("select known_us from covered where hour = ? and host = ?", (hour, host.id)).get or 0), found
    table = HostSamples(db, host.id)
    singles = (stored for _, stored in table.single(from_ns, to_ns - 1))
    summed = use_of_chunks(table.chunks(from_ns, to_ns - 1), singles, from_ns, to_ns)
    if summed is None:
        placed = table.up(from_ns - INTERVAL_NS, to_ns - 1, -1, wanted=READ)
        summed = use_between(placed, from_ns, to_ns, began=host.first_ns < from_ns - INTERVAL_NS)
    known_us, users = summed
    at = 3 * SHARINGS.index(sharing)
    return known_us, [Used(user, host.name, *(min(part, CAP_US) for part in used[at : at + 3])) for user, used in users.items()]


def _kept(db: apsw.Connection, hosts: Sequence[_Host], asked: Question) -> Question:
    """The question, its ends moved outwards to whole hours where samples of that time were let go of."""
    hour_ns = HOUR_US * 1000
    ends = [asked.from_ns] if asked.from_ns % hour_ns else []
    if asked.to_ns % hour_ns and any(host.last_ns >= asked.to_ns for host in hosts):
        ends.append(asked.to_ns)
    if not ends:
        return asked
    gone_ns = 0
    for host in hosts:
        oldest = HostSamples(db, host.id).next_time(0)
        if oldest is None or oldest > host.first_ns:
            gone_ns = max(gone_ns, host.last_ns + 1 if oldest is None else oldest)
    if asked.from_ns in ends and asked.from_ns < gone_ns:
        asked = asked._replace(from_ns=asked.from_ns // hour_ns * hour_ns)
    if asked.to_ns in ends and asked.to_ns < gone_ns:
        asked = asked._replace(to_ns=-(-asked.to_ns // hour_ns) * hour_ns)
    return asked
