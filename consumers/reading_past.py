"""Questions to a table file about the past (consumers/past.py says what the answers mean)."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import apsw
import msgpack

from dimint.consumers.names import Claim, clean_name, share_names
from dimint.consumers.past import GAP_INTERVALS, Gap, HostAt, SamplePage, interval_ns, missing
from dimint.consumers.reading_host import LAST_NS
from dimint.consumers.reading_joined import JoinedSamples, Parts, owners, parts_of
from dimint.consumers.rows import HostRow, Placed, StoredSample
from dimint.consumers.sealing import Key
from dimint.consumers.wanted import Wanted

__all__ = ["fleet_at", "page"]

_HOSTS: Final = """select m.id, m.given_name, m.claimed_ns, m.ip, m.facts, m.simulated, m.renamed, m.registered_ns, l.first_ns
                   from machines m left join latest l on l.id = m.id"""
_VERSIONS: Final = """select m.id, v.given_name, v.claimed_ns, v.ip, v.facts, v.simulated, v.renamed
                      from machines m join versions v on v.host = m.id
                      where v.n = (select n from versions where host = m.id and since_ns <= ? order by n desc limit 1)"""
_FIRST_VERSION: Final = """select given_name, claimed_ns, ip, facts, simulated, renamed from versions where host = ?
                           order by n limit 1"""
_REASON: Final = """select reason from gaps where host = ? and run = ? and first_seq <= ? and last_seq >= ?
                    order by first_seq limit 1"""


def fleet_at(db: apsw.Connection, at_ns: int, wanted: Wanted | None) -> list[HostAt]:
    """Every host known at the instant, by its name of then. Inside the caller's transaction."""
    at_ns = max(-1, min(at_ns, LAST_NS))
    known: dict[str, tuple[Any, ...]] = {}
    rest = {}
    versions: dict[str, tuple[Any, ...]] = {host: version for host, *version in db.execute(_VERSIONS, (at_ns,))}
    for host, *now, registered_ns, first_ns in list(db.execute(_HOSTS)):
        seen = first_ns is not None and first_ns <= at_ns
        version = versions.get(host)
        if version is None and seen:  # it sent samples before it registered: what it said first, if it ever said anything
            version = db.execute(_FIRST_VERSION, (host,)).get or tuple(now)
        if version is not None:
            known[host] = version
            rest[host] = registered_ns, first_ns if seen else None
    parts = _join(known, rest, owners(db))
    claims = (Claim(claimed_ns, host, clean_name(renamed or given)) for host, (given, claimed_ns, *_, renamed) in known.items())
    names = share_names(claims)
    hosts = []
    for host, (given, _, ip, facts, simulated, _) in known.items():
        registered_ns, first_ns = rest[host]
        samples = JoinedSamples(db, parts.get(host, (host,)))
        found = None if first_ns is None else samples.newest(at_ns, wanted)
        sample = None if found is None else found[1]
        last_ns, received_ns = (None, None) if sample is None else sample[:2]
        row = HostRow(host, names[host], ip, msgpack.unpackb(facts, strict_map_key=False), bool(simulated), registered_ns,
                      first_ns, last_ns, received_ns, given)  # fmt: skip
        hosts.append(HostAt(row, sample, None if last_ns is None else at_ns - last_ns))
    return sorted(hosts, key=lambda entry: (entry.host.name, entry.host.id))


def _join(
    known: dict[str, tuple[Any, ...]], rest: dict[str, tuple[int, int | None]], into: Mapping[str, str]
) -> dict[str, Parts]:
    """Put what was known of merged hosts under the one that goes on with them: it was them before it was itself."""
    found: dict[str, Parts] = {}
    for host, owner in into.items():
        if host not in known or host == owner:
            continue
        version, (registered_ns, first_ns) = known.pop(host), rest.pop(host)
        known.setdefault(owner, version)
        own_registered_ns, own_first_ns = rest.get(owner, (registered_ns, first_ns))
        firsts = [time for time in (first_ns, own_first_ns) if time is not None]
        rest[owner] = min(registered_ns, own_registered_ns), min(firsts, default=None)
        found[owner] = (*found.get(owner, (owner,)), host)
    return found


def page(
    db: apsw.Connection,
    host: str,
    from_ns: int,
    to_ns: int,
    *,
    limit: int,
    step_ns: int,
    after: Key | None,
    wanted: Wanted | None,
) -> SamplePage:
    """Up to `limit` samples of a host, and what is missing between them. Inside the caller's transaction."""
    table = JoinedSamples(db, parts_of(db, host))
    rows = (
        _steps(table, from_ns, to_ns, step_ns, after, wanted) if step_ns > 0 else table.up(from_ns, to_ns, limit + 1, after=after)
    )
    placed = list(islice(rows, limit + 1))
    more = len(placed) > limit
    del placed[limit:]
    samples = [stored for _, stored in placed]
    cursor = _key(placed[-1]) if more else None
    start_ns = from_ns if after is None else max(from_ns, after[0] + 1)
    around = samples
    if (before := table.newest(min(start_ns - 1, to_ns), wanted)) is not None:
        around = [before[1], *samples]
    end_ns = samples[-1].time_ns if more else to_ns
    return SamplePage(samples, list(_gaps(db, table, around, end_ns, step_ns)), cursor)


def _steps(
    table: JoinedSamples, from_ns: int, to_ns: int, step_ns: int, after: Key | None, wanted: Wanted | None
) -> Iterator[Placed]:
    """The last sample of every step; steps are whole multiples of their length since 1970, cut at the range's ends."""
    at = from_ns if after is None else max(from_ns, (after[0] // step_ns + 1) * step_ns)
    while at <= to_ns and (first := table.next_time(at)) is not None and first <= to_ns:
        at = (first // step_ns + 1) * step_ns
        last = table.newest(min(to_ns, at - 1), wanted)
        if last is not None:
            yield last


def _gaps(db: apsw.Connection, table: JoinedSamples, samples: list[StoredSample], end_ns: int, step_ns: int) -> Iterator[Gap]:
    for before, behind in missing(samples, step_ns):
        if step_ns:  # samples between them were thinned out: the gap ends at the first one
            yield Gap(before.time_ns, table.next_time(before.time_ns + 1), None, None)
            continue
        lost = behind.seq - before.seq - 1 if before.run == behind.run and behind.seq > before.seq else None
        bounds = before.run, behind.seq - 1, before.seq + 1
        reasons = [] if lost is None else [db.execute(_REASON, (host, *bounds)).get for host in table.ids]
        yield Gap(before.time_ns, behind.time_ns, lost, next((reason for reason in reasons if reason is not None), None))
    if samples and end_ns - samples[-1].time_ns > GAP_INTERVALS * interval_ns(samples[-1].sample):
        last_ns = samples[-1].time_ns
        next_ns = table.next_time(last_ns + 1)
        if next_ns is None or next_ns - last_ns > GAP_INTERVALS * interval_ns(samples[-1].sample):
            yield Gap(last_ns, next_ns, None, None)


def _key(placed: Placed) -> Key:
    return placed[1].time_ns, placed[0]
