"""`dimint accounting`: GPU-hours per user and host."""

import json
import sys
import time
from datetime import datetime
from typing import Final

import click

from dimint.cli_client import write_row
from dimint.cli_options import with_settings
from dimint.progress import progress_of
from dimint.settings import ConsumerSettings
from dimint.when import FORMS, parse_time
from dimint.zone import local_zone

__all__ = ["accounting"]

HELP: Final = (
    "GPU-hours per user and host: held, active, wasted, unknown. Reads the status tables in the data directory. "
    f"TIME is such as {FORMS}; any range is exact to the second."
)


@click.command(name="accounting", help=HELP)
@click.option("--from", "from_", default=None, metavar="TIME", help="From when on [seven days ago, at a whole hour].")
@click.option("--to", default="now", show_default=True, metavar="TIME", help="To when.")
@click.option("--by", default="user,host", show_default=True, metavar="user|host|user,host", help="One line for each.")
@click.option("--sharing", default="full", show_default=True, metavar="full|equal|memory",
              help="What each of several users of one GPU held: all of it, an equal part, a part by memory.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV.")
@with_settings(ConsumerSettings)
def accounting(
    settings: ConsumerSettings, from_: str | None, to: str, by: str, sharing: str, as_json: bool, as_csv: bool
) -> None:
    """See the help text."""
    from dimint.consumers import accounting as forms
    from dimint.consumers.reading import TABLES_FOLDER, StatusReader

    if as_json and as_csv:
        raise click.UsageError("ask either for --json or for --csv")
    now_ns, zone = time.time_ns(), local_zone()
    from_ns = parse_time(from_, now_ns=now_ns, zone=zone) if from_ else forms.default_from(now_ns)
    to_ns = parse_time(to, now_ns=now_ns, zone=zone)
    with StatusReader(settings.data_dir / TABLES_FOLDER) as reader:
        asked = forms.question(from_ns, to_ns, by, sharing)
        answer = reader.accounting(asked, now_ns, lambda unit: progress_of("accounting", as_json=as_json, unit=unit))

    def when(time_ns: int) -> str:
        return datetime.fromtimestamp(time_ns / 1e9, zone).isoformat()

    plain = forms.as_json(answer, when)
    if as_json:
        click.echo(json.dumps(plain))
    elif as_csv:
        sys.stdout.write(forms.as_csv(answer))
    else:
        names = answer.question.by
        write_row(*names, *(f"{part:>12}" for part in ("held", "active", "wasted", "unknown")))
        for line in plain["gpu_hours"]:
            cells = (f"{line[part]:12.3f}" for part in ("held", "active", "wasted", "unknown"))
            write_row(*(line[name] or "-" for name in names), *cells)
        write_row(f"GPU-hours from {plain['from']} to {plain['to']}, sharing {sharing}; of {plain['capacity']:.3f} in all "
                  f"{plain['without_samples']:.3f} have no samples")  # fmt: skip
        write_row(f"± {plain['error_bound_s']:g} s: {forms.ERROR_BOUND}")
