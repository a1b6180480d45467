"""Watches of real systems, on the embedded log and on Kafka: every change once, whatever dies."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq

from dimint.client import AsyncClient, Change, Client
from dimint.errors import DimintError, NotApplied, ParseError, PositionGone, WrongLog
from dimint.events import KV_TOPIC
from dimint.log.opening import open_log
from dimint.positions import Position, format_positions, parse_positions
from dimint.system_clock import SystemClock
from dimint.values import to_object
from tests.support.kv_system import KvSystem, kv_system
from tests.support.log_truth import all_changes, ends
from tests.support.services.kafka import shared_broker
from tests.support.system import OldClient

pytestmark = pytest.mark.timeout(200)

LONG_S = 90.0


class Seen(NamedTuple):
    """One change, in the form in which both sides can be compared."""

    kind: str
    key: str
    value: Any
    version: int
    log_time_us: int
    offset: int
    event: int


class Watcher:
    """Follows a prefix in a thread until `stop` says where to."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.token = ""
        self.first = ""
        self.seen: dict[int, list[Seen]] = {}
        self.target: dict[int, Position] | None = None
        self.begun = threading.Event()
        self.problem: Exception | None = None
        self.thread = threading.Thread(target=self._guarded)
        self.thread.start()

    def run(self) -> None:
        raise NotImplementedError

    def begin(self, token: str) -> None:
        self.first = self.token = token
        self.begun.set()

    def take(self, change: Change | dict[str, Any]) -> None:
        fields = change if isinstance(change, dict) else change._asdict()
        ((partition, after),) = parse_positions(fields["position"])[1].items()
        value = fields.get("value")
        version, log_time_us = fields["version"], fields["log_time_us"]
        one = Seen(fields["kind"], fields["key"], value, version, log_time_us, after.offset, after.events - 1)
        self.seen.setdefault(partition, []).append(one)

    def is_done(self) -> bool:
        return self.target is not None and parse_positions(self.token)[1] == self.target

    def check(self, truth: dict[int, list[Any]]) -> int:
        """Compare with the log; how many changes it saw."""
        self.thread.join(LONG_S)
        assert not self.thread.is_alive(), (
            f"{type(self).__name__} of {self.prefix!r} stands at {self.token}, not at {self.target}"
        )
        if self.problem is not None:
            raise self.problem
        first = parse_positions(self.first)[1]
        for partition, changes in truth.items():
            expected = [
                Seen(
                    one.kind,
                    one.key,
                    None if one.value is None else to_object(one.value),
                    one.version,
                    one.log_time_us,
                    one.offset,
                    one.index,
                )
                for one in changes
                if one.key.startswith(self.prefix) and (one.offset, one.index) >= first[partition]
            ]
            assert self.seen.get(partition, []) == expected
        return sum(map(len, self.seen.values()))

    def _guarded(self) -> None:
        try:
            self.run()
        except (DimintError, zmq.ZMQError, OSError) as error:
            self.problem = error
        self.begun.set()


class LibraryWatcher(Watcher):
    """By the synchronous client; begins anew from its token now and then, as a program that is restarted would."""

    def __init__(self, system: KvSystem, prefix: str, *, direct: bool) -> None:
        self.system, self.direct = system, direct
        super().__init__(prefix)

    def run(self) -> None:
        with Client(self.system.addresses, direct_reads=self.direct, timeout=30) as client:
            while not self.is_done():
                with client.watch(prefix=self.prefix, token=self.token or None) as watch:
                    if not self.token:
                        self.begin(watch.token)
                    for _ in range(150):
                        change = watch.next(0.2)
                        if change is not None:
                            self.take(change)
                        self.token = watch.token
                        if self.is_done():
                            return


class AsyncWatcher(LibraryWatcher):
    """By the asyncio client."""

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with AsyncClient(self.system.addresses, timeout=30) as client, client.watch(prefix=self.prefix) as watch:
            self.begin(watch.token)
            while not self.is_done():
                change = await watch.next(0.2)
                if change is not None:
                    self.take(change)
                self.token = watch.token


class RawWatcher(Watcher):
    """A DEALER and JSON, as any language would do it."""

    def __init__(self, system: KvSystem, prefix: str) -> None:
        self.system = system
        super().__init__(prefix)

    def run(self) -> None:
        turn = 0
        request: dict[str, Any] = {"prefix": self.prefix, "timeout": 1}
        while not self.is_done():
            turn += 1
            address = self.system.addresses[turn % len(self.system.addresses)]
            with OldClient(f"tcp://{address}", timeout_s=3) as ask:
                try:
                    while not self.is_done():
                        reply = ask("watch", **request)
                        if "error" in reply:
                            break
                        request["from"] = reply["token"]
                        if not self.token:
                            self.begin(reply["token"])
                        for change in reply["changes"]:
                            self.take(change)
                        self.token = reply["token"]
                except zmq.Again:
                    continue


