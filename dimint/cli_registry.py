"""`dimint registry [clear]`: what the original's `test.py` showed and cleared."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from dimint.assignment import ASSIGNMENT_PATH, Assignment, decode
from dimint.cli_options import with_settings
from dimint.errors import SettingsError
from dimint.readers import READERS_PATH
from dimint.registry.opening import open_registry, registry_directory
from dimint.registry.port import Registry
from dimint.settings import ToolSettings

__all__ = ["registry"]


@contextmanager
def _opened(settings: ToolSettings) -> Iterator[Registry]:
    found = open_registry(settings)
    try:
        yield found
    finally:
        found.close()


def _show(settings: Any, as_json: bool) -> None:
    overlords: list[str] = []
    nodes: list[str] = []
    stored = None
    if _is_there(settings):
        with _opened(settings) as found:
            overlords, nodes = sorted(found.members("overlord")), sorted(found.members("node"))
            stored = found.get(ASSIGNMENT_PATH)
    assignment = decode(stored.value) if stored is not None else Assignment(0, (), ())
    if as_json:
        groups = [{"master": group.master, "slaves": list(group.slaves)} for group in assignment.groups]
        click.echo(json.dumps({"overlords": overlords, "nodes": nodes, "epoch": assignment.epoch, "groups": groups}))
        return
    click.echo(f"overlord list : {overlords!r}")
    click.echo(f"node list : {nodes!r}")
    for group in assignment.groups:
        click.echo(f"master node : {group.master}")
        for slave in group.slaves:
            click.echo(f"\tslave node : {slave}")


@click.command(name="registry", help="Show who is registered; `clear` removes what dead processes left, never the log's content.")
@click.argument("action", required=False, type=click.Choice(["clear"]))
@click.option("--yes", is_flag=True, help="Do not ask before clearing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_settings(ToolSettings)
def registry(settings: Any, action: str | None, yes: bool, as_json: bool) -> None:
    """See the help text."""
    if action == "clear":
        _clear(settings, yes)
    else:
        _show(settings, as_json)


def _clear(settings: Any, yes: bool) -> None:
    if not yes:
        if not sys.stdin.isatty():
            raise SettingsError("clear asks first, and there is no terminal to ask on", hint="add --yes")
        click.confirm("Remove stale entries from the registry?", abort=True)
    if _is_there(settings):
        with _opened(settings) as found:
            found.clear(keep=[READERS_PATH])  # what others need of the log is not stale


def _is_there(settings: ToolSettings) -> bool:
    """Whether there is a registry to look at: looking must not make one."""
    return bool(settings.zookeeper_hosts) or registry_directory(settings).is_dir()
