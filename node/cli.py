"""Puts a node together from its settings: what `dimint node`, `dimint up` and `dimint rebuild` run."""

import json
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from dimint.collector import tune_collector
from dimint.curve import read_key
from dimint.errors import SettingsError
from dimint.events import KV_TOPIC
from dimint.genesis import Genesis
from dimint.log.opening import genesis, open_settings_log
from dimint.log.port import Log
from dimint.log.waiting import open_when_there
from dimint.node.finding import with_log_of_overlord
from dimint.node.loop import Addresses, Node
from dimint.node.membership import Ports
from dimint.node.rebuild import Rebuilt, Snapshots
from dimint.node.rebuilding import rebuild_into, rebuild_live
from dimint.node.snapshots import take_snapshot
from dimint.node.store import Store, StoreInUse
from dimint.process_state import own_address
from dimint.progress import Progress, progress_of
from dimint.registry.waiting import open_registry_when_there
from dimint.replay.positions import Bound
from dimint.replay.ranges import ends_of
from dimint.service import Service
from dimint.settings import CommonSettings, NodeSettings
from dimint.snapshot_folder import SNAPSHOTS_FOLDER, SnapshotFolder, folders_in, name_of, read_folder
from dimint.system_clock import SystemClock

__all__ = ["NODES_FOLDER", "rebuild", "run", "snapshot"]

NODES_FOLDER = "nodes"
"""In the data directory: one directory a node, with its store and its id."""
UNNAMED_MAX = 64
ANY_ADDRESS = {"0.0.0.0", "::", "*"}  # noqa: S104 - recognised, not bound


def run(settings: NodeSettings, service: Service) -> None:
    """Open log, registry and store, serve until the service stops, close them again."""
    clock = SystemClock()
    host = socket.gethostname()
    settings = with_log_of_overlord(settings)
    with ExitStack() as stack:
        log, found = open_when_there(settings, wanted=settings.genesis, clock=clock, process="node", service=service)
        stack.callback(log.close)
        registry = open_registry_when_there(settings, log_id=found.generation, service=service)
        stack.callback(registry.close)
        store = stack.enter_context(closing(_open_store(settings)))
        tune_collector()
        node = Node(
            node_id(store.directory),
            found,
            Ports(log, registry, clock),
            store,
            host=host,
            addresses=Addresses(
                settings.bind,
                settings.advertise or (own_address() if settings.bind in ANY_ADDRESS else settings.bind),
                settings.port_for_reads,
                settings.allow_plain,
                read_key(settings.key_file),
            ),
            heartbeat_s=settings.heartbeat,
            spawn=service.spawn,
            ready=service.ready,
        )
        service.run(node)


def rebuild(
    settings: NodeSettings,
    *,
    end: Bound | None = None,
    into: Path | None = None,
    snapshot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Rebuild the stores of this machine's nodes from the log, beside the live ones, and switch to them.

    With `into` one store of all partitions is built in that data directory instead, up to `end`, and the live ones stay.
    Where the log does not begin at its beginning any more a snapshot of the data directory is gone out from, else that in
    the folder `snapshot` if it is given. Prints a line a partition. Raises SettingsError if another rebuild is at work.
    """
    tune_collector()
    settings = with_log_of_overlord(settings)
    with ExitStack() as stack:
        log, found = _open_log(settings, SystemClock(), stack)
        if snapshot is None:
            snapshots = Snapshots(folders_in(settings.data_dir / SNAPSHOTS_FOLDER, found.generation))
        else:
            snapshots = Snapshots([read_folder(snapshot)], always=True)
        if into is not None:
            progress = progress_of("rebuild node", as_json=as_json)
            directory = into / NODES_FOLDER / "1"
            _tell(directory, rebuild_into(directory, log, ends_of(log, KV_TOPIC, end), snapshots, progress), as_json)
            return
        directories = [_directory(settings, settings.node_name)] if settings.node_name else list(_directories(settings))
        for directory in directories:
            progress = progress_of(f"rebuild node {directory.name}", as_json=as_json)
            _tell(directory, rebuild_live(directory, log, snapshots, progress), as_json)
        if not directories and snapshot is not None:
            raise SettingsError("there is no node here", hint="start one, or name a folder with --into")
        if not directories and not as_json:
            print(f"no node has a store in {settings.data_dir / NODES_FOLDER}")


def snapshot(settings: CommonSettings, into: Path | None, progress: Progress) -> SnapshotFolder:
    """Write the stores of this machine's nodes into the folder `into`, or a new one of the data directory's snapshots.

    Raises SettingsError, StoreError or BadSnapshot.
    """
    clock = SystemClock()
    with ExitStack() as stack:
        log, found = _open_log(settings, clock, stack)
        now_ns = clock.time_ns()
        if into is None:
            into = settings.data_dir / SNAPSHOTS_FOLDER / name_of(now_ns)
        return take_snapshot(list(_directories(settings)), log, found, into, now_ns=now_ns, progress=progress)


def _tell(directory: Path, found: Generator[Rebuilt, None, None], as_json: bool) -> None:
    with closing(found):
        for rebuilt in found:
            row = {"what": "node", "node": directory.name, **rebuilt._asdict()}
            print(json.dumps(row) if as_json else f"node {directory.name} {rebuilt}", flush=True)


def node_id(directory: Path) -> str:
    """The id of the node in `directory`, 32 hex digits, made the first time."""
    file = directory / "id"
    if not file.exists():
        temporary = directory / "id.new"
        temporary.write_text(os.urandom(16).hex() + "\n")
        os.replace(temporary, file)
    text = file.read_text().strip()
    if len(text) != 32 or any(digit not in "0123456789abcdef" for digit in text):
        raise SettingsError(f"{file} does not hold a node id", hint="remove it: the node gets a new one")
    return text


def _open_log(settings: CommonSettings, clock: SystemClock, stack: ExitStack) -> tuple[Log, Genesis]:
    log = open_settings_log(settings, clock=clock)
    stack.callback(log.close)
    return log, genesis(log, wanted=settings.genesis, clock=clock, host=socket.gethostname(), process="node")


def _directory(settings: NodeSettings, name: str) -> Path:
    if "/" in name or name in (".", ".."):
        raise SettingsError(f"node_name: {name!r} is no name for a directory")
    return settings.data_dir / NODES_FOLDER / name


def _directories(settings: CommonSettings) -> Iterator[Path]:
    folder = settings.data_dir / NODES_FOLDER
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if (path / "store").is_dir())


def _open_store(settings: NodeSettings) -> Store:
    """The named store, or the first one that no other node has."""
    if settings.node_name:
        return Store(_directory(settings, settings.node_name))
    for number in range(1, UNNAMED_MAX + 1):
        try:
            return Store(_directory(settings, str(number)))
        except StoreInUse:
            continue
    raise SettingsError(f"{UNNAMED_MAX} nodes run in {settings.data_dir} already", hint="give this one a --node_name")
