"""All hosts as they are now, read step by step from the status tables and kept as immutable snapshots.

A Board belongs to one thread. `refresh` reads only what changed since the last time and gives the same Snapshot object
when nothing did, so that whoever holds one may ask often. Every change of a host has a number: pages and streams that
know a snapshot's sequence ask what came after it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from dimint.clock import Clock
from dimint.consumers.rows import HostRow, StoredSample
from dimint.limits import FETCH_MAX_SAMPLES
from dimint.webapp.models import Host, Sampled, Status
from dimint.webapp.trends import STEP_NS, STEPS, Trends
from dimint.webapp.view import host_view, ordered, sampled, status_of, thinned

__all__ = ["Board", "BoardRules", "Snapshot", "Tables"]

_TRENDS_AT_START_MAX: Final = 64
"""Hosts whose last minutes are read back at the start; with more of them the lines grow from then on."""


class Tables(Protocol):
    """What a Board needs of `dimint.consumers.reading.StatusReader`, which says what each of these does."""

    def hosts(self) -> list[HostRow]: ...
    def host(self, id_or_name: str) -> HostRow | None: ...
    def latest(self, host_ids: Iterable[str]) -> dict[str, StoredSample]: ...
    def last(self, host_id: str, n: int) -> list[StoredSample]: ...
    def between(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]: ...
    def version(self) -> int: ...
    def changed_since(self, sequence: int) -> tuple[int, set[str]]: ...
    def positions(self) -> dict[int, int]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BoardRules:
    """What the settings say about hosts. `names` maps addresses to names that are shown instead of the host's own."""

    down_after_s: float
    order: str
    save_interval_s: float
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All hosts in their order. `changed` is, for each host id, the sequence number at which it last changed."""

    sequence: int
    hosts: tuple[Host, ...]
    changed: Mapping[str, int]
    order_changed: int
    data_ns: int | None

    def by_name(self, name: str) -> Host | None:
        return next((host for host in self.hosts if host.name == name), None)


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
        self._snapshot = Snapshot(0, (), {}, 0, None)

    def refresh(self) -> Snapshot:
        """The present state. Raises CorruptRecord, or apsw's errors for tables that cannot be read."""
        version = self._reader.version()
        fresh: set[str] = set()
        now_ns = self._clock.time_ns()
        if version == self._version:
            status = {host.id: host.status for host in self._snapshot.hosts}
            if all(status.get(row.id) is self._status(row, now_ns) for row in self._rows):
                return self._snapshot
        else:
            self._read_to, fresh = self._reader.changed_since(self._read_to)
            self._rows = self._reader.hosts()
            for host_id, stored in self._reader.latest(fresh).items():
                self._take(host_id, stored)
            self._version = version
        return self._publish(fresh, now_ns)

    def samples(self, host: Host, most: int) -> Sequence[Sampled]:
        """The newest `most` samples of a host, oldest first, thinned to the save interval."""
        interval = self._rules.save_interval_s
        wanted = most if interval <= 0 else FETCH_MAX_SAMPLES
        stored = [sampled(entry.time_ns, entry.sample) for entry in self._reader.last(host.id, wanted)]
        return thinned(stored, interval, most)

    def find(self, name: str) -> Host | None:
        """A host of the last snapshot by its shown name, its id, or a name that it is registered under."""
        found = self._snapshot.by_name(name)
        if found is None and (row := self._reader.host(name)) is not None:
            found = next((host for host in self._snapshot.hosts if host.id == row.id), None)
        return found

    def newest(self, host_ids: Iterable[str]) -> dict[str, tuple[HostRow, StoredSample | None]]:
        """Rows and newest samples, as stored, of these hosts of the last snapshot."""
        wanted = set(host_ids)
        stored = self._reader.latest(wanted)
        return {row.id: (row, stored.get(row.id)) for row in self._rows if row.id in wanted}

    def names(self) -> frozenset[str]:
        """The names that hosts of the last snapshot are registered under."""
        return frozenset(row.name for row in self._rows)

    def position(self, partition: int) -> int:
        """The offset in this partition of the status topic that the tables read next."""
        return self._reader.positions().get(partition, 0)

    def close(self) -> None:
        """Let go of the tables."""
        self._reader.close()

    def _take(self, host_id: str, stored: StoredSample) -> None:
        sample = sampled(stored.time_ns, stored.sample)
        trends = self._trends.get(host_id)
        if trends is None:
            trends = self._trends[host_id] = Trends()
            if len(self._rows) <= _TRENDS_AT_START_MAX:
                for earlier in self._reader.between(host_id, sample.time_ns - STEPS * STEP_NS, sample.time_ns):
                    trends.add(sampled(earlier.time_ns, earlier.sample))
        trends.add(sample)
        self._samples[host_id] = sample

    def _publish(self, fresh: set[str], now_ns: int) -> Snapshot:
        old = self._snapshot
        before = {host.id: host for host in old.hosts}
        names = self._names()
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
                host = replace(known, status=status)
            else:
                host = self._view(row, names[row.id], status)
            hosts.append(host)
            changed[row.id] = sequence
        arranged = ordered(hosts, self._rules.order)
        ids = [host.id for host in arranged]
        same_order = ids == [host.id for host in old.hosts]
        if same_order and all(map(lambda a, b: a is b, arranged, old.hosts)):
            return old
        data_ns = max((row.received_ns for row in self._rows if row.received_ns is not None), default=None)
        kept = {host_id: changed[host_id] for host_id in ids}
        order_changed = old.order_changed if same_order else sequence
        self._snapshot = Snapshot(sequence, tuple(arranged), kept, order_changed, data_ns)
        return self._snapshot

    def _status(self, row: HostRow, now_ns: int) -> Status:
        return status_of(row.received_ns, started_ns=self._started_ns, now_ns=now_ns, down_after_s=self._rules.down_after_s)

    def _view(self, row: HostRow, name: str, status: Status) -> Host:
        sample = self._samples.get(row.id)
        samples = () if sample is None else (sample,)
        trends = self._trends[row.id].lines(len(sample.gpus)) if sample is not None else ()
        return host_view(
            row.id, name, row.ip, {**row.facts, "simulated": row.simulated}, status, row.received_ns, samples, trends
        )

    def _names(self) -> dict[str, str]:
        """Host id → shown name: the one that the settings give its address, if no other host has that name already."""
        names = {row.id: row.name for row in self._rows}
        taken = set(names.values())
        for row in self._rows if self._rules.names else ():
            given = self._rules.names.get(row.ip)
            if given is not None and given not in taken:
                names[row.id] = given
                taken.add(given)
        return names
