"""Programs that know nothing of this one read the log on a real Kafka: kcat, and the example of docs/events.md."""

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dimint.batch import decode
from dimint.events import KV_TOPIC
from dimint.log.kafka import KafkaLog, KafkaOptions
from dimint.log.port import TopicSpec
from dimint.writer import BatchWriter, Outgoing
from tests.support.services.kafka import KafkaCluster

ROOT = Path(__file__).parent.parent.parent
EVENTS = [["kv.set", f"key {number}", 0, 0, None, b"J%d" % number, None, 0] for number in range(50)]


@pytest.fixture(scope="module")
def topic(broker: KafkaCluster) -> Iterator[str]:
    """The name in Kafka of a key-value topic with EVENTS: one plain batch in each of two partitions, then a packed one."""
    prefix = f"{os.urandom(6).hex()}."
    log = KafkaLog(broker.servers, options=KafkaOptions(prefix=prefix), clock=time)
    log.create([TopicSpec(KV_TOPIC, 2)])
    writer = BatchWriter(log, clock=time, host="h", process="p")
    for partition, events, compress in ((0, EVENTS[:10], False), (1, EVENTS[10:20], False), (1, EVENTS[20:], True)):
        writer.append_and_wait(Outgoing(KV_TOPIC, partition, (writer.by,), events, compress=compress), 20)
    yield prefix + KV_TOPIC
    writer.close()
    log.close()


def test_kcat_shows_the_records(broker: KafkaCluster, topic: str) -> None:
    """As many as there are, whole: each value is one batch of ours."""
    if shutil.which("kcat") is None:
        pytest.skip("kcat is not installed")
    server = broker.brokers[0].address
    command = ["kcat", "-b", server, "-t", topic, "-C", "-e", "-q"]
    plain = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    assert plain.count(b"DMNT\x01") == 3
    framed = subprocess.run([*command, "-f", "%R%s"], capture_output=True, timeout=60, check=True).stdout
    events: list[list[Any]] = []
    while framed:
        (size,) = struct.unpack(">i", framed[:4])
        events += map(list, decode(framed[4 : 4 + size]).events)
        framed = framed[4 + size :]
    assert sorted(events) == sorted(EVENTS)
    shown = re.findall(r"^kcat -b kafka1:9092 -t dimint\.kv (.*)$", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE)
    (flags,) = shown
    told = subprocess.run(
        f"kcat -b {server} -t {topic} {flags} -q", shell=True, capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()
    assert len(told) == 3
    assert all(re.fullmatch(r"partition [01] offset [01] at \d+: \d+ bytes", line) for line in told)


def test_a_dozen_lines_of_python_read_the_events(broker: KafkaCluster, topic: str, tmp_path: Path) -> None:
    """The example of docs/events.md runs as it stands there, on a plain consumer."""
    text = (ROOT / "docs" / "events.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "KafkaConsumer" in block]
    program = tmp_path / "read_kafka.py"
    program.write_text(example)
    command = [sys.executable, "-W", "ignore", str(program), broker.brokers[0].address, topic]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    expected = [f"{0 if at < 10 else 1} {int(at >= 20)} kv.set key {at} None {EVENTS[at][5]!r} None 0" for at in range(50)]
    assert sorted(done.stdout.splitlines()) == sorted(expected)
