"""`dimint reader list|tell|forget`: programs that read the log, for which it is kept."""

from contextlib import closing
from datetime import datetime
from socket import gethostname
from typing import Any

import click

from dimint.cli_client import write_json, write_row
from dimint.cli_log import opened
from dimint.cli_options import with_settings
from dimint.errors import BadPosition, SettingsError
from dimint.readers import ReaderSeen
from dimint.registry.opening import open_registry
from dimint.replay.positions import format_positions, parse_positions
from dimint.replay.ranges import select
from dimint.replay.readers import forget_reader, readers_in, tell_reader
from dimint.settings import ToolSettings
from dimint.system_clock import SystemClock
from dimint.zone import local_zone

__all__ = ["reader"]


@click.group(name="reader", help="List, tell or forget the programs that read the log: what they need is not trimmed.")
def reader() -> None:
    """See the help text."""


@click.command(name="list", help="Show each reader: name, host, when it told last, and the first records that it needs.")
@click.option("as_json", "--json", is_flag=True, help="JSON lines, for programs.")
@with_settings(ToolSettings)
def list_readers(settings: Any, as_json: bool) -> None:
    """See the help text."""
    with opened(settings) as log, closing(open_registry(settings)) as registry:
        ends = {each.place: each.end for each in select(log)}
        for name, seen in sorted(readers_in(registry).items()):
            is_ours = seen.log == log.describe().generation
            behind = sum((ends.get(place) or offset) - offset for place, offset in seen.needs.items()) if is_ours else None
            needs = format_positions(seen.needs)
            if as_json:
                write_json({"name": name, **seen._asdict(), "needs": needs, "behind": behind})
            else:
                told = datetime.fromtimestamp(seen.told_ns / 1e9, local_zone()).strftime("%Y-%m-%d %H:%M:%S")
                write_row(name, seen.host, told, "of another log" if behind is None else f"{behind} records behind", needs)


@click.command(name="tell", help="Say for NAME that it needs POSITIONS and what follows: for programs that are not in Python.")
@click.argument("name")
@click.argument("positions")
@with_settings(ToolSettings)
def tell(settings: Any, name: str, positions: str) -> None:
    """See the help text."""
    try:
        needs = parse_positions(positions)
    except BadPosition as error:
        raise SettingsError(str(error)) from error
    with opened(settings) as log:
        select(log, start=needs)  # they must be there
        generation = log.describe().generation
        with closing(open_registry(settings, log_id=generation)) as registry:
            tell_reader(registry, name, ReaderSeen(generation, needs, gethostname(), SystemClock().time_ns()))


@click.command(name="forget", help="Keep nothing for NAME any more. If it runs, it is known again when it tells where it is.")
@click.argument("name")
@with_settings(ToolSettings)
def forget(settings: Any, name: str) -> None:
    """See the help text."""
    with opened(settings), closing(open_registry(settings)) as registry:
        if not forget_reader(registry, name):
            raise SettingsError(f"there is no reader {name!r}", hint="dimint reader list shows them")


for _command in (list_readers, tell, forget):
    reader.add_command(_command)
