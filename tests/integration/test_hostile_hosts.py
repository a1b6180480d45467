"""Hosts with hostile names, through the whole chain: overlord, log, tables, terminal views, JSON and pages."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import msgpack
import pytest
import zmq

from dimint.webapp.text import width
from tests.support.system import System, wait_until

pytestmark = pytest.mark.timeout(150)

HOSTILE = {
    "escape": "\x1b[2J\x1b[31mred\x1b]52;c;aGk=\x07",
    "lines": "one\r\ntwo\tthree\x00\x08\x7f",
    "c1": "\x9b31m\x85\x90",
    "rtl": "abc\u202edcba\u2066\u200f\ufeff",
    "html": "<script>alert(1)</script>&\"'><img src=x onerror=alert(2)>",
    "wide": "大きい計算機の名前は長いですよ😀👩‍👩‍👧‍👦" * 4,
    "long": "n" * 300,
    "stacked": "z" + "\u0301" * 200,
    "path": "../../etc/passwd%00",
    "pretender": "gpu9 (sim)",
    "spaces": " \u3000\u00a0 ",
    "separator": "a\u2028b\u2029c",
}
"""What a host, GPU, process and user can be called."""


class Publisher:
    """A raw client that sends events as an agent does."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self._socket.connect(address)

    def __call__(self, *events: Any) -> Any:
        self._socket.send(msgpack.packb({"cmd": "publish", "events": list(events)}))
        return msgpack.unpackb(self._socket.recv())

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the module, with a page that has room for all hosts."""
    with System(tmp_path_factory.mktemp("hostile") / "data", "--page_size=100") as started:
        yield started


@pytest.fixture
def publish(system: System) -> Iterator[Publisher]:
    """An agent on another machine."""
    found = Publisher(system.client_address)
    yield found
    found.close()


def events_of(number: int, name: str) -> list[list[Any]]:
    """A host that registers and sends one sample, all of it named `name`."""
    host, now = f"{number:032x}", time.time_ns()
    gpu = {"i": 0, "u": f"GPU-{name}", "name": name, "st": "ok", "mem_tot": 8 << 30, "mem_used": 1 << 30, "util_pct": 5}
    process = {"g": 0, "pid": 7, "name": name, "user": name, "mem": 1 << 20}
    sample = {
        "gpu_state": "ok",
        "cpu": {"tot_pm": 10, "n": 2},
        "mem": {"tot": 8 << 30, "used": 1},
        "gpu": [gpu],
        "proc": [process],
    }
    return [
        ["host.registered", host, now, name, "10.0.0.1", {"os": name, "cpu_model": name}],
        ["host.sample", host, now, bytes(8), 1, sample],
    ]


def fetch(system: System, path: str) -> str:
    with urlopen(f"{system.pages}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_no_name_does_anything_on_a_terminal_or_a_page(system: System, publish: Publisher) -> None:
    """Every line of every terminal view is printable and exactly as wide as the view; pages and JSON keep it text."""
    for number, name in enumerate(HOSTILE.values(), 1):
        assert publish(*events_of(number, name)) == {"accepted": 2}
    states = wait_until(
        lambda: (found := json.loads(fetch(system, "/states/"))) and len(found) > len(HOSTILE) and found,
        20,
        "all hosts are on the pages",
    )
    for path in ("/?term=true", "/?term=true&detail=true", "/gpu_table?term=true"):
        view = fetch(system, path)
        lines = [line for line in view.splitlines() if line]
        assert view.count("\n") == len(view.splitlines())
        assert {width(line) for line in lines if line[0] in "|+#_-"} == {80}, path
        assert all(width(line) <= 80 and line.isprintable() for line in lines), path
        assert "alert(1)" in view or path == "/gpu_table?term=true"
    for path in ("/", "/gpu_table"):
        page = fetch(system, path)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert not any(char in page for char in "\x1b\x9b\x00\u202e\u2028")
    for name in states:
        quoted = quote(name, safe="")
        assert list(json.loads(fetch(system, f"/states/{quoted}/"))) == [name]
        assert fetch(system, f"/states/{quoted}/?term=true").startswith("\n### ")
    assert all(name.isprintable() and name for name in states)


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "host.sample",
        ["host.sample"],
        ["kv.set", b"k", 1, b"v"],
        ["host.registered", "not hex", 1, "name", "ip", {}],
        ["host.registered", "0" * 32, -1, "name", "ip", {}],
        ["host.registered", "0" * 32, 1 << 63, "name", "ip", {}],
        ["host.registered", "0" * 32, 1, "n" * 100_000, "ip", {}],
        ["host.registered", "0" * 32, 1, b"name", "ip", {}],
        ["host.registered", "0" * 32, 1, "name", "ip", {"a": [[[[{}]]]] * 100_000}],
        ["host.sample", "0" * 32, 1, b"short", 1, {}],
        ["host.sample", "0" * 32, 1, bytes(8), 0, {}],
        ["host.sample", "0" * 32, 1, bytes(8), 1, []],
        ["host.gap", "0" * 32, 1, bytes(8), 9, 1, "why"],
    ],
    ids=lambda event: str(event)[:40],
)
def test_what_is_no_event_of_an_agent_is_refused_or_harmless(system: System, publish: Publisher, event: Any) -> None:
    """A named error or an accepted event, and the pages go on; nothing of a batch with a refused event is kept."""
    reply = publish(event)
    assert reply == {"accepted": 1} or reply["error"] in {"DIMINT_PARSE_ERROR", "DIMINT_TOO_LARGE"}, reply
    if "error" in reply:
        assert "error" in publish(*events_of(1000, "beside"), event)
        assert "beside" not in fetch(system, "/states/")
    assert "running" in fetch(system, "/states/")
