"""What the commands that talk to an overlord share: the flags that say where it is, and how they print."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from dimint.client import Client
from dimint.client.content import to_text
from dimint.client.network import DEFAULT_PORT
from dimint.client.sync import DEFAULT_TIMEOUT_S
from dimint.errors import DimintError
from dimint.visible import visible

__all__ = ["addresses_of", "connected", "connection", "spelled", "write_json", "write_row", "write_value"]

Command = TypeVar("Command", bound=Callable[..., Any])


# --- flags ----------------------------------------------------------------------------------------------------------
def spelled(name: str, *rest: Any, **options: Any) -> Callable[[Command], Command]:
    """An option that may be written with underscores and with dashes."""
    spellings = [f"--{name}"] + ([f"--{name.replace('_', '-')}"] if "_" in name else [])
    return click.option(name, *spellings, *rest, **options)


def connection(command: Command) -> Command:
    """The flags host, port_for_client, timeout and key_file, which are the parameters of `connected`, and json."""
    options: Sequence[Callable[[Command], Command]] = (
        spelled("host", default="127.0.0.1", show_default=True, help="An overlord's address; several with commas."),
        spelled("port_for_client", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True,
                envvar="DIMINT_PORT_FOR_CLIENT", help="The overlord's port for clients."),
        spelled("timeout", type=click.FloatRange(0, min_open=True), default=DEFAULT_TIMEOUT_S, show_default=True,
                help="Seconds to wait for an answer."),
        spelled("key_file", type=click.Path(path_type=Path), envvar="DIMINT_KEY_FILE",
                help="The system's key, where its doors are encrypted."),
        spelled("json", is_flag=True, help="Print JSON, for programs."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@contextlib.contextmanager
def connected(host: str, port_for_client: int, timeout: float, key_file: Path | None = None) -> Iterator[Client]:
    """A client of the overlords that the flags name; what the wire calls an error stands in its line."""
    try:
        with Client(addresses_of(host, port_for_client), timeout=timeout, key_file=key_file) as client:
            yield client
    except DimintError as error:
        code = getattr(error, "code", "")
        if code and code not in error.message:
            error.message = f"{error.message} ({code})"
        raise


def addresses_of(host: str, port: int) -> list[str]:
    """host:port of every overlord that a `--host` names, with `port` where it names none."""
    return [_address(part.strip(), port) for part in host.split(",") if part.strip()]


def _address(place: str, port: int) -> str:
    if place.count(":") > 1 and not place.startswith("["):
        return f"[{place}]:{port}"  # a bare IPv6 address
    return place if ":" in place.rpartition("]")[2] else f"{place}:{port}"


# --- printing -------------------------------------------------------------------------------------------------------
def write_row(*cells: str) -> None:
    """Cells of other people's text in one line, tabs between them; what would break the line or act on a terminal is escaped."""
    click.echo("\t".join(map(visible, cells)))


def write_json(value: Any) -> None:
    """A value as one line of JSON."""
    write_row(to_text(value))


def write_value(value: Any) -> None:
    """A string or bytes exactly as they are, everything else as JSON.

    On a terminal bytes are base64, and of strings all but lines and tabs that it would act on is escaped.
    """
    on_terminal = sys.stdout.isatty()
    if isinstance(value, bytes) and not on_terminal:
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
    elif isinstance(value, str):
        # click drops colours from what goes to a file, unless it is told to leave them: values must come out exact
        click.echo(visible(value, keep="\t\n") if on_terminal else value, color=True)
    else:
        write_json(value)
