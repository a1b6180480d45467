"""Open the log that a setting names, and learn (or write) its genesis."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dimint.clock import Clock
from dimint.errors import LogError, LogMismatch, NotApplied, SettingsError
from dimint.events import CLUSTER_TOPIC, KV_TOPIC, STATUS_TOPIC
from dimint.genesis import (
    DEFAULT_KV_PARTITIONS,
    DEFAULT_KV_PARTITIONS_ON_KAFKA,
    Genesis,
    GenesisSettings,
    check_wanted,
    from_event,
    to_event,
)
from dimint.log.port import Log, TopicSpec
from dimint.log.reading import Counted, Halt, Intake, Quarantine
from dimint.settings import CommonSettings
from dimint.writer import BatchWriter, Outgoing

if TYPE_CHECKING:
    from dimint.log.kafka import KafkaOptions

__all__ = ["Genesis", "GenesisSettings", "create_topics", "find_genesis", "genesis", "genesis_of", "is_missing", "open_log"]

_GENESIS_WAIT_S = 30.0
_RETENTION_OF_OTHERS_S = 30 * 24 * 3600
"""Stands for any retention, of a topic that is there already."""


def open_log(location: str | Path, *, clock: Clock, kafka: "KafkaOptions | None" = None) -> Log:
    """The log at `location`: a data directory (made if it is not there) or `kafka://host:port[,…][/name]`.

    With a name the topics are called `name.dimint.kv` and so on, so that several systems can share one Kafka. Raises
    SettingsError, LogMismatch or LogUnavailable, in one line that says what to do.
    """
    scheme, separator, rest = str(location).partition("://")
    if scheme == "kafka" and separator:
        from dimint.log.kafka import KafkaLog, KafkaOptions  # only who uses a backend needs its library

        servers, slash, name = rest.partition("/")
        options = KafkaOptions() if kafka is None else kafka
        if slash:
            options = replace(options, prefix=f"{name}.")
        return KafkaLog(servers.split(","), options=options, clock=clock)
    if separator:
        raise SettingsError(f"{location} is neither a directory nor kafka://host:port", hint="name a directory")
    from dimint.log.embedded import EmbeddedLog

    return EmbeddedLog(location, clock=clock)


def is_missing(location: str | Path) -> bool:
    """Whether `location` is a data directory without a log, so that opening would make a new one."""
    from dimint.log.embedded.directory import LOG_FOLDER

    return "://" not in str(location) and not (Path(location) / LOG_FOLDER).is_dir()


def open_settings_log(settings: CommonSettings, *, clock: Clock) -> Log:
    """`open_log` for a process, with the way to Kafka secured as its settings say."""
    if not settings.log.startswith("kafka://"):
        return open_log(settings.log, clock=clock)
    from dimint.log.kafka import KafkaOptions, security_of

    security = security_of(
        tls=settings.kafka_tls,
        ca=settings.kafka_ca,
        certificate=settings.kafka_certificate,
        key=settings.kafka_key,
        auth=settings.kafka_auth,
    )
    return open_log(settings.log, clock=clock, kafka=KafkaOptions(security=security))


def genesis(log: Log, *, wanted: GenesisSettings, clock: Clock, host: str, process: str) -> Genesis:
    """The log's genesis; a new log gets one from `wanted` first. Makes the topics that are missing.

    Of several processes that start at once the first event in the log wins, for all of them. Raises LogMismatch if
    `wanted` asks for something else than the log has, SettingsError for numbers out of range.
    """
    is_kafka = log.describe().kind == "kafka"
    event = to_event(wanted, kv_partitions=DEFAULT_KV_PARTITIONS_ON_KAFKA if is_kafka else DEFAULT_KV_PARTITIONS)
    log.create([TopicSpec(CLUSTER_TOPIC, 1)])
    found = find_genesis(log)
    if found is None:
        writer = BatchWriter(log, clock=clock, host=host, process=process)
        try:
            writer.append_and_wait(Outgoing(CLUSTER_TOPIC, 0, (writer.by,), (event,)), _GENESIS_WAIT_S)
        except NotApplied as error:
            raise LogError(f"cannot write the genesis: {error}") from error
        finally:
            writer.close()
        found = find_genesis(log)
    if found is None:
        raise LogMismatch(f"{CLUSTER_TOPIC} has no genesis", hint="the log was trimmed or damaged; restore it")
    check_wanted(found, wanted)
    create_topics(log, found.kv_partitions, found.status_partitions)
    # the generation names all topics, where a log has such names, and some were made just now
    return found._replace(generation=log.describe().generation)


def create_topics(log: Log, kv_partitions: int, status_partitions: int) -> None:
    """Make the topics of keys and status if they are missing; they keep everything until it is trimmed.

    Where somebody lets brokers drop old samples, that is his to choose. Raises LogMismatch for another number of partitions.
    """
    any_s = _RETENTION_OF_OTHERS_S if STATUS_TOPIC in log.describe().topics else None
    log.create([TopicSpec(KV_TOPIC, kv_partitions), TopicSpec(STATUS_TOPIC, status_partitions, any_s)])


def genesis_of(log: Log) -> Genesis:
    """The genesis of a log that must have one. Raises LogMismatch if there is none, or it cannot be read."""
    found = find_genesis(log)
    if found is None:
        raise LogMismatch(f"the log {log.describe().url} has no genesis", hint="it is empty, or was trimmed or damaged")
    return found


def find_genesis(log: Log) -> Genesis | None:
    """The genesis that a log has, None if there is none yet. Raises LogMismatch if it cannot be read."""
    if CLUSTER_TOPIC not in log.describe().topics:
        return None
    start, end = log.bounds(CLUSTER_TOPIC, 0)
    intake = Intake(CLUSTER_TOPIC, 0, position=start)
    while intake.position < end:
        for record in log.read(CLUSTER_TOPIC, 0, intake.position):
            taken = intake.take(record)
            if isinstance(taken, Halt | Quarantine):
                raise LogMismatch(f"{CLUSTER_TOPIC} cannot be read at offset {taken.offset}: {taken.detail}")
            if isinstance(taken, Counted):
                for event in taken.events:
                    if event[0] == "cluster.genesis":
                        return from_event(log.describe().generation, event[4])
    return None
