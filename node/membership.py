"""A node's life in the cluster, on a thread of its own: it is a member, follows the assignment, and says that it lives.

The thread owns every call of the registry and the writer of the heartbeats; nothing of that is on the way of a read.
Registry callbacks only wake it. What it learns goes to `post`.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from dimint import assignment as assignments
from dimint.assignment import ASSIGNMENT_PATH, LEAVING, Assignment
from dimint.clock import Clock
from dimint.errors import AppendFailed, AppendUnknown, LogUnavailable, NotApplied, RegistryError, RegistryLost
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.genesis import Genesis
from dimint.log.port import Log
from dimint.node.membership_view import NodeInfo, OverlordInfo, Seen
from dimint.process_state import ProcessState
from dimint.registry import port as registry_port
from dimint.registry.port import Registry
from dimint.writer import BatchWriter, Outgoing

__all__ = ["Membership", "Ports"]

LOOK_S: Final = 1.0
"""The registry is read at least this often, and at once when it calls."""
BEAT_WAIT_S: Final = 5.0

logger = logging.getLogger("dimint.node")


class Ports(NamedTuple):
    """What a node works with; opened and closed by whoever composes it."""

    log: Log
    registry: Registry
    clock: Clock


class Membership:
    """`run` is the thread; `post` is called on it. `key_count` is set by the main loop for the heartbeats."""

    def __init__(
        self, ports: Ports, genesis: Genesis, node: str, info: Mapping[str, Any], host: str, post: Callable[[Seen], None]
    ) -> None:
        self._ports, self._genesis = ports, genesis
        self._node, self._info, self._host = node, info, host
        self._post = post
        self._woken = threading.Event()
        self._stopped = False
        self._leaving = self._told_leaving = False
        self._assignment: Assignment | None = None
        self._followed: Assignment | None = None
        self.key_count = 0
        self.ended = False
        """Whether `run` has returned."""

    def run(self, *, heartbeat_s: float) -> None:
        """Join, then look after things until `stop`. A lost registry ends it, and with it the process."""
        log, registry, clock = self._ports
        writer = BatchWriter(log, clock=clock, host=self._host, process=self._node)
        membership = registry.join("node", self._node, self._info)
        cancel = registry.watch(self._woken.set)
        process = ProcessState()
        next_beat = next_look = clock.monotonic()
        try:
            while not self._stopped:
                now = clock.monotonic()
                called = self._woken.is_set()
                self._woken.clear()
                if self._leaving and not self._told_leaving:
                    self._tell_leaving(membership)
                if called or now >= next_look:
                    next_look = now + LOOK_S
                    self._look()
                if now >= next_beat:
                    next_beat = now + heartbeat_s
                    self._beat(writer, process.read())
                self._woken.wait(max(0.0, min(next_look, next_beat) - clock.monotonic()))
        finally:
            self.ended = True
            cancel()
            membership.leave()
            writer.close()

    def leave(self) -> None:
        """Tell the others that this node wants to go. From any thread; idempotent."""
        self._leaving = True
        self._woken.set()

    def stop(self) -> None:
        """From any thread; idempotent."""
        self._stopped = True
        self._woken.set()

    def _tell_leaving(self, membership: registry_port.Membership) -> None:
        try:
            membership.update({**self._info, LEAVING: True})
        except RegistryLost:
            raise
        except RegistryError as error:  # the next look tries again
            logger.info("cannot tell the registry that this node leaves: %s", error)
            return
        self._told_leaving = True

    def _look(self) -> None:
        registry = self._ports.registry
        try:
            found_overlords, found_nodes = registry.members("overlord"), registry.members("node")
            stored = registry.get(ASSIGNMENT_PATH)
        except RegistryLost:
            raise
        except RegistryError as error:  # what was known stays true until it answers again
            logger.info("cannot look at the registry: %s", error)
            return
        overlords = {}
        for overlord, info in found_overlords.items():
            address = info.get("node")
            if isinstance(address, str):
                overlords[overlord] = OverlordInfo(address, str(info.get("writer", "")))
        if stored is not None:
            try:
                found = assignments.decode(stored.value)
            except msgspec.DecodeError as error:
                logger.error("the assignment in the registry cannot be read: %s", error)
            else:
                if self._assignment is None or found.epoch >= self._assignment.epoch:
                    self._assignment = found
        nodes = {node: NodeInfo(str(info.get("client", "")), bool(info.get(LEAVING))) for node, info in found_nodes.items()}
        self._post(Seen(overlords, self._assignment_to_follow(), nodes))

    def _assignment_to_follow(self) -> Assignment | None:
        """The newest one; the one before while the log does not answer, which has to be asked before more is taken up.

        The node's own thread must not wait for that: it serves what it has.
        """
        wanted, followed = self._assignment, self._followed
        if wanted is not None and wanted is not followed:
            held = frozenset() if followed is None else followed.held_by(self._node)
            new = wanted.held_by(self._node) - held
            try:
                for partition in sorted(new)[:1]:
                    self._ports.log.bounds(KV_TOPIC, partition)
            except LogUnavailable as error:
                logger.warning("%d partitions are taken up when the log answers: %s", len(new), error)
                return followed
        self._followed = wanted
        return wanted

    def _beat(self, writer: BatchWriter, state: Mapping[str, Any]) -> None:
        event = ["node.heartbeat", self._node, 0, 0, state, self.key_count]
        partition = self._genesis.status_partition(self._node)
        # a heartbeat that is not in the log is nothing to act on: the next one comes soon
        with contextlib.suppress(AppendFailed, AppendUnknown, NotApplied):
            writer.append_and_wait(Outgoing(STATUS_TOPIC, partition, (writer.by,), (event,)), BEAT_WAIT_S)
