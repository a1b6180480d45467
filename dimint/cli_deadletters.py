"""`dimint deadletters list|show|redrive`: records that no reader took in, and appending what they should have been."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dimint.batch import Event
from dimint.cli_client import spelled, write_json, write_row
from dimint.cli_log import opened, stretch_flags, stretch_of
from dimint.cli_options import with_settings
from dimint.errors import BadEvent, BadPosition, SettingsError
from dimint.events import describe
from dimint.genesis import Genesis
from dimint.log.opening import find_genesis
from dimint.log.port import Log
from dimint.progress import progress_of
from dimint.replay.catalog import Catalog
from dimint.replay.event import text_of
from dimint.replay.found import Unread, hex_dump
from dimint.replay.positions import parse_positions
from dimint.replay.ranges import select
from dimint.replay.redriving import Letter, events_from_lines, events_lines, find_letter, redrive, sound_events
from dimint.settings import ToolSettings
from dimint.zone import local_zone

__all__ = ["deadletters"]


@click.group(
    name="deadletters", help="Records that no reader took in: list them, look at them, append what they should have been."
)
def deadletters() -> None:
    """See the help text."""


@click.command(name="list", help="List the records that no reader took in, the oldest first: when, where, why, how large, and "
               "where what stands for it was appended.")  # fmt: skip
@stretch_flags
@click.option("as_json", "--json", is_flag=True, help="JSON lines, for programs.")
@with_settings(ToolSettings)
def list_letters(settings: Any, topic: tuple[str, ...], start: str | None, end: str | None, as_json: bool) -> None:
    stretch = stretch_of(topic, start, end)
    with opened(settings) as log:
        catalog = Catalog(log, _genesis(log))
        # what stands for a letter comes after it, so the rest of the log is looked at too
        catalog.cover(select(log, topics=stretch.topics, start=stretch.start), progress=progress_of("look", as_json=as_json))
        found = catalog.unread(select(log, topics=stretch.topics, start=stretch.start, end=stretch.end))[::-1]
    for one in found:
        if as_json:
            write_json(_as_map(one))
        else:
            state = f"redriven at {one.redriven}" if one.redriven else "" if one.is_dead else "readers stop here"
            write_row(_stamp(one), one.position, one.reason, one.detail, f"{one.size} bytes", state)
    if not found and not as_json:
        click.echo("dimint: everything could be read", err=True)


@click.command(name="show", help="Show one record: why nobody took it in, and its bytes; --events: the events that it holds, as "
               "`redrive --as` takes them.")  # fmt: skip
@click.argument("position")
@click.option("events", "--events", is_flag=True, help="Only the events, if it tells any: JSON lines to be corrected.")
@click.option("as_json", "--json", is_flag=True, help="JSON, for programs.")
@with_settings(ToolSettings)
def show(settings: Any, position: str, events: bool, as_json: bool) -> None:
    with opened(settings) as log:
        letter = _letter(log, _genesis(log), position)
    if events:
        for line in events_lines(letter.record):
            click.echo(line)
    elif as_json:
        write_json(_as_map(letter.unread) | {"hex": letter.record.value.hex()})
    else:
        one = letter.unread
        write_row(_stamp(one), one.position, one.reason, one.detail, f"{one.size} bytes")
        for partition, place in sorted(letter.redriven.items()):
            write_row(f"redriven into partition {partition}", place)
        click.echo(hex_dump(letter.record.value))


@click.command(name="redrive", help="Append the events that the record at POSITION should have been, once for ever: those that "
               "it holds itself, if they are sound, or the ones in FILE. What would be appended is shown first.")  # fmt: skip
@click.argument("position")
@click.option("file", "--as", metavar="FILE", help="JSON lines as `dimint events --json` prints them; - for a pipe.")
@spelled("dry_run", is_flag=True, help="Only show what would be appended.")
@spelled("yes", is_flag=True, help="Do not ask.")
@with_settings(ToolSettings)
def redrive_command(settings: Any, position: str, file: str | None, dry_run: bool, yes: bool) -> int:
    with opened(settings) as log:
        genesis = _genesis(log)
        letter = _letter(log, genesis, position)
        if not letter.unread.is_dead:
            hint = "upgrade this program" if letter.unread.reason == "newer" else "see docs/operations.md"
            raise SettingsError(f"readers stop at {position}: {letter.unread.detail}", hint=hint)
        events = _events(letter, file)
        plan = redrive(log, genesis, letter, events, dry_run=True)
        left = [partition for partition, place in plan.items() if not place]
        if not left:
            click.echo(f"dimint: {position} is redriven already: {', '.join(plan.values())}", err=True)
            return 0
        for event in events:
            fields = describe(event)
            kind, key = fields.pop("kind"), fields.pop("key")
            write_row(kind, "-" if key is None else key, *(f"{name}={text_of(value)}" for name, value in fields.items()))
        words = f"{len(events)} events into {', '.join(f'partition {partition}' for partition in left)} of {letter.record.topic}"
        if dry_run:
            click.echo(f"dimint: would append {words}", err=True)
            return 0
        if not yes:
            if not sys.stdin.isatty():
                raise SettingsError("nobody is there to ask", hint="add --yes, or --dry_run to look only")
            click.confirm(f"append {words}?", abort=True, err=True)
        done = redrive(log, genesis, letter, events)
    for partition in sorted(done):
        write_row(f"{position} is redriven at {done[partition]}")
    return 0


for _command in (list_letters, show, redrive_command):
    deadletters.add_command(_command)


def _genesis(log: Log) -> Genesis:
    found = find_genesis(log)
    if found is None:
        raise SettingsError("the log has no beginning: nothing was ever written to it")
    return found


def _letter(log: Log, genesis: Genesis, position: str) -> Letter:
    try:
        ((place, offset),) = parse_positions(position).items()
    except (BadPosition, ValueError) as error:
        raise SettingsError(f"{position!a:.100} is not one position ({error})") from None
    letter = find_letter(log, genesis, place, offset)
    if letter is None:
        raise SettingsError(f"{position} is no dead letter", hint="`dimint deadletters list` shows them")
    return letter


def _events(letter: Letter, file: str | None) -> list[Event]:
    if file is None:
        return sound_events(letter.record)
    try:
        lines = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--as: {file} cannot be read ({error})") from None
    try:
        return events_from_lines(lines.splitlines(), letter.record.topic)
    except BadEvent as error:
        raise SettingsError(f"--as: {file}: {error.message}") from None


def _as_map(one: Unread) -> dict[str, Any]:
    return {
        "position": one.position, "time_ns": one.time_ns, "bytes": one.size, "reason": one.reason, "detail": one.detail,
        "stops": not one.is_dead, "redriven": one.redriven,
    }  # fmt: skip


def _stamp(one: Unread) -> str:
    return datetime.fromtimestamp(one.time_ns / 1e9, local_zone()).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
