"""Real ZooKeeper servers: one, or an ensemble."""

import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support.ports import free_ports
from tests.support.services.jars import need_jars
from tests.support.services.process import JavaServer


class ZooKeeperServer:
    """One server of an ensemble; it keeps its data across `kill` and `start`."""

    def __init__(
        self, number: int, jars: Path, folder: Path, ports: list[tuple[int, int, int]], tick_ms: int, more: Mapping[str, object]
    ) -> None:
        self.port = ports[number - 1][0]
        data = folder / f"zookeeper-{number}"
        data.mkdir(parents=True)
        settings: Mapping[str, object] = {
            "tickTime": tick_ms,
            "initLimit": 20,
            "syncLimit": 10,
            "dataDir": data,
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "srvr",
            "maxClientCnxns": 0,
            "forceSync": "no",  # tests kill processes, not power
            **more,
        }
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        if len(ports) > 1:
            (data / "myid").write_text(str(number))
            lines += [f"server.{n}=127.0.0.1:{peer}:{vote}\n" for n, (_, peer, vote) in enumerate(ports, 1)]
        config = data / "zoo.cfg"
        config.write_text("".join(lines))
        arguments = ["org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)]
        self.server = JavaServer("zookeeper", jars, data, arguments, heap_mb=128)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; `wait` tells when it serves."""
        self.server.start()

    def wait(self) -> None:
        self.server.wait_until(self._serves)

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as asked:
                asked.sendall(b"srvr")
                return b"Mode:" in asked.makefile("rb").read()
        except OSError:
            return False


class ZooKeeperEnsemble:
    """`servers` servers with `more` settings, started and serving; ended by `close` or at the end of the `with`."""

    def __init__(self, servers: int = 1, *, tick_ms: int = 500, more: Mapping[str, object] | None = None) -> None:
        jars = need_jars()
        self.tick_ms = tick_ms
        self._folder = Path(tempfile.mkdtemp(prefix="dimint-zookeeper-"))
        taken = free_ports(3 * servers)
        ports = list(zip(taken[::3], taken[1::3], taken[2::3], strict=True))
        self.servers = [
            ZooKeeperServer(number, jars, self._folder, ports, tick_ms, more or {}) for number in range(1, servers + 1)
        ]
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.wait()
        except BaseException:
            self.close()
            raise

    @property
    def hosts(self) -> str:
        return ",".join(server.address for server in self.servers)

    def close(self) -> None:
        for server in self.servers:
            server.server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "ZooKeeperEnsemble":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
