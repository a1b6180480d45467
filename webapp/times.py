"""Times as users of the status server know them: in the server's zone, in the order of fields they chose. [S]"""

from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

__all__ = ["NO_ENTRY", "DateOrder", "clock", "compact", "gpu_stamp", "iso", "iso_us", "stamp", "stamp_us"]

NO_ENTRY = "no entry received."
"""What stands for the time of a host that never reported."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 253_402_214_400 * 1_000_000_000  # 9999-12-31: one day is left for the zone's offset
_SECONDS_KEPT = 4096


class DateOrder(StrEnum):
    """Order of year, month and day in shown dates."""

    YMD = "YMD"
    MDY = "MDY"
    DMY = "DMY"


_FORMATS = {
    DateOrder.YMD: "{0:04d}/{1:02d}/{2:02d}",
    DateOrder.MDY: "{1:02d}/{2:02d}/{0:04d}",
    DateOrder.DMY: "{2:02d}/{1:02d}/{0:04d}",
}


class Zoned(Protocol):
    """A style of a page or a terminal view."""

    @property
    def zone(self) -> tzinfo: ...
    @property
    def date_order(self) -> DateOrder: ...


def _local(time_ns: int, zone: tzinfo) -> datetime:
    """The time in `zone`; what lies before 1970 or after 9999 (a sender's broken clock) becomes the nearest bound."""
    return (_EPOCH + timedelta(microseconds=_bounded(time_ns) // 1000)).astimezone(zone)


def _bounded(time_ns: int) -> int:
    return min(max(time_ns, 86_400 * 1_000_000_000), _LAST_NS)


@lru_cache(_SECONDS_KEPT)
def _second(second: int, zone: tzinfo) -> tuple[int, str]:
    """YYYYMMDDhhmmss, and `2018/11/30 23:29:47`: many hosts have samples of one second."""
    at = (_EPOCH + timedelta(seconds=second)).astimezone(zone)
    text = f"{at.year:04d}/{at:%m/%d %H:%M:%S}"
    return int("".join(filter(str.isdigit, text))), text


def compact(time_ns: int, zone: tzinfo) -> int:
    """YYYYMMDDhhmmss as an integer, as in `/states/`."""
    return _second(_bounded(time_ns) // 1_000_000_000, zone)[0]


def stamp(time_ns: int | None, zone: tzinfo, order: DateOrder = DateOrder.YMD) -> str:
    """`2018/12/03 23:16:59` in the chosen order; None is a host that never reported."""
    if time_ns is None:
        return NO_ENTRY
    at = _local(time_ns, zone)
    return f"{_FORMATS[order].format(at.year, at.month, at.day)} {at:%H:%M:%S}"


def clock(time_ns: int, zone: tzinfo, *, day: bool = False) -> str:
    """`23:29`, or `30 23:29` with the day of the month: a time on an axis."""
    at = _local(time_ns, zone)
    return f"{at:%d %H:%M}" if day else f"{at:%H:%M}"


def gpu_stamp(time_ns: int, zone: tzinfo) -> str:
    """`2018/11/30 23:29:47.115`, the time inside a GPU's map."""
    second, rest_ns = divmod(_bounded(time_ns), 1_000_000_000)
    return f"{_second(second, zone)[1]}.{rest_ns // 1_000_000:03d}"


def stamp_us(time_us: int, style: Zoned) -> str:
    """`2018/12/03 23:16:59.123456`: a log time, exactly."""
    return f"{stamp(time_us * 1000, style.zone, style.date_order)}.{time_us % 1_000_000:06d}"


def iso_us(time_us: int) -> str:
    """`2018-11-30T23:29:47.123456Z`: a log time as links and commands carry it."""
    return f"{iso(time_us * 1000)[:-1]}.{time_us % 1_000_000:06d}Z"


def iso(time_ns: int) -> str:
    """`2018-11-30T23:29:47Z`: what links carry."""
    return f"{_local(time_ns, UTC):%Y-%m-%dT%H:%M:%S}Z"
