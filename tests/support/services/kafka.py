"""Real Kafka brokers in KRaft mode: one for a whole test run, or a cluster for faults."""

import atexit
import functools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from dimint.log.kafka.library import ConfigResource, ConfigResourceType, KafkaAdminClient, kafka_errors
from tests.support.ports import free_ports
from tests.support.proxy import Proxy
from tests.support.services.jars import need_jars
from tests.support.services.kafka_storage import checkpoint_with_user, format_storage, new_id
from tests.support.services.process import JavaServer, answers

HEAP_MB = 256
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
USER, PASSWORD = "dimint", "a secret: word"


class Door(NamedTuple):
    """A listener of a broker: it listens at `port` and tells clients to come back to `proxy_port`."""

    port: int
    proxy_port: int


class Control(NamedTuple):
    """How a broker finds the controllers: the names of their listeners, and those that it has itself if it is one."""

    voters: str
    names: list[str]
    listens: Mapping[str, Door]


class KafkaBroker:
    """One broker, which may be a controller too. It keeps its data across `kill` and `start`.

    Clients find it at `port`. A second door at `proxied_port` tells them to come back to `proxy_port`, where a test may put
    a proxy on `proxied_port`. A third one at `secure_port` takes TLS only, with the certificate `certificate`, from the user
    USER with PASSWORD (SCRAM-SHA-512). `doors` are more doors like the second one, for clients that are to be cut off
    each alone; a door named BROKERS is for the other brokers. `extra` goes into its server.properties.
    """

    def __init__(
        self,
        number: int,
        jars: Path,
        folder: Path,
        *,
        ports: tuple[int, int, int, int],
        certificate: Path,
        control: Control,
        cluster_id: str,
        doors: Mapping[str, Door],
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.number, self.doors = number, doors
        self.port, self.proxied_port, self.proxy_port, self.secure_port = ports
        self._folder = folder / f"broker-{number}"
        self._folder.mkdir(parents=True)
        self._config = self._folder / "server.properties"
        every = {
            "CLIENT": Door(self.port, self.port),
            "PROXIED": Door(self.proxied_port, self.proxy_port),
            **doors,
            **control.listens,
        }
        listeners = {name: door.port for name, door in every.items()}
        advertised = {name: door.proxy_port for name, door in every.items()}
        settings: dict[str, object] = {
            "node.id": number,
            "process.roles": "broker,controller" if control.listens else "broker",
            "controller.quorum.voters": control.voters,
            "controller.listener.names": ",".join(control.names),
            "listeners": f"{_addresses(listeners)},SECURE://127.0.0.1:{self.secure_port}",
            "advertised.listeners": f"{_addresses(advertised)},SECURE://localhost:{self.secure_port}",
            "listener.security.protocol.map": f"{_plain([*control.names, *listeners])},SECURE:SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{SCRAM_MODULE} required;",
            "listener.name.secure.ssl.keystore.type": "PEM",
            "listener.name.secure.ssl.keystore.location": certificate,
            "inter.broker.listener.name": "BROKERS" if "BROKERS" in doors else "CLIENT",
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
        checkpoint = checkpoint_with_user(jars, USER, PASSWORD)
        format_storage(self._folder / "data", cluster_id=cluster_id, node=number, checkpoint=checkpoint)
        self.server = JavaServer("kafka", jars, self._folder, ["kafka.Kafka", str(self._config)], heap_mb=HEAP_MB)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; `wait` tells when it takes clients."""
        self.server.start()

    def wait(self) -> None:
        self.server.wait_until(functools.partial(answers, self.port))


class KafkaCluster:
    """`brokers` brokers, started and ready; ended by `close` or at the end of the `with`.

    Every broker is a controller too. With `one_controller` only the last one is, and `to_controller[n]` is the proxy on
    broker n's way to it. `doors` name more doors of every broker (see KafkaBroker). `extra` goes to all of them.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        one_controller: bool = False,
        doors: Sequence[str] = (),
        extra: Mapping[str, object] | None = None,
    ) -> None:
        jars = need_jars()
        self._folder = Path(tempfile.mkdtemp(prefix="dimint-kafka-"))
        self.certificate = _certificate(self._folder)
        each = 5 + 2 * len(doors)
        taken = free_ports(each * brokers)
        ports = [taken[at : at + each] for at in range(0, len(taken), each)]
        cluster_id = new_id()
        self.to_controller: dict[int, Proxy] = {}
        control = self._one_controller if one_controller else _all_control
        ways = control([its[4] for its in ports])
        self.brokers = [
            KafkaBroker(
                number,
                jars,
                self._folder,
                ports=(its[0], its[1], its[2], its[3]),
                certificate=self.certificate,
                control=way,
                cluster_id=cluster_id,
                doors={name: Door(its[5 + 2 * at], its[6 + 2 * at]) for at, name in enumerate(doors)},
                extra=extra,
            )
            for number, (its, way) in enumerate(zip(ports, ways, strict=True), 1)
        ]
        try:
            for broker in self.brokers:
                broker.start()
            for broker in self.brokers:
                broker.wait()
        except BaseException:
            self.close()
            raise

    def _one_controller(self, ports: list[int]) -> list[Control]:
        """The last broker controls. Its answers name the address of the leading controller: one listener for all would lead
        a broker that was cut off back by the direct way, so it has one a broker, which names that broker's proxy."""
        last = len(ports)
        self.to_controller = {number: Proxy(port) for number, port in enumerate(ports[:-1], 1)}
        listens = {f"CONTROLLER{last}": Door(ports[-1], ports[-1])}
        listens |= {f"CONTROLLER{number}": Door(ports[number - 1], its.port) for number, its in self.to_controller.items()}
        others = [
            Control(f"{last}@127.0.0.1:{its.port}", [f"CONTROLLER{number}"], {}) for number, its in self.to_controller.items()
        ]
        return [*others, Control(f"{last}@127.0.0.1:{ports[-1]}", list(listens), listens)]

    @property
    def servers(self) -> list[str]:
        return [broker.address for broker in self.brokers]

    @property
    def url(self) -> str:
        return "kafka://" + ",".join(self.servers)

    def set_topic(self, topic: str, settings: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        try:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(settings))])
        finally:
            admin.close()

    def close(self) -> None:
        for broker in self.brokers:
            broker.server.kill()
        for proxy in self.to_controller.values():
            proxy.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "KafkaCluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _all_control(ports: list[int]) -> list[Control]:
    voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(ports, 1))
    return [Control(voters, ["CONTROLLER"], {"CONTROLLER": Door(port, port)}) for port in ports]


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def _plain(listeners: Sequence[str]) -> str:
    return ",".join(f"{name}:PLAINTEXT" for name in dict.fromkeys(listeners))


