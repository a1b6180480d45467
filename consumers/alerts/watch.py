"""The status tables as the rules see them: what is new since the last look, sample by sample."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from dimint.consumers.alerts.conditions import HOST, WAITING, Observed
from dimint.consumers.alerts.core import Alerting, AlertKey, Change
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.alerts.rules import Rule
from dimint.consumers.rows import HostEvent, HostRow, PackedSample, StoredSample, unpack_row
from dimint.limits import FETCH_MAX_SAMPLES

__all__ = ["Tables", "Watcher", "observed", "xids_of"]

XID_KIND: Final = "gpu.xid"
_WARM_LEAST_NS: Final = 60_000_000_000
_WARM_MOST_NS: Final = 24 * 3600 * 1_000_000_000
_WARM_LOOKS: Final = 200
"""Samples of the past that are looked at for each host when the watch begins: enough to see since when something holds."""
_LAST_NS: Final = (1 << 63) - 1


class Tables(Protocol):
    """What a Watcher needs of `dimint.consumers.reading.StatusReader`."""

    def hosts(self) -> list[HostRow]: ...
    def newest(self, host_ids: Iterable[str]) -> dict[str, PackedSample]: ...
    def between(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]: ...
    def events(self, from_ns: int, to_ns: int) -> list[HostEvent]: ...
    def alerts(self) -> list[OpenAlert]: ...
    def positions(self) -> dict[int, int]: ...
    def version(self) -> int: ...
    def changed_since(self, sequence: int) -> tuple[int, set[str]]: ...


class Watcher:
    """Follows the tables from `now_ns` on, knowing what was told before (the open alerts of the tables). One thread."""

    def __init__(self, tables: Tables, rules: Sequence[Rule], now_ns: int) -> None:
        self._tables = tables
        self._alerting = Alerting(rules, (AlertKey(alert.rule, alert.host, alert.subject) for alert in tables.alerts()))
        longest = max((max(rule.for_ns, rule.clear_for_ns) for rule in rules), default=0)
        self._warm_from_ns = now_ns - min(max(longest + longest // 10, _WARM_LEAST_NS), _WARM_MOST_NS)
        self._xid_hold_ns = int(max((rule.parameters.get("hold", 0.0) for rule in rules), default=0.0) * 1e9)
        self._version = -1
        self._sequence = -1
        self._rows: dict[str, HostRow] = {}
        self._newest: dict[str, tuple[int, StoredSample]] = {}
        """By host what is kept of its newest sample, and what number it has in the host's log order."""
        self._xids: dict[str, dict[str, tuple[int, int]]] = {}

    def step(self, now_ns: int) -> list[Change]:
        """Look at what is new, and at who is silent; what is to be told."""
        version = self._tables.version()
        if version != self._version:
            self._sequence, changed = self._tables.changed_since(self._sequence)
            rows = {row.id: row for row in self._tables.hosts()}
            for gone in self._rows.keys() - rows.keys():
                self._alerting.forget(gone, now_ns)
                self._newest.pop(gone, None)
            self._rows = rows
            self._xids = xids_of(self._tables.events(now_ns - self._xid_hold_ns, _LAST_NS))
            for host, packed in self._tables.newest(changed & rows.keys()).items():
                self._take(rows[host], packed)
            self._version = version
        for row in self._rows.values():
            newest = self._newest.get(row.id)
            stored = None if newest is None else newest[1]
            self._alerting.look(observed(row, stored, self._xids.get(row.id, {}), now_ns), waiting=True)
        return self._alerting.changes(now_ns)

    def name_of(self, host_id: str) -> str:
        """The host's name; its id if it is no more."""
        row = self._rows.get(host_id)
        return host_id if row is None else row.name

    def _take(self, row: HostRow, packed: PackedSample) -> None:
        known = self._newest.get(row.id)
        newest = unpack_row(packed.time_ns, packed.row)
        if known is None:
            fresh = _thinned(list(self._samples(row.id, self._warm_from_ns))) or [newest]
        elif packed.n == known[0] + 1 and newest.run == known[1].run and newest.time_ns > known[1].time_ns:
            fresh = [newest]  # as mostly: one sample came, and it is the newest
        else:
            fresh = list(self._samples(row.id, known[1].time_ns + 1))
        for stored in fresh:
            self._alerting.look(observed(row, stored, {}, stored.time_ns), waiting=False)
        if fresh:
            self._newest[row.id] = packed.n, fresh[-1]._replace(sample=WAITING.of(fresh[-1].sample))

    def _samples(self, host: str, from_ns: int) -> Iterator[StoredSample]:
        while found := self._tables.between(host, from_ns, _LAST_NS):
            yield from found
            if len(found) < FETCH_MAX_SAMPLES:
                return
            from_ns = found[-1].time_ns + 1


def observed(row: HostRow, stored: StoredSample | None, xids: dict[str, tuple[int, int]], now_ns: int) -> Observed:
    """A host as conditions look at it."""
    return Observed(
        id=row.id, name=row.name, ip=row.ip, facts=row.facts, registered_ns=row.registered_ns, received_ns=row.received_ns,
        sample=None if stored is None else stored.sample, xids=xids, now_ns=now_ns,
    )  # fmt: skip


def xids_of(events: Iterable[HostEvent]) -> dict[str, dict[str, tuple[int, int]]]:
    """Host → GPU → (last XID, its time), of events in order of time."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for event in events:
        uuid, xid = event.fields.get("uuid"), event.fields.get("xid")
        if event.kind == XID_KIND and isinstance(uuid, str | None) and isinstance(xid, int):
            found.setdefault(event.host, {})[uuid or HOST] = (xid, event.time_ns)
    return found


def _thinned(samples: list[StoredSample]) -> list[StoredSample]:
    """At most about _WARM_LOOKS of them, the newest among them."""
    step = max(1, len(samples) // _WARM_LOOKS)
    return samples[::-1][::step][::-1]
