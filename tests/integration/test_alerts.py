"""Alerts from end to end: real log, real consumer, real tables, a webhook and a mail server on sockets."""

import json
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dimint.consumers.alerts.cli import read_rules, try_rules
from dimint.consumers.alerts.core import AlertKey
from dimint.consumers.alerts.journal import Journal
from dimint.consumers.alerts.notify import Channel, Mail, Notice, Notifier, NotTold, Webhook
from dimint.consumers.alerts.rules import parse_rules
from dimint.consumers.alerts.runner import Alerter, Rules
from dimint.consumers.digest import table_digest
from dimint.consumers.folder import TablesFolder
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.consumers.rebuild import rebuild_tables
from dimint.errors import UnknownVersion
from dimint.events import STATUS_TOPIC
from dimint.load import load
from dimint.settings import AlertsSettings
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter, Outgoing
from dimint.zone import local_zone
from tests.support.hosts import gpu, sample
from tests.support.senders import consuming, opening
from tests.support.system import wait_until

HOST = "ab" * 16
RULES = parse_rules(
    {
        "rule": [
            {"name": "down", "when": "host.down", "after": "3600s"},
            {"name": "uplink", "when": "host.registered"},
            {"name": "warm", "when": "gpu.temp_c > 85", "message": "{host} {subject} {value}", "cleared_message": "{host} cool"},
        ]
    },
    "test",
)


