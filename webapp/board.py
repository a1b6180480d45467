"""All hosts as they are now, read step by step from the status tables and kept as immutable snapshots.

A Board belongs to one thread. `refresh` reads only what changed since the last time and gives the same Snapshot object
when nothing did, so that whoever holds one may ask often. Every change of a host has a number: pages and streams that
know a snapshot's sequence ask what came after it.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Any, Final, Protocol

from msgspec import structs

from dimint.clock import Clock
from dimint.consumers.accounting import Accounting, Question
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.intervals import Interval
from dimint.consumers.past import HostAt, SamplePage
from dimint.consumers.reading_series import Busy, Series
from dimint.consumers.rows import GpuTotal, HostEvent, HostRow, PackedSample, StoredSample, XidCount
from dimint.consumers.sealing import Key
from dimint.consumers.wanted import Wanted
from dimint.limits import FETCH_MAX_SAMPLES, HOST_NAME_MAX_CHARS
from dimint.settings_thresholds import THRESHOLDS, Thresholds
from dimint.webapp.alerts import XID_NS
from dimint.webapp.asked import Layout
from dimint.webapp.models import Cell, Host, Sampled, Snapshot, Status, UserDay
from dimint.webapp.past import MANY, hour_before, minutes_before, past_hosts
from dimint.webapp.positions import write_positions
from dimint.webapp.recent import Lookout
from dimint.webapp.sent import OF_MANY, SHOWN, read_packed
from dimint.webapp.today import FIRST_S, TODAY_S, read_day
from dimint.webapp.trends import Trend, Trends
from dimint.webapp.view import Facts, host_view, ordered, sampled, sampled_of, status_of, thinned

__all__ = ["Board", "BoardRules", "Tables"]

_PAST_KEPT: Final = 16
"""Past snapshots that are kept until the next commit: a page, its parts and its reader's next steps ask for the same ones."""
_PAST_KEPT_HOSTS: Final = 2_000
"""Hosts in all of them: one of a thousand hosts with 8 GPUs takes some 20 MB, 60 with its hour."""

_EVENTS_LOOKED_AT: Final = 500
"""The newest events among which a look finds XIDs."""

_READ_BACK_S: Final = 0.1
"""Time that a look may spend on the past hour of hosts that are new here; the rest of them have theirs at the next look."""


class Tables(Protocol):
    """What a Board needs of `dimint.consumers.reading.StatusReader`, which says what each of these does."""

    def hosts(self) -> list[HostRow]: ...
    def host(self, id_or_name: str) -> HostRow | None: ...
    def owner(self, host_id: str) -> str: ...
    def latest(self, host_ids: Iterable[str]) -> dict[str, StoredSample]: ...
    def newest(self, host_ids: Iterable[str]) -> dict[str, PackedSample]: ...
    def last(self, host_id: str, n: int) -> list[StoredSample]: ...
    def fleet_at(self, at_ns: int, wanted: Wanted | None = None) -> list[HostAt]: ...
    def page(
        self,
        host_id: str,
        from_ns: int,
        to_ns: int,
        *,
        limit: int,
        step_ns: int,
        after: Key | None = None,
        wanted: Wanted | None = None,
    ) -> SamplePage: ...
    def series(self, host_id: str, from_ns: int, to_ns: int, points: int) -> Series: ...
    def processes(self, host_id: str, from_ns: int, to_ns: int, *, limit: int = ...) -> list[Interval]: ...
    def events(self, from_ns: int, to_ns: int, *, host_id: str | None = None, limit: int = ...) -> list[HostEvent]: ...
    def alerts(self) -> list[OpenAlert]: ...
    def alerts_at(self, at_ns: int) -> list[OpenAlert]: ...
    def busy(self, host_id: str, from_ns: int, to_ns: int, tier_ns: int) -> Busy: ...
    def recent(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]: ...
    def version(self) -> int: ...
    def changed_since(self, sequence: int) -> tuple[int, set[str]]: ...
    def positions(self) -> dict[int, int]: ...
    def generation(self) -> str | None: ...
    def accounting(self, asked: Question, now_ns: int) -> Accounting: ...
    def another(self) -> "Tables": ...
    def gpu_totals(self) -> list[GpuTotal]: ...
    def xid_counts(self) -> list[XidCount]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BoardRules:
    """What the settings say about hosts. `names` maps addresses to names that are shown instead of the host's own."""

    down_after_s: float
    order: str
    save_interval_s: float
    names: Mapping[str, str]
    limits: Thresholds = THRESHOLDS
    zone: tzinfo = UTC
    """Where days begin."""


