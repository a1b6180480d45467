"""Rules over what hosts show: what is raised and what is over. [S]

For every (rule, host, subject) there is one small state machine with hysteresis: a condition must hold for `for` until it is
raised, and must not hold (or `clear` must hold) for `clear_for` until it is over. `changes` compares what is raised now with
what was already told (the open alerts of the log), so it gives only the net change of whatever was looked at since: a backlog
that rises and falls again, or a second evaluation after a restart, tells nothing twice.

Time is an argument: the caller looks at samples with their own times and at silence with the present one. So the same code
runs live and over the past.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dimint.consumers.alerts.conditions import Finding, Observed, gpu_name, lists_its_gpus
from dimint.consumers.alerts.rules import Rule

__all__ = ["Alerting", "AlertKey", "Change"]


class AlertKey(NamedTuple):
    """Names an alert: a rule, the host's id, and the GPU's UUID or "" for the host."""

    rule: str
    host: str
    subject: str


class Change(NamedTuple):
    """An alert is raised or over. `since_ns` is when its condition began to hold, or ceased to."""

    key: AlertKey
    rule: Rule | None
    """None: an alert of a rule that is no more."""
    raised: bool
    since_ns: int
    text: str


@dataclass(slots=True)
class _Watch:
    raised: bool = False
    since_ns: int | None = None
    """Since when the opposite of `raised` has been seen."""
    changed_ns: int = 0
    text: str = ""


class Alerting:
    """Rules and their state machines. `told` are the alerts that the log says are open."""

    def __init__(self, rules: Sequence[Rule], told: Iterable[AlertKey] = ()) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._by_host: dict[str, tuple[str, tuple[Rule, ...], tuple[Rule, ...]]] = {}
        """By host its name, and the rules for it of samples and of waiting: most of all looks find nothing."""
        self._told = set(told)
        self._watches: dict[str, dict[AlertKey, _Watch]] = {}
        """By host."""
        self._touched: set[AlertKey] = set(self._told)
        for key in self._told:  # what is open stays so until it is seen to be over
            self._watches.setdefault(key.host, {})[key] = _Watch(raised=True)

    def look(self, host: Observed, *, waiting: bool) -> None:
        """Take in one host at one moment: with `waiting` by the conditions that change while no sample comes, at any time;
        else by those of samples, once for each sample, with the sample's time as `now_ns`.
        """
        for rule in self._rules_of(host)[waiting]:
            seen = set()
            for finding in rule.when.look(host, rule.parameters):
                seen.add(finding.subject)
                if finding.holds or self._watches.get(host.id):
                    self._step(rule, host, finding)
            if self._watches.get(host.id) and (waiting or lists_its_gpus(host)):
                self._end_missing(rule, host, seen)

    def forget(self, host_id: str, now_ns: int) -> None:
        """A host is no more: what is raised of it is over."""
        self._by_host.pop(host_id, None)
        for key, watch in self._watches.get(host_id, {}).items():
            if watch.raised:
                self._turn(key, watch, False, now_ns, "the host was forgotten")

    def changes(self, now_ns: int) -> list[Change]:
        """What differs from what was told; counts as told from now on."""
        found = []
        for key in sorted(self._touched):
            watch = self._watches[key.host][key]
            rule = self._rules.get(key.rule)
            if rule is None and watch.raised:
                watch.raised, watch.changed_ns, watch.text = False, now_ns, "the rule is no more"
            if watch.raised != (key in self._told):
                found.append(Change(key, rule, watch.raised, watch.changed_ns, watch.text))
                (self._told.add if watch.raised else self._told.discard)(key)
            if not watch.raised and watch.since_ns is None:
                del self._watches[key.host][key]
        self._touched.clear()
        return found

    @property
    def open(self) -> frozenset[AlertKey]:
        """What was told and is not over."""
        return frozenset(self._told)

    # --- inside -----------------------------------------------------------------------------------------------------
    def _rules_of(self, host: Observed) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
        known = self._by_host.get(host.id)
        if known is None or known[0] != host.name:
            mine = [rule for rule in self._rules.values() if rule.is_for(host.name)]
            of_samples, of_waiting = (tuple(rule for rule in mine if rule.when.waits is waits) for waits in (False, True))
            known = self._by_host[host.id] = host.name, of_samples, of_waiting
        return known[1:]

    def _is_over(self, rule: Rule, host: Observed, finding: Finding) -> bool | None:
        """Whether what is raised may end by this finding; None = unknown."""
        if rule.clear is None:
            return None if finding.holds is None else not finding.holds
        again = {other.subject: other.holds for other in rule.clear.look(host, {})}
        return again.get(finding.subject)

    def _step(self, rule: Rule, host: Observed, finding: Finding, *, missing: bool = False) -> None:
        key = AlertKey(rule.name, host.id, finding.subject)
        watches = self._watches.setdefault(host.id, {})
        watch = watches.get(key)
        if watch is None:
            if not finding.holds:
                return
            watch = watches[key] = _Watch()
        if watch.raised and not watch.text and finding.holds:
            watch.text = self._text(rule, host, finding, raised=True)
        turns = (missing or self._is_over(rule, host, finding)) if watch.raised else finding.holds
        if turns is None:
            return
        if not turns:
            watch.since_ns = None
            if not watch.raised and key not in self._told and key not in self._touched:
                del watches[key]
            return
        if watch.since_ns is None:
            watch.since_ns = host.now_ns
        if host.now_ns - watch.since_ns >= (rule.clear_for_ns if watch.raised else rule.for_ns):
            raised = not watch.raised
            self._turn(key, watch, raised, watch.since_ns, self._text(rule, host, finding, raised=raised))

    def _end_missing(self, rule: Rule, host: Observed, seen: set[str]) -> None:
        """Subjects that the host has no more: nothing holds of them."""
        watches = self._watches.get(host.id, {})
        for key in [key for key in watches if key.rule == rule.name and key.subject not in seen]:
            self._step(rule, host, Finding(key.subject, False, "not there any more"), missing=True)

    def _turn(self, key: AlertKey, watch: _Watch, raised: bool, since_ns: int, text: str) -> None:
        watch.raised, watch.changed_ns, watch.since_ns, watch.text = raised, since_ns, None, text
        self._touched.add(key)

    def _text(self, rule: Rule, host: Observed, finding: Finding, *, raised: bool) -> str:
        gpu = gpu_name(host, finding.subject)
        return rule.text(raised=raised, host=host.name, ip=host.ip, subject=finding.subject, gpu=gpu, value=finding.value)
