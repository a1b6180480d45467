"""This host's clock against the log's."""

from typing import Any

from dimint.batch import By, encode
from dimint.clock import ManualClock
from dimint.events import STATUS_TOPIC
from dimint.log.port import Entry, TopicSpec
from dimint.producers.clock_check import LogSkew, is_synchronised, log_skew
from dimint.testing import memory_log

SECOND = 10**9
HOST = "0" * 32


def event(kind: str, at_ns: int, **sample: Any) -> list[Any]:
    """A sample of this host, or another event; the batch's time is 0."""
    return [kind, HOST, at_ns, 0, *([b"12345678", 1, sample] if kind == "host.sample" else ["GPU-0"])]


def test_skew_is_read_from_the_newest_records() -> None:
    """The newest sample on time counts; late ones, other hosts' and foreign records do not."""
    clock = ManualClock()
    log = memory_log([TopicSpec(STATUS_TOPIC, 1)], clock=clock)
    now_ns = clock.time_ns()
    assert log_skew(log, 0, HOST, now_ns) == LogSkew(None, None)
    rows = (
        [event("host.sample", now_ns - 3 * SECOND)],
        [event("host.sample", now_ns + 7 * SECOND), event("gpu.back", now_ns)],
        [event("host.sample", now_ns - 600 * SECOND, late=True)],
        [["host.sample", "1" * 32, now_ns - 99 * SECOND, 0, b"12345678", 1, {}]],
    )
    records = [encode(bytes(16), number, 0, [By(None, "h", "p")], events) for number, events in enumerate(rows, 1)]
    log.append([Entry(STATUS_TOPIC, 0, record) for record in (*records, b"foreign")])
    skew = log_skew(log, 0, HOST, now_ns - 5 * SECOND)
    assert skew.sample_s is not None
    assert abs(skew.sample_s - 7) < 0.1
    assert abs((skew.behind_s or 0) - 5) < 0.1
    assert log_skew(log, 0, None, now_ns).sample_s is None


def test_the_kernel_says_whether_its_clock_is_kept() -> None:
    """Asking needs no right and changes nothing."""
    assert is_synchronised() in (True, False, None)
