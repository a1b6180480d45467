"""The names of kafka-python that this package uses: the one place that imports it."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it reads its protocol schemas in a way that Python 3.11 deprecates
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka import errors as kafka_errors
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.net.compat import KafkaNetClient
    from kafka.protocol.consumer import OffsetSpec
    from kafka.structs import TopicPartition as KafkaPartition

__all__ = [
    "ConfigResource",
    "ConfigResourceType",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaNetClient",
    "KafkaPartition",
    "KafkaProducer",
    "OffsetSpec",
    "kafka_errors",
]
