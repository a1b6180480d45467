"""Questions to the cluster: topics and their settings, offsets, trimming. One admin client, one caller at a time."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from dimint.errors import LogError, LogMismatch, LogUnavailable
from dimint.log.kafka.client import LIBRARY_ERRORS, connect, is_passing, shared_settings, to_log_error
from dimint.log.kafka.library import (
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    KafkaPartition,
    OffsetSpec,
    kafka_errors,
)
from dimint.log.kafka.options import KafkaOptions
from dimint.log.kafka.topic_settings import durability_of, for_new_topic, repair_command, wrong_settings
from dimint.log.port import Bounds, Broker, LogHealth, TopicHealth, TopicSpec

__all__ = ["Control", "Found", "generation_of"]

_T = TypeVar("_T")

_PAUSE_S = 0.1
_PAUSE_MAX_S = 1.0
_SETTLE_S = 2.0


class Found(NamedTuple):
    """A topic as it is. `id` changes when a topic is deleted and made again."""

    id: str
    partitions: int
    replication: int


class Control:
    """Topics go by their names in Kafka here. Calls raise LogUnavailable if the cluster does not answer in time."""

    def __init__(self, servers: Sequence[str], options: KafkaOptions) -> None:
        self._servers, self._options = servers, options
        self._lock = threading.Lock()
        self._closed = False
        self._admin = connect(KafkaAdminClient, shared_settings(servers, options))

    def cluster(self) -> tuple[str, int]:
        """Cluster id and number of brokers that are up."""
        found = self._call("cannot describe the cluster", lambda admin: admin.describe_cluster())
        # from Kafka 4.0 on brokers that are down are told too, as fenced
        return str(found["cluster_id"]), sum(not broker.get("is_fenced") for broker in found["brokers"])

    def topics(self, prefix: str) -> dict[str, Found]:
        """Every topic with that prefix, but Kafka's own."""
        found: dict[str, Found] = {}
        for topic in self._call("cannot list the topics", lambda admin: admin.describe_topics()):
            name, partitions = topic["name"], topic["partitions"]
            if name.startswith(prefix) and not topic["is_internal"] and not topic["error_code"] and partitions:
                copies = min(len(partition["replica_nodes"]) for partition in partitions)
                found[name] = Found(str(topic["topic_id"]), len(partitions), copies)
        return found

    def health(self, prefix: str) -> LogHealth:
        """Brokers and copies as the cluster sees them now; topics by their names without the prefix."""
        cluster = self._call("cannot describe the cluster", lambda admin: admin.describe_cluster())
        address = {int(broker["broker_id"]): f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]}
        # from Kafka 4.0 on brokers that are down are told too, as fenced; before, only the copies they should have tell of them
        up = {int(broker["broker_id"]) for broker in cluster["brokers"] if not broker.get("is_fenced")}
        described = {
            topic["name"]: topic["partitions"]
            for topic in self._call("cannot list the topics", lambda admin: admin.describe_topics())
            if topic["name"].startswith(prefix) and not topic["is_internal"] and not topic["error_code"] and topic["partitions"]
        }
        settings = self.settings(sorted(described))
        topics, known = [], set(address)
        for name, partitions in sorted(described.items()):
            needed = int(settings[name].get("min.insync.replicas") or 1)
            known.update(int(broker) for partition in partitions for broker in partition["replica_nodes"])
            topics.append(
                TopicHealth(
                    name.removeprefix(prefix),
                    len(partitions),
                    min(len(partition["replica_nodes"]) for partition in partitions),
                    needed,
                    sum(len(partition["isr_nodes"]) < len(partition["replica_nodes"]) for partition in partitions),
                    sum(partition["leader_id"] not in up or len(partition["isr_nodes"]) < needed for partition in partitions),
                )
            )
        return LogHealth(
            durability_of([(topic.copies, settings[prefix + topic.name]) for topic in topics], len(known)),
            tuple(Broker(id, address.get(id, ""), id in up) for id in sorted(known)),
            tuple(topics),
        )

    def settings(self, topics: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """Topic → its settings as they work, defaults of the brokers included."""
        if not topics:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        found = self._call("cannot read topic settings", lambda admin: admin.describe_configs(asked, config_filter="all"))
        return {topic: {name: config["value"] for name, config in settings.items()} for topic, settings in found["topic"].items()}

    def create(self, specs: Sequence[TopicSpec], brokers: int) -> None:
        """Create what is missing, check what is there. Raises LogMismatch."""
        there = self.topics("")
        missing = [spec for spec in specs if spec.name not in there]
        if missing:
            replication = self._options.replication or min(3, brokers)
            wanted = {
                spec.name: {
                    "num_partitions": spec.partitions,
                    "replication_factor": replication,
                    "configs": for_new_topic(spec, replication),
                }
                for spec in missing
            }
            # what another process made meanwhile is checked below like the rest
            self._call("cannot create topics", lambda admin: _create(admin, wanted))
            there = self._wait_for([spec.name for spec in specs])
        for spec in specs:
            found = there[spec.name]
            if found.partitions != spec.partitions:
                raise LogMismatch(f"topic {spec.name} has {found.partitions} partitions, not {spec.partitions}")
        # a broker may know a topic that somebody has just made, and not yet its settings
        deadline = time.monotonic() + _SETTLE_S
        while wrong := self._wrong(specs, there):
            if time.monotonic() > deadline:
                name, settings = wrong
                raise LogMismatch(f"topic {name} is not set up as it must be", hint=repair_command(self._servers, name, settings))
            time.sleep(_PAUSE_S)

    def _wrong(self, specs: Sequence[TopicSpec], there: Mapping[str, Found]) -> tuple[str, dict[str, str]] | None:
        """The first topic whose settings are not as they must be, and what must be changed."""
        settings = self.settings([spec.name for spec in specs])
        for spec in specs:
            if wrong := wrong_settings(spec, there[spec.name].replication, settings[spec.name]):
                return spec.name, wrong
        return None

    def bounds(self, topic: str, partition: int) -> Bounds:
        place = KafkaPartition(topic, partition)
        doing = f"cannot ask for the bounds of {topic}/{partition}"
        # the end last, so that it is not below a start that a trim has just moved
        start = self._call(doing, lambda admin: admin.list_partition_offsets({place: OffsetSpec.EARLIEST}))[place].offset
        return Bounds(start, max(start, self.end(topic, partition)))

    def end(self, topic: str, partition: int) -> int:
        place = KafkaPartition(topic, partition)
        doing = f"cannot ask for the end of {topic}/{partition}"
        found = self._call(doing, lambda admin: admin.list_partition_offsets({place: OffsetSpec.LATEST}))
        return int(found[place].offset)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Offset of the first record at or after the time; None if there is none."""
        place = KafkaPartition(topic, partition)
        doing = f"cannot ask for a time in {topic}/{partition}"
        offset = self._call(doing, lambda admin: admin.list_partition_offsets({place: max(0, time_ms)}))[place].offset
        return None if offset < 0 else int(offset)

    def trim(self, topic: str, partition: int, before: int) -> None:
        """`before` must not be above the end."""
        place = KafkaPartition(topic, partition)
        self._call(f"cannot trim {topic}/{partition}", lambda admin: admin.delete_records({place: before}))

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._admin.close()

    def _wait_for(self, topics: Sequence[str]) -> dict[str, Found]:
        """A new topic takes a moment to be known everywhere: each question may go to another broker."""
        deadline = time.monotonic() + self._options.call_timeout_s
        self._call("new topics do not come up", lambda admin: admin.wait_for_topics(topics))
        while True:
            there = self.topics("")
            lacking = [topic for topic in topics if topic not in there]
            if not lacking:
                return there
            if time.monotonic() > deadline:
                raise LogUnavailable(f"topic {lacking[0]} was created and is not there yet")
            time.sleep(_PAUSE_S)

    def _call(self, doing: str, ask: Callable[[Any], _T]) -> _T:
        """Ask until there is an answer, while errors are such that pass."""
        deadline = time.monotonic() + self._options.call_timeout_s
        pause_s = _PAUSE_S
        while True:
            with self._lock:
                if self._closed:
                    raise LogError("the log is closed")
                try:
                    return ask(self._admin)
                except LIBRARY_ERRORS as error:
                    if not is_passing(error) or time.monotonic() + pause_s > deadline:
                        raise to_log_error(error, doing) from error
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)


def generation_of(cluster_id: str, topics: Mapping[str, str]) -> str:
    """Identifies the log for ever: another cluster has another, and so has one whose topics (name → id) were made anew."""
    digest = hashlib.sha256("\n".join(f"{name}={id}" for name, id in sorted(topics.items())).encode()).hexdigest()
    return f"{cluster_id}-{digest[:16]}".replace(":", "_")


def _create(admin: Any, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    answer = admin.create_topics(wanted, raise_errors=False)
    for topic in answer["topics"]:
        error = kafka_errors.for_code(topic["error_code"])
        if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
            raise error(f"{topic['name']}: {topic.get('error_message')}")
