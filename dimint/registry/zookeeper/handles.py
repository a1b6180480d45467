"""Memberships and candidacies: what was asked for, and the nodes that make it true in the session of now.

Every method may be called from any thread. The registry's thread calls `settle` and `stand` after every change.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from dimint.errors import RegistryError, RegistryLost
from dimint.registry.paths import encode_info
from dimint.registry.port import Fence
from dimint.registry.zookeeper.layout import Layout, first_in_line, mark_of, with_mark
from dimint.registry.zookeeper.owner import is_certainly_dead, own_mark
from dimint.registry.zookeeper.session import Create, Delete, Session, SetData, StepFailed

__all__ = ["Candidacy", "Key", "Membership", "Shared"]

LOOK_S: Final = 0.1
"""How often a joining process looks whether the node of its dead predecessor is gone."""

Key: TypeAlias = tuple[str, str]

log = logging.getLogger("dimint")


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What the handles of one registry work with."""

    session: Session
    layout: Layout
    prepare: Callable[[], str]
    """Makes the lasting nodes; the registry's generation."""
    wake: Callable[[], None]
    drop: Callable[["Membership | Candidacy"], None]
    """Forgets a handle and removes its node, now or later."""
    nodes: Any = field(default_factory=threading.RLock)
    """Held while nodes of handles are made or removed: each sees the whole work of the other."""


class Membership:
    """One member's ephemeral node."""

    def __init__(self, shared: Shared, role: str, member_id: str, info: bytes) -> None:
        self.key = (role, member_id)
        self._shared = shared
        self._path = shared.layout.member(role, member_id)
        self._info = info
        self._joined = self._gone = self._warned = False
        self._settled_in = 0
        """Number of the session in which the node has this info; 0 = it must be made so."""

    def join(self) -> None:
        """Make the node for the first time. A node that is there is waited for as long as a dead process may leave one."""
        deadline = None
        while not self._place():
            if deadline is None:
                log.info("%s %s is there: waiting for its session to end", *self.key)
                deadline = time.monotonic() + 1.5 * self._shared.session.timeout_s + LOOK_S
            elif time.monotonic() > deadline:
                raise RegistryError(f"{self.key[0]} {self.key[1]} is there already")
            time.sleep(LOOK_S)
        self._joined = True

    def settle(self) -> bool:
        """Make the node again if need be; False if it cannot be now because another process has the id."""
        if not self._joined or self._place():
            return True
        if not self._warned:
            self._warned = True
            log.error("%s %s: another process has joined under this name", *self.key)
        return False

    def update(self, info: Mapping[str, Any]) -> None:
        """As the port says; without a connection as soon as there is one."""
        encoded = encode_info(info)
        self._shared.session.check()
        with self._shared.nodes:
            if self._gone:
                raise RegistryError(f"{self.key[0]} {self.key[1]} has left")
            self._info, self._settled_in = encoded, 0
            try:
                placed = self._place()
            except RegistryLost:
                raise
            except RegistryError:
                placed = False
        if not placed:
            self._shared.wake()

    def leave(self) -> None:
        with self._shared.nodes:
            gone, self._gone = self._gone, True
        if not gone:
            self._shared.drop(self)

    def remove(self, is_joined: Callable[[Key], bool]) -> None:
        """Delete the node, unless it belongs to a newer membership of this process."""
        with self._shared.nodes:
            self._gone = True
            if not is_joined(self.key):
                self._shared.session.delete_own(self._path)

    def _place(self) -> bool:
        """Whether the node is there with our info now (or not wanted any more)."""
        shared, session = self._shared, self._shared.session
        with shared.nodes:
            number = session.number
            if self._gone or self._settled_in == number:
                return True
            shared.prepare()
            role, content = shared.layout.role(self.key[0]), with_mark(self._info, own_mark())
            try:
                session.do(Create(self._path, content, ephemeral=True), SetData(role))
            except StepFailed as failed:
                if failed.missing:
                    session.create(role)
                    return self._place()
                found = session.get(self._path)
                if found is None:
                    return self._place()
                value, stat = found
                if stat.owner != session.id:
                    return self._replaced(value) and self._place()
                try:
                    session.do(SetData(self._path, content), SetData(shared.layout.changes))
                except StepFailed:  # it went between the two
                    return False
            self._settled_in = number
            self._warned = False
            return True

    def _replaced(self, value: bytes) -> bool:
        """Remove the node of a dead process of this machine, which the servers still wait for."""
        if not is_certainly_dead(mark_of(value)):
            return False
        with contextlib.suppress(StepFailed):
            self._shared.session.do(Delete(self._path))
        return True


class Lead(NamedTuple):
    """A term of leadership: by the node of one session."""

    session: int
    fence: Fence
    node: str


class Candidacy:
    """One place in the line of an election; a new one in every session."""

    def __init__(self, shared: Shared, election: str, candidate_id: str) -> None:
        self.election = election
        self.lead: Lead | None = None
        """The term that was won last; it may be over, which `fence` knows."""
        self._shared = shared
        self._folder = shared.layout.election(election)
        self._id = candidate_id.encode()
        self._gone = False
        self._session = 0
        self._prefix = ""

    def fence(self) -> Fence | None:
        lead = self.lead
        if lead is None or time.monotonic() >= self._shared.session.sure_until(lead.session):
            return None
        return lead.fence

    def resign(self) -> None:
        with self._shared.nodes:
            gone, self._gone, self.lead = self._gone, True, None
        if not gone:
            self._shared.drop(self)

    def stand(self) -> None:
        """Be in the line, and learn whether it is our turn."""
        session = self._shared.session
        with self._shared.nodes:
            if self._gone:
                return
            number, generation = session.number, self._shared.prepare()
            if self._session != number:  # the node of the session before is gone, whatever became of making it
                self._session, self._prefix, self.lead = number, secrets.token_hex(16), None
            names = session.children(self._folder)
            own = first_in_line(names or (), self._prefix)
            if own is None:
                if names is None:
                    session.create(self._folder)
                self.lead = None
                session.create_in_line(f"{self._folder}/{self._prefix}-", self._id)
                names = session.children(self._folder) or []
                own = first_in_line(names, self._prefix)
            if own is None or own != first_in_line(names or ()):
                self.lead = None
                return
            node = f"{self._folder}/{own}"
            found = session.exists(node)
            if found is None or found.owner != session.id:
                self.lead = None
            elif self.lead is None or self.lead.node != node:
                self.lead = Lead(number, Fence(generation, found.czxid), node)

    def remove(self, _is_joined: Callable[[Key], bool]) -> None:
        """Leave the line."""
        with self._shared.nodes:
            if self._session != self._shared.session.number:
                return
            for name in self._shared.session.children(self._folder) or ():
                if name.startswith(self._prefix):
                    self._shared.session.delete_own(f"{self._folder}/{name}")
