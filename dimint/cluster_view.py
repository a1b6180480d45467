"""Heartbeat events → how every overlord and node is doing. [S]

`ClusterView` is a fold of `overlord.heartbeat` and `node.heartbeat`. Who is alive is not its matter but the registry's:
the answers have one map for each live member, in the order of the ids. A live member that has sent no heartbeat yet is
shown with what the registry knows of it and null for the rest; nobody is left out or kept because of a late heartbeat.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dimint.assignment import Assignment
from dimint.batch import FIELDS, KEY, KIND, Event

__all__ = ["PSUTIL_FIELDS", "ClusterView", "Heartbeat"]

PSUTIL_FIELDS = ("cwd", "name", "cmdline", "create_time", "cpu_percent", "memory_percent", "memory_info", "is_running")
MEMBERS_MAX = 10_000
"""Members whose last heartbeat is kept; the one heard of longest ago goes first."""


class Heartbeat(NamedTuple):
    """The last heartbeat of one member. `key_count` only of nodes; `log_time_us` is when the log took it."""

    log_time_us: int
    state: Mapping[str, Any]
    key_count: int | None


class ClusterView:
    """The last heartbeat of every member ever heard of (up to MEMBERS_MAX)."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], Heartbeat] = {}

    def take(self, event: Event, log_time_us: int) -> None:
        """One event of the status topic; other kinds are passed over."""
        kind = event[KIND]
        if kind not in ("overlord.heartbeat", "node.heartbeat"):
            return
        at = kind.partition(".")[0], event[KEY]
        key_count = event[FIELDS + 1] if kind == "node.heartbeat" else None
        self._heard.pop(at, None)
        self._heard[at] = Heartbeat(log_time_us, event[FIELDS], key_count)
        if len(self._heard) > MEMBERS_MAX:
            del self._heard[next(iter(self._heard))]

    def heard(self, role: str, member: str) -> Heartbeat | None:
        """The last heartbeat of an "overlord" or a "node"."""
        return self._heard.get((role, member))

    def overlord_states(self, live: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The `overlord_state` reply: one map for each live overlord."""
        return [{"overlord_id": id, **self._psutil("overlord", id)} for id in sorted(live)]

    def node_states(self, live: Mapping[str, Mapping[str, Any]], assignment: Assignment | None) -> list[dict[str, Any]]:
        """The `state` reply: one map for each live node. A node without a group yet is a slave of nobody."""
        states = []
        for id in sorted(live):
            master = assignment.master_node_of(id) if assignment is not None else None
            state: dict[str, Any] = {"node_id": id, "role": "master" if master == id else "slave"}
            if master != id:
                state["master_node_id"] = master
            heartbeat = self._heard.get(("node", id))
            state["key_count"] = heartbeat.key_count if heartbeat is not None else 0
            states.append(state | self._psutil("node", id))
        return states

    def _psutil(self, role: str, member: str) -> dict[str, Any]:
        heartbeat = self._heard.get((role, member))
        state: Mapping[str, Any] = heartbeat.state if heartbeat is not None else {}
        return {name: state.get(name) for name in PSUTIL_FIELDS}
