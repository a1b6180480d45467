"""A rule over the past: what it would have raised, before it is switched on.

The same rules and state machines as live, fed with one host's samples in order; between samples time passes in steps, so
silence is seen as it would have been. Facts and names are those of now.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from dimint.consumers.alerts.conditions import Observed
from dimint.consumers.alerts.core import Alerting, Change
from dimint.consumers.alerts.rules import Rule
from dimint.consumers.alerts.watch import observed, xids_of
from dimint.consumers.rows import HostEvent, HostRow, StoredSample
from dimint.limits import FETCH_MAX_SAMPLES

__all__ = ["Fired", "History", "backtest"]

_TICK_NS: Final = 5_000_000_000
_TICKS_MAX: Final = 1000
"""Steps through one silence: a long one is seen in longer steps."""


class Fired(NamedTuple):
    """One time that a rule would have been raised. `cleared_ns` None: it would still be. Times in ns, UTC."""

    rule: str
    host: str
    host_name: str
    subject: str
    raised_ns: int
    cleared_ns: int | None
    text: str


class History(Protocol):
    """What a back-test reads of `dimint.consumers.reading.StatusReader`."""

    def between(self, host_id: str, from_ns: int, to_ns: int) -> list[StoredSample]: ...
    def events(self, from_ns: int, to_ns: int, *, host_id: str | None = None) -> list[HostEvent]: ...


def backtest(history: History, rules: Sequence[Rule], row: HostRow, from_ns: int, to_ns: int) -> Iterator[Fired]:
    """Everything that these rules would have raised of one host from `from_ns` to `to_ns`, in order of its end."""
    alerting = Alerting(rules)
    open_: dict[tuple[str, str], Fired] = {}
    for host in _moments(history, row, from_ns, to_ns):
        if host.sample is not None and host.received_ns == host.now_ns:
            alerting.look(host, waiting=False)
        alerting.look(host, waiting=True)
        for change in alerting.changes(host.now_ns):
            yield from _close(open_, change, row, host.now_ns)
    yield from open_.values()


def _close(open_: dict[tuple[str, str], Fired], change: Change, row: HostRow, now_ns: int) -> Iterator[Fired]:
    key = change.key.rule, change.key.subject
    if change.raised:
        open_[key] = Fired(change.key.rule, row.id, row.name, change.key.subject, now_ns, None, change.text)
    elif key in open_:
        yield open_.pop(key)._replace(cleared_ns=now_ns)


def _moments(history: History, row: HostRow, from_ns: int, to_ns: int) -> Iterator[Observed]:
    """The host at each sample (as it arrived: `received_ns` is `now_ns`), and at steps through each silence."""
    events = history.events(from_ns, to_ns, host_id=row.id)
    last: StoredSample | None = None
    for stored in _samples(history, row.id, from_ns, to_ns):
        if last is not None:
            for tick_ns in _ticks(last.time_ns, stored.time_ns):
                yield _at(row, last, events, tick_ns)
        yield _at(row, stored, events, stored.time_ns)
        last = stored
    if last is not None:
        for tick_ns in _ticks(last.time_ns, to_ns):
            yield _at(row, last, events, tick_ns)


def _at(row: HostRow, stored: StoredSample, events: Iterable[HostEvent], now_ns: int) -> Observed:
    xids = xids_of(event for event in events if event.time_ns <= now_ns).get(row.id, {})
    return observed(row._replace(received_ns=stored.time_ns), stored, xids, now_ns)


def _ticks(from_ns: int, to_ns: int) -> range:
    return range(from_ns + _TICK_NS, to_ns, max(_TICK_NS, (to_ns - from_ns) // _TICKS_MAX))


def _samples(history: History, host: str, from_ns: int, to_ns: int) -> Iterator[StoredSample]:
    while found := history.between(host, from_ns, to_ns):
        yield from found
        if len(found) < FETCH_MAX_SAMPLES:
            return
        from_ns = found[-1].time_ns + 1
