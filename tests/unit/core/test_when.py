"""Times as people write them."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimint.errors import BadTime
from dimint.when import TIME_MAX_NS, parse_span, parse_time

NS = 1_000_000_000
NOW = datetime(2026, 11, 3, 14, 15, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * NS
CET = timezone(timedelta(hours=1))


def _ns(*fields: int, zone: tzinfo = CET) -> int:
    return int(datetime(*fields, tzinfo=zone).timestamp()) * NS  # type: ignore[misc, arg-type]  # six numbers at most


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW_NS),
        ("-2h", NOW_NS - 7200 * NS),
        ("-1d12h", NOW_NS - 36 * 3600 * NS),
        ("-2w", NOW_NS - 14 * 86_400 * NS),
        ("today", _ns(2026, 11, 3)),
        ("yesterday", _ns(2026, 11, 2)),
        ("yesterday 14:00", _ns(2026, 11, 2, 14)),
        ("yesterday 14:00:07", _ns(2026, 11, 2, 14, 0, 7)),
        ("20181130232947", _ns(2018, 11, 30, 23, 29, 47)),
        ("201811302329", _ns(2018, 11, 30, 23, 29)),
        ("2018-11-30", _ns(2018, 11, 30)),
        ("2018-11-30T23:29:47", _ns(2018, 11, 30, 23, 29, 47)),
        ("2018-11-30 23:29", _ns(2018, 11, 30, 23, 29)),
        ("20181130T232947Z", _ns(2018, 11, 30, 23, 29, 47, zone=UTC)),
        ("2018-11-30T23:29:47-05:00", _ns(2018, 12, 1, 4, 29, 47, zone=UTC)),
        ("2018-11-30T23:29:47 01:00", _ns(2018, 11, 30, 23, 29, 47)),
        ("2018-11-30T23:29:47.115", _ns(2018, 11, 30, 23, 29, 47) + 115_000_000),
        ("2018-11-30T23:29:47.123456789Z", _ns(2018, 11, 30, 23, 29, 47, zone=UTC) + 123_456_789),
        ("@1543620587", 1_543_620_587 * NS),
        ("@1543620587.25", 1_543_620_587 * NS + 250_000_000),
    ],
)
def test_accepted_forms(text: str, expected: int) -> None:
    """Each form that the module promises names one instant."""
    assert parse_time(text, now_ns=NOW_NS, zone=CET) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-",
        "-2",
        "2h",
        "-2x",
        "-2h1d",
        "-٢h",
        "soon",
        "yesterday 25:00",
        "20181330232947",
        "2018-11-31",
        "99999999999999",
        "1234",
        "@",
        "@-1",
        "-9999999w",
        "1969-12-31T23:00:00Z",
        "\x1b[2J",
        "2018-11-30T23:29:47.1234567891Z",
        "2018-11-30.5",
        "1" * 10_000,
    ],
)
def test_refusals(text: str) -> None:
    """What is not a time is refused in one line that shows how to write one."""
    with pytest.raises(BadTime) as refused:
        parse_time(text, now_ns=NOW_NS, zone=CET)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


def test_a_repeated_local_hour_is_its_first_one() -> None:
    """At the end of summer time 02:30 comes twice; the first is meant."""
    berlin = ZoneInfo("Europe/Berlin")
    first = parse_time("2026-10-25T02:30:00", now_ns=NOW_NS, zone=berlin)
    assert first == parse_time("2026-10-25T00:30:00Z", now_ns=NOW_NS, zone=berlin)


@given(st.integers(0, TIME_MAX_NS // NS), st.integers(0, NS - 1))
def test_iso_text_comes_back_exactly(seconds: int, fraction: int) -> None:
    """What is written as ISO 8601 with nine digits is read back to the nanosecond."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    text = f"{at:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + f".{fraction:09d}Z"
    assert parse_time(text, now_ns=NOW_NS, zone=CET) == seconds * NS + fraction


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes anything but an instant in range or BadTime."""
    try:
        time_ns = parse_time(text, now_ns=NOW_NS, zone=CET)
    except BadTime:
        return
    assert 0 <= time_ns <= TIME_MAX_NS


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2h", 7200), ("1d12h", 129_600), ("30m", 1800)])
def test_spans(text: str, seconds: int) -> None:
    """Lengths of time, as in thresholds and filters."""
    assert parse_span(text) == seconds * NS


@pytest.mark.parametrize("text", ["", "0s", "5", "-5s", "1h1d", "1.5h", "s"])
def test_span_refusals(text: str) -> None:
    """A length needs a number and a unit, largest first, and is above zero."""
    with pytest.raises(BadTime):
        parse_span(text)
