"""`dimint export` and `dimint import`: stretches of a log as files."""

import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from dimint.cli_client import write_json
from dimint.cli_log import GOES_ON, on_interrupt, opened, stretch_flags, stretch_of
from dimint.cli_options import with_settings
from dimint.errors import SettingsError
from dimint.progress import progress_of
from dimint.replay.export import Exported, export_to_file, export_to_stream, part_of
from dimint.replay.importing import checked_archive, import_archive
from dimint.replay.ranges import select
from dimint.settings import ToolSettings

__all__ = ["COMMANDS"]

_JSON_HELP = "The result as JSON, and progress as JSON lines on stderr."
EXPORT_HELP = """
    Write a log, or a stretch of it, into one file that can be checked, kept and imported; - is a pipe.

    Interrupted or killed it goes on where it was when it is called again.
"""
IMPORT_HELP = """
    Copy an archive into another log, which is made if there is none: the same events, ids, log times and order.

    All of the file is read and checked before anything is written; - is a pipe. Called again after any end it goes on
    where it was, and what is there already is left out.
"""


@click.command(name="export", help=EXPORT_HELP)
@stretch_flags
@click.option("--out", required=True, metavar="FILE", help="The archive to make; - for a pipe.")
@click.option("as_json", "--json", is_flag=True, help=_JSON_HELP)
@with_settings(ToolSettings)
def export(settings: Any, out: str, as_json: bool, **flags: Any) -> None:
    """See the help text."""
    stretch = stretch_of(flags["topic"], flags["start"], flags["end"])
    progress = progress_of("export", as_json=as_json)
    if out == "-" and sys.stdout.isatty():
        raise SettingsError("an archive is not for a terminal", hint="name a file with --out, or a pipe")
    with opened(settings) as log:
        ranges = select(log, topics=stretch.topics, start=stretch.start, end=stretch.end)
        if out == "-":
            done = export_to_stream(log, ranges, sys.stdout.buffer, progress=progress)
        else:
            with on_interrupt(f"the same command goes on from {part_of(Path(out))}"):
                done = export_to_file(log, ranges, Path(out), progress=progress)
    _tell(done, out, as_json)


def _tell(done: Exported, out: str, as_json: bool) -> None:
    if out == "-":
        return
    if as_json:
        write_json({"file": out, **done._asdict()})
        return
    click.echo(f"{done.events:,} events in {done.batches:,} batches, {done.size:,} bytes")
    if done.repeated or done.dead_letters:
        click.echo(f"dimint: {done.repeated} repeated batches and {done.dead_letters} dead letters were left out", err=True)


@click.command(name="import", help=IMPORT_HELP)
@click.argument("file", metavar="FILE")
@click.option("--into", required=True, metavar="LOG", help="A data directory, or kafka://host:port[/name].")
@click.option("--keep-sound", "--keep_sound", is_flag=True, help="Import a damaged file up to its last sound frame.")
@click.option("as_json", "--json", is_flag=True, help=_JSON_HELP)
@with_settings(ToolSettings)
def import_(settings: Any, file: str, into: str, keep_sound: bool, as_json: bool) -> None:
    """See the help text."""
    with on_interrupt(GOES_ON), click.open_file(file, "rb") as stream:
        archive = cast(BinaryIO, stream)
        checking = progress_of("check", as_json=as_json)
        copying = progress_of("import", as_json=as_json)
        with (
            checked_archive(archive, keep_sound=keep_sound, progress=checking) as (sound, checked),
            opened(settings, into, new=True) as target,  # only now: what is not sound makes no log
        ):
            done = import_archive(sound, checked, target, progress=copying)
    if as_json:
        write_json(done._asdict())
    else:
        there = f", {done.there:,} were there already" if done.there else ""
        click.echo(f"{done.batches:,} batches imported{there}; the archive holds {done.events:,} events")


COMMANDS = {"export": export, "import": import_}
