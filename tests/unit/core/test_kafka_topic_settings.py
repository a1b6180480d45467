"""What is demanded of a topic in Kafka, and what is said of one that is not so."""

import pytest

from dimint.log.kafka.topic_settings import durability_of, for_new_topic, repair_command, wrong_settings
from dimint.log.port import TopicSpec

KEPT = TopicSpec("t", 1)
AGED = TopicSpec("t", 1, retention_s=60)


@pytest.mark.parametrize("spec", [KEPT, AGED])
@pytest.mark.parametrize("replication", [1, 2, 3, 5])
def test_a_new_topic_is_as_it_must_be(spec: TopicSpec, replication: int) -> None:
    """What is made passes the check of what is there."""
    assert wrong_settings(spec, replication, for_new_topic(spec, replication)) == {}


@pytest.mark.parametrize(
    ("spec", "replication", "changed", "wrong"),
    [
        (KEPT, 1, {"cleanup.policy": "compact"}, {"cleanup.policy": "delete"}),
        (KEPT, 1, {"cleanup.policy": "compact,delete"}, {"cleanup.policy": "delete"}),
        (KEPT, 1, {"message.timestamp.type": "CreateTime"}, {"message.timestamp.type": "LogAppendTime"}),
        (KEPT, 1, {"unclean.leader.election.enable": "true"}, {"unclean.leader.election.enable": "false"}),
        (KEPT, 1, {"retention.ms": "604800000"}, {"retention.ms": "-1"}),
        (KEPT, 1, {"retention.bytes": "1000"}, {"retention.bytes": "-1"}),
        (AGED, 1, {"retention.ms": "5", "retention.bytes": "1000"}, {}),
        (KEPT, 1, {"max.message.bytes": "4259839"}, {"max.message.bytes": "4259840"}),
        (KEPT, 1, {"max.message.bytes": "9000000"}, {}),
        (KEPT, 3, {"min.insync.replicas": "1"}, {"min.insync.replicas": "2"}),
        (KEPT, 3, {"min.insync.replicas": "3"}, {"min.insync.replicas": "2"}),
        (KEPT, 5, {"min.insync.replicas": "3"}, {}),
        (KEPT, 2, {"min.insync.replicas": "1"}, {}),
    ],
)
def test_what_is_wrong_with_a_topic(spec: TopicSpec, replication: int, changed: dict[str, str], wrong: dict[str, str]) -> None:
    """Only what would lose, reorder or refuse records is wrong; how long samples are kept is the operator's."""
    found: dict[str, str | None] = {**for_new_topic(spec, replication), **changed}
    assert wrong_settings(spec, replication, found) == wrong


def test_the_repair() -> None:
    """One command, ready to be pasted."""
    command = repair_command(["a:1", "b:2"], "x.t", {"retention.ms": "-1", "cleanup.policy": "delete"})
    assert command == (
        "kafka-configs.sh --bootstrap-server a:1,b:2 --alter --entity-type topics --entity-name x.t "
        "--add-config 'cleanup.policy=delete,retention.ms=-1'"
    )


@pytest.mark.parametrize(
    ("topics", "brokers", "words"),
    [
        ([], 1, "process kill"),
        ([], 3, "loss of any 1 broker and its disk"),
        ([(3, {"min.insync.replicas": "2"})], 3, "loss of any 1 broker and its disk"),
        ([(5, {"min.insync.replicas": "3"})], 5, "loss of any 2 brokers and their disks"),
        ([(3, {"min.insync.replicas": "2"}), (1, {"min.insync.replicas": "1"})], 3, "process kill"),
        ([(1, {"min.insync.replicas": "2"})], 3, "process kill"),
        ([(1, {"min.insync.replicas": "1", "flush.messages": "1"})], 1, "survives a power loss"),
    ],
)
def test_durability_is_that_of_the_weakest_topic(
    topics: list[tuple[int, dict[str, str | None]]], brokers: int, words: str
) -> None:
    """Nothing is called safer than its least safe part."""
    assert words in durability_of(topics, brokers)
