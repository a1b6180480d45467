"""Real Kafka brokers in KRaft mode: one for a whole test run, or a cluster for faults."""

import atexit
import base64
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support.services.jars import need_jars
from tests.support.services.process import JavaServer, answers, free_ports

HEAP_MB = 256


class KafkaBroker:
    """One broker, which is a controller too. It keeps its data across `kill` and `start`.

    Clients find it at `port`. A second door at `proxied_port` tells them to come back to `proxy_port`, where a test may put
    a proxy on `proxied_port`. `extra` goes into its server.properties.
    """

    def __init__(
        self,
        number: int,
        jars: Path,
        folder: Path,
        *,
        ports: tuple[int, int, int, int],
        voters: str,
        cluster_id: str,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.number = number
        self.port, self.controller_port, self.proxied_port, self.proxy_port = ports
        self._folder = folder / f"broker-{number}"
        self._folder.mkdir(parents=True)
        self._config = self._folder / "server.properties"
        settings: dict[str, object] = {
            "node.id": number,
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CLIENT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port},"
            f"PROXIED://127.0.0.1:{self.proxied_port}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{self.port},PROXIED://127.0.0.1:{self.proxy_port}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "log.dirs": self._folder / "data",
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "controller.quorum.election.timeout.ms": 500,
            "controller.quorum.fetch.timeout.ms": 1000,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.cleaner.enable": "false",
            "group.coordinator.threads": 1,
            **(extra or {}),
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._jars, self._cluster_id = jars, cluster_id
        self.server = JavaServer("kafka", jars, self._folder, ["kafka.Kafka", str(self._config)], heap_mb=HEAP_MB)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def format(self) -> JavaServer:
        """Once, before the first start; wait for what is returned to end."""
        arguments = ["kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(self._config)]
        command = JavaServer("format", self._jars, self._folder, arguments)
        command.start()
        return command

    def start(self) -> None:
        """Start it; `wait` tells when it takes clients."""
        self.server.start()

    def wait(self) -> None:
        self.server.wait_until(functools.partial(answers, self.port))


class KafkaCluster:
    """`brokers` brokers, started and ready; ended by `close` or at the end of the `with`."""

    def __init__(self, brokers: int = 1, *, extra: Mapping[str, object] | None = None) -> None:
        jars = need_jars()
        self._folder = Path(tempfile.mkdtemp(prefix="dimint-kafka-"))
        taken = free_ports(4 * brokers)
        ports = list(zip(taken[::4], taken[1::4], taken[2::4], taken[3::4], strict=True))
        voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller, _, _) in enumerate(ports, 1))
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode().replace("-", "a")
        self.brokers = [
            KafkaBroker(number, jars, self._folder, ports=its, voters=voters, cluster_id=cluster_id, extra=extra)
            for number, its in enumerate(ports, 1)
        ]
        try:
            for command in [broker.format() for broker in self.brokers]:
                command.join()
            for broker in self.brokers:
                broker.start()
            for broker in self.brokers:
                broker.wait()
        except BaseException:
            self.close()
            raise

    @property
    def servers(self) -> list[str]:
        return [broker.address for broker in self.brokers]

    @property
    def url(self) -> str:
        return "kafka://" + ",".join(self.servers)

    def close(self) -> None:
        for broker in self.brokers:
            broker.server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "KafkaCluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@functools.cache
def shared_broker() -> KafkaCluster:
    """One broker for the whole test run, started by the first test that needs it. Faults get a cluster of their own."""
    cluster = KafkaCluster()
    atexit.register(cluster.close)
    return cluster


if __name__ == "__main__":  # a broker to play with: python -m tests.support.services.kafka
    with KafkaCluster() as playground:
        print(playground.url, flush=True)
        while True:
            time.sleep(3600)
