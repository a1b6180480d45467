"""How a topic must be set up in Kafka, and how to say what is wrong with one. [S]"""

from collections.abc import Mapping, Sequence
from typing import Final

from dimint.limits import RECORD_MAX_BYTES
from dimint.log.port import TopicSpec

__all__ = ["MESSAGE_MAX_BYTES", "durability_of", "for_new_topic", "repair_command", "wrong_settings"]

MESSAGE_MAX_BYTES: Final = RECORD_MAX_BYTES + (64 << 10)
"""The largest Kafka batch: one record of ours and Kafka's framing; incompressible data grows a little under lz4."""

_ALWAYS: Final = {
    "cleanup.policy": "delete",  # compaction would lose increments, which are commands
    "message.timestamp.type": "LogAppendTime",  # log time is the broker's, not a client's
    "unclean.leader.election.enable": "false",
}
_KEEP_ALL: Final = {"retention.ms": "-1", "retention.bytes": "-1"}


def for_new_topic(spec: TopicSpec, replication: int) -> dict[str, str]:
    """The settings that a topic is created with."""
    settings = dict(_ALWAYS)
    settings["max.message.bytes"] = str(MESSAGE_MAX_BYTES)
    settings["min.insync.replicas"] = "2" if replication >= 3 else "1"
    settings["retention.bytes"] = "-1"
    settings["retention.ms"] = "-1" if spec.retention_s is None else str(spec.retention_s * 1000)
    return settings


def wrong_settings(spec: TopicSpec, replication: int, found: Mapping[str, str | None]) -> dict[str, str]:
    """What has to be changed of an existing topic's settings, with the values it should have; empty if it can be used.

    A topic with a retention may have any: that is the operator's to choose. A topic that keeps everything must.
    """
    wanted = dict(_ALWAYS)
    if spec.retention_s is None:
        wanted |= _KEEP_ALL
    wrong = {name: value for name, value in wanted.items() if found.get(name) != value}
    if int(found.get("max.message.bytes") or 0) < MESSAGE_MAX_BYTES:
        wrong["max.message.bytes"] = str(MESSAGE_MAX_BYTES)
    if replication >= 3 and not 2 <= int(found.get("min.insync.replicas") or 0) < replication:
        wrong["min.insync.replicas"] = "2"
    return wrong


def repair_command(servers: Sequence[str], topic: str, wrong: Mapping[str, str]) -> str:
    """The command that puts a topic's settings right."""
    settings = ",".join(f"{name}={value}" for name, value in sorted(wrong.items()))
    return (
        f"kafka-configs.sh --bootstrap-server {','.join(servers)} --alter --entity-type topics --entity-name {topic} "
        f"--add-config '{settings}'"
    )


def durability_of(topics: Sequence[tuple[int, Mapping[str, str | None]]], brokers: int) -> str:
    """What an acknowledged record survives, in words: the weakest of (replication, settings) of the topics.

    Without topics it says what new ones will get.
    """
    if topics:
        safe = min(min(int(found.get("min.insync.replicas") or 1), replication) for replication, found in topics)
        flushed = all(found.get("flush.messages") == "1" for _, found in topics)
    else:
        safe, flushed = (2 if brokers >= 3 else 1), False
    if safe > 1:
        lost = "1 broker and its disk" if safe == 2 else f"{safe - 1} brokers and their disks"
        return f"on {safe} brokers before every acknowledgement: survives the loss of any {lost}"
    if flushed:
        return "flushed on one broker before every acknowledgement: survives a power loss, not the loss of that broker's disk"
    return "on one broker: survives process kill, not power loss or the loss of that broker's disk"
