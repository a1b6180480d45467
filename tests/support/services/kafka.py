"""Real Kafka brokers in KRaft mode: one for a whole test run, or a cluster for faults."""

import atexit
import base64
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support.services.jars import need_jars
from tests.support.services.process import JavaServer, answers, free_ports

HEAP_MB = 256
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
USER, PASSWORD = "dimint", "a secret: word"


class KafkaBroker:
    """One broker, which is a controller too. It keeps its data across `kill` and `start`.

    Clients find it at `port`. A second door at `proxied_port` tells them to come back to `proxy_port`, where a test may put
    a proxy on `proxied_port`. A third one at `secure_port` takes TLS only, with the certificate `certificate`, from the user
    USER with PASSWORD (SCRAM-SHA-512). `extra` goes into its server.properties.
    """

    def __init__(
        self,
        number: int,
        jars: Path,
        folder: Path,
        *,
        ports: tuple[int, int, int, int, int],
        certificate: Path,
        voters: str,
        cluster_id: str,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.number = number
        self.port, self.controller_port, self.proxied_port, self.proxy_port, self.secure_port = ports
        self._folder = folder / f"broker-{number}"
        self._folder.mkdir(parents=True)
        self._config = self._folder / "server.properties"
        settings: dict[str, object] = {
            "node.id": number,
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CLIENT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port},"
            f"PROXIED://127.0.0.1:{self.proxied_port},SECURE://127.0.0.1:{self.secure_port}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{self.port},PROXIED://127.0.0.1:{self.proxy_port},"
            f"SECURE://localhost:{self.secure_port}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SECURE:SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{SCRAM_MODULE} required;",
            "listener.name.secure.ssl.keystore.type": "PEM",
            "listener.name.secure.ssl.keystore.location": certificate,
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
        arguments += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
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
        self.certificate = _certificate(self._folder)
        taken = free_ports(5 * brokers)
        ports = list(zip(taken[::5], taken[1::5], taken[2::5], taken[3::5], taken[4::5], strict=True))
        voters = ",".join(f"{number}@127.0.0.1:{its[1]}" for number, its in enumerate(ports, 1))
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode().replace("-", "a")
        self.brokers = [
            KafkaBroker(
                number,
                jars,
                self._folder,
                ports=its,
                certificate=self.certificate,
                voters=voters,
                cluster_id=cluster_id,
                extra=extra,
            )
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


def _certificate(folder: Path) -> Path:
    """A PEM file with a new key and its self-signed certificate for localhost."""
    key, signed, both = folder / "key.pem", folder / "signed.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(signed)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    both.write_text(key.read_text() + signed.read_text())
    return both


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
