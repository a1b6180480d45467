"""`dimint alerts open|rules|test`: what is raised, what is watched, and what a rule would have raised."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from dimint.cli_client import write_row
from dimint.cli_options import with_settings
from dimint.errors import BadTime, SettingsError
from dimint.settings import AlertsSettings
from dimint.when import parse_span, parse_time
from dimint.zone import local_zone

__all__ = ["ALERT_COMMANDS"]

_SAY_EVERY_S = 1.0


@click.command(name="open", help="Show the alerts that are open, the newest first.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@with_settings(AlertsSettings)
def show_open(settings: AlertsSettings, as_json: bool) -> None:
    from dimint.consumers.alerts.cli import open_alerts

    for alert in open_alerts(settings):
        if as_json:
            click.echo(json.dumps(alert))
        else:
            write_row(_stamp(alert["since_ns"]), alert["severity"], alert["rule"], alert["host_name"], alert["text"])


@click.command(name="rules", help="Check the rules, and show what is watched and what can be watched.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@with_settings(AlertsSettings)
def show_rules(settings: AlertsSettings, as_json: bool) -> None:
    from dimint.consumers.alerts.cli import read_rules
    from dimint.consumers.alerts.conditions import CONDITIONS

    rules = read_rules(settings)
    for rule in rules:
        seconds = rule.for_ns / 1e9
        if as_json:
            click.echo(json.dumps({"name": rule.name, "when": rule.when.name, "for_s": seconds, "severity": rule.severity,
                                   "hosts": rule.hosts, "parameters": dict(rule.parameters), "tell": rule.tell}))  # fmt: skip
        else:
            numbers = [f"{name} {value:g}" for name, value in rule.parameters.items()]
            words = [rule.when.name, *numbers, *([f"for {seconds:g} s"] if seconds else []), f"on {rule.hosts}"]
            write_row(f"{rule.name:24} {rule.severity:8}  {' '.join(words)}", f"told by {' and '.join(rule.tell) or 'nobody'}")
    if not (settings.webhook or settings.mail_server):
        click.echo(
            "dimint: neither webhook nor mail_server is set here: what is raised stands in the log and on the pages only",
            err=True,
        )
    if not as_json:
        click.echo("\nconditions:")
        for condition in CONDITIONS.values():
            write_row(f"  {condition.name:26} {condition.text}")


@click.command(name="test", help="Run a rule over the past: when would it have been raised? RULE is a name, or a condition "
               "such as 'gpu.temp_c > 85'.")  # fmt: skip
@click.argument("rule")
@click.option("--since", default="30d", show_default=True, metavar="TIME", help="From when on: 30d, or a time.")
@click.option("--until", default="now", show_default=True, metavar="TIME", help="To when.")
@click.option("--for", "lasting", metavar="SPAN", help="How long it must hold; default: what the rule says.")
@click.option("--host", metavar="NAME", help="Only this host.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@with_settings(AlertsSettings)
def try_rule(
    settings: AlertsSettings, rule: str, since: str, until: str, lasting: str | None, host: str | None, as_json: bool
) -> None:
    from dimint.consumers.alerts.cli import read_rule, read_rules, try_rules

    now_ns = time.time_ns()
    from_ns, to_ns = _from(since, now_ns), parse_time(until, now_ns=now_ns, zone=local_zone())
    chosen = [each for each in read_rules(settings) if each.name == rule]
    if not chosen:
        try:
            chosen = [read_rule(settings, rule)]
        except SettingsError as error:
            raise SettingsError(f"there is no rule {rule!a}, and {error}") from None
    if lasting is not None:
        chosen = [dataclasses.replace(each, for_ns=parse_span(lasting)) for each in chosen]
    fired = 0
    seconds = 0.0
    names = set()
    for row in try_rules(settings, tuple(chosen), from_ns, to_ns, host, _progress()):
        fired += 1
        names.add(row.host)
        end_ns = to_ns if row.cleared_ns is None else row.cleared_ns
        seconds += (end_ns - row.raised_ns) / 1e9
        if as_json:
            click.echo(json.dumps(row._asdict()))
        else:
            lasted = "still open" if row.cleared_ns is None else f"{(end_ns - row.raised_ns) / 1e9:.0f} s"
            write_row(_stamp(row.raised_ns), f"{lasted:>12}", row.host_name, row.text)
    if not as_json:
        span = f"from {_stamp(from_ns)} to {_stamp(to_ns)}"
        times, hosts = "once" if fired == 1 else f"{fired} times", f"{len(names)} host{'' if len(names) == 1 else 's'}"
        write_row(f"raised {times} on {hosts}, {seconds / 3600:.1f} h in all, {span}")


ALERT_COMMANDS = (show_open, show_rules, try_rule)


def _from(text: str, now_ns: int) -> int:
    try:
        return max(0, now_ns - parse_span(text))
    except BadTime:
        return parse_time(text, now_ns=now_ns, zone=local_zone())


def _stamp(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, local_zone()).strftime("%Y-%m-%d %H:%M:%S")


def _progress() -> Callable[[int, int], None]:
    """Says on a terminal, once a second, how far it is and how long it will take."""
    started = said = time.monotonic()

    def say(done: int, of: int) -> Any:
        nonlocal said
        now = time.monotonic()
        if sys.stderr.isatty() and done and now - said > _SAY_EVERY_S:
            said = now
            left_s = (now - started) / done * (of - done)
            print(f"{done} of {of} hosts, {done / (now - started):.1f} hosts/s, {left_s:.0f} s left", file=sys.stderr)

    return say
