"""The registry port: who is alive, who leads, and small versioned values. [S]

Backends: memory, embedded (kernel locks in one directory), ZooKeeper. Everything is small: a member's info and a value
are at most 512 KiB of JSON-able data, and there are at most some thousand members.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

__all__ = ["Candidacy", "Fence", "Membership", "Registry", "Versioned"]


class Fence(NamedTuple):
    """Proof of one term of leadership: (generation of the registry, number of the term).

    Tuples compare in the order of time within one generation. Receivers keep the highest seen and refuse lower ones.
    """

    generation: str
    term: int


class Versioned(NamedTuple):
    """A stored value and its version, from 1 on."""

    value: bytes
    version: int


class Membership(Protocol):
    """One joined member; it is gone for everybody when its process dies, at the latest a session time-out later."""

    def update(self, info: Mapping[str, Any]) -> None:
        """Replace the info."""

    def leave(self) -> None:
        """Be gone at once. Idempotent."""


class Candidacy(Protocol):
    """Stands in one election until it resigns or the process dies."""

    def fence(self) -> Fence | None:
        """The fence of the term if this candidate leads now, else None. Cheap: ask before every act of a leader."""

    def resign(self) -> None:
        """Step down and stand no more. Idempotent."""


class Registry(Protocol):
    """One process's part in the registry, for as long as it is open.

    All methods may be called from any thread. They raise RegistryLost when the registry is gone for good, and another
    RegistryError when it does not answer now: what was read before stays the best that is known, a put may or may not
    have been stored, and what was joined and elected is kept, or made anew, by the registry itself.
    """

    def join(self, role: str, member_id: str, info: Mapping[str, Any]) -> Membership:
        """Be a member. Raises RegistryError if a live member of that role has the id."""

    def members(self, role: str) -> dict[str, dict[str, Any]]:
        """Live members: id → info."""

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback()` after any change of members, leadership or values (and once in a while without one).

        It runs on a thread of the registry and must only enqueue or wake. Returns what cancels it.
        """

    def elect(self, election: str, candidate_id: str) -> Candidacy:
        """Stand in an election. At most one candidate of it leads at any time."""

    def get(self, path: str) -> Versioned | None:
        """The value stored under `path` (segments of letters, digits, `_-.`, none with a dot first, joined by `/`)."""

    def put(self, path: str, value: bytes, *, version: int, fence: Fence | None = None) -> int:
        """Store `value` if the stored version is `version` (0 = there is none yet); the new version.

        With `fence`, only if that fence still leads its election. Raises VersionConflict or Fenced.
        """

    def clear(self, *, keep: Collection[str] = ()) -> int:
        """Remove stale entries of this system (dead members, values but those at `keep`); live members stay. How many were
        removed."""

    def close(self) -> None:
        """Leave everything and end the session. Idempotent."""
