"""What the watcher of the tables shows the rules: every new sample once, however many came since its last look."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dimint.consumers.alerts.rules import parse_rules
from dimint.consumers.alerts.watch import Watcher
from dimint.consumers.reading import StatusReader
from tests.support.hosts import GTX, gpu, sample
from tests.support.samples import START_NS, host_id, registered, sample_event
from tests.support.status_log import StatusLog, feed

SECOND = 1_000_000_000
HOST = host_id(1)
RUN, OTHER = b"8 bytes.", b"restart."


@pytest.mark.parametrize(
    ("heats", "raised"),
    [
        (((90,), (90,), (90,)), True),
        (
            (
                (90,),
                (90, 90),
            ),
            True,
        ),
        (((90,), (60,), (90,)), False),
        (
            (
                (90,),
                (60, 90),
            ),
            False,
        ),
        (((90, 60, 90),), False),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_every_sample_counts(tmp_path: Path, heats: Sequence[Sequence[int]], raised: bool, restarted: bool) -> None:
    """Heat must last for 10 s: a cool sample between two hot ones is not passed over, whether it came alone or with others."""
    rules = parse_rules({"rule": [{"name": "hot", "when": "gpu.temp_c > 85", "for": "10s"}]}, "test")
    log = StatusLog()
    log.put([registered(HOST, "gpu-01")], logged_at_ns=START_NS)
    at_ns, seq = START_NS, 0
    with StatusReader(tmp_path) as reader:
        feed(log, tmp_path)
        watcher = Watcher(reader, rules, at_ns)
        watcher.step(at_ns)
        told = []
        for together in heats:
            for heat in together:
                at_ns, seq = at_ns + 5 * SECOND, seq + 1
                run = OTHER if restarted and seq == 2 else RUN
                content = sample([gpu(0, GTX, 1, 2, 3, heat)])
                log.put([sample_event(HOST, run, seq, content)], time_ns=at_ns, logged_at_ns=at_ns)
            feed(log, tmp_path)
            told += watcher.step(at_ns)
    assert [(change.key.rule, change.raised) for change in told] == ([("hot", True)] if raised else [])
