"""`dimint rebuild node|status|all`: make projections of the log anew."""

import importlib
from typing import Any, Final

import click

from dimint.cli_options import setting_flags, settings_from
from dimint.errors import SettingsError
from dimint.log.opening import is_missing
from dimint.settings import CommonSettings, ConsumerSettings, NodeSettings

__all__ = ["rebuild"]

HELP: Final = (
    "Rebuild node stores, status tables or both from the log, and print their digests. "
    "Nodes must be stopped for it; consumer and pages may run and follow to the new tables."
)


@click.command(name="rebuild", help=HELP)
@click.argument("what", type=click.Choice(["node", "status", "all"]))
@setting_flags("node")
def rebuild(what: str, **parameters: Any) -> None:
    """See the help text."""
    node = settings_from(NodeSettings, parameters)
    status = settings_from(ConsumerSettings, parameters)
    if not node.overlord_host:
        _check_log(status)
    if what in ("node", "all"):
        importlib.import_module("dimint.node.cli").rebuild(node)
    if what in ("status", "all"):
        importlib.import_module("dimint.consumers.cli").rebuild(status)


def _check_log(settings: CommonSettings) -> None:
    """A mistyped directory must not become a new, empty log."""
    if is_missing(settings.log):
        raise SettingsError(f"there is no log in {settings.log}", hint="name its directory with --data_dir or --log")
