"""The status projection: hosts and their samples. [S]

    host.registered   name, address and facts; the last one counts, and each different one is kept as a version of the
                      host for views of the past. Names become unique in consumers/names.py
    host.renamed      what people call it, for as long as they do
    host.merged       another host goes on with its history: it is not listed any more, and read as part of it (reading_joined.py)
    host.forgotten    nothing of it is kept
    host.sample       one tail row, unless (host, run, seq) was stored before; late ones land in their place. What it says
                      about who used GPUs is added to the sums of its hour
    host.gap          what an agent had to drop
    other host kinds  what happened on the host (gpu.lost …): a row of its event lane; alert.… also open and end alerts
    anything else     counted by kind; heartbeats are read elsewhere

A host's events stand in one partition, so everything about a host is decided in log order; whatever claims to be of a
host and stands in another partition was not written by us and is only counted. A sample of a host that never registered
makes the host known under its id. A clock that runs ahead of the log's by more than CLOCK_AHEAD_MAX_NS is wrong, and its
samples would hide all later ones: they are placed at their log time.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import md5
from operator import add
from typing import Any, Final, Protocol

import msgpack

from dimint.batch import DT, FIELDS, KEY, KIND, Event
from dimint.consumers.alerts.rows import alert_write
from dimint.consumers.names import Claim, clean_name, share_names
from dimint.consumers.projection import (
    Changes,
    CoveredRow,
    DropHost,
    HostFacts,
    HostLatest,
    MakeHost,
    PutEvent,
    PutGap,
    PutTail,
    PutVersion,
    RunRow,
    Seal,
    UsedRow,
    Write,
)
from dimint.consumers.rows import StoredSample, is_host_id, pack_sample
from dimint.consumers.seen import SeenNumbers
from dimint.consumers.tiers import HOUR_NS
from dimint.consumers.usage import Used, span_us, use_of
from dimint.events import KINDS, STATUS_TOPIC, describe
from dimint.limits import EVENT_FIELDS_MAX_BYTES, HOST_NAME_MAX_CHARS, PROCESS_NAME_MAX_CHARS, SAMPLE_MAX_BYTES, SEQ_MAX
from dimint.log.reading import Counted

__all__ = ["CLOCK_AHEAD_MAX_NS", "HOSTS_MAX", "RUNS_MAX", "RUN_KEEP_US", "SEAL_EVERY", "StatusProjection"]

SEAL_EVERY: Final = 240
"""Samples of a host between two seals; a chunk has about as many."""
CLOCK_AHEAD_MAX_NS: Final = 60_000_000_000
RUN_KEEP_US: Final = 30 * 24 * 3600 * 1_000_000
"""Log time after which a run that sent nothing is forgotten: longer than any spool keeps samples."""
RUNS_MAX: Final = 256
"""Runs of one host that are remembered; the one used least recently goes first."""
HOSTS_MAX: Final = 50_000
"""Hosts of one partition; events of more are counted and dropped."""
_RUN_MAX_BYTES: Final = 32
_TIME_MAX_NS: Final = (1 << 63) - 1
_EMPTY: Final = bytes(msgpack.packb({}))
_HOST_KINDS: Final = frozenset(
    kind.name for kind in KINDS.values() if kind.topic == STATUS_TOPIC and kind.key.startswith("host id")
)


class _Clearable(Protocol):
    def clear(self) -> None: ...


class _Run:
    __slots__ = ("seen", "used_us")

    def __init__(self, used_us: int, seen: SeenNumbers) -> None:
        self.used_us, self.seen = used_us, seen


class _Host:
    __slots__ = ("count", "events", "facts", "first_ns", "last_ns", "received_ns", "runs", "seal_at", "since_ns", "versions")

    def __init__(self, facts: HostFacts) -> None:
        self.facts = facts
        self.count = 0
        self.events = 0
        self.versions = 0
        self.since_ns = 0
        """Since when the newest version counts."""
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.received_ns: int | None = None
        self.runs: dict[bytes, _Run] = {}
        self.seal_at = int(facts.id[:8], 16) % SEAL_EVERY
        """Hosts that started together do not seal together."""


class StatusProjection:
    """All hosts of the status topic, which has `partitions` partitions; the other arguments are what a commit stored."""

    def __init__(
        self,
        partitions: int,
        *,
        facts: Iterable[HostFacts] = (),
        latest: Iterable[HostLatest] = (),
        runs: Iterable[RunRow] = (),
        names: dict[str, str] | None = None,
        events: dict[str, int] | None = None,
        versions: dict[str, tuple[int, int]] | None = None,
    ) -> None:
        self._partitions = partitions
        self._hosts = {row.id: _Host(row) for row in facts}
        for row in latest:
            host = self._hosts[row.id]
            host.count, host.first_ns, host.last_ns, host.received_ns = row[1:]
        for host_id, number in (events or {}).items():
            self._hosts[host_id].events = number
        for host_id, version in (versions or {}).items():
            self._hosts[host_id].versions, self._hosts[host_id].since_ns = version
        for run in runs:
            self._hosts[run.host].runs[run.run] = _Run(run.used_us, SeenNumbers(msgpack.unpackb(run.ranges)))
        self._hosts_in = Counter(map(self._partition_of, self._hosts))
        self._names = dict(names or {})
        self._claims_changed = False
        self._writes: list[Write] = []
        self._facts_changed: set[str] = set()
        self._changed: set[str] = set()
        self._runs_changed: set[tuple[str, bytes]] = set()
        self._counts: Counter[str] = Counter()
        self._used: dict[tuple[int, str, str], Used] = {}
        self._covered: dict[tuple[int, str], tuple[int, int, int]] = {}
        self._rules: dict[str, Callable[[_Host, Event, int, int], None]] = {
            "host.registered": self._registered,
            "host.renamed": self._renamed,
            "host.merged": self._merged,
            "host.forgotten": self._forgotten,
            "host.sample": self._sample,
            "host.gap": self._gap,
        }

    def apply(self, partition: int, batch: Counted) -> None:
        """Take the events of one counted batch of a partition; per partition in offset order."""
        base_ns = batch.header.time_ns
        for event in batch.events:
            rule = self._rules.get(event[KIND])
            if rule is None and event[KIND] in _HOST_KINDS:
                rule = self._happened
            if rule is None:
                self._counts[f"ignored {event[KIND]}" if event[KIND] in KINDS else "unknown kind"] += 1
                continue
            host = self._host(event[KEY], partition, batch.log_time_us)
            if host is not None:
                rule(host, event, base_ns + event[DT], batch.log_time_us)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count that is stored with the next commit."""
        self._counts[name] += number

    def take(self) -> Changes:
        """What is to be stored since the last call."""
        names = self._share_names() if self._claims_changed else {}
        changes = Changes(
            tuple(self._writes),
            tuple(self._hosts[id].facts for id in sorted(self._facts_changed)),
            names,
            tuple(self._latest(id) for id in sorted(self._changed | self._facts_changed | names.keys())),
            tuple(self._run_row(host, run) for host, run in sorted(self._runs_changed)),
            dict(self._counts),
            tuple(UsedRow(*key, used) for key, used in sorted(self._used.items())),
            tuple(CoveredRow(*key, *covered) for key, covered in sorted(self._covered.items())),
        )
        self._claims_changed = False
        kept: tuple[_Clearable, ...] = (self._writes, self._facts_changed, self._changed, self._runs_changed,
                                        self._counts, self._used, self._covered)  # fmt: skip
        for each in kept:
            each.clear()
        return changes

    # --- the rules, one a kind --------------------------------------------------------------------------------------
    def _registered(self, host: _Host, event: Event, time_ns: int, log_time_us: int) -> None:
        name, ip, facts = event[FIELDS : FIELDS + 3]
        packed = _pack_facts(facts)
        if packed is None:
            self._counts["bad facts"] += 1
            packed = host.facts.facts
        old = host.facts
        name = name[:HOST_NAME_MAX_CHARS]
        since_ns = old.claimed_ns if name == old.given_name or old.renamed else _log_ns(log_time_us)
        new = old._replace(
            given_name=name,
            claimed_ns=since_ns,
            ip=ip[:HOST_NAME_MAX_CHARS],
            facts=packed,
            simulated=facts.get("simulated") is True,
        )
        self._take_facts(host, new, time_ns, log_time_us)

    def _renamed(self, host: _Host, event: Event, time_ns: int, log_time_us: int) -> None:
        name = event[FIELDS][:HOST_NAME_MAX_CHARS]
        if name != host.facts.renamed:
            new = host.facts._replace(renamed=name, claimed_ns=_log_ns(log_time_us))
            self._take_facts(host, new, time_ns, log_time_us)
        self._happened(host, event, time_ns, log_time_us)

    def _merged(self, host: _Host, event: Event, time_ns: int, log_time_us: int) -> None:
        into = event[FIELDS]
        if into and (not is_host_id(into) or into == host.facts.id):
            self._counts["bad host.merged"] += 1
            return
        host.facts = host.facts._replace(merged_into=into, merged_ns=_log_ns(log_time_us) if into else 0)
        self._facts_changed.add(host.facts.id)
        self._claims_changed = True
        self._happened(host, event, time_ns, log_time_us)

    def _forgotten(self, host: _Host, _event: Event, _time_ns: int, _log_time_us: int) -> None:
        id = host.facts.id
        del self._hosts[id]
        self._hosts_in[self._partition_of(id)] -= 1
        self._names.pop(id, None)
        self._facts_changed.discard(id)
        self._changed.discard(id)
        self._runs_changed = {key for key in self._runs_changed if key[0] != id}
        self._used = {key: used for key, used in self._used.items() if key[1] != id}
        self._covered = {key: covered for key, covered in self._covered.items() if key[1] != id}
        self._writes.append(DropHost(id))
        self._claims_changed = True

    def _take_facts(self, host: _Host, new: HostFacts, time_ns: int, log_time_us: int) -> None:
        """What is new of a host becomes its next version."""
        old = host.facts
        if new == old and host.versions:
            return
        host.facts = new
        self._facts_changed.add(new.id)
        self._claims_changed |= (new.given_name, new.renamed) != (old.given_name, old.renamed)
        # by the host's clock, as samples are, but in the order of the log
        host.since_ns = max(host.since_ns, min(max(0, time_ns), _log_ns(log_time_us)))
        self._writes.append(PutVersion(new.id, host.versions, host.since_ns, *new[1:6], new.renamed))
        host.versions += 1

    def _sample(self, host: _Host, event: Event, time_ns: int, log_time_us: int) -> None:
        run, seq, sample = event[FIELDS : FIELDS + 3]
        received_ns = _log_ns(log_time_us)
        if time_ns > received_ns + CLOCK_AHEAD_MAX_NS:
            time_ns = received_ns
            self._counts["clock ahead"] += 1
        if not (0 < len(run) <= _RUN_MAX_BYTES and 0 < seq <= SEQ_MAX and 0 <= time_ns <= _TIME_MAX_NS):
            self._counts["bad sample"] += 1
            return
        try:
            blob, _ = pack_sample(StoredSample(time_ns, received_ns, run, seq, sample))
        except ValueError:  # too big or nested too deeply
            self._counts["bad sample"] += 1
            return
        if not self._is_new(host, run, seq, log_time_us):
            self._counts["repeated sample"] += 1
            return
        id = host.facts.id
        self._writes.append(PutTail(id, host.count, time_ns, blob))
        self._account(host, time_ns, sample)
        host.count += 1
        host.received_ns = received_ns
        host.first_ns = time_ns if host.first_ns is None else min(host.first_ns, time_ns)
        host.last_ns = time_ns if host.last_ns is None else max(host.last_ns, time_ns)
        self._changed.add(id)
        if host.count % SEAL_EVERY == host.seal_at:
            self._writes.append(Seal(id, received_ns))

    def _account(self, host: _Host, time_ns: int, sample: dict[str, Any]) -> None:
        weight_us = span_us(sample, None if host.last_ns is None else time_ns - host.last_ns)
        use = use_of(sample, weight_us)
        hour, id = time_ns // HOUR_NS, host.facts.id
        for user, used in use.users.items():
            before = self._used.get((hour, id, user))
            self._used[hour, id, user] = used if before is None else list(map(add, before, used))
        gpus, known_us, longest_us = self._covered.get((hour, id), (0, 0, 0))
        self._covered[hour, id] = max(gpus, use.gpus), known_us + use.known_us, max(longest_us, weight_us)

    def _gap(self, host: _Host, event: Event, time_ns: int, log_time_us: int) -> None:
        run, first, last, reason = event[FIELDS : FIELDS + 4]
        if not (0 < len(run) <= _RUN_MAX_BYTES and 0 < first <= last <= SEQ_MAX):
            self._counts["bad gap"] += 1
            return
        time_ns = min(max(0, time_ns), _log_ns(log_time_us))
        self._writes.append(PutGap(host.facts.id, run, first, last, reason[:PROCESS_NAME_MAX_CHARS], time_ns))
        self._changed.add(host.facts.id)

    def _happened(self, host: _Host, event: Event, time_ns: int, log_time_us: int) -> None:
        named = describe(event)
        kind, _ = named.pop("kind"), named.pop("key")
        try:
            fields: bytes = msgpack.packb(named)
        except ValueError:
            fields = b""
        if not 0 < len(fields) <= EVENT_FIELDS_MAX_BYTES:
            self._counts[f"bad {kind}"] += 1
            return
        received_ns = _log_ns(log_time_us)
        time_ns = min(max(0, time_ns), received_ns)
        self._writes.append(PutEvent(host.facts.id, host.events, kind, time_ns, received_ns, fields))
        host.events += 1
        if kind.startswith("alert.") and (write := alert_write(host.facts.id, event, received_ns)) is not None:
            self._writes.append(write)
        self._changed.add(host.facts.id)

    # --- inside -----------------------------------------------------------------------------------------------------
    def _host(self, id: Any, partition: int, log_time_us: int) -> _Host | None:
        """The host of an event, made known by its first one; None if the event cannot be of that host."""
        host = self._hosts.get(id)
        if host is None and not is_host_id(id):
            self._counts["bad host id"] += 1
            return None
        if self._partition_of(id) != partition:
            self._counts["wrong partition"] += 1
            return None
        if host is None:
            if self._hosts_in[partition] >= HOSTS_MAX:
                self._counts["too many hosts"] += 1
                return None
            self._hosts_in[partition] += 1
            now_ns = _log_ns(log_time_us)
            host = self._hosts[id] = _Host(HostFacts(id, id, now_ns, "", _EMPTY, False, now_ns))
            self._writes.append(MakeHost(id))
            self._facts_changed.add(id)
            self._claims_changed = True
        return host

    def _partition_of(self, id: str) -> int:
        return int.from_bytes(md5(id.encode(), usedforsecurity=False).digest(), "big") % self._partitions

    def _is_new(self, host: _Host, name: bytes, seq: int, log_time_us: int) -> bool:
        run = host.runs.get(name)
        if run is None:
            self._forget_runs(host, log_time_us)
            run = host.runs[name] = _Run(log_time_us, SeenNumbers())
        if not run.seen.add(seq):
            return False
        run.used_us = log_time_us
        self._runs_changed.add((host.facts.id, name))
        return True

    def _forget_runs(self, host: _Host, log_time_us: int) -> None:
        """Make room for a new run. Called only then, so what is remembered depends on the log alone."""
        old = [name for name, run in host.runs.items() if run.used_us < log_time_us - RUN_KEEP_US]
        if len(host.runs) - len(old) >= RUNS_MAX:
            old = sorted(host.runs, key=lambda name: (host.runs[name].used_us, name))[: len(host.runs) - RUNS_MAX + 1]
        for name in old:
            del host.runs[name]
            self._runs_changed.add((host.facts.id, name))

    def _share_names(self) -> dict[str, str]:
        """Names that differ from those stored."""
        claims = map(_claim, self._hosts.values())
        shared = share_names(claims)
        changed = {id: name for id, name in shared.items() if self._names.get(id) != name}
        self._names = shared
        return changed

    def _latest(self, id: str) -> HostLatest:
        host = self._hosts[id]
        return HostLatest(id, host.count, host.first_ns, host.last_ns, host.received_ns)

    def _run_row(self, id: str, name: bytes) -> RunRow:
        run = self._hosts[id].runs.get(name)
        if run is None:
            return RunRow(id, name, 0, None)
        return RunRow(id, name, run.used_us, msgpack.packb(run.seen.ranges()))


def _claim(host: _Host) -> Claim:
    """A merged host comes last: the one that goes on with its history has the name."""
    facts = host.facts
    since_ns = _TIME_MAX_NS if facts.merged_into else facts.claimed_ns
    return Claim(since_ns, facts.id, clean_name(facts.renamed or facts.given_name))


def _log_ns(log_time_us: int) -> int:
    """Log time in ns, as far as a table's integer goes: an imported batch may claim any time."""
    return min(log_time_us * 1000, _TIME_MAX_NS)


def _pack_facts(facts: dict[str, Any]) -> bytes | None:
    try:
        packed: bytes = msgpack.packb(facts)
    except ValueError:
        return None
    return packed if len(packed) <= SAMPLE_MAX_BYTES else None
