"""From an agent's event in the log, through the status tables, to a page that is open: the real parts in one process."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from dimint.consumers.folder import TablesFolder
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.consumers.runner import StatusConsumer
from dimint.events import STATUS_TOPIC
from dimint.log.embedded import EmbeddedLog
from dimint.log.opening import GenesisSettings, genesis
from dimint.system_clock import SystemClock
from dimint.writer import BatchWriter, Outgoing
from tests.support.at_work import at_work
from tests.support.hosts import GTX, gpu, sample
from tests.support.samples import host_id, registered, sample_event
from tests.support.sse import events_of
from tests.support.web import serving

HOST = host_id(1)


@contextmanager
def publishing(data_dir: Path) -> Iterator["Publisher"]:
    """A log in `data_dir` with a consumer that follows it, and what puts events into it."""
    clock = SystemClock()
    log = EmbeddedLog(data_dir, clock=clock)
    found = genesis(log, wanted=GenesisSettings(), clock=clock, host="test", process="test")
    writer = BatchWriter(log, clock=clock, host="test", process="test")
    folder = TablesFolder(data_dir / TABLES_FOLDER)
    lock = folder.lock_consumer()
    try:
        with at_work(StatusConsumer(log, folder, clock)):
            yield Publisher(writer, found.status_partition(HOST))
    finally:
        lock.release()
        writer.close()
        log.close()


class Publisher:
    """Appends events of one host and waits until the log has them."""

    def __init__(self, writer: BatchWriter, partition: int) -> None:
        self._writer, self._partition = writer, partition
        self.seq = 0

    def register(self) -> None:
        self._put(registered(HOST, "gpu-01.lab", facts={"simulated": True, "driver": "570.86.15"}))

    def report(self, util: int) -> None:
        self.seq += 1
        content = sample([gpu(0, GTX, 235, 11169, util, 36)], boot="b")
        self._put(sample_event(HOST, b"12345678", self.seq, content))

    def _put(self, event: list[object]) -> None:
        self._writer.append_and_wait(Outgoing(STATUS_TOPIC, self._partition, (self._writer.by,), (event,)), 10)


def test_sample_reaches_an_open_page_within_a_second_of_its_commit(tmp_path: Path) -> None:
    """The page, the stream and the JSON show a sample that was just appended to the log."""
    reader = StatusReader(tmp_path / TABLES_FOLDER)
    with publishing(tmp_path) as publisher, serving(reader, SystemClock()) as (host, port):
        base = f"http://{host}:{port}"
        with httpx.Client(base_url=base, trust_env=False, timeout=10) as client:
            assert client.get("/states/").json() == {}
            assert "No host has reported yet" in client.get("/").text
            with client.stream("GET", "/events?view=cards&page=0") as response:
                events = events_of(response.iter_lines())
                publisher.register()
                publisher.report(41)
                began = time.monotonic()
                kind, fields = next((kind, fields) for kind, fields in events if "41 %" in fields["data"])
                assert kind == "parts"
                assert time.monotonic() - began < 1.5  # the tables are committed at most 0.2 s after the log
                publisher.report(73)
                _, fields = next(found for found in events if "73 %" in found[1]["data"])
                assert "gpu_01_lab" in fields["data"]
                assert "simulated" in fields["data"]
            assert "73 %" in client.get("/?at=now&view=cards").text
            assert client.get("/states/?at=-1h").json() == {}
            assert "is new" in client.get("/changes?term=true").text
            assert "GPU utilisation" in client.get("/hosts/gpu-01.lab/").text
            found = client.get("/states/gpu-01.lab/?fetch_num=5").json()["gpu_01_lab"]
            assert found["status"] == "running"
            assert [entry["gpu_data"]["gpu:0"]["gpu_volatile"] for entry in found["data"]] == [41, 73]
            assert "|gpu_01_lab (sim)  | 0:GeForce GTX 1080 Ti  |    235 /  11169 |    73 %|" in client.get("/?term=true").text
            assert json.loads(client.get("/states/").content)["gpu_01_lab"]["simulated"] is True


def test_known_hosts_wait_after_a_restart(tmp_path: Path) -> None:
    """A server that starts anew shows what it knows as waiting, and as running once it is heard; so does the next one."""
    with publishing(tmp_path) as publisher:
        publisher.register()
        publisher.report(10)
        for number in range(2):
            with serving(StatusReader(tmp_path / TABLES_FOLDER), SystemClock()) as (host, port):
                url = f"http://{host}:{port}/states/"
                wait_for_status(url, "waiting for re-uplink")
                publisher.report(11 + number)
                wait_for_status(url, "running")


def wait_for_status(url: str, wanted: str) -> None:
    """Until the one host has the status wanted; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while httpx.get(url, trust_env=False).json().get("gpu_01_lab", {}).get("status") != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)
