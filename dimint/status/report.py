"""What a look at the system found → one report: a map for JSON, with every problem in words. [S]

The system counts as healthy when nothing of it needs anybody: every process that is registered answers, every copy of the
log and of the store is there, served and equal. A replica that is catching up is not a problem, only shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dimint.assignment import Assignment
from dimint.door import DISPUTED
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.growth import Growth
from dimint.log.port import LogHealth
from dimint.readers import ReaderSeen

__all__ = ["LogSeen", "RegistrySeen", "Seen", "report"]

Members = Mapping[str, Mapping[str, Any]]


class RegistrySeen(NamedTuple):
    """Live members by role: id → info; who holds which partition; and by name the readers that are no parts of the system.

    Of supervisors there are only those of which some process is or was off.
    """

    overlords: Members
    nodes: Members
    consumers: Members
    pages: Members
    agents: Members
    supervisors: Members
    assignment: Assignment | None
    readers: Mapping[str, ReaderSeen] = {}


class LogSeen(NamedTuple):
    """The log itself. `ends` has the end offsets per topic, by partition, of the topics that were asked for."""

    kind: str
    url: str
    generation: str
    health: LogHealth
    growth: Mapping[str, Growth]
    ends: Mapping[str, Sequence[int]]


class Seen(NamedTuple):
    """One look. None is what was not there to be asked or did not answer; `failures` says which, in whole sentences.

    `asked` has the overlords' addresses: None for one that answered, else why not. `reply` is the `status` of one that did.
    """

    registry: RegistrySeen | None
    log: LogSeen | None
    asked: Mapping[str, str | None]
    reply: Mapping[str, Any] | None
    failures: Sequence[str] = ()


def report(seen: Seen) -> dict[str, Any]:
    """The report, JSON-able. `problems` is empty exactly if `healthy`."""
    problems = list(seen.failures)
    problems += [f"the overlord at {address} does not answer: {why}" for address, why in seen.asked.items() if why]
    reply: Mapping[str, Any] = seen.reply or {}
    log, registry = seen.log, seen.registry
    found: dict[str, Any] = {
        "log": log.kind if log else reply.get("log"),
        "url": log.url if log else None,
        "generation": log.generation if log else reply.get("generation"),
        "durability": log.health.durability if log else reply.get("durability"),
        "brokers": [broker._asdict() for broker in log.health.brokers] if log else [],
        "topics": _topics(log, problems) if log else [],
        "overlords": _overlords(seen),
    }
    partitions = _partitions(seen, problems)
    found["nodes"] = _nodes(seen, partitions, problems)
    found["partitions"] = partitions
    problems += _off(registry.supervisors) if registry else []
    # without a registry to look at nothing is known of these three, which is not the same as none
    found["consumers"] = _consumers(registry.consumers, log, problems) if registry else None
    found["pages"] = [{"id": id, **info} for id, info in sorted(registry.pages.items())] if registry else None
    found["agents"] = len(registry.agents) if registry else None
    found["dead_letters"] = {
        KV_TOPIC: sum(partition["dead_letters"] for partition in partitions),
        STATUS_TOPIC: max((consumer["dead_letters"] for consumer in found["consumers"] or ()), default=0),
    }
    return {"healthy": not problems, "problems": problems, **found}


# --- the log --------------------------------------------------------------------------------------------------------
def _topics(log: LogSeen, problems: list[str]) -> list[dict[str, Any]]:
    problems += [f"broker {broker.id} is down" for broker in log.health.brokers if not broker.up]
    found: list[dict[str, Any]] = []
    for topic in log.health.topics:
        if topic.stopped:
            problems.append(f"{topic.name}: {topic.stopped} of {topic.partitions} partitions take no append")
        if topic.lacking:
            problems.append(f"{topic.name}: {topic.lacking} of {topic.partitions} partitions lack a copy in sync")
        growth = log.growth.get(topic.name)
        found.append({**topic._asdict(), "growth": growth._asdict() if growth else None})
    return found


# --- processes ------------------------------------------------------------------------------------------------------
def _overlords(seen: Seen) -> list[dict[str, Any]]:
    """Registered overlords and those asked by address, each with `answers`, None if it was not asked."""
    told = {str(one.get("overlord_id")): one for one in (seen.reply or {}).get("overlords", [])}
    registered: Members = seen.registry.overlords if seen.registry else {}
    found = []
    for id in sorted({*told, *registered}):
        info = {**told.get(id, {}), **registered.get(id, {})}
        client = str(info.get("client", "")).removeprefix("tcp://")
        found.append({"overlord_id": id, **info, "answers": seen.asked[client] is None if client in seen.asked else None})
    known = {str(one.get("client", "")).removeprefix("tcp://") for one in found}
    others = [address for address in seen.asked if address not in known and not (found and seen.registry is None)]
    return found + [{"overlord_id": None, "client": address, "answers": seen.asked[address] is None} for address in others]


def _nodes(seen: Seen, partitions: Sequence[Mapping[str, Any]], problems: list[str]) -> list[dict[str, Any]]:
    """Every node that is registered or should be, with how far its copies are."""
    told = {str(one.get("node_id")): one for one in (seen.reply or {}).get("nodes", [])}
    registered: Members = seen.registry.nodes if seen.registry else {}
    placed = {id for partition in partitions for id in (partition["master"], *partition["slaves"]) if id}
    found = []
    for id in sorted({*told, *registered, *placed}):
        here = id in registered or (seen.registry is None and id in told)
        copies = [partition["replicas"][id] for partition in partitions if id in partition["replicas"]]
        info = {**told.get(id, {}), **registered.get(id, {})}
        if not here:
            problems.append(f"node {id[:8]} is down")
        elif seen.reply is not None and not info.get("connected", False):
            problems.append(f"node {id[:8]} is not connected to the overlord that was asked")
        found.append(
            {
                **info,
                "node_id": id,
                "up": here,
                "masters": sum(partition["master"] == id for partition in partitions),
                "slaves": sum(id in partition["slaves"] for partition in partitions),
                "copies": len(copies),
                "caught_up": sum(bool(copy.get("caught_up")) for copy in copies),
                "behind": sum(int(copy.get("lag") or 0) for copy in copies),
                "applied": sum(int(copy.get("next_offset") or 0) for copy in copies),
                "building": [
                    {"partition": partition["partition"], **way}
                    for partition in partitions
                    if (way := partition["replicas"].get(id, {}).get("building"))
                ],
            }
        )
    if not found and (seen.registry is not None or seen.reply is not None):
        problems.append("there is no node: nothing can be read from the store")
    return found


def _consumers(members: Members, log: LogSeen | None, problems: list[str]) -> list[dict[str, Any]]:
    ends = log.ends.get(STATUS_TOPIC) if log else None
    found = []
    for id, info in sorted(members.items()):
        stopped: Mapping[str, Any] = info.get("stopped") or {}
        positions: Mapping[str, int] = info.get("positions") or {}
        for partition, why in sorted(stopped.items()):
            problems.append(f"the consumer of {info.get('tables')} has stopped reading {STATUS_TOPIC}/{partition}: {why}")
        lag = None
        if ends is not None and positions:
            lag = sum(max(0, ends[int(at)] - position) for at, position in positions.items() if int(at) < len(ends))
        found.append({"id": id, **info, "lag": lag, "dead_letters": int(info.get("dead_letters") or 0)})
    return found


def _off(supervisors: Members) -> Iterator[str]:
    """What a `dimint up` cannot keep up."""
    for up in supervisors.values():
        for name, how in up.get("off", {}).items():
            yield f"{name} of dimint up on {up.get('host')} is off, tried again every few minutes: {how['why']}; see {how['log']}"


# --- partitions -----------------------------------------------------------------------------------------------------
def _partitions(seen: Seen, problems: list[str]) -> list[dict[str, Any]]:
    """As an overlord tells it; without one only what registry and log know."""
    if seen.reply is not None:
        return [_judged(partition, problems) for partition in seen.reply.get("partitions", [])]
    assignment = seen.registry.assignment if seen.registry else None
    ends = seen.log.ends.get(KV_TOPIC, ()) if seen.log else ()
    found: list[dict[str, Any]] = []
    for index in range(len(assignment.partitions) if assignment else len(ends)):
        servers = assignment.servers_of(index) if assignment else ()
        end = ends[index] if index < len(ends) else None
        found.append(
            {
                "partition": index,
                "master": servers[0] if servers else None,
                "slaves": list(servers[1:]),
                "end": end,
                "position": None,
                "lag": None,
                "digests": "unknown",
                "dead_letters": 0,
                "replicas": {},
            }
        )
    return found


def _judged(partition: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    index, master, replicas = partition["partition"], partition.get("master"), partition.get("replicas") or {}
    serving = [master, *partition.get("slaves", [])] if master else []
    for node in serving:
        copy = replicas.get(node)
        if copy is None:
            problems.append(f"partition {index}: node {node[:8]} tells nothing of its copy")
        elif copy.get("problem"):
            problems.append(f"partition {index} on node {node[:8]}: {copy['problem']}")
    if not master:
        problems.append(f"partition {index} has no master")
    elif not any(replicas.get(node, {}).get("caught_up") for node in serving):
        problems.append(f"partition {index}: no copy has caught up, so reads have to wait")
    digests = _digests(replicas)
    if digests == "differ":
        problems.append(f"partition {index}: its copies differ")
    top: Mapping[str, Any] = replicas.get(master) or {}
    return {
        **partition,
        "position": top.get("next_offset"),
        "lag": top.get("lag"),
        "digests": digests,
        "dead_letters": int(top.get("dead_letters") or 0),
    }


def _digests(replicas: Mapping[str, Mapping[str, Any]]) -> str:
    """How the copies compare: equal, differ (at one offset), disputed (one serves no reads for it), or not compared yet."""
    if any(str(copy.get("problem") or "").startswith(DISPUTED) for copy in replicas.values()):
        return "disputed"
    marks: dict[int, set[str]] = {}
    told: dict[int, int] = {}
    for copy in replicas.values():
        at = copy.get("digest_at", -1)
        if isinstance(at, int) and at >= 0 and copy.get("digest"):
            marks.setdefault(at, set()).add(copy["digest"])
            told[at] = told.get(at, 0) + 1
    if any(len(found) > 1 for found in marks.values()):
        return "differ"
    if len(replicas) < 2:
        return "one copy"
    return "equal" if told and max(told.values()) == len(replicas) else "not yet"
