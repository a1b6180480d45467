"""`python -m tests.support.impatient …`: dimint whose appends to Kafka are given up after seconds, for tests of outages."""

import functools
import sys
from typing import Final

import dimint.log.kafka
from dimint.cli import main
from dimint.log.kafka import KafkaOptions

DELIVERY_TIMEOUT_S: Final = 2.0
STUCK_S: Final = 1.0

if __name__ == "__main__":
    short = functools.partial(KafkaOptions, delivery_timeout_s=DELIVERY_TIMEOUT_S, request_timeout_s=1.0, stuck_s=STUCK_S)
    dimint.log.kafka.KafkaOptions = short  # type: ignore[misc,assignment]  # who opens a log makes its options by this name
    sys.exit(main())
