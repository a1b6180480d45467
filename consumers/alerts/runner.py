"""The alerting process: one leader of all that run looks at its tables, writes changes into the log, and tells people.

The order is: look, append `alert.raised` or `alert.cleared`, wait until the log has it, tell people, append `alert.told`. Which
alerts are open is read from the tables when a term begins, so a successor goes on where the log says; a crash between telling
and `alert.told` may tell people twice, never not at all. A rebuild of the tables reads these events as any others and tells
nobody.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from dimint.clock import Clock
from dimint.consumers.alerts.core import AlertKey, Change
from dimint.consumers.alerts.journal import Journal, have_reached
from dimint.consumers.alerts.notify import Notice, Notifier
from dimint.consumers.alerts.rows import OpenAlert
from dimint.consumers.alerts.rules import Rule
from dimint.consumers.alerts.watch import Tables, Watcher
from dimint.errors import FormatError, LogUnavailable

__all__ = ["LOOK_S", "Alerter", "Rules"]

LOOK_S: Final = 0.5
"""Time between two looks at the tables."""
_REACH_S: Final = 30.0
"""Longest to wait, when a term begins, for the tables to have what the log had then: alerts of the term before may be in it."""

log = logging.getLogger("dimint.alerts")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Rules(NamedTuple):
    """What is watched. `zone` is where quiet hours are told in."""

    rules: Sequence[Rule]
    zone: tzinfo


class Alerter:
    """A process object (dimint/service.py). `leads` tells whether this process leads, `stopping` is the journal's too."""

    def __init__(
        self, tables: Tables, rules: Rules, journal: Journal, leads: Callable[[], bool], clock: Clock, stopping: threading.Event
    ) -> None:
        self._tables, self._rules, self._journal = tables, rules, journal
        self._leads, self._clock, self._stopping = leads, clock, stopping
        self._by_name = {rule.name: rule for rule in rules.rules}
        self._lock = threading.Lock()
        self._outcomes: list[list[Any]] = []
        self.notifier: Notifier | None = None
        """Who tells people; it calls `told`."""

    def run(self) -> None:
        watcher: Watcher | None = None
        problem = ""
        while not self._stopping.is_set():
            try:
                watcher = self._look(watcher) if self._leads() else None
                problem = ""
            except FormatError as error:  # whoever keeps the tables makes them anew: look at those from the beginning
                if str(error) != problem:
                    log.error("nothing is watched while the status tables cannot be read: %s", error)
                watcher, problem = None, str(error)
            self._write_outcomes()
            self._stopping.wait(LOOK_S)
        self._write_outcomes()

    def stop(self) -> None:
        self._stopping.set()

    def told(self, notice: Notice, channel: str, problem: str | None) -> None:
        """The notifier's word about one notice; on its thread."""
        what = "raised" if notice.raised else "cleared"
        with self._lock:
            self._outcomes.append(
                ["alert.told", notice.key.host, 0, 0, notice.key.rule, notice.key.subject, what, channel, problem]
            )

    # --- inside -----------------------------------------------------------------------------------------------------
    def _look(self, watcher: Watcher | None) -> Watcher | None:
        """One look; the watcher to go on with."""
        if watcher is None:
            watcher = self._begin()
        if watcher is not None:
            self._write(watcher.step(self._clock.time_ns()), watcher)
        return watcher

    def _begin(self) -> Watcher | None:
        """A term begins: tell people what is open and was not told, then watch. None if the log or the process is away."""
        try:
            ends = self._journal.ends()
        except LogUnavailable:
            return None
        until = self._clock.monotonic() + _REACH_S
        while not have_reached(self._tables.positions(), ends) and self._clock.monotonic() < until:
            if self._stopping.wait(LOOK_S):
                return None
        now_ns = self._clock.time_ns()
        watcher = Watcher(self._tables, self._rules.rules, now_ns)
        for alert in self._tables.alerts():
            rule = self._by_name.get(alert.rule)
            if not alert.told and rule is not None and alert.text:
                self._tell(Notice(_key(alert), True, alert.text), rule, now_ns)
        return watcher

    def _write(self, changes: Sequence[Change], watcher: Watcher) -> None:
        if not changes or not self._journal.append([_event(change) for change in changes]):
            return
        now_ns = self._clock.time_ns()
        for change in changes:
            log.info("%s %s on %s %s", change.key.rule, "raised" if change.raised else "over",
                     ascii(watcher.name_of(change.key.host)), ascii(change.key.subject))  # fmt: skip
            withdrawn = not change.raised and self.notifier is not None and self.notifier.withdraw(change.key)
            if change.rule is not None and change.text and not withdrawn:
                self._tell(Notice(change.key, change.raised, change.text), change.rule, now_ns)

    def _tell(self, notice: Notice, rule: Rule, now_ns: int) -> None:
        if self.notifier is not None and rule.tell:
            at = (_EPOCH + timedelta(microseconds=now_ns // 1000)).astimezone(self._rules.zone)
            self.notifier.tell(notice._replace(after_s=rule.quiet_left_s(at)), rule.tell)

    def _write_outcomes(self) -> None:
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        if outcomes:
            self._journal.append(outcomes)


def _key(alert: OpenAlert) -> AlertKey:
    return AlertKey(alert.rule, alert.host, alert.subject)


def _event(change: Change) -> list[Any]:
    key = change.key
    if change.raised:
        assert change.rule is not None
        more: list[Any] = [str(change.rule.severity), change.since_ns, change.text]
        return ["alert.raised", key.host, 0, 0, key.rule, key.subject, *more]
    return ["alert.cleared", key.host, 0, 0, key.rule, key.subject, change.since_ns, change.text]
