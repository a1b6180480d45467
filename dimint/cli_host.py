"""`dimint host list|rename|merge|forget`: the hosts, and what people change about them."""

import json
from datetime import datetime
from typing import Any

import click

from dimint.cli_client import write_row
from dimint.cli_options import with_settings
from dimint.errors import SettingsError
from dimint.limits import HOST_NAME_MAX_CHARS
from dimint.settings import ConsumerSettings
from dimint.visible import visible
from dimint.zone import local_zone

__all__ = ["host"]


@click.group(name="host", help="List the hosts, name them otherwise, merge or forget them.")
def host() -> None:
    """See the help text."""


@click.command(name="list", help="List the hosts: name, id, address, last sample.")
@click.option("--all", "everything", is_flag=True, help="Also those that are merged into others.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@with_settings(ConsumerSettings)
def list_hosts(settings: ConsumerSettings, everything: bool, as_json: bool) -> None:
    from dimint.consumers.reading import TABLES_FOLDER, StatusReader

    with StatusReader(settings.data_dir / TABLES_FOLDER) as reader:
        rows = [(row, "") for row in reader.hosts()]
        if everything:
            rows += reader.merged().values()
    for row, into in rows:
        if as_json:
            click.echo(json.dumps({"id": row.id, "name": row.name, "given_name": row.given_name, "ip": row.ip,
                                   "registered_ns": row.registered_ns, "last_sample_ns": row.last_sample_ns,
                                   "simulated": row.simulated, "merged_into": into or None}))  # fmt: skip
        else:
            own = "" if row.given_name == row.name else f"calls itself {row.given_name}"
            write_row(row.name, row.id, row.ip, _stamp(row.last_sample_ns), own, f"merged into {into}" if into else "")


@click.command(name="rename", help="Call HOST (a name or an id) NAME; without NAME it is called as it calls itself again.")
@click.argument("wanted", metavar="HOST")
@click.argument("name", default="")
@with_settings(ConsumerSettings)
def rename(settings: ConsumerSettings, wanted: str, name: str) -> None:
    if len(name) > HOST_NAME_MAX_CHARS or (name and not name.strip()):
        raise SettingsError(f"a host's name has 1 to {HOST_NAME_MAX_CHARS} characters")
    row = _find(settings, wanted)
    _change(settings, "host.renamed", row, name)


@click.command(name="merge", help="HOST was, under another id, the same machine as INTO: INTO goes on with its history. HOST is "
               "not listed any more, and still found by its id. --undo takes it back.")  # fmt: skip
@click.argument("wanted", metavar="HOST")
@click.argument("into", default="")
@click.option("--undo", is_flag=True, help="HOST stands for itself again.")
@with_settings(ConsumerSettings)
def merge(settings: ConsumerSettings, wanted: str, into: str, undo: bool) -> None:
    row = _find(settings, wanted)
    if undo == bool(into):
        raise click.UsageError("name the host that stays, or --undo")
    target = "" if undo else _find(settings, into).id
    if target == row.id:
        raise SettingsError(f"{row.name!a} cannot be merged into itself")
    if target and target in _merged(settings):
        raise SettingsError(f"{into!a} is itself merged into another host", hint="merge into that one")
    _change(settings, "host.merged", row, target)


@click.command(name="forget", help="Remove all that is kept of HOST from tables and pages; the log keeps its events. A host "
               "whose agent still runs comes back with its next sample.")  # fmt: skip
@click.argument("wanted", metavar="HOST")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings(ConsumerSettings)
def forget(settings: ConsumerSettings, wanted: str, yes: bool) -> None:
    row = _find(settings, wanted)
    if not yes:
        click.confirm(f"remove the samples, tiers, processes and GPU-hours of {visible(row.name)} ({row.id})?", abort=True)
    _change(settings, "host.forgotten", row)


for _command in (list_hosts, rename, merge, forget):
    host.add_command(_command)


def _find(settings: ConsumerSettings, wanted: str) -> Any:
    from dimint.consumers.hosts import find_host
    from dimint.consumers.reading import TABLES_FOLDER, StatusReader

    with StatusReader(settings.data_dir / TABLES_FOLDER) as reader:
        return find_host(reader, wanted)


def _merged(settings: ConsumerSettings) -> set[str]:
    from dimint.consumers.reading import TABLES_FOLDER, StatusReader

    with StatusReader(settings.data_dir / TABLES_FOLDER) as reader:
        return set(reader.merged())


def _change(settings: ConsumerSettings, kind: str, row: Any, *fields: str) -> None:
    from dimint.consumers.hosts import change_host

    followed = change_host(settings, kind, row.id, *fields)
    write_row(f"{kind} {row.name} ({row.id})" + ("" if followed else ": in the log; no status consumer has read it yet"))


def _stamp(time_ns: int | None) -> str:
    return "never" if time_ns is None else datetime.fromtimestamp(time_ns / 1e9, local_zone()).strftime("%Y-%m-%d %H:%M:%S")
