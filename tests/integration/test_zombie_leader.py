"""A broker that is cut off from its controller goes on as if it led: strong reads by barrier stay right, by end offset not."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dimint.events import KV_TOPIC
from dimint.genesis import GenesisSettings
from dimint.log.kafka import KafkaLog, KafkaOptions
from dimint.log.kafka.library import KafkaAdminClient
from dimint.log.opening import genesis
from dimint.log.port import LogDescription
from dimint.overlord.loop import Addresses, Overlord
from dimint.overlord.membership import Ports
from dimint.registry.embedded import EmbeddedRegistry
from dimint.system_clock import SystemClock
from tests.support.kv_system import KvSystem
from tests.support.proxy import Proxy
from tests.support.services.kafka import KafkaCluster, TopicLook
from tests.support.system import OldClient, wait_until

# the client library leaves a socket whose connecting was refused to the garbage collector
pytestmark = pytest.mark.timeout(300)

PARTITIONS = 4
NEW_LEADER_S = 120.0
WRITTEN_S = 90


class _EndTrusted(KafkaLog):
    """What must not be: the end offset taken for the end of the log."""

    def describe(self) -> LogDescription:
        return super().describe()._replace(end_is_linearizable=True)


@contextmanager
def _overlord_that_trusts_ends(server: str, prefix: str, directory: Path) -> Iterator[str]:
    """The address of an overlord that reads strongly by the end offset."""
    clock = SystemClock()
    log = _EndTrusted([server], options=KafkaOptions(prefix=prefix), clock=clock)
    ready = threading.Event()
    with closing(log):
        found = genesis(log, wanted=GenesisSettings(), clock=clock, host="here", process="test")
        with closing(EmbeddedRegistry(directory)) as registry:
            overlord = Overlord(
                found,
                Ports(log, registry, clock),
                host=socket.gethostname(),
                addresses=Addresses("127.0.0.1", "127.0.0.1", 0, 0, False),
                ready=ready.set,
            )
            thread = threading.Thread(target=overlord.run, name="overlord")
            thread.start()
            try:
                assert ready.wait(20)
                yield overlord.client_address
            finally:
                overlord.stop()
                thread.join(30)


def _make_log(cluster: KafkaCluster, prefix: str) -> str:
    """Make the log's topics; a key whose partition broker 1 leads."""
    clock = SystemClock()
    with closing(KafkaLog(cluster.servers, options=KafkaOptions(prefix=f"{prefix}."), clock=clock)) as log:
        wanted = GenesisSettings(kv_partitions=PARTITIONS)
        made = genesis(log, wanted=wanted, clock=clock, host="here", process="test")
    with TopicLook(cluster.servers[1:], f"{prefix}.{KV_TOPIC}") as look:
        leaders = look.leaders()
    names = (f"x{number}" for number in range(1000))
    return next(name for name in names if leaders[made.partition_of_key(name.encode())] == 1)


def _strong(client: OldClient, key: str, seconds: float) -> Any:
    """What a strong read returns: the value, or the name of its error."""
    reply = client("get", key=key, consistency="strong", timeout=seconds)
    return reply.get("error") or reply["value"]


def _leaders(server: str, topic: str) -> dict[int, int]:
    """Partition → its leader, as this broker has it: a client that is new each time asks no other one."""
    admin = KafkaAdminClient(bootstrap_servers=server)
    try:
        (found,) = admin.describe_topics([topic])
    finally:
        admin.close()
    return {each["partition_index"]: each["leader_id"] for each in found["partitions"]}


def test_strong_reads_while_an_old_leader_answers(tmp_path: Path) -> None:
    """Two overlords and a node reach only a broker that was deposed and does not know it; a write goes by its successor.

    The end offset, asked there after the write was acknowledged, is an old one and comes without an error: a strong read by
    it returns the old value. A strong read by barrier never does: it ends by its deadline, and is right as soon as there is
    a way to the new leader, while the old one still answers.
    """
    prefix = os.urandom(6).hex()
    quick = {"broker.session.timeout.ms": 2000, "broker.heartbeat.interval.ms": 300}
    with KafkaCluster(2, one_controller=True, extra=quick) as cluster, ExitStack() as stack:
        old, new = cluster.brokers
        stack.enter_context(Proxy(old.proxied_port, old.proxy_port))
        to_new = stack.enter_context(Proxy(new.proxied_port, new.proxy_port))
        old_side = f"127.0.0.1:{old.proxy_port}"
        key = _make_log(cluster, prefix)

        system = KvSystem(tmp_path, overlords=2, nodes=1, flags=[f"--log=kafka://{old_side}/{prefix}"])
        system.flags_of["overlord-2"] = [f"--log={cluster.url}/{prefix}"]
        stack.callback(system.stop)
        system.start_all()
        trusting = stack.enter_context(_overlord_that_trusts_ends(old_side, f"{prefix}.", tmp_path / "registry"))
        wrong = stack.enter_context(OldClient(trusting, timeout_s=30))
        right = stack.enter_context(OldClient(f"tcp://{system.addresses[0]}", timeout_s=30))
        writer = stack.enter_context(OldClient(f"tcp://{system.addresses[1]}", timeout_s=30))
        assert writer("set", key=key, value="old") == {"value": "old"}
        assert wait_until(lambda: _strong(wrong, key, 5) == "old", 20, "the node is known to everybody")
        assert _strong(right, key, 5) == "old"

        to_new.close()
        cluster.to_controller[1].cut()
        topic = f"{prefix}.{KV_TOPIC}"
        wait_until(lambda: 1 not in _leaders(new.address, topic).values(), NEW_LEADER_S, "broker 1 was deposed")
        began = time.monotonic()
        wait_until(
            lambda: writer("set", key=key, value="new", timeout=5) == {"value": "new"}, WRITTEN_S, "a write by the new leader"
        )
        print(f"written by the new leader after {time.monotonic() - began:.1f} s")

        assert _strong(wrong, key, 5) == "old", "the old leader tells its end no more: nothing is tested"
        answers = [_strong(right, key, 1) for _ in range(2)]
        assert all(answer.startswith("DIMINT_") for answer in answers), answers
        assert right("get", key=key)["value"] == "old", "weak reads go on"
        assert _strong(wrong, key, 5) == "old"

        stack.enter_context(Proxy(new.proxied_port, new.proxy_port))
        began = time.monotonic()
        while (answer := _strong(right, key, 2)) != "new":
            assert answer.startswith("DIMINT_"), answer
            assert time.monotonic() - began < 60, "the way to the new leader is not found"
        print(f"read by barrier {time.monotonic() - began:.1f} s after there was a way")
