"""How a node goes: it asks to be relieved, serves until others have what it served, and a little longer. [S]

The elected overlord gives everything that the node serves to others (overlord/placement.py). Until then it goes on as
before; then it tells its own clients that everything has moved, and goes on answering overlords for LINGER_S, until they
have heard of it too. It goes at once where there is nobody to hand over to, and after HANDOVER_S in any case.
"""

from typing import Final

from dimint.node.membership_view import Seen

__all__ = ["HANDOVER_S", "Leaving"]

HANDOVER_S: Final = 5.0
LINGER_S: Final = 0.5


class Leaving:
    """Times are seconds of a monotonic clock. `begin` is called when the node is told to stop."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._since: float | None = None
        self._relieved_at: float | None = None
        self._seen = Seen({}, None, {})

    @property
    def began(self) -> bool:
        return self._since is not None

    @property
    def relieved(self) -> bool:
        """Whether others serve everything."""
        return self._relieved_at is not None

    def begin(self, now: float) -> None:
        """The node is to go. Once is enough."""
        if self._since is None:
            self._since = now
            self.see(self._seen, now)

    def see(self, seen: Seen, now: float) -> None:
        """The registry as it is now."""
        self._seen = seen
        if self._since is not None and self._relieved_at is None and self._is_out():
            self._relieved_at = now

    def may_go(self, now: float) -> bool:
        """Whether the node may end now."""
        if self._since is None:
            return False
        if self._relieved_at is not None:
            return now >= self._relieved_at + LINGER_S
        return now >= self._since + HANDOVER_S or not self._has_heirs()

    def serves_still(self) -> int:
        """Partitions that nobody has taken over."""
        assignment = self._seen.assignment
        if assignment is None:
            return 0
        return sum(self._node in assignment.servers_of(partition) for partition in range(len(assignment.partitions)))

    def _is_out(self) -> bool:
        assignment = self._seen.assignment
        return assignment is not None and all(self._node not in group.nodes for group in assignment.groups)

    def _has_heirs(self) -> bool:
        """Whether there is somebody who decides, and somebody to decide for."""
        others = [node for node, info in self._seen.nodes.items() if node != self._node and not info.leaving]
        return self._seen.assignment is not None and bool(self._seen.overlords) and bool(others)