def _write(system: KvSystem, stop: threading.Event) -> int:
    """Every kind of change until `stop`; how many calls."""
    count = 0
    with Client(system.addresses, timeout=30) as client:
        while not stop.wait(0.004):
            count += 1
            name = f"k{count % 4}"
            try:
                if count % 9 == 0:
                    client.mset({f"m{number}": count for number in range(20)})
                elif count % 7 == 0:
                    client.delete(name)
                elif count % 5 == 0:
                    client.set(name, count, ttl=0.1)
                elif count % 3 == 0:
                    client.cas(name, count, version=0)
                else:
                    client.incr("n")
            except NotApplied:
                continue
    return count


def _flags(place: str) -> list[str]:
    return [f"--log={shared_broker().url}/{os.urandom(6).hex()}"] if place == "kafka" else []


@pytest.mark.parametrize("place", ["embedded", "kafka"])
def test_every_change_comes_once_whatever_dies(tmp_path: Path, place: str) -> None:
    """Nodes and overlords die by kill -9 and come back while a client writes: each way to watch sees what the log has."""
    flags = _flags(place)
    with kv_system(tmp_path, overlords=2, nodes=2, flags=flags) as system:
        watchers: list[Watcher] = [
            LibraryWatcher(system, "", direct=True),
            LibraryWatcher(system, "k", direct=False),
            AsyncWatcher(system, "m", direct=True),
            RawWatcher(system, ""),
        ]
        for watcher in watchers:
            assert watcher.begun.wait(LONG_S)
        stop = threading.Event()
        writer = threading.Thread(target=_write, args=(system, stop))
        writer.start()
        for name in ("node-1", "overlord-1", "node-2", "overlord-2"):
            time.sleep(0.5)
            system.kill(name)
            time.sleep(0.5)
            system.start(name)
            system.wait_ready()
        stop.set()
        writer.join(LONG_S)
        time.sleep(1.5)  # what expires has expired: nothing is written any more
        location = flags[0].partition("=")[2] if flags else str(tmp_path)
        with closing(open_log(location, clock=SystemClock())) as log:
            end = ends(log)
            for watcher in watchers:
                watcher.target = end
            late = LateWatcher(system, format_positions(log.describe().generation, dict.fromkeys(end, Position(0))), end)
            truth = all_changes(log, end)
        counts = [watcher.check(truth) for watcher in (*watchers, late)]
        assert min(counts) > 20, counts
        assert {change.kind for changes in truth.values() for change in changes} == {"set", "cas", "incr", "delete", "expire"}


class LateWatcher(LibraryWatcher):
    """Comes when all is over and wants it from the start, from nodes that were killed since."""

    def __init__(self, system: KvSystem, token: str, target: dict[int, Position]) -> None:
        self.from_start = token
        super().__init__(system, "", direct=True)
        self.target = target

    def run(self) -> None:
        self.begin(self.from_start)
        super().run()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvSystem]:
    with kv_system(tmp_path_factory.mktemp("watch"), overlords=1, nodes=1) as system:
        yield system


def test_a_slow_watcher_misses_nothing(small: KvSystem) -> None:
    """Much more is written than a node keeps in memory while nobody takes it: it comes from the log, in order."""
    text = "x" * 20_000
    with Client(small.address, timeout=30) as client, client.watch("big") as watch:
        for start in range(0, 600, 100):
            with client.pipeline(timeout=30) as pipeline:
                for number in range(start, start + 100):
                    pipeline.set("big", [number, text])
        for number in range(600):
            change = watch.next(20)
            assert change is not None
            assert change.value[0] == number
        assert watch.next(0.1) is None


def test_a_watch_goes_on_from_within_a_batch(small: KvSystem) -> None:
    """The positions of single changes of one mset are places to go on from."""
    with Client(small.address, timeout=10) as client:
        first = client.watch(prefix="mid")
        client.mset({f"mid{number}": number for number in range(200)})
        seen: list[str] = []
        token = first.token
        first.close()
        while len(seen) < 200:
            with client.watch(prefix="mid", token=token) as watch:
                for _ in range(7):
                    if len(seen) < 200:
                        change = watch.next(10)
                        assert change is not None
                        seen.append(change.key)
                token = watch.token
        assert sorted(seen) == sorted(f"mid{number}" for number in range(200))


def test_reading_and_then_watching_leaves_no_gap(small: KvSystem) -> None:
    """The positions of a scan are tokens: what was not in the scan comes."""
    with OldClient(f"tcp://{small.address}") as ask, Client(small.address) as client:
        client.set("both 1", 1)
        page = ask("scan", prefix="both", id=1, min_position=client.tokens())
        client.set("both 2", 2)
        reply = ask("watch", prefix="both", **{"from": page["positions"]})
        assert [item[0] for item in page["items"]] + [change["key"] for change in reply["changes"]] == ["both 1", "both 2"]


