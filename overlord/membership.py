"""The overlord's life in the cluster, on a thread of its own: heartbeats, members, history, and the elected one's duties.

The thread owns every call of the registry and every read of the status and cluster topics. What it finds it posts to the
main loop, which alone appends. Registry callbacks only wake it. Nothing here is on the way of a request.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from dimint import assignment as assignments
from dimint.assignment import ASSIGNMENT_PATH, LEAVING, Assignment
from dimint.batch import Event
from dimint.clock import Clock
from dimint.door import Replica
from dimint.errors import Fenced, OffsetOutOfRange, RegistryError, RegistryLost, VersionConflict
from dimint.events import CLUSTER_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Log, TopicPartition
from dimint.log.port import Record as LogRecord
from dimint.log.reading import Counted, Halt, Intake, Quarantine
from dimint.overlord.absences import Absences
from dimint.overlord.cluster import Members, Recorded, assigned_event
from dimint.overlord.placement import Cluster, place
from dimint.process_state import ProcessState
from dimint.registry.port import Registry

__all__ = ["ELECTION", "Heard", "Membership", "News", "Ports", "REGISTRY_LOOK_S", "Record", "Seen"]

ELECTION = "overlord"
LOOK_S = 0.1
REGISTRY_LOOK_S = 1.0
"""The registry is read at least this often, and at once when it calls."""
WAITING_LOOK_S = 0.25
"""While a node is waited for, which may fall silent."""
HEARD_BEFORE_S = 15.0
FIRST_READ_S = 0.5
"""How long the first look into the log may wait for a log that is not on this machine."""
RECORD_AGAIN_S = 2.0
"""History that was not read back after so long is appended again: nothing is in the log twice that matters."""

log = logging.getLogger(__name__)


class Ports(NamedTuple):
    """What an overlord works with; opened and closed by whoever composes it."""

    log: Log
    registry: Registry
    clock: Clock


class Seen(NamedTuple):
    """The registry as it is now."""

    members: Members
    assignment: Assignment | None


class Heard(NamedTuple):
    """Events of the status topic with their log times in µs."""

    events: list[tuple[Event, int]]


class Record(NamedTuple):
    """Events for the main loop to append."""

    topic: str
    events: Sequence[Event]


News: TypeAlias = Seen | Heard | Record


class Membership:
    """`run` is the thread. `post` must be safe to call from it; `progress` and `heard_at` (when each node
    reported last) are set by the main loop, `leads` is read by it."""

    def __init__(self, ports: Ports, genesis: Genesis, id: str, info: Mapping[str, Any], post: Callable[[News], None]) -> None:
        self.progress: Mapping[str, Mapping[int, Replica]] = {}
        self.heard_at: Mapping[str, float] = {}
        self.leads = False
        self._log, self._registry, self._clock = ports
        self._genesis, self._id, self._info = genesis, id, info
        self._post = post
        self._woken = threading.Event()
        self._stopped = False
        self._process = ProcessState()
        self._recorded = Recorded()
        self._recorded_at = float("-inf")
        self._intakes: dict[tuple[str, int], Intake | None] = {}
        self._members = Members({}, {})
        self._absences = Absences()
        self._assignment: Assignment | None = None
        self._version = 0

    def run(self, *, heartbeat_s: float, max_slave_count: int) -> None:
        """Join, then look after things until `stop`. A lost registry ends it, and with it the process."""
        self._start_reading()
        membership = self._registry.join("overlord", self._id, self._info)
        cancel = self._registry.watch(self._woken.set)
        candidacy = self._registry.elect(ELECTION, self._id)
        next_heartbeat = next_look = self._clock.monotonic()
        try:
            while not self._stopped:
                now = self._clock.monotonic()
                if now >= next_heartbeat:
                    next_heartbeat = now + heartbeat_s
                    self._beat()
                called = self._woken.is_set()
                self._woken.clear()
                if called or now >= next_look:
                    self._look()
                    next_look = now + (WAITING_LOOK_S if self._absences.waited_for else REGISTRY_LOOK_S)
                self._read()
                fence = candidacy.fence()
                self.leads = fence is not None
                if fence is not None:
                    self._lead(fence, max_slave_count, now)
                self._woken.wait(LOOK_S)
        finally:
            cancel()
            candidacy.resign()
            membership.leave()
            self._reader.close()

    def stop(self) -> None:
        """From any thread."""
        self._stopped = True
        self._woken.set()

    # --- looking -----------------------------------------------------------------------------------------------------
    def _look(self) -> None:
        try:
            overlords, nodes = self._registry.members("overlord"), self._registry.members("node")
            stored = self._registry.get(ASSIGNMENT_PATH)
        except RegistryLost:
            raise
        except RegistryError as error:  # what was known stays true until it answers again
            log.info("cannot look at the registry: %s", error)
            return
        self._version = 0 if stored is None else stored.version
        self._assignment = None if stored is None else assignments.decode(stored.value)
        holders = () if self._assignment is None else self._assignment.holders()
        before = self._absences.remarkable
        self._members = Members(overlords, self._absences.see(nodes, holders, self.heard_at, self._clock.monotonic()))
        if self._absences.remarkable - before:
            log.warning(
                "%d of %d nodes are gone from the registry only, or all together: waiting before anything of theirs moves",
                len(self._absences.remarkable),
                len(holders),
            )
        self._post(Seen(self._members, self._assignment))

    def _start_reading(self) -> None:
        since_ns = self._clock.time_ns() - round(HEARD_BEFORE_S * 1e9)
        for partition in range(self._genesis.status_partitions):
            start = self._log.offset_at(STATUS_TOPIC, partition, since_ns)
            self._intakes[STATUS_TOPIC, partition] = Intake(STATUS_TOPIC, partition, position=start)
        self._intakes[CLUSTER_TOPIC, 0] = Intake(CLUSTER_TOPIC, 0, position=self._log.bounds(CLUSTER_TOPIC, 0).start)
        self._reader = self._log.reader()
        self._assign()
        self._read(FIRST_READ_S)

    def _assign(self) -> None:
        places = {TopicPartition(*place): intake.position for place, intake in self._intakes.items() if intake is not None}
        self._reader.assign(places)

    def _read(self, wait_s: float = 0.0) -> None:
        """Take what is there, or what comes within the wait."""
        heard: list[tuple[Event, int]] = []
        while True:
            try:
                records = self._reader.poll(wait_s)
            except OffsetOutOfRange as error:  # trimmed while nobody looked
                self._intakes[error.topic, error.partition] = Intake(error.topic, error.partition, position=error.start)
                self._assign()
                continue
            for record in records:
                self._take(record, heard)
            wait_s = 0.0
            if not records:
                break
        if heard:
            self._post(Heard(heard))

    def _take(self, record: LogRecord, heard: list[tuple[Event, int]]) -> None:
        topic, partition = record.topic, record.partition
        intake = self._intakes[topic, partition]
        if intake is None:
            return
        taken = intake.take(record)
        if isinstance(taken, Halt | Quarantine):
            log.warning("%s/%d cannot be read on at offset %d: %s", topic, partition, taken.offset, taken.detail)
            self._intakes[topic, partition] = None
            self._assign()
        elif isinstance(taken, Counted) and topic == STATUS_TOPIC:
            heard.extend((event, taken.log_time_us) for event in taken.events if event[0].endswith(".heartbeat"))
        elif isinstance(taken, Counted):
            for event in taken.events:
                self._recorded.take(event)
            self._recorded_at = float("-inf")

    def _beat(self) -> None:
        event = ["overlord.heartbeat", self._id, self._clock.time_ns(), 0, self._process.read()]
        self._post(Record(STATUS_TOPIC, [event]))

    # --- leading -----------------------------------------------------------------------------------------------------
    def _lead(self, fence: Any, max_slave_count: int, now: float) -> None:
        nodes = self._members.nodes
        leaving = [node for node, info in nodes.items() if info.get(LEAVING)]
        there = nodes.keys() | self._absences.waited_for
        cluster = Cluster(there, self.progress, self._genesis.kv_partitions, max_slave_count, leaving)
        wanted = place(self._assignment, cluster, epoch_above=self._recorded.epoch)
        if wanted is not self._assignment:
            try:
                self._version = self._registry.put(
                    ASSIGNMENT_PATH, assignments.encode(wanted), version=self._version, fence=fence
                )
            except (VersionConflict, Fenced) as error:
                log.info("another overlord decided first: %s", error)
                self._woken.set()
                return
            except RegistryLost:
                raise
            except RegistryError as error:  # it may be stored: the next look tells
                log.info("cannot store the assignment: %s", error)
                return
            self._assignment = wanted
            self._post(Seen(self._members, wanted))
        if now - self._recorded_at < RECORD_AGAIN_S:
            return
        events = self._recorded.missing(self._members)
        if self._assignment is not None and self._assignment.epoch > self._recorded.epoch:
            events.append(assigned_event(self._assignment))
        if events:
            self._recorded_at = now
            self._post(Record(CLUSTER_TOPIC, events))
