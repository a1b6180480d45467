"""`dimint replay`: a stretch of a log once more, into another log."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from dimint.cli_client import write_json, write_row
from dimint.cli_log import on_interrupt, opened, stretch_flags, stretch_of
from dimint.cli_options import with_settings
from dimint.cli_past import cut_text
from dimint.errors import SettingsError
from dimint.events import KV_TOPIC
from dimint.log.opening import is_missing
from dimint.log.port import Log, TopicPartition
from dimint.progress import progress_of
from dimint.replay.counting import Count
from dimint.replay.history import Cut
from dimint.replay.pacing import parse_pace
from dimint.replay.positions import Bound, Range, format_position
from dimint.replay.ranges import select
from dimint.replay.replaying import plan_replay, replay
from dimint.settings import CommonSettings, ToolSettings

__all__ = ["replay_command", "restore_into"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

HELP = """
    Copy a stretch of a log into another log of either kind: the same events, ids, log times and order.

    With --pace original every batch comes when its time has come again, with x10 ten times as fast. Called again after any
    end it goes on where it was, and nothing is there twice.
"""


@click.command(name="replay", help=HELP)
@stretch_flags
@click.option("--into", required=True, metavar="LOG", help="A data directory, or kafka://host:port[/name].")
@click.option("--pace", default="max", show_default=True, metavar="original|xN|max", help="How fast.")
@click.option("--dry-run", "--dry_run", is_flag=True, help="Only show what would be copied.")
@click.option("as_json", "--json", is_flag=True, help="The result as JSON, and progress as JSON lines on stderr.")
@with_settings(ToolSettings)
def replay_command(settings: Any, into: str, pace: str, dry_run: bool, as_json: bool, **flags: Any) -> None:
    """See the help text."""
    stretch = stretch_of(flags["topic"], flags["start"], flags["end"])
    speed = parse_pace(pace)
    with opened(settings) as source:
        ranges = select(source, topics=stretch.topics, start=stretch.start, end=stretch.end)
        _copy(settings, source, ranges, into, speed=speed, dry_run=dry_run, as_json=as_json, again="the same command")


def restore_into(settings: CommonSettings, into: str, then: Cut, *, dry_run: bool, as_json: bool) -> None:
    """Copy the key-value topic up to a log time in µs, or up to positions, into a new log, or go on with that."""
    at = f"{_EPOCH + timedelta(microseconds=then):%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(then, int) else cut_text(then)
    with opened(settings) as source:
        ranges = select(source, topics=(KV_TOPIC,), end=_end_of(source, then))
        again = f"`dimint restore --to {at} --into {into}`"
        done = _copy(settings, source, ranges, into, speed=None, dry_run=dry_run, as_json=as_json, again=again)
    if done and not as_json:
        click.echo(
            f"dimint: the store as of {at} is in {into}; start a cluster on that log, `dimint up --data_dir DIR`", err=True
        )


def _end_of(source: Log, then: Cut) -> Bound:
    """The first that is not copied. Raises SettingsError if positions leave partitions out."""
    if isinstance(then, int):
        return (then + 1) * 1000
    for partition in range(source.describe().topics.get(KV_TOPIC, 0)):
        if partition not in then and source.bounds(KV_TOPIC, partition).end:
            raise SettingsError(
                f"--to: the positions name no place in partition {partition}",
                hint="a whole store needs a time, or all partitions",
            )
    return {TopicPartition(KV_TOPIC, partition): offset + 1 for partition, offset in then.items()}


def _copy(
    settings: CommonSettings, source: Log, ranges: list[Range], into: str, *, speed: float | None, dry_run: bool, as_json: bool,
    again: str,
) -> bool:  # fmt: skip
    """Copy, or only show what would be; whether it was copied. `again` is what goes on after an end in the middle."""
    if dry_run and is_missing(into):
        _tell_plan(plan_replay(source, ranges, None), as_json)
        return False
    with opened(settings, into, new=not dry_run) as target:
        if dry_run:
            _tell_plan(plan_replay(source, ranges, target), as_json)
            return False
        with on_interrupt(f"{again} goes on where it was"):
            done = replay(source, ranges, target, speed=speed, progress=progress_of("replay", as_json=as_json))
    if as_json:
        write_json(done._asdict())
        return True
    click.echo(f"{done.events:,} events in {done.batches:,} batches copied")
    if done.repeated or done.dead_letters:
        click.echo(f"dimint: {done.repeated} repeated batches and {done.dead_letters} dead letters were left out", err=True)
    return True


def _tell_plan(plan: dict[Range, Count], as_json: bool) -> None:
    for each, count in plan.items():
        start = format_position(*each.place, each.start)
        if as_json:
            write_json({"from": start, "to": format_position(*each.place, each.end or 0), **count._asdict()})
        elif count.batches:
            write_row(f"{start:<28} {count.events:>12,} events in {count.batches:,} batches")
    if not as_json:
        write_row(f"{'all':<28} {sum(count.events for count in plan.values()):>12,} events would be copied")
