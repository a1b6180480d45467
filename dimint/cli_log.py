"""What the commands on a log share: the flags that say which stretch of which log, and opening it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

import click

from dimint.cli_client import spelled
from dimint.errors import BadPosition, BadTime, SettingsError
from dimint.events import TOPICS
from dimint.log.opening import is_missing, open_settings_log
from dimint.log.port import Log
from dimint.replay.positions import Bound, parse_bound
from dimint.settings import CommonSettings
from dimint.system_clock import SystemClock
from dimint.zone import local_zone

__all__ = ["GOES_ON", "Stretch", "bound_of", "on_interrupt", "opened", "stretch_flags", "stretch_of"]

Command = TypeVar("Command", bound=Callable[..., Any])
_BOUND_HELP = "positions like dimint.kv/3@1234 (several with commas) or a time like -2h, yesterday 14:00, 20181130232947"


GOES_ON: Final = "the same command goes on where it was"


class Stretch(NamedTuple):
    """What a command reads; None: from the first that is there, to what is there now."""

    topics: Sequence[str]
    start: Bound | None
    end: Bound | None


def stretch_flags(command: Command) -> Command:
    """--topic, --from and --to, which are the parameters topic, start and end of `stretch_of`."""
    options: Sequence[Callable[[Command], Command]] = (
        spelled("topic", multiple=True, type=click.Choice(TOPICS), help="Only this topic; may be given again."),
        click.option("start", "--from", metavar="BOUND", help=f"The first that is read: {_BOUND_HELP}."),
        click.option("end", "--to", "--until", metavar="BOUND", help="The first that is not read, likewise."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def stretch_of(topic: Sequence[str], start: str | None, end: str | None) -> Stretch:
    """The flags' meaning. Raises SettingsError."""
    return Stretch(topic or TOPICS, bound_of("from", start), bound_of("to", end))


def bound_of(flag: str, text: str | None) -> Bound | None:
    """A flag's text as a bound. Raises SettingsError."""
    try:
        return None if text is None else parse_bound(text, now_ns=SystemClock().time_ns(), zone=local_zone())
    except (BadPosition, BadTime) as error:
        raise SettingsError(f"--{flag}: {error}") from error


@contextmanager
def opened(settings: CommonSettings, location: str | None = None, *, new: bool = False) -> Iterator[Log]:
    """The log of the settings, or the one at `location`, which may be `new`. Raises SettingsError if there is none."""
    if location is not None:
        settings = replace(settings, log=location)
    if not new and is_missing(settings.log):
        raise SettingsError(f"there is no log in {settings.log}", hint="name its directory with --data_dir or --log")
    log = open_settings_log(settings, clock=SystemClock())
    try:
        yield log
    finally:
        log.close()


@contextmanager
def on_interrupt(what_then: str) -> Iterator[None]:
    """Ctrl-C during the block says in one line that it was stopped, and what is to be known then."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"dimint: stopped; {what_then}", err=True)
        raise