class TopicLook:
    """Asks the brokers how a topic's partitions are; whoever of them answers."""

    def __init__(self, servers: Sequence[str], topic: str) -> None:
        self._admin = KafkaAdminClient(bootstrap_servers=list(servers), request_timeout_ms=3000)
        self._topic = topic
        self.partitions = len(self._now())

    def leaders(self) -> dict[int, int]:
        """Partition → its leader's number."""
        return {each["partition_index"]: each["leader_id"] for each in self._now()}

    def leader_and_follower(self, partition: int) -> tuple[int, int]:
        (found,) = [each for each in self._now() if each["partition_index"] == partition]
        return found["leader_id"], next(number for number in found["isr_nodes"] if number != found["leader_id"])

    def wait_whole(self, seconds: float) -> None:
        """Until every partition has all its copies in sync."""
        deadline = time.monotonic() + seconds
        while any(len(each["isr_nodes"]) < len(each["replica_nodes"]) for each in self._now()):
            assert time.monotonic() < deadline, f"not all copies are in sync after {seconds} s"
            time.sleep(0.3)

    def _now(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 20
        while True:
            try:
                (found,) = self._admin.describe_topics([self._topic])
                return list(found["partitions"])
            except (kafka_errors.KafkaError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def __enter__(self) -> "TopicLook":
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.close()


def _certificate(folder: Path) -> Path:
    """A PEM file with a new key and its self-signed certificate for localhost."""
    key, signed, both = folder / "key.pem", folder / "signed.pem", folder / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
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


@functools.cache
def shared_cluster() -> KafkaCluster:
    """Three brokers: topics get three copies, of which two must have a record. They run until `end_shared_cluster`."""
    cluster = KafkaCluster(3)
    atexit.register(cluster.close)
    return cluster


def end_shared_cluster() -> None:
    """End the three brokers if they run: idle they take a tenth of a core from all later tests."""
    if shared_cluster.cache_info().currsize:
        atexit.unregister(shared_cluster().close)
        shared_cluster().close()
        shared_cluster.cache_clear()


if __name__ == "__main__":  # a broker to play with: python -m tests.support.services.kafka
    with KafkaCluster() as playground:
        print(playground.url, flush=True)
        while True:
            time.sleep(3600)
