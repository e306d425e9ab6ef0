from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ecmbatch.protocol.duration import Duration, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24 hours", timedelta(hours=24)),
        ("24h", timedelta(hours=24)),
        ("1 day", timedelta(hours=24)),
        ("1d 12h", timedelta(hours=36)),
        ("1d12h", timedelta(hours=36)),
        ("1 hour 30 minutes", timedelta(minutes=90)),
        ("1.5 hours", timedelta(minutes=90)),
        ("90 min", timedelta(minutes=90)),
        ("5m", timedelta(minutes=5)),
        ("500 ms", timedelta(milliseconds=500)),
        ("2 weeks", timedelta(days=14)),
        ("30 s", timedelta(seconds=30)),
        ("0 s", timedelta(0)),
        ("P1D", timedelta(hours=24)),
        ("PT24H", timedelta(hours=24)),
        ("P1W", timedelta(days=7)),
        ("P1DT12H", timedelta(hours=36)),
        ("PT1M", timedelta(minutes=1)),
        ("PT0.5S", timedelta(milliseconds=500)),
        ("0.001 ms", timedelta(microseconds=1)),
        ("0.1 hours", timedelta(minutes=6)),
        ("999999999 days", timedelta(days=999_999_999)),
    ],
)
def test_a_duration_is_read_exactly(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("24", "needs a unit"),
        ("1.5", "needs a unit"),
        ("0", "needs a unit"),
        ("1 month", "no fixed length"),
        ("2 months", "no fixed length"),
        ("1 year", "no fixed length"),
        ("1y", "no fixed length"),
        ("P1M", "no fixed length"),
        ("P1Y", "no fixed length"),
        ("P1Y2D", "no fixed length"),
        ("-1 hour", "no sign"),
        ("+1 hour", "no sign"),
        ("5M", "lower case"),
        ("24 Hours", "lower case"),
        ("01:30", "clock time"),
        ("1 hour 1 hour", "once"),
        ("1h 60 h", "once"),
        ("30 minutes 1 hour", "longest to the shortest"),
        ("24 hours ago", "not a duration"),
        ("24 hoursago", "unknown unit"),
        ("about 24 hours", "not a duration"),
        ("24 hours,", "not a duration"),
        (" 24 hours", "not a duration"),
        ("24 hours\n", "not a duration"),
        ("1 hour, 30 minutes", "not a duration"),
        ("1 hour 30", "not a duration"),
        ("24 fortnights", "unknown unit"),
        ("٢٤ hours", "ASCII"),
        ("24\u00a0hours", "ASCII"),
        ("", "not a duration"),
        ("hours", "not a duration"),
        (".5 hours", "not a duration"),
        ("1. hours", "not a duration"),
        ("1e3 s", "unknown unit"),
        ("1,5 h", "not a duration"),
        ("1.5 hours 30 minutes", "last number"),
        ("0.0001 ms", "finer"),
        ("1000000000 days", "at most"),
        ("9" * 99 + "h", "at most"),
        ("1 h" * 50, "at most 100 characters"),
        ("P", "ISO 8601"),
        ("PT", "ISO 8601"),
        ("P1DT", "ISO 8601"),
        ("PT1D", "ISO 8601"),
        ("P1H", "ISO 8601"),
        ("P-1D", "ISO 8601"),
        ("P1D ", "ISO 8601"),
        ("p1d", "not a duration"),
        ("P1.5DT1H", "last number"),
    ],
)
def test_everything_else_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(hours=6, minutes=50), "6 h 50 min"),
        (timedelta(hours=24), "1 d"),
        (timedelta(days=9, seconds=1), "9 d 1 s"),
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=500), "500 ms"),
        (timedelta(seconds=1, microseconds=1), "1 s 0.001 ms"),
    ],
)
def test_a_duration_is_written_for_people(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


def test_a_negative_duration_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(microseconds=-1))


@given(st.timedeltas(min_value=timedelta(0)))
def test_what_is_written_is_read_back(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789. PTWDHMSdhmsinouraywek+-:", max_size=30))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert duration >= timedelta(0)


class Timed(BaseModel):
    limit: Duration


def test_a_model_reads_and_writes_durations() -> None:
    timed = Timed.model_validate_json('{"limit": "90 minutes"}')
    assert timed.limit == timedelta(minutes=90)
    assert timed.model_dump(mode="json") == {"limit": "1 h 30 min"}
    assert Timed(limit=timedelta(hours=1)).limit == timedelta(hours=1)


@pytest.mark.parametrize("value", ["24", "true", "null", "[]", '"24"', "1.5"])
def test_a_model_refuses_bare_numbers_and_other_types(value: str) -> None:
    with pytest.raises(ValidationError, match="unit"):
        Timed.model_validate_json(f'{{"limit": {value}}}')


def test_a_model_refuses_a_negative_timedelta() -> None:
    with pytest.raises(ValidationError, match="sign"):
        Timed(limit=timedelta(hours=-1))
