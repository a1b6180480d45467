"""Key-value commands of the command line: get, set, delete, incr, cas, scan, mget, mset, state, overlord_state."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar

import click

from dimint.client import Client
from dimint.client.content import from_text, to_text
from dimint.client.operations import CONSISTENCIES
from dimint.client.sync import DEFAULT_TIMEOUT_S
from dimint.errors import DimintError

__all__ = ["COMMANDS"]

Command = TypeVar("Command", bound=Callable[..., Any])

VALUE_HELP: Final = "VALUE is taken as JSON if it is JSON, else as a string; --string takes it as a string in any case."


def _spelled(name: str, *rest: Any, **options: Any) -> Callable[[Command], Command]:
    """An option that may be written with underscores and with dashes."""
    spellings = [f"--{name}"] + ([f"--{name.replace('_', '-')}"] if "_" in name else [])
    return click.option(name, *spellings, *rest, **options)


def _connection(command: Command) -> Command:
    options: Sequence[Callable[[Command], Command]] = (
        _spelled("host", default="127.0.0.1", show_default=True, help="An overlord's address; several with commas."),
        _spelled("port_for_client", type=click.IntRange(1, 65535), default=5556, show_default=True,
                 envvar="DIMINT_PORT_FOR_CLIENT", help="The overlord's port for clients."),
        _spelled("timeout", type=click.FloatRange(0, min_open=True), default=DEFAULT_TIMEOUT_S, show_default=True,
                 help="Seconds to wait for an answer."),
        _spelled("json", is_flag=True, help="Print JSON, for programs."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


_consistency = _spelled("consistency", type=click.Choice(CONSISTENCIES), default="session", help="What a read must see.")
_ttl = _spelled("ttl", type=click.FloatRange(0, min_open=True), help="Seconds after which the key expires.")
_string = _spelled("string", is_flag=True, help="Take values as strings, even if they are JSON.")


@contextlib.contextmanager
def _client(host: str, port_for_client: int, timeout: float) -> Iterator[Client]:
    places = [part.strip() for part in host.split(",") if part.strip()]
    addresses = [place if ":" in place.rpartition("]")[2] else f"{place}:{port_for_client}" for place in places]
    try:
        with Client(addresses, timeout=timeout) as client:
            yield client
    except DimintError as error:
        # what the wire calls it helps in reports; main prints the line
        code = getattr(error, "code", "")
        if code and code not in error.message:
            error.message = f"{error.message} ({code})"
        raise


def _value(text: str, string: bool) -> Any:
    return text if string else from_text(text)


def _show(value: Any) -> None:
    """A string as it is, bytes as they are, everything else as JSON."""
    if isinstance(value, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
    else:
        click.echo(value if isinstance(value, str) else to_text(value))


def _no(message: str) -> NoReturn:
    """End with status 1 and one line on stderr: not an error, but not what was asked for."""
    click.echo(f"dimint: {message}", err=True)
    raise click.exceptions.Exit(1)


@click.command()
@click.argument("key")
@_consistency
@_connection
def get(key: str, consistency: str, json: bool, **where: Any) -> None:
    """Print the value of KEY: a string as it is, anything else as JSON. Exit status 1 if there is none."""
    with _client(**where) as client:
        missing = object()
        found = client.get_versioned(key, consistency=consistency)
        value = found.value if found.version else missing
    if value is missing:
        _no(f"there is no key {key!r}")
    if json:
        click.echo(to_text({"key": key, "value": value, "version": found.version}))
    else:
        _show(value)


@click.command("set", epilog=VALUE_HELP)
@click.argument("key")
@click.argument("value")
@_string
@_ttl
@_spelled("if_absent", is_flag=True, help="Only if the key is not there.")
@_spelled("if_present", is_flag=True, help="Only if the key is there.")
@_connection
def set_(
    key: str, value: str, string: bool, ttl: float | None, if_absent: bool, if_present: bool, json: bool, **where: Any
) -> None:
    """Set KEY to VALUE. Exit status 1 if a condition did not hold."""
    with _client(**where) as client:
        applied = client.set(key, _value(value, string), ttl=ttl, if_absent=if_absent, if_present=if_present)
    if json:
        click.echo(to_text({"key": key, "applied": applied}))
    if not applied:
        _no(f"{key!r} is there already" if if_absent else f"there is no key {key!r}")


@click.command()
@click.argument("key")
@_connection
def delete(key: str, json: bool, **where: Any) -> None:
    """Delete KEY, whether or not it is there."""
    with _client(**where) as client:
        client.delete(key)
    if json:
        click.echo(to_text({"key": key, "ok": True}))


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("by", type=int, default=1)
@_connection
def incr(key: str, by: int, json: bool, **where: Any) -> None:
    """Add BY (1 if left out, may be negative) to the integer under KEY and print the sum."""
    with _client(**where) as client:
        value = client.incr(key, by)
    click.echo(to_text({"key": key, "value": value} if json else value))


@click.command(epilog=VALUE_HELP)
@click.argument("key")
@click.argument("value")
@_spelled("expected", metavar="VALUE", help="Set if this is the value now.")
@_spelled("version", type=click.IntRange(0), help="Set if this is the version now; 0: if the key is not there.")
@_string
@_ttl
@_connection
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
    with _client(**where) as client:
        if expected is not None:
            result = client.cas(key, new, expected=_value(expected, string), ttl=ttl)
        else:
            result = client.cas(key, new, version=version, ttl=ttl)
    if json:
        click.echo(to_text({"key": key, **result._asdict()}))
    if not result.applied:
        _no(f"{key!r} has version {result.version}" if result.version else f"there is no key {key!r}")
    if not json:
        click.echo(str(result.version))


@click.command()
@click.argument("prefix", default="")
@_spelled("limit", type=click.IntRange(1), help="Print at most so many keys.")
@_spelled("keys", is_flag=True, help="Print keys without values.")
@_consistency
@_connection
def scan(prefix: str, limit: int | None, keys: bool, consistency: str, json: bool, **where: Any) -> None:
    """List the keys that start with PREFIX (all without one): key, a tab, the value as JSON."""
    with _client(**where) as client:
        for key, value in client.scan(prefix, limit=limit, page_size=1000, consistency=consistency):
            if json:
                click.echo(to_text({"key": key} if keys else {"key": key, "value": value}))
            else:
                click.echo(key if keys else f"{key}\t{to_text(value)}")


@click.command()
@click.argument("keys", nargs=-1, required=True)
@_consistency
@_connection
def mget(keys: tuple[str, ...], consistency: str, json: bool, **where: Any) -> None:
    """Print those of KEYS that are there: key, a tab, the value as JSON. Exit status 1 if one is missing."""
    with _client(**where) as client:
        found = client.mget(keys, consistency=consistency)
    if json:
        click.echo(to_text(found))
    else:
        for key, value in found.items():
            click.echo(f"{key}\t{to_text(value)}")
    missing = [key for key in keys if key not in found]
    if missing:
        _no(f"there is no key {', '.join(map(repr, missing))}")


@click.command(epilog=VALUE_HELP)
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE…")
@_string
@_ttl
@_connection
def mset(pairs: tuple[str, ...], string: bool, ttl: float | None, json: bool, **where: Any) -> None:
    """Set several keys, in one step per partition."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE")
        values[key] = _value(value, string)
    with _client(**where) as client:
        client.mset(values, ttl=ttl)
    if json:
        click.echo(to_text({"count": len(values), "ok": True}))


@click.command()
@_connection
def state(json: bool, **where: Any) -> None:
    """Show the nodes: role, keys, processor and memory."""
    with _client(**where) as client:
        rows = client.state()
    _table(rows, json, ("node_id", "role", "master_node_id", "key_count", "cpu_percent", "memory_percent"))


@click.command()
@_connection
def overlord_state(json: bool, **where: Any) -> None:
    """Show the overlords: processor and memory."""
    with _client(**where) as client:
        rows = client.overlord_state()
    _table(rows, json, ("overlord_id", "name", "cpu_percent", "memory_percent", "is_running"))


def _table(rows: list[dict[str, Any]], json: bool, columns: Sequence[str]) -> None:
    if json:
        click.echo(to_text(rows))
        return
    lines = [list(columns)] + [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return "".join(char if char.isprintable() else "?" for char in text)  # names are other people's text


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