def test_a_watch_can_be_ended_and_says_what_is_wrong(small: KvSystem) -> None:
    """unwatch answers what waits, and bad requests get a name, from the overlord and from the node."""
    with Client(small.address) as client:
        doors = [f"tcp://{small.address}", *client.topology()["nodes"].values()]
        client.set("end", 1)
        with pytest.raises(WrongLog):
            client.watch("end", token="0123:0:0").next(5)  # what ends a watch closes it
        with pytest.raises(ParseError):
            client.watch("end", token="what")
        with pytest.raises(ParseError):
            client.watch("end", prefix="both")
        token = client.tokens()[0]
    for door in doors:
        with OldClient(door) as ask:
            began = time.monotonic()
            ask.socket.send(json.dumps({"cmd": "watch", "key": "end", "from": token, "id": "w", "timeout": 30}).encode())
            ask.socket.send(json.dumps({"cmd": "unwatch", "watch": "w", "id": "u"}).encode())
            replies = {reply["id"]: reply for reply in (json.loads(ask.socket.recv()) for _ in range(2))}
            assert replies["u"] == {"id": "u", "ok": True}
            assert replies["w"]["changes"] == []
            assert time.monotonic() - began < 10
            for fields in ({}, {"key": "a", "prefix": "a"}, {"key": "a", "from": "a:b"}, {"prefix": "a", "partitions": [99]}):
                assert ask("watch", **fields)["error"] == "DIMINT_PARSE_ERROR"
            assert ask("watch", key="a", **{"from": "0123:0:0"})["error"] == "DIMINT_WRONG_LOG"
            assert ask("watch", key=12, timeout=0.3)["changes"] == []


def test_the_command_prints_changes_and_goes_on(small: KvSystem) -> None:
    """Lines for people and for programs; --from continues behind the last line that was read."""
    with Client(small.address) as client:
        with client.watch(prefix="cli") as before:
            token = before.token
        client.set("cli\x1b[2J", "a\nb")
        client.incr("cli n")
        client.delete("cli n")

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [
                sys.executable,
                "-m",
                "dimint",
                "watch",
                *arguments,
                f"--port_for_client={small.address.rpartition(':')[2]}",
            ]
            return subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=False)

        plain = run("cli*", "--from", token, "--limit", "3")
        assert plain.returncode == 0, plain.stderr
        rows = sorted(line.split("\t")[1:] for line in plain.stdout.splitlines())
        assert rows == [["delete", "cli n"], ["incr", "cli n", "1"], ["set", "cli\\u001b[2J", '"a\\nb"']]
        lines = [json.loads(line) for line in run("cli n", "--from", token, "--limit", "1", "--json").stdout.splitlines()]
        assert [(line["kind"], line["key"], line["value"]) for line in lines] == [("incr", "cli n", 1)]
        rest = run("cli n", "--from", lines[-1]["token"], "--limit", "1", "--json")
        assert json.loads(rest.stdout)["kind"] == "delete"
        assert "value" not in json.loads(rest.stdout)
        bad = run("cli*", "--from", "nonsense")
        assert (bad.returncode, bad.stdout) == (1, "")
        assert "not a token" in bad.stderr


def test_a_token_from_before_the_log_has_a_name(tmp_path: Path) -> None:
    """What was trimmed away is no silent gap: the error says where a watch can begin, and there it does."""
    with kv_system(tmp_path, overlords=1, nodes=1) as system, Client(system.address, timeout=10) as client:
        for number in range(30):
            client.set("t", number)
        assert client.get("t", consistency="strong") == 29  # so the node's store has what is trimmed below
        # a node that was just started has nothing of the past in memory
        system.kill("node-1", signal.SIGTERM)
        with closing(open_log(tmp_path, clock=SystemClock())) as log:
            generation, positions = parse_positions(client.tokens()[0])
            (partition,) = positions
            log.trim(KV_TOPIC, partition, 20)
        system.start("node-1")
        system.wait_ready()
        start = format_positions(generation, {partition: Position(0)})
        with pytest.raises(PositionGone) as caught:
            client.watch("t", token=start).next(10)
        assert caught.value.oldest == format_positions(generation, {partition: Position(20)})
        with Client(system.address, direct_reads=False) as other, pytest.raises(PositionGone) as again:
            other.watch("t", token=start).next(10)
        assert again.value.oldest == caught.value.oldest
        with client.watch("t", token=caught.value.oldest) as watch:
            first = watch.next(10)
            assert first is not None
            assert first.value == 20


def test_a_watch_that_cannot_begin_says_so() -> None:
    """No overlord at the address: an error in time, not a hang."""
    began = time.monotonic()
    with Client("127.0.0.1:1", timeout=0.5) as client, pytest.raises(DimintError, match="no overlord answered"):
        client.watch("k")
    assert time.monotonic() - began < 5
