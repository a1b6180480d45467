"""`dimint rebuild node|status|all`: make projections of the log anew."""

import importlib
from pathlib import Path
from typing import Any, Final

import click

from dimint.cli_options import setting_flags, settings_from
from dimint.errors import SettingsError
from dimint.log.opening import is_missing
from dimint.settings import CommonSettings, ConsumerSettings, NodeSettings

__all__ = ["rebuild"]

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
HELP: Final = (
    "Rebuild node stores, status tables or both from the log, and print their digests. "
    "Nodes must be stopped for it; consumer and pages may run and follow to the new tables."
)


@click.command(name="rebuild", help=HELP)
@click.argument("what", type=click.Choice(["node", "status", "all"]))
@click.option(
    "--archive",
    "archives",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read this archive of the log before the log, for status tables; may be given several times.",
)
@setting_flags("node")
def rebuild(what: str, archives: tuple[Path, ...], **parameters: Any) -> None:
    """See the help text."""
    if archives and what == "node":
        raise click.UsageError("--archive is for status tables")
    node = settings_from(NodeSettings, parameters)
    status = settings_from(ConsumerSettings, parameters)
    if not node.overlord_host:
        _check_log(status)
    if what in ("node", "all"):
        importlib.import_module("dimint.node.cli").rebuild(node)
    if what in ("status", "all"):
        importlib.import_module("dimint.consumers.cli").rebuild(status, archives=archives)


def _check_log(settings: CommonSettings) -> None:
    """A mistyped directory must not become a new, empty log."""
    if is_missing(settings.log):
        raise SettingsError(f"there is no log in {settings.log}", hint="name its directory with --data_dir or --log")
