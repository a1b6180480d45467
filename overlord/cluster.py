"""What the cluster's members and history mean for one overlord. [S]

The elected overlord keeps the assignment in the registry and the cluster's history in the log: who joined and left, and
every assignment. `Recorded` folds that history, so that whoever leads next knows what is written already, whoever died in
between. The registry decides who is alive and what holds; the log only remembers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dimint.assignment import LEAVING, Assignment
from dimint.batch import FIELDS, KEY, KIND, Event

__all__ = ["Members", "Recorded", "assigned_event"]

ROLES = ("overlord", "node")


class Members(NamedTuple):
    """Live members as the registry has them: id → info."""

    overlords: Mapping[str, Mapping[str, Any]]
    nodes: Mapping[str, Mapping[str, Any]]

    def of(self, role: str) -> Mapping[str, Mapping[str, Any]]:
        return self.overlords if role == "overlord" else self.nodes


class Recorded:
    """Fold of the cluster topic."""

    def __init__(self) -> None:
        self.epoch = 0
        """The highest epoch of an assignment ever recorded."""
        self._there: dict[str, dict[str, Mapping[str, Any]]] = {role: {} for role in ROLES}

    def take(self, event: Event) -> None:
        """One event of the topic, in log order."""
        kind = event[KIND]
        if kind == "cluster.assigned":
            self.epoch = max(self.epoch, event[FIELDS])
            return
        role, _, what = kind.partition(".")
        if role in self._there and what == "joined":
            self._there[role][event[KEY]] = event[FIELDS]
        elif role in self._there and what == "left":
            self._there[role].pop(event[KEY], None)

    def missing(self, members: Members) -> list[Event]:
        """Events that bring the history to what is: left first, then joined (also for a member that came back as another
        process)."""
        events: list[Event] = []
        for role in ROLES:
            known, live = self._there[role], members.of(role)
            events.extend([f"{role}.left", id, 0, 0] for id in sorted(known.keys() - live.keys()))
            lasting = {id: {name: value for name, value in live[id].items() if name != LEAVING} for id in sorted(live)}
            events.extend(
                [f"{role}.joined", id, 0, 0, info] for id, info in lasting.items() if id not in known or known[id] != info
            )
        return events


def assigned_event(assignment: Assignment) -> Event:
    """The record of one assignment."""
    value = {
        "groups": [[group.master, list(group.slaves)] for group in assignment.groups],
        "partitions": [[place.group, place.moving_to] for place in assignment.partitions],
    }
    return ["cluster.assigned", None, 0, 0, assignment.epoch, value]
