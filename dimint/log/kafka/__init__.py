"""The log on Apache Kafka. Nothing else in this system imports `kafka`."""

from dimint.log.kafka.log import KafkaLog
from dimint.log.kafka.options import KafkaOptions, security_of

__all__ = ["KafkaLog", "KafkaOptions", "security_of"]
