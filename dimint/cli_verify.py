"""`dimint verify`: is every record whole, and is what was made of the log what the log says?"""

import json as json_
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dimint.cli_client import write_row
from dimint.cli_log import opened
from dimint.cli_options import with_settings
from dimint.errors import LogMismatch
from dimint.events import STATUS_TOPIC
from dimint.log.port import Log
from dimint.log.reading import Counted, DeadLetter
from dimint.progress import progress_of
from dimint.replay.positions import format_position
from dimint.replay.ranges import select
from dimint.replay.stream import Stream
from dimint.replay.trimming import ARCHIVES_FOLDER, archives_in
from dimint.settings import CommonSettings, ToolSettings
from dimint.snapshot_folder import SNAPSHOTS_FOLDER, folders_in

__all__ = ["verify"]


@click.command(name="verify")
@click.argument("what", type=click.Choice(["log", "node", "status", "all"]), default="all")
@click.option("as_json", "--json", is_flag=True, help="JSON lines, for programs.")
@with_settings(ToolSettings)
def verify(settings: Any, what: str, as_json: bool) -> int:
    """Check the log, the node stores and the status tables of this machine. Exit status 1 if anything is wrong.

    log: every record of every topic is decoded and its checksum compared. node, status: the log is read again beside the
    live stores and tables, up to where these are, and the two are compared; the programs may go on meanwhile.
    """
    wrong = 0
    with opened(settings) as log:
        for name, check in (("log", _check_log), ("node", _check_nodes), ("status", _check_tables)):
            if what not in (name, "all"):
                continue
            for found in check(settings, log, as_json):
                wrong += found["problem"] is not None
                if as_json:
                    click.echo(json_.dumps({"what": name, **found}))
                else:
                    write_row(f"{name:7}", found["name"], found["text"], "ok" if found["problem"] is None else found["problem"])
    return int(wrong > 0)


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
        letters = f", {dead} dead letters from {first_dead} on (dimint events --dead)" if dead else ""
        yield _found(topic, f"{batches} records, {events} events{letters}", problem)


def _check_nodes(settings: CommonSettings, log: Log, _as_json: bool) -> Iterator[dict[str, Any]]:
    from dimint.node.cli import NODES_FOLDER
    from dimint.node.verify import verify_store

    snapshots = folders_in(settings.data_dir / SNAPSHOTS_FOLDER, log.describe().generation)
    for directory in sorted((settings.data_dir / NODES_FOLDER).glob("*/store")):
        with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix="verify-") as scratch:
            for verdict in verify_store(directory.parent, log, Path(scratch), snapshots):
                where = f"{verdict.partition}@{verdict.next_offset}"
                text = f"{verdict.key_count} keys up to dimint.kv/{where}, digest {verdict.digest}"
                yield _found(directory.parent.name, text, verdict.problem)


def _check_tables(settings: CommonSettings, log: Log, _as_json: bool) -> Iterator[dict[str, Any]]:
    from dimint.consumers.folder import TablesFolder
    from dimint.consumers.reading import TABLES_FOLDER
    from dimint.consumers.verify import verify_tables

    if not (settings.data_dir / TABLES_FOLDER).is_dir():
        return
    with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix="verify-") as scratch:
        archives = archives_in(settings.data_dir / ARCHIVES_FOLDER, STATUS_TOPIC, log.describe().generation)
        verdict = verify_tables(log, TablesFolder(settings.data_dir / TABLES_FOLDER), Path(scratch), archives=archives)
    if verdict is not None:
        problem = None if verdict.same else f"row {verdict.rows + 1}: the tables have {verdict.live}, the log says {verdict.log}"
        yield _found("tables", f"{verdict.rows} rows", problem)
