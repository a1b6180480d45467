"""Where the commands of the past ask: the log itself, through an index in the data directory, or a running system."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, Self, TypeVar

import click
from click.core import ParameterSource

from dimint import values
from dimint.cli_client import connected, spelled
from dimint.cli_log import bound_of, on_interrupt, opened
from dimint.cli_options import settings_from
from dimint.client import Client, past
from dimint.client.at import all_pages
from dimint.client.network import DEFAULT_PORT
from dimint.client.operations import Operation
from dimint.client.past import Difference, PastChange, Then, Writer
from dimint.client.sync import DEFAULT_TIMEOUT_S
from dimint.collector import tune_collector
from dimint.errors import BadPosition, RequestError, SettingsError, TimedOut
from dimint.events import KV_TOPIC
from dimint.log.port import TopicPartition
from dimint.progress import Progress, progress_of
from dimint.replay.history import Cut, HistoryIndex, KeyChange, history_folder
from dimint.replay.positions import format_positions, kv_positions
from dimint.settings import ToolSettings
from dimint.so_far import SoFar
from dimint.when import TIME_MAX_NS

__all__ = ["LAST_US", "THEN_HELP", "PastSource", "cut_of", "cut_text", "past_source", "system_flags"]

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])
LAST_US: Final = TIME_MAX_NS // 1000
"""As late as anything can be."""
WAIT_MAX_S: Final = 3600.0
"""So long it waits for a system that reads its log for the history, unless --timeout says less."""
LOOK_S: Final = 1.0
"""How often it looks meanwhile how far that is."""
THEN_HELP: Final = "-2h, yesterday 14:00, 20181130232947, ISO 8601, or positions as dimint history prints them"


class PastSource(Protocol):
    """Log times in µs or positions of dimint.kv; both ends of a stretch are in it."""

    def get(self, key: str, at: Cut) -> PastChange | None:
        """What had set the key; None if it was not there."""

    def scan(self, prefix: str, at: Cut, limit: int | None) -> Iterator[PastChange]: ...
    def history(self, key: str, start: Cut, end: Cut, limit: int | None) -> Sequence[PastChange]:
        """The newest `limit` changes, the oldest of them first."""

    def diff(self, start: Cut, end: Cut, prefix: str) -> Iterator[Difference]: ...


def system_flags(command: Command) -> Command:
    """--host and --port_for_client of a command that reads the log without them."""
    host = spelled("host", default="127.0.0.1", help="Ask the running system whose overlord is there, not the log.")
    port = spelled(
        "port_for_client", type=click.IntRange(1, 65535), default=DEFAULT_PORT, help="The same by the overlord's port."
    )
    timeout = spelled("timeout", type=click.FloatRange(0, min_open=True), default=DEFAULT_TIMEOUT_S, help="Seconds to wait.")
    return host(port(timeout(command)))


def _asks_system(flags: Mapping[str, Any]) -> bool:
    """Whether the command line names a running system and no log."""
    return not _given().isdisjoint(("host", "port_for_client")) and not (flags.get("log") or flags.get("data_dir"))


def _given() -> set[str]:
    """The flags that the command line has."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


@contextmanager
def past_source(flags: Mapping[str, Any], where: Mapping[str, Any], *, as_json: bool) -> Iterator[PastSource]:
    """The past that the flags `log` and `data_dir`, or host, port_for_client and timeout (`where`), name.

    Of a log it comes from an index in `history/` of the data directory, brought up to date first.
    """
    if _asks_system(flags):
        wait_s = where["timeout"] if "timeout" in _given() else WAIT_MAX_S
        with connected(**where) as client:
            yield _SystemPast(client, where["timeout"], wait_s, lambda: progress_of("history", as_json=as_json, unit="records"))
    else:
        settings = settings_from(ToolSettings, flags)
        tune_collector()
        with opened(settings) as log:
            generation = log.describe().generation
            with HistoryIndex(history_folder(settings.data_dir, generation), generation) as index:
                with on_interrupt("the next question goes on with the index"):
                    index.catch_up(log, progress=progress_of("index", as_json=as_json))
                yield _LogPast(index)


def cut_of(flag: str, text: str | None, default: int = 0) -> Cut:
    """The state of the store that a flag names: a log time in µs, or positions. Raises SettingsError."""
    bound = bound_of(flag, text)
    if bound is None:
        return default
    if isinstance(bound, int):
        return bound // 1000
    try:
        return kv_positions(bound)
    except BadPosition as error:
        raise SettingsError(f"--{flag}: {error}") from error


