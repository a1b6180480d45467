"""The registry in memory: the reference for every other backend. One hub is the service, each registry a session with it."""

import json
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dimint.errors import Fenced, RegistryError, RegistryLost, VersionConflict
from dimint.registry.paths import USES_VALUES, check_id, check_path, encode_info
from dimint.registry.port import Fence, Versioned

__all__ = ["MemoryHub", "MemoryRegistry"]


class MemoryHub:
    """What all sessions share. Tests take several registries on one hub as several processes."""

    def __init__(self, generation: str = "memory") -> None:
        self.generation = generation
        self.lock = threading.RLock()
        self.members: dict[tuple[str, str], tuple[MemoryRegistry, bytes]] = {}
        self.queues: dict[str, list[_Candidacy]] = {}
        self.terms: dict[str, int] = {}
        self.last_term = 0
        self.values: dict[str, Versioned] = {}
        self.callbacks: dict[object, Callable[[], None]] = {}

    def changed(self) -> None:
        """Call every watcher; never while the lock is held."""
        with self.lock:
            callbacks = list(self.callbacks.values())
        for callback in callbacks:
            callback()

    def lead_on(self, election: str) -> None:
        """Give the election to the first in its queue, if he does not have it."""
        queue = self.queues.get(election, [])
        if queue and queue[0].term is None:
            self.last_term += 1
            queue[0].term = self.terms[election] = self.last_term
        elif not queue:
            self.terms.pop(election, None)


class MemoryRegistry:
    """One session with a hub."""

    def __init__(self, hub: MemoryHub | None = None) -> None:
        self._hub = hub or MemoryHub()
        self._open = True
        self._watches: list[object] = []

    def join(self, role: str, member_id: str, info: Mapping[str, Any]) -> "_Membership":
        check_id(role)
        check_id(member_id)
        encoded = encode_info(info)
        with self._session() as hub:
            if (role, member_id) in hub.members:
                raise RegistryError(f"{role} {member_id} is there already")
            hub.members[role, member_id] = (self, encoded)
        hub.changed()
        return _Membership(self, role, member_id)

    def members(self, role: str) -> dict[str, dict[str, Any]]:
        with self._session() as hub:
            return {name: json.loads(info) for (kind, name), (_, info) in sorted(hub.members.items()) if kind == role}

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        token = object()
        with self._session() as hub:
            hub.callbacks[token] = callback
            self._watches.append(token)

        def cancel() -> None:
            with hub.lock:
                hub.callbacks.pop(token, None)

        return cancel

    def elect(self, election: str, candidate_id: str) -> "_Candidacy":
        check_id(election)
        check_id(candidate_id)
        with self._session() as hub:
            candidacy = _Candidacy(self, election)
            hub.queues.setdefault(election, []).append(candidacy)
            hub.lead_on(election)
        hub.changed()
        return candidacy

    def get(self, path: str) -> Versioned | None:
        check_path(path)
        with self._session() as hub:
            return hub.values.get(path)

    def put(self, path: str, value: bytes, *, version: int, fence: Fence | None = None) -> int:
        check_path(path, value)
        with self._session() as hub:
            if fence is not None and (fence.generation != hub.generation or fence.term not in hub.terms.values()):
                raise Fenced(f"term {fence.term} is over")
            stored = hub.values[path].version if path in hub.values else 0
            if stored != version:
                raise VersionConflict(f"{path} has version {stored}, not {version}")
            hub.values[path] = Versioned(bytes(value), version + 1)
        hub.changed()
        return version + 1

    def clear(self, *, keep: Collection[str] = ()) -> int:
        with self._session() as hub:
            if any(role in USES_VALUES for role, _ in hub.members):
                return 0
            stale = hub.values.keys() - keep
            for path in stale:
                del hub.values[path]
        hub.changed()
        return len(stale)

    def close(self) -> None:
        """Also what the death of the process looks like to the others."""
        hub = self._hub
        with hub.lock:
            if not self._open:
                return
            self._open = False
            for token in self._watches:
                hub.callbacks.pop(token, None)
            for key in [key for key, (owner, _) in hub.members.items() if owner is self]:
                del hub.members[key]
            for election, queue in hub.queues.items():
                for candidacy in [candidacy for candidacy in queue if candidacy.registry is self]:
                    queue.remove(candidacy)
                    candidacy.term = None
                hub.lead_on(election)
        hub.changed()

    def _session(self) -> "_Session":
        return _Session(self, self._hub)

    # used by the handles below
    def _update(self, role: str, member_id: str, encoded: bytes | None) -> None:
        with self._hub.lock:
            if not self._open:
                if encoded is None:
                    return
                raise RegistryLost("the registry is closed")
            if encoded is None:
                self._hub.members.pop((role, member_id), None)
            else:
                self._hub.members[role, member_id] = (self, encoded)
        self._hub.changed()

    def _resign(self, candidacy: "_Candidacy") -> None:
        with self._hub.lock:
            queue = self._hub.queues.get(candidacy.election, [])
            if candidacy in queue:
                queue.remove(candidacy)
            candidacy.term = None
            self._hub.lead_on(candidacy.election)
        self._hub.changed()

    @property
    def generation(self) -> str:
        return self._hub.generation


class _Session:
    """The hub's lock, held while the session is open."""

    def __init__(self, registry: MemoryRegistry, hub: MemoryHub) -> None:
        self._registry, self._hub = registry, hub

    def __enter__(self) -> MemoryHub:
        self._hub.lock.acquire()
        if not self._registry._open:
            self._hub.lock.release()
            raise RegistryLost("the registry is closed")
        return self._hub

    def __exit__(self, *_: object) -> None:
        self._hub.lock.release()


class _Membership:
    def __init__(self, registry: MemoryRegistry, role: str, member_id: str) -> None:
        self._registry, self._role, self._id = registry, role, member_id
        self._left = False

    def update(self, info: Mapping[str, Any]) -> None:
        if self._left:
            raise RegistryError(f"{self._role} {self._id} has left")
        self._registry._update(self._role, self._id, encode_info(info))

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._registry._update(self._role, self._id, None)


class _Candidacy:
    def __init__(self, registry: MemoryRegistry, election: str) -> None:
        self.registry, self.election = registry, election
        self.term: int | None = None

    def fence(self) -> Fence | None:
        term = self.term
        return None if term is None else Fence(self.registry.generation, term)

    def resign(self) -> None:
        self.registry._resign(self)
