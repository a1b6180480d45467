"""The first question for the past of a long log: whoever asks is told how far the log is read, and the shell waits."""

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dimint.cli import main
from dimint.client import Client
from dimint.client.operations import Operation
from dimint.consumers.historian import Historian
from dimint.errors import TimedOut
from dimint.log.port import Log, Record
from dimint.registry.opening import open_registry
from dimint.replay import open_log
from dimint.so_far import SoFar
from dimint.system_clock import SystemClock
from tests.support.at_work import at_work
from tests.support.fleet import MemoryTables
from tests.support.kv_system import KvSystem, kv_system
from tests.support.web import serving, web_settings

RECORDS = 120


class SlowLog:
    """A log of which nobody reads more than two records at a time, after a while."""

    def __init__(self, inner: Log) -> None:
        self._inner = inner
        self.pause_s = 0.0

    def read(self, *place: Any, **_: Any) -> list[Record]:
        time.sleep(self.pause_s)
        return self._inner.read(*place, max_records=2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvSystem]:
    with kv_system(tmp_path_factory.mktemp("long"), flags=["--partitions=1"]) as running:
        with Client(running.address, timeout=20) as client:
            for number in range(RECORDS):
                client.set("k", number)
        yield running


@pytest.fixture
def slow(system: KvSystem, tmp_path: Path) -> Iterator[SlowLog]:
    """The log as a historian reads it that nobody has asked yet."""
    with (
        closing(open_registry(web_settings(data_dir=system.directory, log=str(system.directory)))) as registry,
        open_log(str(system.directory)) as log,
    ):
        slow = SlowLog(log)
        with at_work(Historian(slow, tmp_path, registry, SystemClock()), patience_s=20):
            yield slow


def test_a_client_is_told_how_far_it_is(system: KvSystem, slow: SlowLog) -> None:
    """In the error's words and in its numbers, which grow; once the log is read the answer comes."""
    slow.pause_s = 0.1
    with Client(system.address, timeout=2) as client:
        told = []
        for _ in range(2):
            with pytest.raises(TimedOut, match=r"is being made: \d+ % of the log is read, ask again") as caught:
                list(client.history("k"))
            assert caught.value.so_far is not None
            told.append(caught.value.so_far)
        slow.pause_s = 0.0
        assert [each.value for each in client.history("k")] == list(range(RECORDS))
    assert 0 < told[0].done < told[1].done < told[0].total
    assert told[1].left_s is not None


def test_the_shell_waits(system: KvSystem, slow: SlowLog, capfd: pytest.CaptureFixture[str]) -> None:
    """With progress, beyond the time that an answer may take; not where the command line says how long."""
    slow.pause_s = 0.1
    command = ["get", "k", "--at", "now", "--json", "--port_for_client", system.address.rpartition(":")[2]]
    assert main([*command, "--timeout", "2"]) == 1
    assert "% of the log is read, ask again in about" in capfd.readouterr().err
    slow.pause_s = 0.07
    assert main(command) == 0
    found = capfd.readouterr()
    assert json.loads(found.out)["value"] == RECORDS - 1
    lines = [json.loads(line) for line in found.err.splitlines()]
    assert {line["progress"] for line in lines} == {"history"}
    assert [line["finished"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[0]["done"] < lines[-1]["done"] == lines[-1]["total"]


def test_ctrl_c_ends_the_waiting(system: KvSystem, slow: SlowLog) -> None:
    """In one line, which says what goes on; the system does."""
    slow.pause_s = 0.3
    command = ["get", "k", "--at", "now", "--json", "--port_for_client", system.address.rpartition(":")[2]]
    with subprocess.Popen([sys.executable, "-m", "dimint", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shell:
        assert shell.stderr is not None
        first = json.loads(shell.stderr.readline())
        shell.send_signal(signal.SIGINT)
        out, err = shell.communicate(timeout=20)
    assert (shell.returncode, out) == (130, b"")
    assert "dimint: stopped; the system goes on with the history; ask again\n" in err.decode()
    slow.pause_s = 0.0
    with Client(system.address, timeout=20) as client:
        assert client.at("now").get("k") == RECORDS - 1
    assert 0 < first["done"] < first["total"]


class Unready:
    """A store whose history is being made."""

    so_far: SoFar | None = None

    async def ask(self, op: Operation[Any]) -> Any:
        raise TimedOut("not yet" if self.so_far is None else f"not yet: {self.so_far}", so_far=self.so_far)

    async def close(self) -> None: ...


def test_pages_say_when_to_ask_again() -> None:
    """HTTP 503 with `Retry-After`, for programs and for browsers, which ask again by themselves."""
    store = Unready()
    with serving(MemoryTables(), SystemClock(), store=store) as address:

        def get(path: str) -> tuple[str, str | None, str | None]:
            with closing(http.client.HTTPConnection(*address, timeout=30)) as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                assert answer.status == 503
                return answer.read().decode(), answer.getheader("Retry-After"), answer.getheader("Refresh")

        body, after, refresh = get("/keys/k/?at=-1h&format=json")
        assert (json.loads(body)["message"], after, refresh) == ("not yet; try again", None, None)
        store.so_far = SoFar(120, 1000, 39.2)
        for path in ("/keys/k/?at=-1h&format=json", "/keys/?at=-1h&term=true", "/diff?from=-1h", "/keys/k/history"):
            body, after, refresh = get(path)
            assert "12 % of the log is read, ask again in about 40 s" in body
            assert "try again" not in body
            assert (after, refresh) == ("40", "5")
