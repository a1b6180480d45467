"""`dimint trim`: let go of the beginning of a topic, if nobody needs it any more."""

import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from dimint.cli_client import write_json, write_row
from dimint.cli_log import bound_of, on_interrupt, opened
from dimint.cli_options import with_settings
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.progress import progress_of
from dimint.registry.opening import open_registry
from dimint.replay.needs import needs_of
from dimint.replay.positions import format_position
from dimint.replay.ranges import ends_of
from dimint.replay.trimming import trim
from dimint.settings import ToolSettings
from dimint.system_clock import SystemClock
from dimint.trim_plan import Cut, check_safe, plan, taking

__all__ = ["trim_command"]

HELP = """
    Let go of what a topic has before a position or a time. Without --yes it only shows what would go.

    Nothing goes that a node, the status tables or the history of keys have not read, or, of dimint.kv, that comes after
    the older of the two newest snapshots (dimint snapshot), with which a new node begins. dimint.status is archived
    first, always; dimint.kv with --archive.
"""


@click.command(name="trim", help=HELP)
@click.argument("topic", type=click.Choice([KV_TOPIC, STATUS_TOPIC]))
@click.option("--before", required=True, metavar="BOUND", help="What stays: from positions like dimint.kv/3@1234, or a time, on.")
@click.option("--as-far-as-safe", "--as_far_as_safe", is_flag=True, help="Trim less where not all is safe, instead of refusing.")
@click.option("--archive", is_flag=True, help="Archive what goes, of dimint.kv too.")
@click.option("--yes", is_flag=True, help="Do it.")
@click.option("as_json", "--json", is_flag=True, help="JSON lines, and progress as JSON lines on stderr.")
@with_settings(ToolSettings)
def trim_command(settings: Any, topic: str, before: str, as_far_as_safe: bool, archive: bool, yes: bool, as_json: bool) -> None:
    """See the help text."""
    clock = SystemClock()
    with opened(settings) as log:
        wanted = ends_of(log, topic, bound_of("before", before))
        bounds = {partition: log.bounds(topic, partition) for partition in wanted}
        cuts = plan(bounds, wanted, needs_of(settings, log, topic, clock))
        if not as_far_as_safe:
            check_safe(topic, cuts)
        cuts = taking(cuts)
        made: Path | None = None
        if yes and cuts:
            if topic == STATUS_TOPIC or archive:
                made = settings.archives
            again = on_interrupt("what is archived is sound, and the same command goes on")
            with again, closing(open_registry(settings, log_id=log.describe().generation)) as registry:
                progress = progress_of("archive", as_json=as_json)
                done = trim(log, topic, cuts, registry, archives=made, clock=clock, host=socket.gethostname(), progress=progress)
                cuts, made = done
    _tell(topic, cuts, made, yes, as_json)


def _tell(topic: str, cuts: list[Cut], archive: Path | None, done: bool, as_json: bool) -> None:
    for cut in cuts:
        if as_json:
            write_json({"topic": topic, **cut._asdict(), "records": cut.records, "trimmed": done})
        else:
            held = f"kept for {cut.kept_for}" if cut.kept_for else ""
            write_row(f"before {format_position(topic, cut.partition, cut.before)}", f"{cut.records} records", held)
    if archive is not None:
        write_json({"archive": str(archive)}) if as_json else click.echo(f"archive {archive}")
    if not as_json:
        count = sum(cut.records for cut in cuts)
        if not count:
            click.echo("nothing can go" if not done else "nothing went")
        else:
            click.echo(f"{count} records trimmed" if done else f"{count} records would go; --yes trims them")
