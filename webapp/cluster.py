"""The cluster at a moment: who was there and who held what, folded from its events, or as the overlords tell it now. [S]"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

__all__ = ["ClusterEvent", "ClusterView", "Happening", "Member", "Placed", "cluster_at", "cluster_json", "with_status"]

HAPPENED_MAX: Final = 50


class ClusterEvent(NamedTuple):
    """An event of the cluster's topic: kind, key, its own fields as they stand, log time."""

    kind: str
    key: str | None
    fields: Sequence[Any]
    log_time_us: int


class Member(NamedTuple):
    """An overlord or a node. `since_us` is when it was first seen there; `keys` and `cpu_pct` are known of now only."""

    id: str
    address: str
    since_us: int | None
    keys: int | None = None
    cpu_pct: float | None = None
    connected: bool = True


class Placed(NamedTuple):
    """A partition: who holds it, the nodes that it moves to, and what of it is known now only: the log's end, how far the
    replica that is furthest behind is, and what is wrong."""

    partition: int
    master: str | None
    slaves: Sequence[str]
    moving_to: Sequence[str] = ()
    end: int | None = None
    lag: int | None = None
    problem: str | None = None


class Happening(NamedTuple):
    """Something that happened, in words."""

    time_us: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    """`at_us` None is now. `note` says what is not known. `happened` are the last events before, the newest first."""

    at_us: int | None
    epoch: int
    overlords: Sequence[Member]
    nodes: Sequence[Member]
    partitions: Sequence[Placed]
    happened: Sequence[Happening]
    note: str = ""


def cluster_at(events: Iterable[ClusterEvent], at_us: int | None) -> ClusterView:
    """What the events, in log order and none after `at_us`, say."""
    there: dict[str, dict[str, Member]] = {"overlord": {}, "node": {}}
    assigned: tuple[int, Mapping[str, Any]] = (0, {})
    happened: list[Happening] = []
    for event in events:
        role, _, what = event.kind.partition(".")
        if event.kind == "cluster.assigned":
            epoch, value = event.fields[:2]
            if epoch >= assigned[0]:
                assigned = epoch, value
            happened.append(Happening(event.log_time_us, event.kind, f"assignment {epoch}: {_groups_text(value)}"))
        elif role in there and event.key is not None and what == "joined":
            info = event.fields[0] if event.fields and isinstance(event.fields[0], dict) else {}
            there[role][event.key] = Member(event.key, str(info.get("client") or ""), event.log_time_us)
            happened.append(Happening(event.log_time_us, event.kind, event.key))
        elif role in there and event.key is not None and what == "left":
            there[role].pop(event.key, None)
            happened.append(Happening(event.log_time_us, event.kind, event.key))
    members = {role: [found[id] for id in sorted(found)] for role, found in there.items()}
    return ClusterView(at_us, assigned[0], members["overlord"], members["node"], _placed(assigned[1]),
                       happened[: -HAPPENED_MAX - 1 : -1])  # fmt: skip


def with_status(view: ClusterView, status: Mapping[str, Any]) -> ClusterView:
    """The present one: the events' view with what `status` of the client protocol says."""
    since = {member.id: member.since_us for member in (*view.overlords, *view.nodes)}
    overlords = [
        Member(str(one["overlord_id"]), str(one.get("client") or ""), since.get(str(one["overlord_id"])),
               cpu_pct=one.get("cpu_percent"))
        for one in status["overlords"]
    ]  # fmt: skip
    nodes = [
        Member(str(one["node_id"]), str(one.get("client") or ""), since.get(str(one["node_id"])), one.get("key_count"),
               one.get("cpu_percent"), bool(one.get("connected")))
        for one in status["nodes"]
    ]  # fmt: skip
    moving = {one.partition: one.moving_to for one in view.partitions}
    partitions = []
    for one in status["partitions"]:
        serving = [one["replicas"].get(node) for node in (one["master"], *one["slaves"]) if node is not None]
        lags = [replica["lag"] for replica in serving if replica is not None]
        problems = [replica["problem"] for replica in serving if replica is not None and replica["problem"]]
        if one["master"] is None:
            problems.append("nobody serves it")
        number = one["partition"]
        partitions.append(
            Placed(number, one["master"], one["slaves"], moving.get(number, ()), one["end"], max(lags, default=None),
                   "; ".join(problems) or None)
        )  # fmt: skip
    return ClusterView(None, view.epoch, overlords, nodes, partitions, view.happened, view.note)


def cluster_json(view: ClusterView, time: Any) -> dict[str, Any]:
    """The view for programs; `time(µs)` writes times."""

    def member(one: Member) -> dict[str, Any]:
        since = None if one.since_us is None else time(one.since_us)
        return {"id": one.id, "address": one.address, "since": since, "keys": one.keys, "cpu_percent": one.cpu_pct}

    return {
        "at": None if view.at_us is None else time(view.at_us), "epoch": view.epoch, "note": view.note or None,
        "overlords": [member(one) for one in view.overlords], "nodes": [member(one) for one in view.nodes],
        "partitions": [one._asdict() | {"slaves": list(one.slaves), "moving_to": list(one.moving_to)} for one in view.partitions],
        "happened": [{"time": time(one.time_us), "kind": one.kind, "text": one.text} for one in view.happened],
    }  # fmt: skip


def _placed(value: Mapping[str, Any]) -> list[Placed]:
    groups = value.get("groups") or []

    def nodes(group: Any) -> list[str]:
        if not isinstance(group, int) or not 0 <= group < len(groups):
            return []
        master, slaves = groups[group]
        return [master, *slaves]

    placed = []
    for number, (group, moving_to) in enumerate(value.get("partitions") or []):
        holders = nodes(group)
        placed.append(Placed(number, holders[0] if holders else None, holders[1:], nodes(moving_to)))
    return placed


def _groups_text(value: Mapping[str, Any]) -> str:
    groups = [f"{master}{' + ' + ', '.join(slaves) if slaves else ''}" for master, slaves in value.get("groups") or []]
    moving = sum(moving_to is not None for _, moving_to in value.get("partitions") or [])
    return " | ".join(groups) + (f", {moving} partitions move" if moving else "")
