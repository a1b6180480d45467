"""Key-value commands of the command line: get, set, delete, incr, cas, scan, mget, mset, state, overlord_state."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

import click

from dimint.cli_client import connected, connection, spelled, write_json, write_row, write_value
from dimint.client.content import from_text, to_text
from dimint.client.operations import CONSISTENCIES
from dimint.visible import visible

__all__ = ["COMMANDS"]

Command = TypeVar("Command", bound=Callable[..., Any])

VALUE_HELP: Final = "VALUE is taken as JSON if it is JSON, else as a string; --string takes it as a string in any case."

_consistency = spelled("consistency", type=click.Choice(CONSISTENCIES), default="session", help="What a read must see.")
_ttl = spelled("ttl", type=click.FloatRange(0, min_open=True), help="Seconds after which the key expires.")
_string = spelled("string", is_flag=True, help="Take values as strings, even if they are JSON.")


def _past(command: Command) -> Command:
    """--at, answered from the log, or by a running system if --host or --port_for_client is given and neither of these two."""
    at = spelled(
        "at", metavar="TIME|POSITIONS", help="As it was then, from the log: -2h, yesterday 14:00, … or positions; docs/replay.md."
    )
    log = spelled("log", metavar="LOG", help="With --at: the log, if it is not in the data directory.")
    data_dir = spelled("data_dir", metavar="PATH", help="With --at: the data directory.")
    return at(log(data_dir(command)))


def _value(text: str, string: bool) -> Any:
    return text if string else from_text(text)


def _no(message: str) -> NoReturn:
    """End with status 1 and one line on stderr: not an error, but not what was asked for."""
    click.echo(f"dimint: {message}", err=True)
    raise click.exceptions.Exit(1)


@click.command()
@click.argument("key")
@_consistency
@_past
@connection
def get(key: str, consistency: str, at: str | None, log: str | None, data_dir: str | None, json: bool, **where: Any) -> None:
    """Print the value of KEY: a string as it is, anything else as JSON. Exit status 1 if there is none."""
    if at is not None:
        value, version = _value_at(key, at, {"log": log, "data_dir": data_dir}, where, json)
    else:
        with connected(**where) as client:
            value, version = client.get_versioned(key, consistency=consistency)[:2]
    if not version:
        _no(f"there is no key {key!r}" if at is None else f"there was no key {key!r}")
    if json:
        write_json({"key": key, "value": value, "version": version})
    else:
        write_value(value)


def _value_at(key: str, at: str, flags: dict[str, str | None], where: dict[str, Any], as_json: bool) -> tuple[Any, int]:
    """(value, version) of a key as it was then; version 0 if it was not there."""
    from dimint.cli_past import cut_of, past_source

    then = cut_of("at", at)
    with past_source(flags, where, as_json=as_json) as past:
        found = past.get(key, then)
    return (None, 0) if found is None else (found.value, found.version)


@click.command("set", epilog=VALUE_HELP)
@click.argument("key")
@click.argument("value")
@_string
@_ttl
@spelled("if_absent", is_flag=True, help="Only if the key is not there.")
@spelled("if_present", is_flag=True, help="Only if the key is there.")
@connection
def set_(
    key: str, value: str, string: bool, ttl: float | None, if_absent: bool, if_present: bool, json: bool, **where: Any
) -> None:
    """Set KEY to VALUE. Exit status 1 if a condition did not hold."""
    with connected(**where) as client:
        applied = client.set(key, _value(value, string), ttl=ttl, if_absent=if_absent, if_present=if_present)
    if json:
        write_json({"key": key, "applied": applied})
    if not applied:
        _no(f"{key!r} is there already" if if_absent else f"there is no key {key!r}")


@click.command()
@click.argument("key")
@connection
def delete(key: str, json: bool, **where: Any) -> None:
    """Delete KEY, whether or not it is there."""
    with connected(**where) as client:
        client.delete(key)
    if json:
        write_json({"key": key, "ok": True})


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("by", type=int, default=1)
@connection
def incr(key: str, by: int, json: bool, **where: Any) -> None:
    """Add BY (1 if left out, may be negative) to the integer under KEY and print the sum."""
    with connected(**where) as client:
        value = client.incr(key, by)
    write_json({"key": key, "value": value} if json else value)


@click.command(epilog=VALUE_HELP)
@click.argument("key")
@click.argument("value")
@spelled("expected", metavar="VALUE", help="Set if this is the value now.")
@spelled("version", type=click.IntRange(0), help="Set if this is the version now; 0: if the key is not there.")
@_string
@_ttl
@connection
def cas(
    key: str,
    value: str,
    expected: str | None,
    version: int | None,
    string: bool,
    ttl: float | None,
    json: bool,
    **where: Any,
) -> None:
    """Set KEY to VALUE if it has the --expected value or the --version. Exit status 1 if not."""
    if (expected is None) == (version is None):
        raise click.UsageError("give either --expected or --version")
    new = _value(value, string)
    with connected(**where) as client:
        if expected is not None:
            result = client.cas(key, new, expected=_value(expected, string), ttl=ttl)
        else:
            result = client.cas(key, new, version=version, ttl=ttl)
    if json:
        write_json({"key": key, **result._asdict()})
    if not result.applied:
        _no(f"{key!r} has version {result.version}" if result.version else f"there is no key {key!r}")
    if not json:
        write_json(result.version)


@click.command()
@click.argument("prefix", default="")
@spelled("limit", type=click.IntRange(1), help="Print at most so many keys.")
@spelled("keys", is_flag=True, help="Print keys without values.")
@_consistency
@_past
@connection
def scan(
    prefix: str,
    limit: int | None,
    keys: bool,
    consistency: str,
    at: str | None,
    log: str | None,
    data_dir: str | None,
    json: bool,
    **where: Any,
) -> None:
    """List the keys that start with PREFIX (all without one): key, a tab, the value as JSON."""
    if at is None:
        with connected(**where) as client:
            for key, value in client.scan(prefix, limit=limit, page_size=1000, consistency=consistency):
                _print_pair(key, value, keys, json)
        return
    from dimint.cli_past import cut_of, past_source

    then = cut_of("at", at)
    with past_source({"log": log, "data_dir": data_dir}, where, as_json=json) as past:
        for change in past.scan(prefix, then, limit):
            _print_pair(change.key, change.value, keys, json)


def _print_pair(key: str, value: Any, keys: bool, json: bool) -> None:
    if json:
        write_json({"key": key} if keys else {"key": key, "value": value})
    else:
        write_row(key) if keys else write_row(key, to_text(value))


@click.command()
@click.argument("keys", nargs=-1, required=True)
@_consistency
@connection
def mget(keys: tuple[str, ...], consistency: str, json: bool, **where: Any) -> None:
    """Print those of KEYS that are there: key, a tab, the value as JSON. Exit status 1 if one is missing."""
    with connected(**where) as client:
        found = client.mget(keys, consistency=consistency)
    if json:
        write_json(found)
    else:
        for key, value in found.items():
            write_row(key, to_text(value))
    missing = [key for key in keys if key not in found]
    if missing:
        _no(f"there is no key {', '.join(map(repr, missing))}")


@click.command(epilog=VALUE_HELP)
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE…")
@_string
@_ttl
@connection
def mset(pairs: tuple[str, ...], string: bool, ttl: float | None, json: bool, **where: Any) -> None:
    """Set several keys, in one step per partition."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE")
        values[key] = _value(value, string)
    with connected(**where) as client:
        client.mset(values, ttl=ttl)
    if json:
        write_json({"count": len(values), "ok": True})


@click.command()
@connection
def state(json: bool, **where: Any) -> None:
    """Show the nodes: role, keys, processor and memory."""
    with connected(**where) as client:
        rows = client.state()
    _table(rows, json, ("node_id", "role", "master_node_id", "key_count", "cpu_percent", "memory_percent"))


@click.command()
@connection
def overlord_state(json: bool, **where: Any) -> None:
    """Show the overlords: processor and memory."""
    with connected(**where) as client:
        rows = client.overlord_state()
    _table(rows, json, ("overlord_id", "name", "cpu_percent", "memory_percent", "is_running"))


def _table(rows: list[dict[str, Any]], json: bool, columns: Sequence[str]) -> None:
    if json:
        write_json(rows)
        return
    lines = [list(columns)] + [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        write_row("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else visible(str(value))


COMMANDS: Final[dict[str, click.Command]] = {
    "get": get,
    "set": set_,
    "delete": delete,
    "incr": incr,
    "cas": cas,
    "scan": scan,
    "mget": mget,
    "mset": mset,
    "state": state,
    "overlord_state": overlord_state,
}