def cut_text(cut: Mapping[int, int]) -> str:
    """Positions of dimint.kv as they are written."""
    return format_positions({TopicPartition(KV_TOPIC, partition): offset for partition, offset in cut.items()})


class _LogPast:
    def __init__(self, index: HistoryIndex) -> None:
        self._index = index

    def get(self, key: str, at: Cut) -> PastChange | None:
        return _change(self._index.at(key, at))

    def scan(self, prefix: str, at: Cut, limit: int | None) -> Iterator[PastChange]:
        found = self._index.scan(prefix, at, limit=-1 if limit is None else limit)
        return (_as_change(change) for change in found)

    def history(self, key: str, start: Cut, end: Cut, limit: int | None) -> Sequence[PastChange]:
        most = -1 if limit is None else limit
        found = self._index.history(key, since=start, until=end, newest_first=True, limit=most)
        return [_as_change(change) for change in reversed(found)]

    def diff(self, start: Cut, end: Cut, prefix: str) -> Iterator[Difference]:
        for each in self._index.diff(start, end, prefix):
            yield Difference(each.key, _change(each.before), _change(each.after))


class _Shown:
    """Progress that begins with the first answer that says how far it is."""

    def __init__(self, progress: Callable[[], Progress]) -> None:
        self._make = progress
        self._progress: Progress | None = None
        self._begun = self._done = self._total = 0

    def __enter__(self) -> Self:
        return self

    def at(self, so_far: SoFar | None) -> None:
        if so_far is None:
            return
        self._done, self._total = so_far.done, so_far.total
        if self._progress is None:
            self._progress, self._begun = self._make(), self._done
            self._progress.begin(self._begun)
        self._progress.at(self._done, self._total, self._done - self._begun)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._progress is not None:
            done = self._total if kind is None else self._done
            self._progress.end(done, self._total, done - self._begun)


class _SystemPast:
    """`timeout_s` is for an answer, `wait_s` also for the history that is made before it, with this progress."""

    def __init__(self, client: Client, timeout_s: float, wait_s: float, progress: Callable[[], Progress]) -> None:
        self._client, self._timeout_s, self._wait_s, self._progress = client, timeout_s, wait_s, progress

    def _ask(self, op: Operation[T]) -> T:
        """The answer. While the system reads its log for the history, how far that is is shown and waited for."""
        until, patience_s = time.monotonic() + self._wait_s, LOOK_S
        with on_interrupt("the system goes on with the history; ask again"), _Shown(self._progress) as shown:
            while True:
                try:
                    return self._client.run(op, timeout=max(0.0, min(patience_s, until - time.monotonic())))
                except RequestError as error:
                    so_far = error.so_far if isinstance(error, TimedOut) else None
                    is_patient = so_far is not None or patience_s < self._timeout_s
                    if not error.retriable or not is_patient or time.monotonic() >= until:
                        raise
                shown.at(so_far)
                patience_s = LOOK_S if so_far is not None and so_far.ask_again_s > LOOK_S else self._timeout_s

    def get(self, key: str, at: Cut) -> PastChange | None:
        return self._ask(past.get_at(key, _then(at), lambda change: change))

    def scan(self, prefix: str, at: Cut, limit: int | None) -> Iterator[PastChange]:
        then = _then(at)
        return all_pages(self._ask, lambda after, most: past.scan_page(prefix, then, after=after, limit=most), limit)

    def history(self, key: str, start: Cut, end: Cut, limit: int | None) -> Sequence[PastChange]:
        since, until = _then(start), _then(end)
        pages = all_pages(
            self._ask,
            lambda after, most: past.history_page(key, start=since, end=until, newest_first=True, after=after, limit=most),
            limit,
        )
        return list(pages)[::-1]

    def diff(self, start: Cut, end: Cut, prefix: str) -> Iterator[Difference]:
        since, until = _then(start), _then(end)
        return all_pages(
            self._ask,
            lambda after, most: past.diff_page(prefix, start=since, end=until, after=after, limit=most),
            None,
        )


def _then(cut: Cut) -> Then:
    return cut if isinstance(cut, int) else cut_text(cut)


def _change(change: KeyChange | None) -> PastChange | None:
    return None if change is None else _as_change(change)


def _as_change(change: KeyChange) -> PastChange:
    value = None if change.value is None else values.to_object(change.value)
    return PastChange(change.kind, change.key, value, change.version, change.log_time_us, change.position, change.index,
                      Writer(*change.by))  # fmt: skip
