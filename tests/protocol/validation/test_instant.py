from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.protocol.validation.instant import format_instant, instant_of, instant_of_local

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [BERLIN, ZoneInfo("America/St_Johns"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Pacific/Apia")]


def local(text: str) -> int:
    return instant_of(datetime.fromisoformat(text).replace(tzinfo=UTC))


def shown(text: str, zone: ZoneInfo = BERLIN) -> str:
    return format_instant(instant_of_local(local(text), zone))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-15T12:00:00", "2024-01-15T11:00:00Z"),
        ("2024-07-15T12:00:00.5", "2024-07-15T10:00:00.5Z"),
        # 02:30 occurs twice; the earlier one is meant.
        ("2024-10-27T02:30:00", "2024-10-27T00:30:00Z"),
        ("2024-10-27T03:00:00", "2024-10-27T02:00:00Z"),
        # 02:30 does not exist; clocks went from 02:00 to 03:00 at 01:00 UTC.
        ("2024-03-31T01:59:59", "2024-03-31T00:59:59Z"),
        ("2024-03-31T02:00:00", "2024-03-31T01:00:00Z"),
        ("2024-03-31T02:30:00", "2024-03-31T01:00:00Z"),
        ("2024-03-31T03:00:00", "2024-03-31T01:00:00Z"),
    ],
)
def test_local_times_mean_one_instant_also_when_clocks_change(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_a_day_that_was_skipped_means_the_change() -> None:
    # Samoa had no 30 December 2011.
    apia = ZoneInfo("Pacific/Apia")
    assert shown("2011-12-30T12:00:00", apia) == shown("2011-12-31T00:00:00", apia) == "2011-12-30T10:00:00Z"


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)),
    st.timedeltas(timedelta(0), timedelta(hours=30)),
)
def test_a_later_local_time_is_never_an_earlier_instant(
    zone: ZoneInfo, moment: datetime, step: timedelta
) -> None:
    earlier = instant_of_local(instant_of(moment.replace(tzinfo=UTC)), zone)
    later = instant_of_local(instant_of((moment + step).replace(tzinfo=UTC)), zone)
    assert earlier <= later


@given(st.sampled_from(ZONES), st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)))
def test_a_real_local_time_comes_back(zone: ZoneInfo, moment: datetime) -> None:
    there = moment.replace(tzinfo=UTC).astimezone(zone).replace(fold=0)
    instant = instant_of_local(instant_of(there.replace(tzinfo=UTC)), zone)
    assert instant == instant_of(there)


@pytest.mark.parametrize("local_time", [2**63 - 1, (2**63 - 1) * 10**9, -(2**63), -(2**63) * 10**9])
def test_times_that_no_calendar_holds_are_instants_too(local_time: int) -> None:
    assert abs(instant_of_local(local_time, BERLIN) - local_time) < 10**9 * 86_400


def test_instants_are_written_in_full_and_no_longer_than_needed() -> None:
    assert format_instant(0) == "1970-01-01T00:00:00Z"
    assert format_instant(1) == "1970-01-01T00:00:00.000000001Z"
    assert format_instant(-1) == "1969-12-31T23:59:59.999999999Z"
    assert format_instant((2**63 - 1) * 1000) == "after the year 9999"
    assert format_instant(-(2**63) * 1000) == "before the year 1"
    assert format_instant(instant_of(datetime(33, 4, 3, tzinfo=UTC))) == "0033-04-03T00:00:00Z"


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        instant_of(datetime(2024, 1, 1))
