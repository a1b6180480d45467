"""Each pair of roles is cut off from each other through a proxy, on a real Kafka and a real ZooKeeper, and mended again.

The cut between a broker and its controller is in test_zombie_leader.py.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from dimint.batch import decode
from dimint.client import Client
from dimint.events import KV_TOPIC, STATUS_TOPIC
from dimint.log.opening import open_log
from dimint.system_clock import SystemClock
from tests.support.agent_process import agent, numbers
from tests.support.kv_system import KvSystem
from tests.support.proxy import Proxy
from tests.support.services.kafka import KafkaBroker, KafkaCluster
from tests.support.services.zookeeper import ZooKeeperEnsemble
from tests.support.system import OldClient, wait_until

pytestmark = pytest.mark.timeout(240)

SESSION_S = 2.0
FIRST_HOST = "127.0.0.2"
"""Overlord 1 is reached here only: at its own ports, through proxies."""
DOORS = ("OVERLORD", "NODE", "AGENT", "BROKERS")
GOES_ON_S = 40


class Ways:
    """A system and the proxies on its ways. Overlord 1 and node 1 have their own, everybody else is connected directly."""

    def __init__(self, directory: Path, zookeeper: ZooKeeperEnsemble, stack: ExitStack) -> None:
        extra = {"broker.session.timeout.ms": 3000, "replica.lag.time.max.ms": 2000}
        self.kafka = stack.enter_context(KafkaCluster(2, doors=DOORS, extra=extra))
        self.brokers = {name: [stack.enter_context(_door(broker, name)) for broker in self.kafka.brokers] for name in DOORS}
        self.root = "/cuts"
        ports = [server.port for server in zookeeper.servers]
        self.overlord_zookeeper, self.node_zookeeper = [stack.enter_context(Proxy(ports[0])) for _ in range(2)]
        flags = ["--partitions=4", "--heartbeat=0.5", f"--zookeeper_root={self.root}", f"--zookeeper_session={SESSION_S}"]
        flags += [f"--log={self.kafka.url}/cuts", f"--zookeeper_hosts={zookeeper.hosts}"]
        self.system = KvSystem(directory, overlords=2, nodes=2, flags=flags)
        self.system.flags_of = {
            "overlord-1": [
                *(f"--log=kafka://{self._entry('OVERLORD')}/cuts", f"--advertise={FIRST_HOST}"),
                f"--zookeeper_hosts=127.0.0.1:{self.overlord_zookeeper.port}",
            ],
            "node-1": [
                f"--log=kafka://{self._entry('NODE')}/cuts",
                f"--zookeeper_hosts=127.0.0.1:{self.node_zookeeper.port}",
            ],
        }
        client, node = self.system.ports("overlord-1")
        self.first_clients = stack.enter_context(Proxy(client, client, host=FIRST_HOST))
        self.first_nodes = stack.enter_context(Proxy(node, node, host=FIRST_HOST))
        self.first, self.second = f"{FIRST_HOST}:{client}", self.system.addresses[1]
        stack.callback(self.system.stop)
        self.system.start_all()
        self.kafka.set_topic(f"cuts.{KV_TOPIC}", {"min.insync.replicas": "2"})  # of two copies

    def agent_log(self) -> str:
        return f"kafka://{self._entry('AGENT')}/cuts"

    def _entry(self, door: str) -> str:
        return ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.brokers[door])

    @contextmanager
    def cut(self, *proxies: Proxy) -> Iterator[None]:
        """Cut these ways while the body runs, then wait until the system is whole again."""
        for proxy in proxies:
            proxy.cut()
        try:
            yield
        finally:
            for proxy in proxies:
                proxy.mend()
        self.expect_whole()

    def expect_whole(self) -> None:
        """Everybody is there for both overlords, nobody lags, and a write through each is read strongly through the other."""
        for here, there in ((self.first, self.second), (self.second, self.first)):
            wait_until(lambda here=here: _is_whole(_status(here)), GOES_ON_S, "the system is whole again")
            value = time.monotonic()
            _until_done(here, "set", key="whole", value=value)
            assert _until_done(there, "get", key="whole", consistency="strong")["value"] == value


def _status_events(log_at: str) -> list[list[Any]]:
    found: list[list[Any]] = []
    with closing(open_log(log_at, clock=SystemClock())) as log:
        for partition in range(log.describe().topics[STATUS_TOPIC]):
            at, end = log.bounds(STATUS_TOPIC, partition)
            while at < end:
                for record in log.read(STATUS_TOPIC, partition, at):
                    found += map(list, decode(record.value).events)
                    at = record.offset + 1
    return found


def _door(broker: KafkaBroker, name: str) -> Proxy:
    return Proxy(broker.doors[name].port, broker.doors[name].proxy_port)


def ask(address: str, cmd: str, **fields: Any) -> dict[str, Any]:
    """One request on a connection of its own; it must be answered within its time-out and a little."""
    with OldClient(f"tcp://{address}", timeout_s=fields.get("timeout", 5) + 10) as client:
        reply: dict[str, Any] = client(cmd, **fields)
    return reply


def _until_done(address: str, cmd: str, **fields: Any) -> dict[str, Any]:
    return wait_until(lambda: _done(ask(address, cmd, timeout=3, **fields)), GOES_ON_S, f"{cmd} is done")  # type: ignore[no-any-return]


def _done(reply: dict[str, Any]) -> dict[str, Any] | None:
    return None if "error" in reply else reply


def _status(address: str) -> dict[str, Any]:
    return ask(address, "status", timeout=2)


def _is_whole(status: dict[str, Any]) -> bool:
    if len(status["overlords"]) < 2 or len(status["nodes"]) < 2:
        return False
    return all(
        len(part["slaves"]) == 1
        and all((part["replicas"].get(node) or {"lag": 1})["lag"] == 0 for node in (part["master"], *part["slaves"]))
        for part in status["partitions"]
    )


def _node_name(status: dict[str, Any], pid: int) -> str:
    return next(str(node["node_id"]) for node in status["nodes"] if node["pid"] == pid)


@pytest.fixture(scope="module")
def ways(zookeeper: ZooKeeperEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    with ExitStack() as stack:
        yield Ways(tmp_path_factory.mktemp("cuts"), zookeeper, stack)


@pytest.fixture
def client(ways: Ways) -> Iterator[Client]:
    """A library that works through overlord 1, and learns of the other one."""
    with Client(ways.first, timeout=20) as client:
        client.set("k", "before")
        yield client


def test_client_and_overlord_one_way(ways: Ways) -> None:
    """The answers are lost: asked again through another overlord with the same seq, the stored result comes; it counts once."""
    ask(ways.second, "set", key="lost", value=10)
    with OldClient(f"tcp://{ways.first}", timeout_s=1) as cut_off:
        assert cut_off("get", key="lost", consistency="strong")["value"] == 10
        ways.first_clients.hold("down")
        with pytest.raises(zmq.Again):
            cut_off("incr", key="lost", by=1, client="one-way", seq=1)
        again = [_until_done(address, "incr", key="lost", by=1, client="one-way", seq=1) for address in (ways.second, ways.first)]
        ways.first_clients.release()
    assert [reply["value"] for reply in again] == [11, 11]
    assert ask(ways.second, "get", key="lost", consistency="strong")["value"] == 11


def test_overlord_and_broker(ways: Ways, client: Client) -> None:
    """Its writes are unknown and its strong reads refused by their deadline, weak ones go on; clients go on elsewhere."""
    with ways.cut(*ways.brokers["OVERLORD"]):
        write = ask(ways.first, "set", key="k", value="perhaps", timeout=2)
        assert write["error"] in ("DIMINT_OUTCOME_UNKNOWN", "DIMINT_NOT_APPLIED"), write
        assert "error" in ask(ways.first, "get", key="k", consistency="strong", timeout=2)
        assert ask(ways.first, "get", key="k")["value"] == "before"
        assert client.incr("elsewhere") == 1
        assert client.get("elsewhere", consistency="strong") == 1
    assert client.incr("elsewhere") == 2


def test_node_and_broker(ways: Ways, client: Client) -> None:
    """The node lags and is seen to; strong reads are served by the other one; afterwards it catches up."""
    name = _node_name(_status(ways.second), ways.system.processes["node-1"].pid)

    def lags() -> bool:
        return any(part["replicas"][name]["lag"] for part in _status(ways.second)["partitions"])

    with ways.cut(*ways.brokers["NODE"]):
        for number in range(20):
            client.set(f"n{number}", number)
            assert client.get(f"n{number}", consistency="strong") == number
        wait_until(lags, 10, "the node lags")


def test_agent_and_broker(ways: Ways, tmp_path: Path) -> None:
    """What is sampled meanwhile is spooled and sent afterwards, in order: no number of the run is missing."""
    log_at = f"{ways.kafka.url}/cuts"

    def stored() -> list[int]:
        found = list(numbers(_status_events(log_at)).values())
        return found[0] if found else []

    flags = [f"--log={ways.agent_log()}", "--interval=0.2", "--host_name=cut-off"]
    flags += [f"--zookeeper_hosts=127.0.0.1:{ways.node_zookeeper.port}", f"--zookeeper_root={ways.root}"]
    with agent(tmp_path, *flags):
        wait_until(lambda: len(stored()) > 3, 30, "samples in the log")
        for proxy in ways.brokers["AGENT"]:
            proxy.cut()
        time.sleep(1.0)
        before = len(stored())
        time.sleep(2.0)
        for proxy in ways.brokers["AGENT"]:
            proxy.mend()
        wait_until(lambda: len(stored()) > before + 15, GOES_ON_S, "what was spooled is sent")
    found = stored()
    assert found == sorted(found)
    assert sorted(set(found)) == list(range(found[0], found[-1] + 1))


def test_overlord_and_zookeeper(ways: Ways, client: Client) -> None:
    """For the nodes it is gone after its session: it still appends, its reads are refused, and clients go on elsewhere."""
    with ways.cut(ways.overlord_zookeeper):
        wait_until(lambda: len(_status(ways.second)["overlords"]) == 1, 15, "the other one sees that it is gone")
        wait_until(lambda: "error" in ask(ways.first, "get", key="k", timeout=3), 10, "the nodes left it")
        assert _until_done(ways.first, "set", key="k", value="still")
        assert client.get("k", consistency="strong") == "still"
        assert client.incr("without") == 1
        assert client.get("without", consistency="strong") == 1


def test_node_and_zookeeper(ways: Ways, client: Client) -> None:
    """It is routed round after its session, and is a replica again afterwards."""
    name = _node_name(_status(ways.second), ways.system.processes["node-1"].pid)

    def routed() -> bool:
        return any(name in (part["master"], *part["slaves"]) for part in _status(ways.second)["partitions"])

    with ways.cut(ways.node_zookeeper):
        wait_until(lambda: not routed(), 15, "it is routed round")
        assert client.incr("rounded") == 1
        assert client.get("rounded", consistency="strong") == 1


def test_overlord_and_nodes(ways: Ways, client: Client) -> None:
    """An overlord that reaches no node refuses reads by their deadline; clients are served elsewhere."""
    with ways.cut(ways.first_nodes):
        reply = ask(ways.first, "get", key="k", timeout=3)
        assert reply.get("error") == "DIMINT_NODE_NOT_AVAILABLE", reply
        assert client.get("k", consistency="strong") == "before"
        assert client.incr("served") == 1


def test_broker_and_broker(ways: Ways, client: Client) -> None:
    """Fewer copies than must be: nothing is acknowledged, every request ends by its deadline; afterwards all goes on."""
    assert client.incr("copies") == 1
    with ways.cut(*ways.brokers["BROKERS"]):
        replies = []

        def refused() -> bool:
            replies.append(ask(ways.second, "incr", key="copies", timeout=2))
            return "error" in replies[-1]

        wait_until(refused, 20, "writes are refused")
        replies += [ask(ways.second, "incr", key="copies", timeout=1) for _ in range(3)]
        errors = [reply["error"] for reply in replies[-3:]]
        # what Kafka may still take is unknown; what waits behind it is refused, and may be sent again
        assert set(errors) <= {"DIMINT_OUTCOME_UNKNOWN", "DIMINT_NOT_APPLIED"}
        assert "DIMINT_NOT_APPLIED" in errors, replies
        assert "error" in ask(ways.second, "get", key="copies", consistency="strong", timeout=2)
        assert ask(ways.second, "get", key="copies")["value"] >= 1
    acknowledged = 1 + sum("error" not in reply for reply in replies)
    unknown = sum(reply.get("error") == "DIMINT_OUTCOME_UNKNOWN" for reply in replies)
    value = _until_done(ways.second, "get", key="copies", consistency="strong")["value"]
    assert acknowledged <= value <= acknowledged + unknown
