"""The registry on ZooKeeper.

Reads and writes go to the servers on the caller's thread. One thread of our own keeps true what was asked for: it alone
acts on what kazoo's callbacks report. After every connection it sets all watches anew and calls the watchers; after the
loss of a session it joins and stands anew in the next one. So a session that ends is no end for the callers: while there
is no connection their calls raise RegistryError, and afterwards everything is as it was, in a new term.
"""

import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from dimint.errors import Fenced, RegistryError, RegistryLost, VersionConflict
from dimint.registry.paths import USES_VALUES, check_id, check_path, encode_info
from dimint.registry.port import Fence, Versioned
from dimint.registry.zookeeper.handles import Candidacy, Membership, Shared
from dimint.registry.zookeeper.layout import Layout, info_of
from dimint.registry.zookeeper.options import ZooKeeperOptions
from dimint.registry.zookeeper.session import Check, Create, Delete, Session, SetData, Step, StepFailed, Watch
from dimint.service import spawn_thread

__all__ = ["ZooKeeperRegistry"]

CALL_ANYWAY_S: Final = 5.0
"""Watchers are called at least this often."""
RETRY_S: Final = 0.2
PROBES: Final = 6
"""Who stands in an election asks the servers this often in a session's time."""

log = logging.getLogger("dimint")


