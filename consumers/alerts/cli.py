"""Puts the alerting process together from its settings, and what `dimint alerts list|test|check` show."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

from dimint.consumers.alerts.backtest import Fired, backtest
from dimint.consumers.alerts.conditions import defaults_by
from dimint.consumers.alerts.journal import Journal
from dimint.consumers.alerts.notify import Channel, Mail, Notifier, Webhook
from dimint.consumers.alerts.rules import DEFAULT_RULES, Rule, parse_rules
from dimint.consumers.alerts.runner import Alerter, Rules
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.errors import SettingsError
from dimint.load import read_config
from dimint.log.waiting import open_when_there
from dimint.registry.waiting import open_registry_when_there
from dimint.service import Service
from dimint.settings import AlertsSettings
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter
from dimint.zone import local_zone

__all__ = ["ELECTION", "open_alerts", "read_rules", "run", "try_rules"]

ELECTION = "alerts"
_MAIL_PORT = 25


def run(settings: AlertsSettings, service: Service) -> None:
    """Watch until the service ends; of several such processes one works. Raises SettingsError, in one line."""
    rules, channels = read_rules(settings), _channels(settings)
    clock = SystemClock()
    stopping = threading.Event()
    with ExitStack() as stack:
        source, found = open_when_there(settings, wanted=settings.genesis, clock=clock, process="alerts", service=service)
        stack.callback(source.close)
        registry = open_registry_when_there(settings, log_id=source.describe().generation, service=service)
        stack.callback(registry.close)
        identity = os.urandom(16).hex()
        registry.join("alerts", identity, {"pid": os.getpid(), "host": socket.gethostname()})
        candidacy = registry.elect(ELECTION, identity)
        writer = BatchWriter(source, clock=clock, host=socket.gethostname(), process="alerts")
        stack.callback(writer.close)
        reader = stack.enter_context(StatusReader(settings.data_dir / TABLES_FOLDER))
        journal = Journal(source, found, writer, stopping)
        alerter = Alerter(
            reader, Rules(rules, local_zone()), journal, lambda: candidacy.fence() is not None, clock, stopping
        )  # fmt: skip
        alerter.notifier = Notifier(channels, alerter.told, clock)
        service.ready()
        service.run(alerter, alerter.notifier)


def read_rules(settings: AlertsSettings) -> tuple[Rule, ...]:
    """The rules of the file, or the built-in ones with what the settings say about them. Raises SettingsError."""
    if settings.alert_rules is not None:
        return parse_rules(read_config(str(settings.alert_rules)), str(settings.alert_rules), defaults_by(settings))
    content: dict[str, object] = {"rule": [_told_by_settings(dict(rule), settings) for rule in DEFAULT_RULES]}
    return parse_rules(content, "settings", defaults_by(settings))


def read_rule(settings: AlertsSettings, when: str) -> Rule:
    """A rule that is only a condition or a comparison. Raises SettingsError."""
    (rule,) = parse_rules({"rule": [{"name": "test", "when": when}]}, "RULE", defaults_by(settings))
    return rule


def open_alerts(settings: AlertsSettings) -> list[dict[str, Any]]:
    """The open alerts of this machine's tables, the newest first, with their hosts' names."""
    with StatusReader(settings.data_dir / TABLES_FOLDER) as reader:
        names = {row.id: row.name for row in reader.hosts()}
        return [alert._asdict() | {"host_name": names.get(alert.host, alert.host)} for alert in reader.alerts()]


def try_rules(
    settings: AlertsSettings, rules: tuple[Rule, ...], from_ns: int, to_ns: int, host: str | None, say: Callable[[int, int], None]
) -> Iterator[Fired]:
    """What these rules would have raised between the two times, host by host; `say(done, hosts)` tells of progress."""
    with closing(StatusReader(settings.data_dir / TABLES_FOLDER)) as reader:
        hosts = reader.hosts()
        if host is not None:
            found = reader.host(host)
            if found is None:
                raise SettingsError(f"there is no host {host!a}", hint="`dimint alerts test` without --host looks at all")
            hosts = [found]
        for done, row in enumerate(hosts):
            say(done, len(hosts))
            yield from backtest(reader, rules, row, from_ns, to_ns)
        say(len(hosts), len(hosts))


# --- inside ---------------------------------------------------------------------------------------------------------
def _told_by_settings(rule: dict[str, object], settings: AlertsSettings) -> dict[str, object]:
    if rule["when"] == "host.registered" and settings.message_uplink:
        rule["message"] = settings.message_uplink
    if rule["when"] == "gpu.idle_held":
        rule["for"] = f"{max(1, round(settings.idle_held))}s"
    if rule["when"] == "host.down":
        rule["after"] = f"{max(1, round(settings.down_threshold))}s"
        if settings.message_down:
            rule["message"] = settings.message_down.replace("{lost_th}", "{value}")
        if settings.message_up:
            rule["cleared_message"] = settings.message_up
    return rule


def _channels(settings: AlertsSettings) -> list[Channel]:
    channels: list[Channel] = []
    if settings.webhook:
        channels.append(Webhook(settings.webhook))
    if settings.mail_server:
        host, _, port = settings.mail_server.rpartition(":")
        server = (host.strip("[]"), int(port)) if host and port.isdigit() else (settings.mail_server.strip("[]"), _MAIL_PORT)
        user, _, password = settings.mail_auth.partition(":")
        to = [each.strip() for each in settings.mail_to.split(",") if each.strip()]
        channels.append(Mail(server, settings.mail_from, to, (user, password) if settings.mail_auth else None))
    return channels
