"""Times as people write them on a command line, in a URL or in a ticket. [S]

::

    now                                   this moment
    -2h   -90s   -1d12h   -2w             before now; units s, m, h, d (24 hours), w
    today   yesterday   yesterday 14:00   a day of the zone, from midnight or from a time of day on
    20181130232947   201811302329         YYYYMMDDhhmmss and YYYYMMDDhhmm in the zone, as `/states/` shows them
    2018-11-30T23:29:47.115+01:00         ISO 8601, also basic (20181130T232947Z), with a space for the T, or a date alone;
                                          up to nine digits of a second; without an offset it is the zone's time
    @1543620587.115                       seconds since 1970, UTC

A local time that a clock change repeats is its first occurrence, as everywhere in Python (PEP 495). In a URL a bare `+`
arrives as a space, so a space before an offset is read as that plus.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from dimint.errors import BadTime

__all__ = ["FORMS", "TIME_MAX_NS", "parse_span", "parse_time"]

FORMS: Final = "-2h, yesterday 14:00, 20181130232947, 2018-11-30T23:29:47Z or @1543620587"
"""Examples of what is accepted, for messages and help."""
TIME_MAX_NS: Final = 253_402_300_800 * 1_000_000_000 - 1
"""The last nanosecond of the year 9999."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS: Final = 1_000_000_000
_TEXT_MAX_CHARS: Final = 64
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN: Final = re.compile(r"(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_DAY: Final = re.compile(r"(today|yesterday)(?:[ T](\d\d:\d\d(?::\d\d)?))?", re.ASCII)
_DIGITS: Final = re.compile(r"\d{12}(?:\d\d)?", re.ASCII)
_SECONDS: Final = re.compile(r"@(\d{1,12})(?:\.(\d{1,9}))?", re.ASCII)
_FRACTION: Final = re.compile(r"(.*[T ].*\d)[.,](\d+)(\D.*)?", re.ASCII)
_LOST_PLUS: Final = re.compile(r"(.*:\d\d(?:[.,]\d+)?) (\d\d:?\d\d)", re.ASCII)


def parse_time(text: str, *, now_ns: int, zone: tzinfo) -> int:
    """The time that `text` names, in ns since 1970, UTC; 0 … TIME_MAX_NS. Raises BadTime."""
    plain = text.strip()
    if not plain or len(plain) > _TEXT_MAX_CHARS:
        raise _refused(text)
    time_ns = _parse(plain, now_ns, zone)
    if time_ns is None:
        raise _refused(text)
    if not 0 <= time_ns <= TIME_MAX_NS:
        raise BadTime(f"{plain} is not between 1970 and 9999")
    return time_ns


def parse_span(text: str) -> int:
    """The length of `90s`, `2h`, `1d12h`, … in ns, above 0. Raises BadTime."""
    match = _SPAN.fullmatch(text.strip())
    parts = match.groups() if match else ()
    seconds = sum(int(part) * _UNITS[unit] for part, unit in zip(parts, "wdhms", strict=False) if part)
    if not seconds:
        raise BadTime(f"{text[:_TEXT_MAX_CHARS]!r} is not a length of time; write it like 90s, 2h or 1d12h")
    return seconds * _NS


def _refused(text: str) -> BadTime:
    return BadTime(f"{text[:_TEXT_MAX_CHARS]!r} is not a time; write it like {FORMS}")


def _parse(text: str, now_ns: int, zone: tzinfo) -> int | None:
    if text == "now":
        return now_ns
    if text.startswith("-"):
        try:
            return now_ns - parse_span(text[1:])
        except BadTime:
            return None
    if match := _SECONDS.fullmatch(text):
        return int(match[1]) * _NS + _fraction_ns(match[2])
    if match := _DAY.fullmatch(text):
        today = (_EPOCH + timedelta(microseconds=now_ns // 1000)).astimezone(zone).date()
        day = today if match[1] == "today" else today - timedelta(days=1)
        return _iso(f"{day.isoformat()}T{match[2] or '00:00'}", zone)
    if _DIGITS.fullmatch(text):
        return _iso(f"{text[:8]}T{text[8:]}", zone)
    if match := _LOST_PLUS.fullmatch(text):
        text = f"{match[1]}+{match[2]}"
    fraction = ""
    if match := _FRACTION.fullmatch(text):
        text, fraction = match[1] + (match[3] or ""), match[2]
        if len(fraction) > 9:
            return None
    whole = _iso(text, zone)
    return None if whole is None else whole + _fraction_ns(fraction)


def _iso(text: str, zone: tzinfo) -> int | None:
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=zone)
        since = at - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86_400 + since.seconds) * _NS


def _fraction_ns(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))
