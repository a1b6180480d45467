"""`dimint verify`: is every record whole, and is what was made of the log what the log says?"""

import json as json_
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click

from dimint.cli_client import addresses_of, spelled, write_row
from dimint.cli_log import opened
from dimint.cli_options import with_settings
from dimint.client.network import DEFAULT_PORT
from dimint.client.sync import DEFAULT_TIMEOUT_S
from dimint.code_version import code_version
from dimint.curve import read_key
from dimint.errors import LogMismatch, SettingsError
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.port import Log
from dimint.log.reading import Counted, DeadLetter
from dimint.progress import progress_of
from dimint.registry.opening import registry_directory
from dimint.replay.determinism import EVERY, compare_determinism, write_determinism
from dimint.replay.positions import format_position
from dimint.replay.ranges import select
from dimint.replay.stream import Stream
from dimint.replay.trimming import archives_in
from dimint.settings import CommonSettings, ToolSettings
from dimint.snapshot_folder import SNAPSHOTS_FOLDER, folders_in
from dimint.status.look import registered_overlords

__all__ = ["verify"]


@click.command(name="verify")
@click.argument("what", type=click.Choice(["log", "node", "status", "replicas", "all"]), default="all")
@click.option("as_json", "--json", is_flag=True, help="JSON lines, for programs.")
@click.option(
    "--determinism",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare what this version of the code makes of the log with FILE of another one; write FILE if it is not there.",
)
@click.option("--every", type=click.IntRange(1, 1_000_000), default=EVERY, show_default=True,
              help="A line of that FILE for each so many records of a partition.")  # fmt: skip
@spelled("host", default=None, help="Of replicas: an overlord's address; several with commas. Default: those of the registry.")
@spelled("port_for_client", type=click.IntRange(1, 65535), default=None,
         help="Of replicas: the overlords' port for clients, where --host names none [5556].")  # fmt: skip
@spelled("timeout", type=click.FloatRange(0, min_open=True), default=DEFAULT_TIMEOUT_S, help="Of replicas: seconds to wait.")
@with_settings(ToolSettings)
def verify(
    settings: Any,
    what: str,
    as_json: bool,
    determinism: Path | None,
    every: int,
    host: str | None,
    port_for_client: int | None,
    timeout: float,
) -> int:
    """Check the log, the node stores and the status tables of this machine. Exit status 1 if anything is wrong.

    log: every record of every topic is decoded and its checksum compared. node, status: the log is read again beside the
    live stores and tables, up to where these are, and the two are compared; the programs may go on meanwhile.

    replicas: every key is asked of each node of a running system that holds it, and the answers are compared. It finds the
    overlord in the registry of this machine, or where --host says; it needs no log, and is not part of all.
    """
    wrong = 0
    if what == "replicas":
        for found in _check_replicas(settings, _overlords(settings, host, port_for_client), timeout, as_json):
            wrong += found["problem"] is not None
            _tell(what, found, as_json)
        return int(wrong > 0)
    with opened(settings) as log:
        if determinism is not None:
            return _determinism(settings, log, determinism, every, as_json)
        for name, check in (("log", _check_log), ("node", _check_nodes), ("status", _check_tables)):
            if what not in (name, "all"):
                continue
            for found in check(settings, log, as_json):
                wrong += found["problem"] is not None
                _tell(name, found, as_json)
    return int(wrong > 0)


def _overlords(settings: CommonSettings, host: str | None, port: int | None) -> list[str]:
    if host is None and port is None:
        addresses = registered_overlords(settings)
        if not addresses:
            where = ",".join(settings.zookeeper_hosts) or str(registry_directory(settings))
            raise SettingsError(f"no overlord is running: none is in the registry {where}",
                                hint="start one, or name it by --host")  # fmt: skip
        return addresses
    return addresses_of(host or "127.0.0.1", port or DEFAULT_PORT)


def _tell(what: str, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json_.dumps({"what": what, **found}))
    else:
        write_row(f"{what:7}", found["name"], found["text"], "ok" if found["problem"] is None else found["problem"])