class Inbox(BaseHTTPRequestHandler):
    """A webhook that keeps what it gets; `refusals` of them are answered with 500."""

    texts: list[str]
    refusals: list[int]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refusals:
            self.refusals.pop()
            self.send_error(500)
            return
        self.texts.append(body["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def webhook(refusals: int = 0) -> Iterator[tuple[str, list[str]]]:
    """A webhook's address, and the texts that it has taken."""
    texts: list[str] = []
    handler = type("Handler", (Inbox,), {"texts": texts, "refusals": [1] * refusals})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", texts
        finally:
            server.shutdown()
            thread.join(10)


class Agents:
    """Puts events of hosts into the log."""

    def __init__(self, data_dir: Path) -> None:
        self.log, self.genesis = opening(data_dir)
        self.writer = BatchWriter(self.log, clock=SystemClock(), host="test", process="agent")
        self.seq = 0

    def put(self, *event: Any) -> None:
        kind, *fields = event
        partition = self.genesis.status_partition(HOST)
        batch = Outgoing(STATUS_TOPIC, partition, (self.writer.by,), [[kind, HOST, 0, 0, *fields]])
        self.writer.append([batch])[0].result(10)

    def sample(self, heat: int) -> None:
        self.seq += 1
        self.put("host.sample", b"run", self.seq, sample([gpu(0, "x", 1, 2, 3, heat)]) | {"int_ms": 1000})

    def close(self) -> None:
        self.writer.close()
        self.log.close()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    made = Agents(tmp_path)
    yield made
    made.close()


@contextmanager
def alerting(
    data_dir: Path,
    channels: list[Channel],
    leads: Callable[[], bool] = lambda: True,
    tables: Callable[[Path], StatusReader] = StatusReader,
) -> Iterator[None]:
    """The alerting process's objects at work on the tables of a data directory."""
    log, genesis = opening(data_dir)
    stopping = threading.Event()
    writer = BatchWriter(log, clock=SystemClock(), host="test", process="alerts")
    with tables(data_dir / TABLES_FOLDER) as reader:
        journal = Journal(log, genesis, writer, stopping)
        alerter = Alerter(reader, Rules(RULES, local_zone()), journal, leads, SystemClock(), stopping)
        alerter.notifier = Notifier(channels, alerter.told, SystemClock())
        threads = [threading.Thread(target=alerter.run), threading.Thread(target=alerter.notifier.run)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            alerter.stop()
            alerter.notifier.stop()
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive()
            writer.close()
            log.close()


def kinds(reader: StatusReader) -> list[str]:
    """What happened on the host, in log order."""
    return [event.kind for event in sorted(reader.events(0, time.time_ns() * 2), key=lambda event: event.n)]


def test_raised_told_and_over_once_each(tmp_path: Path, agents: Agents) -> None:
    """Events in the log, open alerts in the tables, texts at the webhook; a restart and a rebuild tell nobody anything again."""
    agents.put("host.registered", "gpu-01.lab", "10.0.0.1", {})
    agents.sample(60)
    with webhook() as (url, texts), consuming(tmp_path), StatusReader(tmp_path / TABLES_FOLDER) as reader:
        with alerting(tmp_path, [Webhook(url)]):
            wait_until(lambda: len(texts) == 1, 20, "uplink")
            agents.sample(90)
            wait_until(lambda: len(texts) == 2, 20, "warm")
            wait_until(lambda: all(alert.told for alert in reader.alerts()) and len(reader.alerts()) == 2, 20, "told")
        assert [(alert.rule, alert.subject) for alert in reader.alerts()] == [("warm", "GPU-00000000"), ("uplink", "")]
        with alerting(tmp_path, [Webhook(url)]):
            agents.sample(95)
            agents.sample(70)
            wait_until(lambda: len(texts) == 3, 20, "cool")
        wait_until(lambda: kinds(reader).count("alert.told") >= 2, 20, "outcomes")
        assert texts[0].endswith("New uplink from `gpu_01_lab`. Hello!")
        assert texts[1:] == ["gpu_01_lab GPU-00000000 90", "gpu_01_lab cool"]
        wait_until(lambda: [alert.rule for alert in reader.alerts()] == ["uplink"], 20, "over")
        assert [kind for kind in kinds(reader) if kind != "alert.told"] == ["alert.raised", "alert.raised", "alert.cleared"]
        rebuild_tables(agents.log, TablesFolder(tmp_path / TABLES_FOLDER))
        assert [alert.rule for alert in reader.alerts()] == ["uplink"]
        with alerting(tmp_path, [Webhook(url)]):
            agents.sample(71)
            time.sleep(1.5)
        assert len(texts) == 3


def test_only_the_leader_works(tmp_path: Path, agents: Agents) -> None:
    """One that does not lead tells nothing; when it leads, it does what was left."""
    agents.put("host.registered", "h", "10.0.0.1", {})
    leads = threading.Event()
    with webhook() as (url, texts), consuming(tmp_path), alerting(tmp_path, [Webhook(url)], leads.is_set):
        time.sleep(1.2)
        assert texts == []
        leads.set()
        wait_until(lambda: len(texts) == 1, 20, "uplink")


class Damaged(StatusReader):
    """Tables that cannot be read until somebody has made them anew."""

    asked = 0
    repaired = False

    def version(self) -> int:
        Damaged.asked += 1
        if not Damaged.repaired:
            raise UnknownVersion("a chunk of format 99")
        return super().version()


def test_tables_that_cannot_be_read_are_waited_for(tmp_path: Path, agents: Agents, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and what happened meanwhile is told when they can be read again."""
    agents.put("host.registered", "h", "10.0.0.1", {})
    with webhook() as (url, texts), consuming(tmp_path), alerting(tmp_path, [Webhook(url)], tables=Damaged):
        wait_until(lambda: Damaged.asked > 2, 20, "several looks")
        assert texts == []
        Damaged.repaired = True
        wait_until(lambda: len(texts) == 1, 20, "uplink")
    assert [record.message for record in caplog.records if "watched" in record.message] == [
        "nothing is watched while the status tables cannot be read: a chunk of format 99"
    ]


def test_a_webhook_that_refuses_is_tried_again() -> None:
    """The text arrives once; that nobody took one is reported; what waits can be taken back."""
    told: list[str | None] = []
    key = AlertKey("rule", HOST, "")
    with webhook(refusals=2) as (url, texts):
        notifier = Notifier(
            [Webhook(url)], lambda notice, channel, problem: told.append(problem), SystemClock(), pauses_s=[0.01] * 3
        )
        thread = threading.Thread(target=notifier.run)
        thread.start()
        try:
            notifier.tell(Notice(key, True, "later", after_s=3600), ["webhook"])
            notifier.tell(Notice(key, False, "hello"), ["webhook", "mail"])
            wait_until(lambda: told, 20, "told")
            assert (texts, told) == (["hello"], [None])
            assert notifier.withdraw(key)
            assert not notifier.withdraw(key)
        finally:
            notifier.stop()
            thread.join(10)
    told.clear()
    notifier = Notifier([Webhook(url)], lambda notice, channel, problem: told.append(problem), SystemClock(), pauses_s=[0.01])
    thread = threading.Thread(target=notifier.run)
    thread.start()
    try:
        notifier.tell(Notice(key, False, "nobody is there"), ["webhook"])
        wait_until(lambda: told, 20, "given up")
    finally:
        notifier.stop()
        thread.join(10)
    assert told[0] is not None
    assert "cannot be reached" in told[0]


class Postman(socketserver.StreamRequestHandler):
    """Takes one mail in plain SMTP."""

    mails: list[str]

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line)
                self.mails.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


def test_mail() -> None:
    """A mail with subject and text; a server that offers no log-in is not told the password."""
    mails: list[str] = []
    handler = type("Handler", (Postman,), {"mails": mails})
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        where = "127.0.0.1", int(server.server_address[1])
        try:
            Mail(where, "dimint@lab", ["ops@lab"], None).send("⬇ `host1` is down")
            with pytest.raises(NotTold, match="no log-in without TLS"):
                Mail(where, "dimint@lab", ["ops@lab"], ("user", "secret")).send("x")
        finally:
            server.shutdown()
            thread.join(10)
    (mail,) = mails
    assert "To: ops@lab" in mail
    assert "Subject: DiMint: =?utf-8?" in mail
    with pytest.raises(NotTold, match="the mail server did not take it"):
        Mail(where, "dimint@lab", ["ops@lab"], None).send("x")


def test_rules_over_the_past(tmp_path: Path, agents: Agents) -> None:
    """When it would have been raised, in the samples' own times; silence is seen too."""
    second, start = 1_000_000_000, time.time_ns() - 7200 * 1_000_000_000
    heats = {0: 60, 10: 90, 20: 91, 30: 60, 40: 90, 3000: 60}
    for at_s, heat in heats.items():
        agents.seq += 1
        event = ["host.sample", HOST, 0, 0, b"run", agents.seq, sample([gpu(0, "x", 1, 2, 3, heat)]) | {"int_ms": 1000}]
        batch = Outgoing(
            STATUS_TOPIC, agents.genesis.status_partition(HOST), (agents.writer.by,), [event], time_ns=start + at_s * second
        )
        agents.writer.append([batch])[0].result(10)
    rules = parse_rules(
        {"rule": [{"name": "warm", "when": "gpu.temp_c > 85"}, {"name": "down", "when": "host.down", "after": "600s"}]}, "test"
    )
    settings = load(AlertsSettings, flags={"data_dir": str(tmp_path)}, environ={})
    with consuming(tmp_path), StatusReader(tmp_path / TABLES_FOLDER) as reader:
        wait_until(lambda: len(reader.last(HOST, 10)) == len(heats), 20, "samples")
        before = table_digest(tmp_path / TABLES_FOLDER)
        fired = sorted(
            try_rules(settings, rules, start, start + 4000 * second, None, lambda done, of: None), key=lambda row: row[4]
        )
        assert table_digest(tmp_path / TABLES_FOLDER) == before
    shown = [
        (row.rule, (row.raised_ns - start) // second, row.cleared_ns and (row.cleared_ns - start) // second) for row in fired
    ]
    assert shown == [("warm", 10, 30), ("warm", 40, 3000), ("down", 645, 3000), ("down", 3605, None)]


def test_settings_of_an_older_system() -> None:
    """Webhook and messages under their old names, in the built-in rules."""
    settings = load(AlertsSettings, flags={"down_threshold": "90", "message_down": "{host_name} {lost_th}"}, environ={})
    down = next(rule for rule in read_rules(settings) if rule.name == "down")
    assert down.parameters["after"] == 90
    assert down.text(raised=True, host="h", ip="", subject="", gpu="", value="90") == "h 90"
    assert os.environ.get("DIMINT_WEBHOOK") is None
