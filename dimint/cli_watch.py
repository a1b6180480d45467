"""`dimint watch`: changes of keys as they happen."""

import sys
from datetime import UTC, datetime
from typing import Any

import click

from dimint.cli_client import connected, connection, spelled, write_json, write_row
from dimint.client import Change
from dimint.client.content import to_text

__all__ = ["watch"]


@click.command()
@click.argument("target", metavar="KEY|PREFIX*")
@click.option("--from", "after", metavar="TOKEN", help="Go on behind this token, as an earlier watch printed it.")
@spelled("limit", type=click.IntRange(1), help="End after so many changes.")
@spelled("literal", is_flag=True, help="TARGET is a key, even if it ends with *.")
@connection
def watch(target: str, after: str | None, limit: int | None, literal: bool, json: bool, **where: Any) -> None:
    """Print every change of KEY, or of all keys that start with PREFIX, as it happens: time, kind, key, the new value as JSON.

    At the end, by --limit or Ctrl-C, the token is printed from which another watch goes on.
    """
    is_prefix = target.endswith("*") and not literal
    key, prefix = (None, target[:-1]) if is_prefix else (target, None)
    count = 0
    with connected(**where) as client, client.watch(key, prefix=prefix, token=after) as changes:
        try:
            for change in changes:
                _write_change(change, changes.token, json)
                count += 1
                if count == limit:
                    break
        finally:
            click.echo(f"dimint: go on with --from {changes.token}", err=True)


def _write_change(change: Change, token: str, json: bool) -> None:
    seconds = change.log_time_us / 1_000_000
    time = datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="milliseconds")
    if json:
        fields = change._asdict() | {"time": time, "token": token}
        if change.kind in ("delete", "expire"):
            del fields["value"]
        write_json(fields)
    else:
        write_row(time, change.kind, change.key, *([] if change.kind in ("delete", "expire") else [to_text(change.value)]))
    sys.stdout.flush()
