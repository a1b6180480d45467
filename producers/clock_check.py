"""How right this host's clock is, as far as the kernel and the log can tell."""

import ctypes
from typing import NamedTuple

from dimint.batch import DT, FIELDS, KEY, KIND, decode
from dimint.errors import FormatError
from dimint.events import STATUS_TOPIC, problem_of
from dimint.log.port import Log

__all__ = ["LogSkew", "is_synchronised", "log_skew"]

_TIME_ERROR = 5
_TAIL_RECORDS = 200


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)); `modes` 0 only asks."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 508))


def is_synchronised() -> bool | None:
    """Whether a time service keeps the kernel's clock right; None where the kernel does not say."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.byref(_Timex()))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


class LogSkew(NamedTuple):
    """In seconds, None if unknown.

    `behind_s`   by how much this clock is behind the log's, at least
    `sample_s`   this host's clock minus the log's when its newest sample on time arrived; its way counts too
    """

    behind_s: float | None
    sample_s: float | None


def log_skew(log: Log, partition: int, host: str | None, now_ns: int) -> LogSkew:
    """What the newest records of the host's partition tell. Raises LogError for a log that cannot be read."""
    bounds = log.bounds(STATUS_TOPIC, partition)
    start = max(bounds.start, bounds.end - _TAIL_RECORDS)
    records = log.read(STATUS_TOPIC, partition, start, max_records=_TAIL_RECORDS) if start < bounds.end else []
    behind_s = sample_s = None
    for record in records:
        behind_s = max(0.0, (record.timestamp_ns - now_ns) / 1e9)
        try:
            header, events, _ = decode(record.value)
        except FormatError:
            continue  # a foreign record tells no time of ours
        for event in events:
            is_ours = event[KIND] == "host.sample" and event[KEY] == host and problem_of(event, STATUS_TOPIC) is None
            if is_ours and not event[FIELDS + 2].get("late"):
                sample_s = (header.time_ns + event[DT] - record.timestamp_ns) / 1e9
    return LogSkew(behind_s, sample_s)