class Board:
    """See the module. `clock` is the server's; hosts not heard since `started_ns` count as waiting."""

    def __init__(self, reader: Tables, rules: BoardRules, clock: Clock) -> None:
        self._reader = reader
        self._rules = rules
        self._clock = clock
        self._started_ns = clock.time_ns()
        self._version = -1
        self._read_to = -1
        self._rows: list[HostRow] = []
        self._samples: dict[str, Sampled] = {}
        self._trends: dict[str, Trends] = {}
        self._facts: dict[str, tuple[Mapping[str, Any], Facts]] = {}
        """What hosts say of themselves, as read and as shown."""
        self._position = ""
        self._unread: deque[str] = deque()
        """Hosts whose last hour is still to be read."""
        self._past: OrderedDict[tuple[int, int | None, bool, Layout | None, bool], Snapshot] = OrderedDict()
        self._past_version = -1
        self._alerts: tuple[OpenAlert, ...] = ()
        self._xids: tuple[HostEvent, ...] = ()
        self._lookout = Lookout()
        self._today: tuple[UserDay, ...] = ()
        self._today_until = clock.monotonic()
        self._snapshot = Snapshot(0, (), {}, 0, None)

    def refresh(self) -> Snapshot:
        """The present state. Raises CorruptRecord, or apsw's errors for tables that cannot be read."""
        version = self._reader.version()
        fresh: set[str] = set()
        now_ns = self._clock.time_ns()
        if version == self._version:
            status = {host.id: host.status for host in self._snapshot.hosts}
            if not self._unread and all(status.get(row.id) is self._status(row, now_ns) for row in self._rows):
                return self._snapshot
        else:
            # read first: what follows has at least this much in it
            self._position = write_positions(self._reader.generation(), self._reader.positions())
            self._read_to, fresh = self._reader.changed_since(self._read_to)
            self._rows = self._reader.hosts()
            if len(self._samples) > len(self._rows):
                self._forget({row.id for row in self._rows})
            for host_id, packed in self._reader.newest(fresh).items():
                self._take(host_id, packed)
            self._alerts = tuple(self._reader.alerts())
            happened = self._reader.events(now_ns - XID_NS, now_ns, limit=_EVENTS_LOOKED_AT)
            self._xids = tuple(event for event in happened if event.kind == "gpu.xid")
            if self._clock.monotonic() >= self._today_until:
                self._today = read_day(self._reader, now_ns, self._rules.zone)
                self._today_until = self._clock.monotonic() + (TODAY_S if self._today else FIRST_S)
            self._version = version
        return self._publish(fresh | self._read_back(), now_ns)

    def samples(self, host: Host, most: int) -> Sequence[Sampled]:
        """The newest `most` samples of a host, oldest first, thinned to the save interval."""
        interval = self._rules.save_interval_s
        wanted = most if interval <= 0 else FETCH_MAX_SAMPLES
        stored = [sampled(entry.time_ns, entry.sample, self._rules.limits) for entry in self._reader.last(host.id, wanted)]
        return thinned(stored, interval, most)

    def past(
        self,
        at_ns: int,
        from_ns: int | None = None,
        *,
        traced: bool = True,
        layout: Layout | None = None,
        whole: bool = False,
    ) -> Snapshot:
        """All hosts as they were at `at_ns`, with their lines from `from_ns` on if `traced` and this layout shows them.

        Samples that came late are in it. With `whole` nothing of a sample is left out, however many hosts there are.
        """
        version = self._reader.version()
        wanted = SHOWN if whole or layout == "cards" or len(self._rows) <= MANY else OF_MANY
        key = at_ns, from_ns, traced, layout, wanted is SHOWN
        if self._past_version != version:  # what was kept may lack samples that came since
            self._past.clear()
            self._past_version = version
        if (kept := self._past.get(key)) is not None:
            return kept
        hosts = past_hosts(
            self._reader, self._names, at_ns, from_ns, self._rules.down_after_s, self._rules.limits, traced=traced, layout=layout,
            wanted=wanted, live=self._trends,
        )  # fmt: skip
        arranged = ordered(hosts, self._rules.order)
        data_ns = max((host.heard_ns for host in hosts if host.heard_ns is not None), default=None)
        snapshot = Snapshot(0, tuple(arranged), {host.id: 0 for host in hosts}, 0, data_ns)
        if traced:  # it is looked at, not only compared
            happened = self._reader.events(at_ns - XID_NS, at_ns, limit=_EVENTS_LOOKED_AT)
            xids = tuple(event for event in happened if event.kind == "gpu.xid")
            alerts = tuple(self._reader.alerts_at(at_ns))
            snapshot = replace(snapshot, alerts=alerts, xids=xids, today=read_day(self._reader, at_ns, self._rules.zone))
        self._past[key] = snapshot
        while len(self._past) > 1 and (
            len(self._past) > _PAST_KEPT or sum(len(kept.hosts) for kept in self._past.values()) > _PAST_KEPT_HOSTS
        ):
            self._past.popitem(last=False)
        return snapshot

    def samples_between(
        self, host: Host, from_ns: int, to_ns: int, *, limit: int, step_ns: int | None, after: Key | None
    ) -> tuple[list[Sampled], Key | None]:
        """The host's samples of a range, oldest first: the first `limit` behind `after`, and where the rest begins.

        Of each step the last one; without a step they are thinned to the save interval.
        """
        step_ns = max(0, round(self._rules.save_interval_s * 1e9)) if step_ns is None else step_ns
        found = self._reader.page(host.id, from_ns, to_ns, limit=limit, step_ns=step_ns, after=after, wanted=SHOWN)
        return [sampled(stored.time_ns, stored.sample, self._rules.limits) for stored in found.samples], found.cursor

    def events(self, from_ns: int, to_ns: int, host_id: str | None = None) -> list[HostEvent]:
        """What happened in a range on one host or on all, oldest first."""
        return self._reader.events(from_ns, to_ns, host_id=host_id)

    def find(self, name: str, snapshot: Snapshot | None = None) -> Host | None:
        """A host of this snapshot (None = the last) by its shown name, its id, or a name that it is registered under."""
        snapshot = self._snapshot if snapshot is None else snapshot
        found = snapshot.by_name(name)
        if found is None and 0 < len(name) <= HOST_NAME_MAX_CHARS * 4 and (row := self._reader.host(name)) is not None:
            owner = self._reader.owner(row.id)
            found = next((host for host in snapshot.hosts if host.id == owner), None)
        return found

    def newest(self, host_ids: Iterable[str]) -> dict[str, tuple[HostRow, StoredSample | None]]:
        """Rows and newest samples, as stored, of these hosts of the last snapshot."""
        wanted = set(host_ids)
        stored = self._reader.latest(wanted)
        return {row.id: (row, stored.get(row.id)) for row in self._rows if row.id in wanted}

    def another_reader(self) -> Tables:
        """One more reader of the tables, for another thread."""
        return self._reader.another()

    def gpu_totals(self) -> list[GpuTotal]:
        """GPU time per host and user since the first sample."""
        return self._reader.gpu_totals()

    def xid_counts(self) -> list[XidCount]:
        """The errors that drivers reported."""
        return self._reader.xid_counts()

    def names(self) -> frozenset[str]:
        """The names that hosts of the last snapshot are registered under."""
        return frozenset(row.name for row in self._rows)

    def positions(self) -> Mapping[int, int]:
        """Partition of the status topic → the offset that the tables read next."""
        return self._reader.positions()

    def seen(self) -> str:
        """How far the tables have read the log (positions.py)."""
        return write_positions(self._reader.generation(), self._reader.positions())

    def close(self) -> None:
        """Let go of the tables."""
        self._reader.close()

    def _read_back(self) -> set[str]:
        """Read the last hour of some hosts that are new here, as many as a short time allows; these hosts."""
        until = self._clock.monotonic() + _READ_BACK_S
        found: set[str] = set()
        while self._unread and self._clock.monotonic() <= until:
            host_id = self._unread.popleft()
            newest = self._samples[host_id]
            if len(self._rows) > MANY:
                trends = minutes_before(self._reader, host_id, newest, self._rules.limits)
            else:
                trends = hour_before(self._reader, host_id, newest.time_ns, self._rules.limits)
            trends.add(newest)
            self._trends[host_id] = trends
            found.add(host_id)
        return found

    def _forget(self, known: set[str]) -> None:
        """Let go of hosts that are no more."""
        kept: tuple[dict[str, Any], ...] = (self._samples, self._trends, self._facts)
        for of in kept:
            for gone in of.keys() - known:
                del of[gone]
        self._unread = deque(host for host in self._unread if host in known)

    def _take(self, host_id: str, packed: PackedSample) -> None:
        late_ns, sent = read_packed(packed.row)
        sample = sampled_of(packed.time_ns, sent, self._rules.limits, received_ns=packed.time_ns + late_ns)
        trends = self._trends.get(host_id)
        if trends is None:
            trends = self._trends[host_id] = Trends()
            self._unread.append(host_id)
        trends.add(sample)
        self._samples[host_id] = sample

    def _publish(self, fresh: set[str], now_ns: int) -> Snapshot:
        old = self._snapshot
        before = {host.id: host for host in old.hosts}
        names = self._names(self._rows)
        hosts: list[Host] = []
        changed = dict(old.changed)
        sequence = old.sequence + 1
        for row in self._rows:
            status = self._status(row, now_ns)
            known = before.get(row.id)
            if known is not None and row.id not in fresh and known.name == names[row.id]:
                if known.status is status:
                    hosts.append(known)
                    continue
                host = structs.replace(known, status=status)
            else:
                host = self._view(row, names[row.id], status)
            hosts.append(host)
            changed[row.id] = sequence
        arranged = ordered(hosts, self._rules.order)
        ids = [host.id for host in arranged]
        same_order = ids == [host.id for host in old.hosts]
        same_warnings = self._alerts == old.alerts and self._xids == old.xids
        if same_order and same_warnings and all(map(lambda a, b: a is b, arranged, old.hosts)):
            return old
        data_ns = max((row.received_ns for row in self._rows if row.received_ns is not None), default=None)
        kept = {host_id: changed[host_id] for host_id in ids}
        order_changed = old.order_changed if same_order else sequence
        self._snapshot = Snapshot(
            sequence, tuple(arranged), kept, order_changed, data_ns, self._position, self._alerts, self._xids, self._today,
            self._lookout.look(arranged, now_ns),
        )  # fmt: skip
        return self._snapshot

    def _status(self, row: HostRow, now_ns: int) -> Status:
        return status_of(row.received_ns, started_ns=self._started_ns, now_ns=now_ns, down_after_s=self._rules.down_after_s)

    def _view(self, row: HostRow, name: str, status: Status) -> Host:
        sample = self._samples.get(row.id)
        samples = () if sample is None else (sample,)
        lines: Sequence[Trend] = ()
        hour: Sequence[tuple[Cell, ...]] = ()
        if sample is not None:
            trends, gpus = self._trends[row.id], len(sample.gpus)
            lines, hour = trends.lines(gpus), trends.hour(gpus)
        said, facts = self._facts.get(row.id, (None, None))
        if facts is None or said is not row.facts or facts.simulated is not row.simulated:
            facts = Facts.of(row.facts, row.simulated)
            self._facts[row.id] = row.facts, facts
        return host_view(row.id, name, row.ip, facts, status, row.received_ns, samples, lines, hour)

    def _names(self, rows: Sequence[HostRow]) -> dict[str, str]:
        """Host id → shown name: the one that the settings give its address, if no other host has that name already."""
        names = {row.id: row.name for row in rows}
        taken = set(names.values())
        for row in rows if self._rules.names else ():
            given = self._rules.names.get(row.ip)
            if given is not None and given not in taken:
                names[row.id] = given
                taken.add(given)
        return names
