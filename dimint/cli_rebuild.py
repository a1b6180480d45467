"""`dimint rebuild node|status|all`: make projections of the log anew."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from dimint.cli_log import GOES_ON, bound_of, on_interrupt
from dimint.cli_options import setting_flags, settings_from
from dimint.errors import SettingsError
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.opening import is_missing
from dimint.replay.positions import Bound
from dimint.settings import CommonSettings, ConsumerSettings, NodeSettings

__all__ = ["rebuild"]

_ARCHIVE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_TOPICS: Final = {"node": KV_TOPIC, "status": STATUS_TOPIC}
PAST_FOLDER: Final = "past"
HELP: Final = """
    Rebuild node stores, status tables or both from the log, and print their digests.

    The new ones are built beside the live ones. Nodes, consumer and pages go on serving, and switch to them at the end in
    one step. With --to or --into nothing is switched: what is built, up to a position or a time, is kept in a folder that
    is laid out like a data directory.

    Interrupted or killed, the same command goes on where it was.
"""


@click.command(name="rebuild", help=HELP)
@click.argument("what", type=click.Choice(["node", "status", "all"]))
@click.option(
    "--archive",
    "archives",
    multiple=True,
    metavar="FILE",
    type=_ARCHIVE,
    help="Read this archive of the log before the log, for status tables; may be given several times.",
)
@click.option("--to", "end", metavar="BOUND", help="The first that is not read: positions like dimint.kv/3@1234, or a time.")
@click.option(
    "--into",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep what is built in this folder; with --to it is `past` in the data directory by default.",
)
@click.option(
    "--snapshot",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Begin node stores with this snapshot; by default one of the data directory, where the log was trimmed.",
)
@click.option("as_json", "--json", is_flag=True, help="The results as JSON lines, and progress as JSON lines on stderr.")
@setting_flags("node")
def rebuild(
    what: str,
    archives: tuple[Path, ...],
    end: str | None,
    into: Path | None,
    snapshot: Path | None,
    as_json: bool,
    **parameters: Any,
) -> None:
    """See the help text."""
    if archives and what == "node":
        raise click.UsageError("--archive is for status tables")
    if snapshot is not None and what == "status":
        raise click.UsageError("--snapshot is for node stores")
    node = settings_from(NodeSettings, parameters)
    status = settings_from(ConsumerSettings, parameters)
    if not node.overlord_host:
        _check_log(status)
    if end is not None and into is None:
        into = status.data_dir / PAST_FOLDER
    if into is not None and into.absolute() == status.data_dir.absolute():
        raise SettingsError("--into names the data directory itself", hint="name another folder")
    bound = bound_of("to", end)
    chosen = _chosen(what, bound)
    with on_interrupt(GOES_ON):
        if "node" in chosen:
            importlib.import_module("dimint.node.cli").rebuild(node, end=bound, into=into, snapshot=snapshot, as_json=as_json)
        if "status" in chosen:
            importlib.import_module("dimint.consumers.cli").rebuild(
                status, archives=archives, end=bound, into=into, as_json=as_json
            )


def _chosen(what: str, end: Bound | None) -> set[str]:
    """What is built: of `all` that of which the end names partitions. Raises SettingsError if that is nothing."""
    chosen = {"node", "status"} if what == "all" else {what}
    if isinstance(end, Mapping):
        chosen &= {name for name, topic in _TOPICS.items() if any(place.topic == topic for place in end)}
    if not chosen:
        raise SettingsError(
            "--to names no partition of what is to be rebuilt", hint="name positions of dimint.kv or dimint.status"
        )
    return chosen


def _check_log(settings: CommonSettings) -> None:
    """A mistyped directory must not become a new, empty log."""
    if is_missing(settings.log):
        raise SettingsError(f"there is no log in {settings.log}", hint="name its directory with --data_dir or --log")
