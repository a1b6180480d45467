"""`dimint snapshot`: the stores of this machine as files, and whether such files are sound."""

from pathlib import Path
from typing import Any

import click

from dimint.cli_client import write_json, write_row
from dimint.cli_log import on_interrupt, opened
from dimint.cli_options import with_settings
from dimint.events import KV_TOPIC
from dimint.progress import progress_of
from dimint.replay.positions import format_position
from dimint.settings import ToolSettings
from dimint.snapshot_folder import SNAPSHOTS_FOLDER, SNAPSHOTS_NEEDED, SnapshotFolder, check_folder, let_go, read_folder

__all__ = ["snapshot"]

HELP = """
    Write the stores of this machine's nodes, as their last commit left them, into a new folder: one file a partition,
    checked, with positions and digests. The nodes go on.

    With it a new store begins at these positions (dimint rebuild node --snapshot FOLDER), and the log before the older of
    two snapshots may be trimmed.
"""


@click.command(name="snapshot", help=HELP)
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The folder to make; by default one under snapshots/ of the data directory, named by the time.",
)
@click.option(
    "--check",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Make nothing: read the snapshot in this folder, and say whether it is whole and sound.",
)
@click.option(
    "--keep",
    type=click.IntRange(SNAPSHOTS_NEEDED),
    metavar="N",
    help="Then remove those of the data directory's snapshots that are older than its newest N that are sound.",
)
@click.option("as_json", "--json", is_flag=True, help="The result as JSON, and progress as JSON lines on stderr.")
@with_settings(ToolSettings)
def snapshot(settings: Any, out: Path | None, check: Path | None, keep: int | None, as_json: bool) -> None:
    """See the help text."""
    gone: list[Path] = []
    if check is not None:
        if keep is not None:
            raise click.UsageError("--check removes nothing: leave out --keep")
        found = read_folder(check)
        check_folder(found)
    else:
        from dimint.node import cli

        with opened(settings) as log:  # there must be one: taking a snapshot makes no log
            with on_interrupt("nothing is left of the snapshot"):
                found = cli.snapshot(settings, out, progress_of("snapshot", as_json=as_json))
            if keep is not None:
                gone = let_go(settings.data_dir / SNAPSHOTS_FOLDER, log, keep)
    _tell(found, gone, as_json)


def _tell(found: SnapshotFolder, gone: list[Path], as_json: bool) -> None:
    if as_json:
        parts = {str(partition): part._asdict() for partition, part in found.partitions.items()}
        removed = [str(folder) for folder in gone]
        write_json({**found._asdict(), "path": str(found.path), "partitions": parts, "removed": removed})
        return
    for partition, part in found.partitions.items():
        where = format_position(KV_TOPIC, partition, part.next_offset)
        write_row(f"{where}", f"{part.keys} keys", f"{part.bytes} bytes", f"digest {part.digest}")
    click.echo(f"snapshot {found.path}")
    for folder in gone:
        click.echo(f"removed {folder}")
