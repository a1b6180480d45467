"""Which nodes count as there: those in the registry, and for a while those that only their session left. [S]

One node that is gone and silent is dead, and others take over at once. One that still reports to this overlord has lost its
session, not its life. When most of the nodes that hold something vanish together, the registry is the likelier reason (its
servers were away for longer than a session lasts). Such nodes work on and register again in a moment, and moving what they
have meanwhile would help nobody, so for GRACE_S all stays as it is. Both are needed: sessions that are cut off together end
up to a ping's interval apart, and an overlord that has just started has heard nobody.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from dimint.assignment import LEAVING

__all__ = ["GRACE_S", "HEARD_S", "REMARKABLE_S", "Absences"]

GRACE_S: Final = 10.0
HEARD_S: Final = 1.2
"""Whoever reported within this time is alive: a bit more than two of a node's reports."""
REMARKABLE_S: Final = 2 * HEARD_S
"""Who ends has reported until a moment before, so an absence says something only when it lasts."""


class Absences:
    """Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._infos: dict[str, Mapping[str, Any]] = {}
        self._since: dict[str, float] = {}
        self.waited_for: frozenset[str] = frozenset()
        """Holders that are not in the registry and count as there all the same."""
        self.remarkable: frozenset[str] = frozenset()
        """Those of them that have not just ended."""

    def see(
        self,
        live: Mapping[str, Mapping[str, Any]],
        holders: Collection[str],
        heard_at: Mapping[str, float],
        now: float,
    ) -> dict[str, Mapping[str, Any]]:
        """The nodes that count as there, with what was known of them last.

        `live` are those in the registry, `holders` those of the assignment; `heard_at` says when each reported last.
        """
        missing = {node for node in holders if node not in live and not self._infos.get(node, {}).get(LEAVING)}
        self._since = {node: self._since.get(node, now) for node in missing}
        self._infos = {**{node: self._infos[node] for node in missing if node in self._infos}, **live}
        fresh = {node for node, since in self._since.items() if now - since < GRACE_S}
        together = len(missing) >= 2 and 2 * len(missing) > len(holders)
        alive = {node for node in fresh if now - heard_at.get(node, float("-inf")) < HEARD_S}
        self.waited_for = frozenset(fresh if together else alive)
        self.remarkable = frozenset(node for node in self.waited_for if now - self._since[node] >= REMARKABLE_S)
        return {**{node: self._infos[node] for node in self.waited_for if node in self._infos}, **live}
