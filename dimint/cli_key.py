"""`dimint key create`: the file that lets the machines of a system talk to each other encrypted."""

from pathlib import Path

import click

from dimint.curve import create_key_file

__all__ = ["key"]


@click.group(name="key", help="Make the key of a system's ZeroMQ doors.")
def key() -> None:
    """See the help text."""


@key.command(name="create", help="Write a new key into FILE, which must not exist. See docs/operations.md.")
@click.argument("file", type=click.Path(path_type=Path))
def create(file: Path) -> None:
    """See the help text."""
    create_key_file(file)
    click.echo(f"{file} is the key of a system: give it as key_file to every process and client of it, and to nobody else")
