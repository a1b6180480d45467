"""`dimint rebuild node|status|all`: make projections of the log anew."""

import importlib
from typing import Any

import click

from dimint.cli_options import setting_flags, settings_from
from dimint.settings import ConsumerSettings, NodeSettings

__all__ = ["rebuild"]


@click.command(name="rebuild", help="Rebuild node stores, status tables or both from the log. Their processes must be stopped.")
@click.argument("what", type=click.Choice(["node", "status", "all"]))
@setting_flags("node")
def rebuild(what: str, **parameters: Any) -> None:
    """See the help text."""
    if what in ("node", "all"):
        importlib.import_module("dimint.node.cli").rebuild(settings_from(NodeSettings, parameters))
    if what in ("status", "all"):
        importlib.import_module("dimint.consumers.cli").rebuild(settings_from(ConsumerSettings, parameters))
