"""`dimint events`: look at the events of a log, from the beginning, from anywhere, or as they come."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from dimint.cli_client import write_json, write_row
from dimint.cli_log import Stretch, opened, stretch_flags, stretch_of
from dimint.cli_options import with_settings
from dimint.log.opening import find_genesis
from dimint.log.port import Log
from dimint.log.reading import DEAD_REASONS, Counted
from dimint.progress import Progress, progress_of
from dimint.replay.counting import Count, count_events
from dimint.replay.event import LoggedEvent, events_of, json_line, shown_fields, text_of
from dimint.replay.filters import EVERYTHING, Filter
from dimint.replay.positions import Range
from dimint.replay.ranges import select
from dimint.replay.stream import Item, Stream
from dimint.settings import ToolSettings
from dimint.visible import visible
from dimint.zone import local_zone

__all__ = ["events"]

_LOOK_BACK_S: Final = 600.0
"""Looking is to begin at once: a copy that comes later than this after its batch may be shown as another one."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZONE: Final = local_zone()
_DETAIL_CHARS: Final = 160
_KEY_WIDTH, _KIND_WIDTH, _PLACE_WIDTH, _WHO_WIDTH = 24, 18, 22, 24

HELP: Final = """
    Print the events of a log, the oldest first: all of it, a stretch, or with --follow what comes from now on.

    A line has the log time, the position, the kind, the key, who wrote it, and what. With --json a line is a map for
    programs, with the position that every command takes, and stored values as the values that they are.
"""


@click.command(name="events", help=HELP)
@stretch_flags
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; without --from that is all.")
@click.option("kinds", "--kind", multiple=True, metavar="KIND", help="Only this kind, kv.set or host.*; may be given again.")
@click.option("--key", metavar="KEY|PREFIX*", help="Only this key, or keys that start so; ** at the end is one *.")
@click.option("--source", metavar="HOST", help="Only what this host wrote.")
@click.option("who", "--by", metavar="WHO", help="Only what this client or process wrote.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many.")
@click.option("as_json", "--json", is_flag=True, help="JSON lines, for programs.")
@click.option("--table", is_flag=True, help="Lines for people, which is what is printed anyway.")
@click.option("--count", is_flag=True, help="Only how many there are, of each topic.")
@with_settings(ToolSettings)
def events(settings: Any, follow: bool, limit: int | None, as_json: bool, table: bool, count: bool, **flags: Any) -> None:
    """See the help text."""
    stretch = stretch_of(flags["topic"], flags["start"], flags["end"])
    wanted = Filter.of(kinds=flags["kinds"], key=flags["key"], source=flags["source"], who=flags["who"])
    if follow and (count or stretch.end is not None):
        raise click.UsageError("--follow does not end: leave out --to and --count")
    if table + as_json > 1:
        raise click.UsageError("give one of --table and --json")
    with opened(settings) as log:
        ranges = _ranges(log, stretch, wanted, follow)
        if count and wanted == EVERYTHING:
            _print_counts(count_events(log, ranges, progress=progress_of("count", as_json=as_json)), as_json)
            return
        with Stream(log, ranges, look_back_s=_LOOK_BACK_S) as stream:
            if count:
                _print_counts(_count(stream, ranges, wanted, progress_of("count", as_json=as_json)), as_json)
                return
            printer = _Printer(wanted, as_json, limit)
            if printer.print_all(stream, follow):
                _tell_passed_over(stream)


def _ranges(log: Log, stretch: Stretch, wanted: Filter, follow: bool) -> list[Range]:
    ranges = select(log, topics=stretch.topics, start=stretch.start, end=stretch.end, open_end=follow)
    topics = wanted.topics(stretch.topics)
    ranges = [each for each in ranges if each.topic in topics]
    if follow and stretch.start is None:
        ranges = [each._replace(start=log.bounds(*each.place).end) for each in ranges]
    found = find_genesis(log)
    return ranges if found is None else wanted.narrow(ranges, found)


def _count(stream: Stream, ranges: list[Range], wanted: Filter, progress: Progress) -> dict[Range, Count]:
    """Batches with a wanted event, and wanted events, of each range."""
    found = {each.place: [0, 0] for each in ranges}
    total = stream.left()
    for number, item in enumerate(stream.history()):
        if not number % 256:
            progress.at(total - stream.left(), total, stream.counts["events"])
        if isinstance(item.taken, Counted):
            events = sum(map(wanted.wants, events_of(item.place, item.taken)))
            found[item.place][0] += events > 0
            found[item.place][1] += events
    progress.end(total, total, stream.counts["events"])
    return {each: Count(*found[each.place]) for each in ranges}


def _print_counts(counts: dict[Range, Count], as_json: bool) -> None:
    topics: dict[str, Count] = {}
    for each, count in counts.items():
        topics[each.topic] = Count(*map(sum, zip(topics.get(each.topic, Count()), count, strict=True)))
    total = Count(*map(sum, zip(*topics.values(), strict=True))) if topics else Count()
    if as_json:
        write_json({"topics": {topic: count._asdict() for topic, count in topics.items()}, **total._asdict()})
        return
    for topic, count in [*topics.items(), ("all", total)]:
        dead = f", {count.repeated} repeated batches, {count.dead} dead letters" if count.repeated or count.dead else ""
        write_row(f"{topic:<16} {count.events:>14,} events in {count.batches:,} batches{dead}")


def _tell_passed_over(stream: Stream) -> None:
    repeated, dead = stream.counts["repeated"], sum(stream.counts[reason] for reason in DEAD_REASONS)
    if repeated or dead:
        click.echo(f"dimint: passed over {repeated} repeated batches and {dead} dead letters (dimint deadletters list)", err=True)


class _Printer:
    """Prints lines of what a stream gives, and no more than `limit`."""

    def __init__(self, wanted: Filter, as_json: bool, limit: int | None) -> None:
        self._wanted, self._as_json, self._left = wanted, as_json, limit

    def print_all(self, stream: Stream, follow: bool) -> bool:
        """Whether everything was printed, not cut by the limit."""
        for item in stream.history():
            if not self._print(item):
                return False
        if follow:
            sys.stdout.flush()
            for came in stream.follow():
                if came is not None and not self._print(came):
                    return False
                sys.stdout.flush()
        return True

    def _print(self, item: Item) -> bool:
        for line in _events_lines(item, self._wanted, self._as_json):
            sys.stdout.write(visible(line) + "\n")
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    return False
        return True


def _events_lines(item: Item, wanted: Filter, as_json: bool) -> Iterator[str]:
    if isinstance(item.taken, Counted):
        for event in events_of(item.place, item.taken):
            if wanted.wants(event):
                yield json_line(event) if as_json else _row(event)


def _row(event: LoggedEvent) -> str:
    by = event.by
    who = f"{by.client or by.process}@{by.host}"
    fields = {name: value for name, value in shown_fields(event).items() if value is not None}
    detail = " ".join(f"{name}={text_of(value)}" for name, value in fields.items())
    key = "-" if event.key is None else event.key
    line = f"{_time(event.log_time_us)}  {event.position:<{_PLACE_WIDTH}}  {event.kind:<{_KIND_WIDTH}}  {key:<{_KEY_WIDTH}}  "
    return f"{line}{who:<{_WHO_WIDTH}}  {detail if len(detail) <= _DETAIL_CHARS else detail[: _DETAIL_CHARS - 1] + '…'}"


def _time(time_us: int) -> str:
    at = (_EPOCH + timedelta(microseconds=time_us)).astimezone(_ZONE)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}"