class ZooKeeperRegistry:
    """One session after the other. Raises RegistryUnavailable if no server answers, SettingsError if they refuse this process.

    `patience` is as in `Session`.
    """

    def __init__(
        self,
        options: ZooKeeperOptions,
        *,
        spawn: Callable[[str, Callable[[], None]], threading.Thread] = spawn_thread,
        patience: Callable[[float, str], bool] | None = None,
    ) -> None:
        self._spawn = spawn
        self._woken = threading.Event()
        self._layout = Layout(options.root)
        self._session = Session(options, self._woken.set, patience)
        self._shared = Shared(self._session, self._layout, self._prepare, self._woken.set, self._drop)
        self._lock = threading.Lock()
        self._open = True
        self._thread: threading.Thread | None = None
        self._memberships: dict[tuple[str, str], Membership] = {}
        self._candidacies: set[Candidacy] = set()
        self._leftovers: list[Membership | Candidacy] = []
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._preparing = threading.Lock()
        self._prepared = (0, "")
        # of the thread
        self._fired: deque[str] = deque()
        self._armed: dict[str, list[str]] = {}
        self._notes: dict[str, Watch] = {}
        self._caught_up = 0
        self._changed = False

    # --- the port ---------------------------------------------------------------------------------------------------
    def join(self, role: str, member_id: str, info: Mapping[str, Any]) -> Membership:
        """As the port says; waits up to a session's time for a node that a dead process of another machine has left."""
        check_id(role)
        check_id(member_id)
        membership = Membership(self._shared, role, member_id, encode_info(info))
        with self._lock:
            self._session.check()
            if (role, member_id) in self._memberships:
                raise RegistryError(f"{role} {member_id} is there already")
            self._memberships[role, member_id] = membership
        try:
            membership.join()
        except BaseException:
            self._drop(membership)
            raise
        self._start()
        return membership

    def members(self, role: str) -> dict[str, dict[str, Any]]:
        check_id(role)
        names = self._session.children(self._layout.role(role))
        if names is None:
            self._check_layout()
            return {}
        contents = self._session.get_all([self._layout.member(role, name) for name in names])
        return {
            name: _decode(role, name, content)
            for name, content in sorted(zip(names, contents, strict=True))
            if content is not None
        }

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        token = object()
        with self._lock:
            self._session.check()
            self._callbacks[token] = callback
        self._start()

        def cancel() -> None:
            with self._lock:
                self._callbacks.pop(token, None)

        return cancel

    def elect(self, election: str, candidate_id: str) -> Candidacy:
        check_id(election)
        check_id(candidate_id)
        candidacy = Candidacy(self._shared, election, candidate_id)
        with self._lock:
            self._session.check()
            self._candidacies.add(candidacy)
        self._start()
        return candidacy

    def get(self, path: str) -> Versioned | None:
        check_path(path)
        found = self._session.get(self._layout.value(path))
        if found is None:
            self._check_layout()
            return None
        return Versioned(found[0], found[1].version + 1)

    def put(self, path: str, value: bytes, *, version: int, fence: Fence | None = None) -> int:
        """As the port says. The fence must come from an election of this very registry."""
        check_path(path, value)
        self._prepare()
        node = self._layout.value(path)
        change = Create(node, bytes(value)) if version == 0 else SetData(node, bytes(value), version - 1)
        steps: list[Step] = [change, SetData(self._layout.changes)]
        if fence is not None:
            steps.insert(0, Check(self._node_of(fence), 0))
        try:
            self._session.do(*steps)
        except StepFailed as failed:
            if isinstance(failed.step, Check):
                raise Fenced("this process no longer leads") from None
            self._check_layout()
            raise VersionConflict(f"{path} does not have version {version} any more") from None
        return version + 1

    def clear(self, *, keep: Collection[str] = ()) -> int:
        session, layout = self._session, self._layout
        kept = {layout.value(path) for path in keep}
        stale = [path for name in session.children(layout.values) or () if (path := f"{layout.values}/{name}") not in kept]
        roles = [layout.role(role) for role in sorted(USES_VALUES)]
        before = [session.exists(role) for role in roles]
        if not stale or any(session.children(role) for role in roles):
            return 0
        steps: list[Step] = [Check(role, stat.version) for role, stat in zip(roles, before, strict=True) if stat is not None]
        try:
            session.do(*steps, *(Delete(path) for path in stale), SetData(layout.changes))
        except StepFailed:  # somebody joins, or clears, at this moment
            return 0
        return len(stale)

    def close(self) -> None:
        with self._lock:
            self._open = False
            thread = self._thread
            self._callbacks.clear()
        self._session.close()
        self._woken.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # --- inside -----------------------------------------------------------------------------------------------------
    def _prepare(self) -> str:
        """Make the lasting nodes if they are not there; the registry's generation. Asks once a session."""
        with self._preparing:
            number, generation = self._prepared
            if number == self._session.number:
                return generation
            number = self._session.number
            found = self._session.get(self._layout.generation)
            if found is None:
                for path in self._layout.lasting:
                    self._session.create(path)
                self._session.create(self._layout.generation, secrets.token_hex(16).encode())
                found = self._session.get(self._layout.generation)
            if found is None:
                raise RegistryError(f"{self._layout.root} is being removed")
            generation = found[0].decode("ascii", "replace")
            self._prepared = number, generation
            return generation

    def _check_layout(self) -> None:
        """Something is not there. Raises RegistryLost if all of it is gone: that is no empty cluster."""
        number, _ = self._prepared
        if number == self._session.number and self._session.exists(self._layout.generation) is None:
            raise RegistryLost(f"{self._layout.root} was removed from ZooKeeper")

    def _node_of(self, fence: Fence) -> str:
        with self._lock:
            leads = [candidacy.lead for candidacy in self._candidacies]
        for lead in leads:
            if lead is not None and lead.fence == fence and lead.session == self._session.number:
                return lead.node
        raise Fenced(f"term {fence.term} is over")

    def _drop(self, handle: Membership | Candidacy) -> None:
        """Take back what was asked for: now, or as soon as there is a connection."""
        with self._lock:
            if isinstance(handle, Membership):
                if self._memberships.get(handle.key) is handle:
                    del self._memberships[handle.key]
            else:
                self._candidacies.discard(handle)
        if self._open:
            self._remove(handle)
            self._woken.set()

    def _remove(self, handle: Membership | Candidacy) -> None:
        try:
            handle.remove(self._is_joined)
        except RegistryError:
            with self._lock:
                self._leftovers.append(handle)

    def _is_joined(self, key: tuple[str, str]) -> bool:
        with self._lock:
            return key in self._memberships

    # --- the thread -------------------------------------------------------------------------------------------------
    def _start(self) -> None:
        with self._lock:
            if self._thread is None and self._open:
                self._thread = self._spawn("registry", self._look)
        self._woken.set()

    def _look(self) -> None:
        """Until `close`: keep everything as it was asked for, and tell the watchers of changes."""
        seen: list[Fence | None] = []
        called = float("-inf")
        connected, number = True, self._session.number
        while self._open:
            self._woken.clear()
            pause = self._catch_up_in()
            if pause is None:
                return
            if connected != self._session.connected:
                connected = not connected
                state = "back" if connected else f"lost ({self._session.trouble}): trying again"
                log.warning("the connection to ZooKeeper is %s", state)
            if number != self._session.number:
                number = self._session.number
                log.warning("the session with ZooKeeper has ended: joining again in a new one")
            with self._lock:
                callbacks = list(self._callbacks.values())
                candidacies = list(self._candidacies)
            leads = [candidacy.fence() for candidacy in candidacies]
            now = time.monotonic()
            if self._changed or leads != seen or now - called >= CALL_ANYWAY_S:
                self._changed, seen, called = False, leads, now
                for callback in callbacks:
                    callback()
            ends = [self._session.sure_until(self._session.number) - now] if any(leads) else []
            self._woken.wait(max(0.0, min(pause, called + CALL_ANYWAY_S - now, *ends)))

    def _catch_up_in(self) -> float | None:
        """Do what is to be done now; the seconds until it is worth trying again, None if the registry is closed."""
        try:
            settled = self._catch_up()
        except RegistryLost:
            if self._open:
                raise
            return None
        except RegistryError as error:
            log.debug("%s", error)
            return RETRY_S
        if not settled:
            return RETRY_S
        return self._session.timeout_s / PROBES if self._candidacies else CALL_ANYWAY_S

    def _catch_up(self) -> bool:
        """Whether everything is as it was asked for, or can only become so by a connection."""
        session = self._session
        session.check()
        if not session.connected:
            return True
        connections = session.connections
        if connections != self._caught_up:  # the watches went with the connection before
            self._armed.clear()
            self._changed = True
        with self._lock:
            leftovers, self._leftovers = self._leftovers, []
            memberships, candidacies = list(self._memberships.values()), list(self._candidacies)
            watched = bool(self._callbacks)
        for handle in leftovers:
            self._remove(handle)
        unsettled = [membership for membership in memberships if not membership.settle()]
        if watched or candidacies:
            self._prepare()
            self._arm(watched, {self._layout.election(candidacy.election) for candidacy in candidacies})
        for candidacy in candidacies:
            candidacy.stand()
        self._caught_up = connections
        return not unsettled and not self._leftovers

    def _arm(self, watched: bool, elections: set[str]) -> None:
        """Set the watches that have fired or were never set."""
        while self._fired:
            self._armed.pop(self._fired.popleft(), None)
            self._changed = True
        layout = self._layout
        if watched:
            elections |= {layout.election(name) for name in self._watched_list(layout.elections)}
            for role in self._watched_list(layout.members):
                self._watched_list(layout.role(role))
            if layout.changes not in self._armed:
                self._session.get(layout.changes, self._note_of(layout.changes))
                self._armed[layout.changes] = []
        for path in elections:
            self._watched_list(path)

    def _watched_list(self, path: str) -> list[str]:
        """Names below a node as of when its watch was set."""
        if path not in self._armed:
            names = self._session.children(path, self._note_of(path))
            if names is None:
                return []
            self._armed[path] = names
        return self._armed[path]

    def _note_of(self, path: str) -> Watch:
        """What kazoo calls on its thread when a watch fires; always the same for a path, so that it is kept once."""

        def note(_event: object) -> None:
            self._fired.append(path)
            self._woken.set()

        return self._notes.setdefault(path, note)


def _decode(role: str, member_id: str, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(info_of(content))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RegistryError(f"the info of {role} {member_id} is not a JSON object")
    return found