def _determinism(settings: CommonSettings, log: Log, path: Path, every: int, as_json: bool) -> int:
    snapshots = folders_in(settings.data_dir / SNAPSHOTS_FOLDER, log.describe().generation)
    progress = progress_of("verify", as_json=as_json)
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix="verify-") as scratch:
        if not path.exists():
            lines = write_determinism(log, path, Path(scratch), every=every, snapshots=snapshots, progress=progress)
            row = {"file": str(path), "code": code_version(), "lines": lines}
            click.echo(json_.dumps(row) if as_json else f"{path}: {lines} lines, written by {code_version()}")
            return 0
        found = compare_determinism(log, path, Path(scratch), snapshots=snapshots, progress=progress)
    if as_json:
        click.echo(json_.dumps({"file": str(path), **found._asdict(), "compared_with": code_version()}))
    else:
        verdict = found.problem or f"the same in {found.lines} lines"
        note = f"; {found.note}" if found.note else ""
        click.echo(f"{found.code} (the file) and {code_version()} (this code): {verdict}{note}")
    return int(found.problem is not None)


def _found(name: str, text: str, problem: str | None) -> dict[str, Any]:
    return {"name": name, "text": text, "problem": problem}


def _check_log(_settings: CommonSettings, log: Log, as_json: bool) -> Iterator[dict[str, Any]]:
    topics = [topic for topic, partitions in log.describe().topics.items() if partitions]
    for topic in sorted(topics):
        progress = progress_of(f"verify {topic}", as_json=as_json)
        problem: str | None = None
        batches = events = dead = 0
        first_dead = ""
        with Stream(log, select(log, topics=[topic])) as stream:
            total = stream.left()
            try:
                for item in stream.history():
                    batches += 1
                    if isinstance(item.taken, Counted):
                        events += len(item.taken.events)
                    elif isinstance(item.taken, DeadLetter):
                        dead += 1
                        first_dead = first_dead or format_position(*item.place, item.record.offset)
                    if not batches % 1000:
                        progress.at(total - stream.left(), total, events)
            except LogMismatch as error:
                problem = str(error)
        progress.end(total, total, events)
        letters = f", {dead} dead letters from {first_dead} on (dimint deadletters list)" if dead else ""
        yield _found(topic, f"{batches} records, {events} events{letters}", problem)


def _check_nodes(settings: CommonSettings, log: Log, as_json: bool) -> Iterator[dict[str, Any]]:
    from dimint.node.cli import NODES_FOLDER
    from dimint.node.verify import verify_store

    snapshots = folders_in(settings.data_dir / SNAPSHOTS_FOLDER, log.describe().generation)
    for directory in sorted((settings.data_dir / NODES_FOLDER).glob("*/store")):
        with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix="verify-") as scratch:
            progress = progress_of(f"verify node {directory.parent.name}", as_json=as_json)
            for verdict in verify_store(directory.parent, log, Path(scratch), snapshots, progress=progress):
                where = f"{verdict.partition}@{verdict.next_offset}"
                text = f"{verdict.key_count} keys up to dimint.kv/{where}, digest {verdict.digest}"
                yield _found(directory.parent.name, text, verdict.problem)


def _check_replicas(settings: CommonSettings, overlords: list[str], timeout: float, as_json: bool) -> Iterator[dict[str, Any]]:
    from dimint.client import Client
    from dimint.replay.replicas import NodeDoors, compare_replicas

    with Client(overlords, timeout=timeout, key_file=settings.key_file) as client:
        topology, status = client.topology(), client.status()
    with closing(NodeDoors(topology["nodes"], timeout_s=timeout, key=read_key(settings.key_file))) as doors:
        progress = progress_of("verify replicas", as_json=as_json)
        for one in compare_replicas(str(status["generation"]), status["partitions"], doors.ask, progress=progress):
            text = f"{one.keys} keys on {', '.join(node[:8] for node in one.nodes) or 'no node'}"
            if one.unsettled:
                text += f", {one.unsettled} of them change too fast to be compared"
            elif len(one.nodes) < 2:
                text += ": nothing to compare with"
            yield _found(f"{KV_TOPIC}/{one.partition}", text, one.problem)


def _check_tables(settings: CommonSettings, log: Log, as_json: bool) -> Iterator[dict[str, Any]]:
    from dimint.consumers.folder import TablesFolder
    from dimint.consumers.reading import TABLES_FOLDER
    from dimint.consumers.verify import verify_tables

    if not (settings.data_dir / TABLES_FOLDER).is_dir():
        return
    with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix="verify-") as scratch:
        archives = partial(archives_in, settings.archives, STATUS_TOPIC, log.describe().generation)
        folder = TablesFolder(settings.data_dir / TABLES_FOLDER)
        verdict = verify_tables(
            log, folder, Path(scratch), archives=archives, progress=lambda what: progress_of(f"verify {what}", as_json=as_json)
        )
    if verdict is not None:
        problem = None if verdict.same else f"row {verdict.rows + 1}: the tables have {verdict.live}, the log says {verdict.log}"
        yield _found("tables", f"{verdict.rows} rows", problem)
