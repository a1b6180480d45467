"""Questions to a table file about the use of GPUs (consumers/accounting.py)."""

from itertools import groupby
from typing import Final

import apsw

from dimint.consumers.accounting import Accounting, Question, Used, account, coverage
from dimint.consumers.rows import GpuTotal, XidCount
from dimint.consumers.usage import HOUR_US, SHARINGS

__all__ = ["accounting", "totals", "xids"]

# a merged host's use is that of the one it was merged into
_USED: Final = """select user, ifnull(o.name, m.name), sum(HELD), sum(ACTIVE), sum(UNKNOWN)
                  from used u join machines m on m.id = u.host left join machines o on o.id = m.merged_into
                  where hour >= ? and hour < ? group by u.host, user order by 2, u.host, user"""
_COVERED: Final = "select host, hour, gpus, known_us from covered where hour >= ? and hour < ? order by host, hour"
_BEFORE: Final = "select gpus from covered where host = ? and hour < ? order by hour desc limit 1"
_HOSTS: Final = """select l.id, ifnull(o.name, m.name), l.first_ns, iif(m.merged_ns, l.last_ns, null)
                   from latest l join machines m on m.id = l.id left join machines o on o.id = m.merged_into
                   where l.first_ns is not null"""

# what a merged host did counts for the one that goes on with its history
_TOTALS: Final = """select ifnull(nullif(m.merged_into, ''), m.id), user, sum(held_us), sum(active_us)
                    from totals t join machines m on m.id = t.host group by 1, 2 order by 1, 2"""
_XIDS: Final = """select ifnull(nullif(m.merged_into, ''), m.id), gpu, xid, sum(count), max(last_ns)
                  from xids x join machines m on m.id = x.host group by 1, 2, 3 order by 1, 2, 3"""

assert SHARINGS == ("full", "equal", "memory"), "columns of the table are named after the rules"


def totals(db: apsw.Connection) -> list[GpuTotal]:
    """By host id and user. Inside the caller's transaction."""
    return [GpuTotal(*row) for row in db.execute(_TOTALS)]


def xids(db: apsw.Connection) -> list[XidCount]:
    """By host id, GPU and number. Inside the caller's transaction."""
    return [XidCount(*row) for row in db.execute(_XIDS)]


def accounting(db: apsw.Connection, asked: Question, now_ns: int) -> Accounting:
    """The answer; what lies after `now_ns` is not counted. Inside the caller's transaction."""
    from_hour, to_hour = asked.from_ns // 1000 // HOUR_US, asked.to_ns // 1000 // HOUR_US
    sql = _USED
    for part in ("held", "active", "unknown"):
        sql = sql.replace(part.upper(), f"{asked.sharing}_{part}_us")
    used = [Used(*row) for row in db.execute(sql, (from_hour, to_hour))]
    rows: list[tuple[str, int, int, int]] = list(db.execute(_COVERED, (from_hour, to_hour)))
    covered = {host: [row[1:] for row in mine] for host, mine in groupby(rows, key=lambda row: row[0])}
    capacity_us = nobody_us = 0
    hosts: list[tuple[str, str, int, int | None]] = list(db.execute(_HOSTS))
    for host, name, first_ns, last_ns in hosts:
        start_us = max(asked.from_ns, first_ns) // 1000
        # a host that is merged into another has no time of its own after its last sample
        end_us = min(asked.to_ns, now_ns, now_ns if last_ns is None else last_ns) // 1000
        if start_us >= end_us:
            continue
        gpus = int(db.execute(_BEFORE, (host, from_hour)).get or 0)
        all_us, unknown_us = coverage(covered.get(host, ()), gpus, start_us, end_us)
        capacity_us, nobody_us = capacity_us + all_us, nobody_us + unknown_us
        used.append(Used(None, name, 0, 0, 0, unknown_us))
    return account(asked, used, capacity_us, nobody_us)
