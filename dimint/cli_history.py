"""`dimint history`, `diff` and `restore`, and what `get --at` and `scan --at` print: the past of keys."""

import sys
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final

import click

from dimint.cli_client import connected, connection, spelled, write_json, write_row
from dimint.cli_options import setting_flags, settings_from
from dimint.cli_past import LAST_US, THEN_HELP, PastSource, cut_of, cut_text, past_source, system_flags
from dimint.cli_replay import restore_into
from dimint.client import Client
from dimint.client.content import to_text
from dimint.client.past import Difference, PastChange
from dimint.errors import SettingsError
from dimint.settings import ToolSettings
from dimint.zone import local_zone

__all__ = ["COMMANDS"]

_SHOWN_CHARS: Final = 60


@click.command(name="history")
@click.argument("key")
@click.option("start", "--from", metavar="TIME|POSITION", help=f"From here on: {THEN_HELP}.")
@click.option("end", "--to", metavar="TIME|POSITION", help="Up to here, likewise; what is at that time or position is in it.")
@spelled("limit", type=click.IntRange(1), help="Only the newest so many.")
@click.option("as_json", "--json", is_flag=True, help="JSON lines, for programs.")
@system_flags
@setting_flags("tool")
def history(key: str, start: str | None, end: str | None, limit: int | None, as_json: bool, **flags: Any) -> None:
    """Print every change of KEY, the oldest first: when, who, from which host, where in the log, what.

    The first call reads the whole log once and keeps an index in the data directory; later ones read what is new.
    """
    since, until = cut_of("from", start), cut_of("to", end, LAST_US)
    with _source(flags, as_json) as past:
        found = past.history(key, since, until, limit)
    for change in found:
        if as_json:
            write_json(_as_map(change))
        else:
            who = f"{change.by.client or change.by.process}@{change.by.host}"
            write_row(_stamp(change.log_time_us), change.position, change.kind, who, _short(change))
    if not found and not as_json:
        click.echo(f"dimint: nothing is known of {key!r} in that time", err=True)


@click.command(name="diff")
@click.argument("prefix", default="")
@click.option("start", "--from", metavar="TIME|POSITIONS", required=True, help=f"The earlier state: {THEN_HELP}.")
@click.option("end", "--to", metavar="TIME|POSITIONS", help="The later state; now by default.")
@click.option("as_json", "--json", is_flag=True, help="JSON lines, for programs.")
@system_flags
@setting_flags("tool")
def diff(prefix: str, start: str, end: str | None, as_json: bool, **flags: Any) -> None:
    """Print the keys (that start with PREFIX) whose value is another than it was: +, - or ~, the key, before, after."""
    since, until = cut_of("from", start), cut_of("to", end, LAST_US)
    with _source(flags, as_json) as past:
        for each in past.diff(since, until, prefix):
            _print_difference(each, as_json)


@click.command(name="restore")
@click.option("end", "--to", metavar="TIME|POSITIONS", required=True, help=f"The state that is restored: {THEN_HELP}.")
@spelled("key", help="Only this key.")
@spelled("prefix", help="Only keys that start so; an empty one means all keys.")
@spelled("into", metavar="LOG", help="The whole store of then into a new log: a data directory, or kafka://host:port/name.")
@spelled("dry_run", is_flag=True, help="Only show what would change.")
@spelled("yes", is_flag=True, help="Do not ask.")
@spelled("log", metavar="LOG", help="The log, if it is not in the data directory.")
@spelled("data_dir", metavar="PATH", help="The data directory.")
@connection
def restore(
    end: str,
    key: str | None,
    prefix: str | None,
    into: str | None,
    dry_run: bool,
    yes: bool,
    log: str | None,
    data_dir: str | None,
    json: bool,
    **where: Any,
) -> int:
    """Bring keys back to what they were, by new events: the history stays, and the restore is in it.

    What will change is shown first. A key that changes meanwhile is left as it is and named; restored keys do not expire.

    With --into the store of then, with its history up to then, goes into a new log, for a cluster of its own; this one is
    only read. Stopped or killed, the command that it prints goes on where it was.
    """
    if sum(given is not None for given in (key, prefix, into)) != 1:
        raise click.UsageError("give one of --key, --prefix (--prefix= for all keys) and --into")
    then = cut_of("to", end)
    shown = _stamp(then) if isinstance(then, int) else cut_text(then)
    flags = {"log": log, "data_dir": data_dir}
    if into is not None:
        restore_into(settings_from(ToolSettings, flags), into, then, dry_run=dry_run, as_json=json)
        return 0
    with past_source(flags, where, as_json=json) as past:
        plan = [each for each in past.diff(then, LAST_US, key or prefix or "") if key is None or each.key == key]
    for each in plan:
        _print_difference(Difference(each.key, each.after, each.before), json)
    if not plan or dry_run:
        click.echo(f"dimint: {len(plan)} keys differ from {shown}", err=True)
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise SettingsError("nobody is there to ask", hint="add --yes, or --dry_run to look only")
        click.confirm(f"restore these {len(plan)} keys to {shown}?", abort=True, err=True)
    with connected(**where) as client:
        left = [each.key for each in plan if not _restored(client, each)]
    click.echo(f"dimint: {len(plan) - len(left)} keys restored to {shown}", err=True)
    for changed in left:
        click.echo(f"dimint: {changed!r} has changed meanwhile and is left as it is", err=True)
    return int(bool(left))


def _source(flags: dict[str, Any], as_json: bool) -> AbstractContextManager[PastSource]:
    where = {name: flags.pop(name) for name in ("host", "port_for_client", "timeout")}
    where["key_file"] = settings_from(ToolSettings, flags).key_file
    return past_source(flags, where, as_json=as_json)


COMMANDS: Final[dict[str, click.Command]] = {"history": history, "diff": diff, "restore": restore}


def _restored(client: Client, each: Difference) -> bool:
    """Whether the key could be brought back; not if it is another one than the plan was made for."""
    version = 0 if each.after is None else each.after.version
    if each.before is not None:
        return client.cas(each.key, each.before.value, version=version).applied
    if client.get_versioned(each.key, consistency="strong").version != version:
        return False
    client.delete(each.key)
    return True


def _print_difference(each: Difference, as_json: bool) -> None:
    sign = "+" if each.before is None else "-" if each.after is None else "~"
    if as_json:
        write_json({"key": each.key, "change": sign, "before": _as_map(each.before), "after": _as_map(each.after)})
    else:
        write_row(sign, each.key, _short(each.before), _short(each.after))


def _as_map(change: PastChange | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "key": change.key, "position": change.position, "index": change.index, "kind": change.kind, "value": change.value,
        "deleted": change.removed, "version": change.version, "log_time_us": change.log_time_us, "by": change.by._asdict(),
    }  # fmt: skip


def _short(change: PastChange | None) -> str:
    if change is None or change.removed:
        return "-"
    text = to_text(change.value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


def _stamp(log_time_us: int) -> str:
    return datetime.fromtimestamp(log_time_us / 1e6, local_zone()).strftime("%Y-%m-%d %H:%M:%S.%f")
