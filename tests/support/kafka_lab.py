"""What tests of the log on a real Kafka begin with. A module takes the fixture by its name: `log = kafka_lab.log`."""

import time
from collections.abc import Iterator

import pytest

from dimint.log.kafka import KafkaLog, KafkaOptions
from tests.support.services.kafka import KafkaCluster

__all__ = ["log"]


@pytest.fixture
def log(broker: KafkaCluster, prefix: str) -> Iterator[KafkaLog]:
    """A log without topics on the broker of the whole run."""
    log = KafkaLog(broker.servers, options=KafkaOptions(prefix=prefix), clock=time)
    yield log
    log.close()
