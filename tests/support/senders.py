"""A sender of GPU maps as they have always been: registers, posts again and again, registers anew when it is not known."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dimint.consumers.folder import TablesFolder
from dimint.consumers.reading import TABLES_FOLDER, StatusReader
from dimint.consumers.runner import StatusConsumer
from dimint.log.embedded import EmbeddedLog
from dimint.log.opening import Genesis, GenesisSettings, genesis
from dimint.log.port import Log
from dimint.system_clock import SystemClock
from dimint.webapp.intake import Intake
from tests.support.at_work import at_work
from tests.support.web import serving

__all__ = ["GPU_MAP", "Sender", "consuming", "gpu_entry", "opening", "reporting_server"]


def gpu_entry(place: int, name: str, used: int, total: int, util: int, heat: int, *processes: dict[str, Any]) -> dict[str, Any]:
    """One GPU of a map, complete."""
    return {
        "device_num": place, "uuid": f"GPU-{place:08x}", "gpu_name": name, "temperature": heat, "total_memory": total,
        "available_memory": total - used, "used_memory": used, "timestamp": "2018/12/01 14:32:37.140", "gpu_volatile": util,
        "processes": list(processes),
    }  # fmt: skip


GPU_MAP: dict[str, dict[str, Any]] = {
    "gpu:0": gpu_entry(
        0, "GeForce GTX 1080 Ti", 235, 11169, 0, 36,
        {"pid": "1963", "name": "/usr/bin/X", "user": "root", "used_memory": 148},
        {"pid": "3437", "name": "/the/quite/long/path/of/a/program/python3", "user": "user1", "used_memory": 87},
    ),
    "gpu:1": gpu_entry(1, "NVIDIA H100 80GB HBM3 with NVLink", 79000, 81559, 100, 71),
}  # fmt: skip


class Sender:
    """One host that reports to a server with nothing but urllib."""

    def __init__(self, address: tuple[str, int], host_name: str, token: str = "") -> None:
        self._base = f"http://{address[0]}:{address[1]}"
        self._host_name, self._token = host_name, token
        self.id = ""
        self.name = ""
        self.registrations = 0

    def ask(self, path: str, body: bytes | None = None, **query: str) -> dict[str, Any]:
        """The JSON of one request: a POST if there is a body."""
        url = f"{self._base}{path}?{urllib.parse.urlencode(query)}" if query else self._base + path
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"} if body is not None else {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def register(self) -> dict[str, Any]:
        answer = self.ask("/register/", host_name=self._host_name, token=self._token)
        if answer["status_code"] == 200:
            self.id, self.name = answer["id"], answer["register_name"]
            self.registrations += 1
        return answer

    def post(self, content: object) -> dict[str, Any]:
        return self.ask(f"/update/host/{self.id}", json.dumps(content).encode(), token=self._token)

    def send(self, content: object) -> None:
        """What the loop of a sender does with one reading."""
        for _ in range(3):
            status = self.post(content)["status_code"] if self.id else 404
            if status == 200:
                return
            if status == 404:
                self.register()
        raise AssertionError("the server takes no report")


def opening(data_dir: Path) -> tuple[Log, Genesis]:
    """The embedded log of a data directory."""
    clock = SystemClock()
    log = EmbeddedLog(data_dir, clock=clock)
    return log, genesis(log, wanted=GenesisSettings(), clock=clock, host="test", process="test")


@contextmanager
def consuming(data_dir: Path) -> Iterator[None]:
    """A consumer that follows the log of a data directory."""
    log, _ = opening(data_dir)
    folder = TablesFolder(data_dir / TABLES_FOLDER)
    lock = folder.lock_consumer()
    try:
        with at_work(StatusConsumer(log, folder, SystemClock())):
            yield
    finally:
        lock.release()
        log.close()


@contextmanager
def reporting_server(data_dir: Path, **given: Any) -> Iterator[tuple[str, int]]:
    """A web app on the tables and the log of a data directory; (address, port)."""
    clock = SystemClock()
    intake = Intake(lambda: opening(data_dir), clock)
    with at_work(intake), serving(StatusReader(data_dir / TABLES_FOLDER), clock, reports=intake, **given) as address:
        yield address
