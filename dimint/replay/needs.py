"""Who still needs what stands in a topic: stores, tables, the history of keys, and the snapshots that new stores begin with."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from dimint.clock import Clock
from dimint.curve import read_key
from dimint.errors import NotSafe
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.port import Log
from dimint.replay.history import HistoryIndex, history_folder
from dimint.settings import CommonSettings
from dimint.snapshot_folder import SNAPSHOTS_FOLDER, SNAPSHOTS_NEEDED, first_usable, folders_in
from dimint.status.look import look
from dimint.status.report import RegistrySeen
from dimint.trim_plan import Needs

__all__ = ["needs_of"]

_LOOK_S: Final = 5.0


def needs_of(settings: CommonSettings, log: Log, topic: str, clock: Clock) -> list[Needs]:
    """Everybody known who reads the topic, here and in the registry, and where they are.

    Raises NotSafe if somebody is there and where he is cannot be known now. Programs that read the log are known if they
    tell (dimint/replay/readers.py).
    """
    seen = look(settings, (), _LOOK_S, clock, read_key(settings.key_file))
    partitions = range(log.describe().topics.get(topic, 0))
    if topic not in (STATUS_TOPIC, KV_TOPIC):
        raise NotSafe(f"{topic} is never trimmed: it holds what the log begins with")
    if seen.registry is None and seen.failures:
        raise NotSafe(f"who reads the log is not known: {seen.failures[0]}", hint="name the registry with --zookeeper_hosts")
    needs = _of_readers(seen.registry, log, topic, partitions)
    if topic == STATUS_TOPIC:
        return needs + _of_status(settings, log, seen.registry, partitions)
    needs += _of_nodes(seen.registry, seen.reply)
    needs += _of_stores(settings, log, partitions)
    needs += _of_snapshots(settings, log, partitions)
    return needs


def _of_readers(registry: RegistrySeen | None, log: Log, topic: str, partitions: Sequence[int]) -> list[Needs]:
    """Programs that are no parts of the system and have told what they need."""
    needs = []
    for name, seen in sorted(registry.readers.items()) if registry is not None else ():
        first = {partition: offset for (of, partition), offset in seen.needs.items() if of == topic}
        if seen.log == log.describe().generation and first:
            told = f"{datetime.fromtimestamp(seen.told_ns // 10**9, UTC):%Y-%m-%d %H:%M} UTC"
            who = f"the reader {name!a} of {seen.host} (told {told}; dimint reader forget, if it is no more)"
            needs.append(Needs(who, {at: first.get(at, 0) for at in partitions}))
    return needs


def _of_nodes(registry: RegistrySeen | None, reply: Mapping[str, Any] | None) -> list[Needs]:
    """Every copy that a node has or should have, as an overlord tells it."""
    if reply is None:
        if registry is not None and registry.nodes:
            raise NotSafe("how far the nodes are is not known: no overlord answers", hint="start one, or stop the nodes")
        return []
    first: dict[str, dict[int, int]] = {}
    for partition in reply.get("partitions", []):
        replicas = partition.get("replicas") or {}
        serving = [partition.get("master"), *partition.get("slaves", [])]
        for node in {*replicas, *(node for node in serving if node)}:
            known = replicas.get(node) or {}
            first.setdefault(node, {})[int(partition["partition"])] = int(known.get("next_offset") or 0)
    return [Needs(f"node {node[:8]}", positions) for node, positions in sorted(first.items())]


def _of_stores(settings: CommonSettings, log: Log, partitions: Sequence[int]) -> list[Needs]:
    """The stores in this data directory, whether or not their nodes run, and the history of keys."""
    from dimint.node.replica import META, read_meta
    from dimint.node.store import rows_of_partitions

    generation = log.describe().generation
    history = history_folder(settings.data_dir, generation)
    places = [(f"the store in {path.parent}", path.parent) for path in sorted((settings.data_dir / "nodes").glob("*/store"))]
    if HistoryIndex.is_in(history):
        places.append(("the history of keys (dimint history KEY brings it up to date)", history / "fold"))
    found = []
    for who, directory in places:
        first = dict.fromkeys(partitions, 0) if directory.parent == history else {}
        rows = rows_of_partitions(directory, META) if (directory / "store").exists() else {}
        for partition, row in rows.items():
            meta = read_meta(row)
            if meta is not None and meta.fingerprint.generation == generation:
                first[partition] = meta.next_offset
        found.append(Needs(who, first))
    return found


def _of_snapshots(settings: CommonSettings, log: Log, partitions: Sequence[int]) -> list[Needs]:
    """The newest snapshots that a store can begin with, of which the oldest says how far may be trimmed."""
    folder = settings.data_dir / SNAPSHOTS_FOLDER
    sound, problem = first_usable(folders_in(folder, log.describe().generation), log, SNAPSHOTS_NEEDED)
    if len(sound) < SNAPSHOTS_NEEDED:
        there = f"{len(sound)} of {SNAPSHOTS_NEEDED} sound snapshots are in {folder}; dimint snapshot takes one"
        return [Needs(f"a new node ({there}){f' ({problem})' if problem else ''}", dict.fromkeys(partitions, 0))]
    found = []
    for one in sound:  # a partition that it does not have was empty: it begins with the log
        first = {at: one.partitions[at].next_offset if at in one.partitions else 0 for at in partitions}
        found.append(Needs(f"a new node that begins with {one.path}", first))
    return found


def _of_status(settings: CommonSettings, log: Log, registry: RegistrySeen | None, partitions: Sequence[int]) -> list[Needs]:
    from dimint.consumers.reading import TABLES_FOLDER, StatusReader

    found = []
    for info in registry.consumers.values() if registry is not None else ():
        positions = {int(at): int(position) for at, position in (info.get("positions") or {}).items()}
        stopped = {int(at) for at in info.get("stopped") or {}}  # one that has stopped tells no position: it needs everything
        first = {at: 0 if at in stopped else positions.get(at, 0) for at in partitions}
        found.append(Needs(f"the consumer of {info.get('tables')}", first))
    with closing(StatusReader(settings.data_dir / TABLES_FOLDER)) as tables:
        if tables.generation() == log.describe().generation:
            read = tables.positions()
            found.append(Needs(f"the tables in {settings.data_dir}", {at: read.get(at, 0) for at in partitions}))
    return found
