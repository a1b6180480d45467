"""Run by benchmarks/kafka.py, perhaps by another interpreter: quixstreams puts every record's value into its state.

python quixstreams_load.py HOST:PORT RECORDS
"""

import logging
import sys
import tempfile
import time

from quixstreams import Application  # type: ignore[import-not-found,unused-ignore]

KEYS = 100_000


def main(server: str, records: int) -> None:
    """Fill a topic with single sets, then apply it once; one line with the rate."""
    with tempfile.TemporaryDirectory() as directory:
        app = Application(
            broker_address=server,
            consumer_group="bench",
            auto_offset_reset="earliest",
            state_dir=directory,
            loglevel=logging.WARNING,
        )
        topic = app.topic("quix-bench", key_deserializer="str", value_deserializer="str", value_serializer="str")
        with app.get_producer() as producer:
            for number in range(records):
                producer.produce("quix-bench", key=f"key:{number * 7919 % KEYS:06}".encode(), value=b'"' + b"v" * 98 + b'"')
        seen = [0.0, 0.0, 0.0]

        def store(value, state):  # type: ignore[no-untyped-def]
            if not seen[0]:
                seen[1], seen[2] = time.perf_counter(), time.process_time()
            seen[0] += 1
            state.set("value", value)
            if seen[0] >= records:
                app.stop()

        app.dataframe(topic).update(store, stateful=True)
        app.run()
        took, cpu = time.perf_counter() - seen[1], time.process_time() - seen[2]
        print(f"quixstreams      {seen[0] / took:10,.0f} events/s  ({seen[0] / cpu:10,.0f} a second of processor time)")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
