"""Status tables in memory, with hosts that tests and benchmarks make up: what the pages read, without a consumer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack

from dimint.consumers.accounting import Accounting, Question, Used, account
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.intervals import Interval, processes_of
from dimint.consumers.names import clean_name
from dimint.consumers.past import HostAt, SamplePage
from dimint.consumers.reading_series import Busy, Series
from dimint.consumers.rows import GpuTotal, HostEvent, HostRow, PackedSample, StoredSample, XidCount
from dimint.consumers.sealing import Key
from dimint.consumers.tiers import MINUTE_NS, sum_up
from dimint.consumers.wanted import Wanted
from dimint.producers.simulated import SimulatedHost
from tests.support.hosts import MIB, cpu, gpu, sample

__all__ = ["Fleet", "MemoryTables", "busy_sample", "host_id", "simulated_fleet"]


def host_id(number: int) -> str:
    """The id of a made-up host."""
    return f"{number:032x}"


class MemoryTables:
    """The read side of the status tables over dicts; `put` and `register` are what a consumer would commit."""

    def __init__(self) -> None:
        self._hosts: dict[str, HostRow] = {}
        self._samples: dict[str, list[StoredSample]] = {}
        self._changed: dict[str, int] = {}
        self._sequence = 0
        self.happened: list[HostEvent] = []
        """What happened on hosts, oldest first."""
        self.opened: list[OpenAlert] = []
        self.totals: list[GpuTotal] = []
        self.xids: list[XidCount] = []
        self.read_to: dict[int, int] | None = None
        """How far the log was read, if not as far as there are changes."""
        self.fault: Exception | None = None
        """What reading raises while it is set."""

    def register(self, host: str, name: str, ip: str = "10.0.0.1", **facts: Any) -> None:
        simulated = facts.get("simulated") is True
        self._sequence += 1
        self._changed[host] = self._sequence
        self._hosts[host] = HostRow(host, clean_name(name), ip, facts, simulated, 1, None, None, None, name)

    def put(self, host: str, time_ns: int, content: dict[str, Any], received_ns: int | None = None) -> None:
        received = time_ns if received_ns is None else received_ns
        self._sequence += 1
        self._changed[host] = self._sequence
        samples = self._samples.setdefault(host, [])
        samples.append(StoredSample(time_ns, received, b"run", len(samples) + 1, content))
        row = self._hosts[host]
        self._hosts[host] = row._replace(
            first_sample_ns=row.first_sample_ns or time_ns, last_sample_ns=time_ns, received_ns=received
        )

    def hosts(self) -> list[HostRow]:
        return sorted(self._hosts.values(), key=lambda row: (row.name, row.id))

    def host(self, id_or_name: str) -> HostRow | None:
        wanted = clean_name(id_or_name)
        return next((row for row in self._hosts.values() if id_or_name == row.id or wanted == row.name), None)

    def owner(self, host_id: str) -> str:
        return host_id

    def latest(self, host_ids: Iterable[str]) -> dict[str, StoredSample]:
        return {host: self._samples[host][-1] for host in host_ids if self._samples.get(host)}

    def newest(self, host_ids: Iterable[str]) -> dict[str, PackedSample]:
        stored = {host: self._samples[host] for host in host_ids if self._samples.get(host)}
        return {host: PackedSample(of[-1].time_ns, len(of), msgpack.packb([0, *of[-1][2:]])) for host, of in stored.items()}

    def last(self, host_id: str, n: int) -> list[StoredSample]:
        return self._samples.get(host_id, [])[-n:]

    def between(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]:
        return [stored for stored in self._samples.get(host_id, ()) if from_ns <= stored.time_ns <= to_ns]

    def recent(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]:
        return self.between(host_id, from_ns, to_ns)

    def version(self) -> int:
        if self.fault is not None:
            raise self.fault
        return self._sequence

    def changed_since(self, sequence: int) -> tuple[int, set[str]]:
        return self._sequence, {host for host, at in self._changed.items() if at > sequence}

    def fleet_at(self, at_ns: int, wanted: Wanted | None = None) -> list[HostAt]:
        found = []
        for row in self.hosts():
            newest = max((one for one in self._samples.get(row.id, ()) if one.time_ns <= at_ns), default=None, key=_taken)
            if newest is not None or row.registered_ns <= at_ns:
                found.append(HostAt(row, newest, None if newest is None else at_ns - newest.time_ns))
        return found

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
    ) -> SamplePage:
        if after is not None:
            from_ns = max(from_ns, (after[0] // max(1, step_ns) + 1) * max(1, step_ns))
        steps = {one.time_ns // max(1, step_ns): one for one in self.between(host_id, from_ns, to_ns)}
        found = list(steps.values())
        return SamplePage(found[:limit], [], (found[limit - 1].time_ns, 0) if len(found) > limit else None)

    def series(self, host_id: str, from_ns: int, to_ns: int, points: int) -> Series:
        length_ns = max(1, -(-(to_ns - from_ns) // points // MINUTE_NS)) * MINUTE_NS
        return Series(length_ns, MINUTE_NS, sum_up(self.between(host_id, from_ns, to_ns), length_ns))

    def processes(self, host_id: str, from_ns: int, to_ns: int, *, limit: int = 10_000) -> list[Interval]:
        return processes_of(self.between(host_id, from_ns, to_ns))[:limit]

    def events(self, from_ns: int, to_ns: int, *, host_id: str | None = None, limit: int = 10_000) -> list[HostEvent]:
        found = [event for event in self.happened if from_ns <= event.time_ns <= to_ns and host_id in (None, event.host)]
        return found[-limit:]

    def busy(self, host_id: str, from_ns: int, to_ns: int, tier_ns: int) -> Busy:
        return Busy({}, [])

    def alerts(self) -> list[OpenAlert]:
        return list(self.opened)

    def alerts_at(self, at_ns: int) -> list[OpenAlert]:
        return [alert for alert in self.opened if alert.raised_ns <= at_ns]

    def commit(self) -> None:
        """What readers see as a change of something else than samples."""
        self._sequence += 1

    def positions(self) -> dict[int, int]:
        return {0: self._sequence} if self.read_to is None else self.read_to

    def generation(self) -> str | None:
        return "0123456789abcdef"

    def accounting(self, asked: Question, now_ns: int) -> Accounting:
        """Of each process all of its time, three quarters of it as active: enough to look at."""
        used = []
        for row in self.hosts():
            for one in processes_of(self.between(row.id, asked.from_ns, min(asked.to_ns, now_ns))):
                held_us = one.held_ns // 1000
                used.append(Used(one.user, row.name, held_us, held_us * 3 // 4, 0))
        return account(asked, used, sum(one.held_us for one in used) * 2, 0)

    def another(self) -> "MemoryTables":
        return self

    def gpu_totals(self) -> list[GpuTotal]:
        return list(self.totals)

    def xid_counts(self) -> list[XidCount]:
        return list(self.xids)

    def close(self) -> None:
        pass


def _taken(stored: StoredSample) -> int:
    return stored.time_ns


_USERS = ("alice", "bob", "chen", "dana", "eve")
_PROGRAMS = ("/opt/conda/bin/python", "/usr/bin/python3.11", "train_llm", "/usr/lib/xorg/Xorg", "tritonserver")


def busy_sample(number: int, tick: int, gpus: int) -> dict[str, Any]:
    """A believable sample: some GPUs work, some idle; the same arguments give the same sample."""
    cards, processes = [], []
    for index in range(gpus):
        mix = (number * 7919 + index * 104_729) % 97
        idle = mix % 4 == 0
        wave = (tick * (3 + mix % 5) + mix * 11) % 40
        util = 0 if idle else min(100, 55 + mix % 40 + (wave - 20) // 3)
        used = 4 if idle else 20_000 + (mix * 613) % 58_000
        card = gpu(index, "NVIDIA H100 80GB HBM3" if number % 2 else "GeForce GTX 1080 Ti", used, 81_559, util, 34 + util // 3)
        cards.append(card | {"p_mW": (70 + util * 5) * 1000, "p_lim_mW": 700_000})
        for part in range(0 if idle else 1 + mix % 2):
            processes.append({
                "g": index, "pid": 1000 + number * 100 + index * 10 + part, "name": _PROGRAMS[(mix + part) % 5],
                "user": _USERS[(number + mix) % 5], "mem": used // (1 + mix % 2) * MIB,
            })  # fmt: skip
    return sample(cards, processes, **cpu(5 + (number * 13 + tick) % 80))


_UP_NS = 40 * 86_400 * 1_000_000_000
"""Simulated hosts are started anew at least so often."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Simulated hosts and the tables that they report to."""

    tables: MemoryTables
    hosts: list[SimulatedHost]

    def report(self, time_ns: int) -> None:
        """A sample of every host."""
        for host in self.hosts:
            self.tables.put(host_id(host.number), time_ns, dict(host.sample(time_ns, time_ns % _UP_NS)))


def simulated_fleet(count: int, now_ns: int, *, minutes: int, step_s: int = 60, seed: int = 7) -> Fleet:
    """`count` hosts as `dimint up --simulate` has them, with samples of the last `minutes`, one a `step_s`."""
    fleet = Fleet(MemoryTables(), [SimulatedHost(seed, number, interval_ms=step_s * 1000) for number in range(count)])
    for host in fleet.hosts:
        fleet.tables.register(host_id(host.number), host.name, host.ip, **host.facts())
    for back in range(minutes * 60, 0, -step_s):
        fleet.report(now_ns - back * 1_000_000_000)
    return fleet
