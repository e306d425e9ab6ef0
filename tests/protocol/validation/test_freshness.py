from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ecmbatch.protocol.validation.freshness import Newest, judge_freshness
from ecmbatch.protocol.validation.instant import format_instant, instant_of
from ecmbatch.protocol.validation.observations import observation_of
from ecmbatch.protocol.validation.rules import FreshnessRule

NOW = datetime(2024, 1, 15, 12, tzinfo=UTC)


def fresh(**keys: Any) -> FreshnessRule:
    return FreshnessRule.model_validate({"type": "freshness", "field": "at", "max_age": "24 hours", **keys})


def counted(array: pa.Array, **keys: Any) -> Any:
    counter = observation_of(fresh(**keys))
    return counter.update(counter.init(), pa.record_batch({"at": array}))


def newest(array: pa.Array, **keys: Any) -> str:
    state = counted(array, **keys)
    assert state.error is None
    return format_instant(state.newest)


def ns(moment: datetime, nanoseconds: int = 0) -> int:
    return instant_of(moment) + nanoseconds


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_timestamps_of_every_unit_are_read(unit: str, zone: str | None) -> None:
    array = pa.array([None, 1_700_000_000, 1_600_000_000], pa.int64())
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = pc.multiply(array, factor).cast(pa.timestamp(unit, zone))
    assert newest(times) == "2023-11-14T22:13:20Z"
    assert counted(times).nulls == 1


def test_nanoseconds_are_kept() -> None:
    assert (
        newest(pa.array([1_700_000_000_000_000_001], pa.timestamp("ns"))) == "2023-11-14T22:13:20.000000001Z"
    )


def test_zoned_times_are_instants_whatever_the_rules_zone_says() -> None:
    times = pa.array([NOW], pa.timestamp("us", "Asia/Kolkata"))
    assert newest(times, timezone="Europe/Berlin") == "2024-01-15T12:00:00Z"


def test_naive_times_are_read_in_the_rules_zone() -> None:
    times = pa.array([NOW.replace(tzinfo=None)], pa.timestamp("us"))
    assert newest(times) == "2024-01-15T12:00:00Z"
    assert newest(times, timezone="Europe/Berlin") == "2024-01-15T11:00:00Z"


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_the_start_of_its_day(kind: pa.DataType) -> None:
    days = pa.array([date(2024, 1, 15), None, date(2023, 1, 1)], kind)
    assert newest(days) == "2024-01-15T00:00:00Z"
    assert newest(days, timezone="Europe/Berlin") == "2024-01-14T23:00:00Z"


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint64()])
def test_integers_are_read_in_their_unit(kind: pa.DataType) -> None:
    assert newest(pa.array([5, None, 90], kind), unit="s") == "1970-01-01T00:01:30Z"
    assert newest(pa.array([5, None, 90], kind), unit="ns") == "1970-01-01T00:00:00.00000009Z"


def test_the_greatest_integers_do_not_overflow() -> None:
    assert newest(pa.array([2**64 - 1], pa.uint64()), unit="s") == "after the year 9999"
    assert newest(pa.array([2**63 - 1], pa.timestamp("us", "UTC"))) == "after the year 9999"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize(
    ("texts", "keys", "expected"),
    [
        (["2024-01-14", "2024-01-15"], {"format": "iso8601"}, "2024-01-15T00:00:00Z"),
        (["2024-01-15T10:00:00.123456789Z", None], {"format": "iso8601"}, "2024-01-15T10:00:00.123456789Z"),
        (["2024-01-15T10:00:00+02:00"], {"format": "iso8601"}, "2024-01-15T08:00:00Z"),
        (["2024-01-15 10:00:00-05"], {"format": "iso8601"}, "2024-01-15T15:00:00Z"),
        # With and without a zone in one column: 10:00 in Berlin is 09:00 UTC.
        (
            ["2024-01-15T08:30:00Z", "2024-01-15T10:00:00"],
            {"format": "iso8601", "timezone": "Europe/Berlin"},
            "2024-01-15T09:00:00Z",
        ),
        (["15.01.2024 10:30", "14.01.2024 23:59"], {"format": "%d.%m.%Y %H:%M"}, "2024-01-15T10:30:00Z"),
        (["2024-01-15 10:30 +0200"], {"format": "%F %H:%M %z"}, "2024-01-15T08:30:00Z"),
        (["9999-12-31"], {"format": "%Y-%m-%d"}, "after the year 9999"),
    ],
)
def test_texts_are_read_in_their_format(
    kind: pa.DataType, texts: list[str | None], keys: dict[str, Any], expected: str
) -> None:
    assert newest(pa.array(texts, kind), **keys) == expected


def test_encoded_columns_are_read_like_plain_ones() -> None:
    times = pa.array([NOW, None, NOW - timedelta(days=1)], pa.timestamp("us", "UTC"))
    for array in (times.dictionary_encode(), pc.run_end_encode(times)):
        assert counted(array) == counted(times)


def test_values_that_no_row_uses_do_not_count() -> None:
    unused = pa.DictionaryArray.from_arrays(
        pa.array([0]), pa.array([NOW - timedelta(days=9), NOW], pa.timestamp("us", "UTC"))
    )
    assert newest(unused) == "2024-01-06T12:00:00Z"
    struct = pa.StructArray.from_arrays(
        [pa.array([NOW, NOW - timedelta(days=9)], pa.timestamp("us", "UTC"))],
        ["at"],
        mask=pa.array([True, False]),
    )
    rule = fresh(field="data.at")
    counter = observation_of(rule)
    state = counter.update(counter.init(), pa.record_batch({"data": struct}))
    assert (format_instant(state.newest), state.nulls) == ("2024-01-06T12:00:00Z", 1)


@pytest.mark.parametrize(
    ("array", "keys", "reason"),
    [
        (pa.array(["2024-01-15"]), {}, "need 'format'"),
        (pa.array([5]), {}, "need 'unit'"),
        (pa.array([1.5]), {"unit": "s"}, "freshness needs timestamps"),
        (pa.array([True]), {"unit": "s"}, "freshness needs timestamps"),
        (pa.array([b"2024"]), {"format": "iso8601"}, "freshness needs timestamps"),
        (pa.array([timedelta(1)]), {}, "freshness needs timestamps"),
        (pa.array(["2024-01-15", ""]), {"format": "iso8601"}, "not ISO 8601"),
        (pa.array(["2024-02-30"]), {"format": "iso8601"}, "not ISO 8601"),
        (pa.array(["9999-12-31"]), {"format": "iso8601"}, "1678 to 2261"),
        (pa.array(["2024-01-15", "15.01.2024"]), {"format": "%Y-%m-%d"}, "not in the 'format'"),
        (pa.array(["2024-01-15 and more"]), {"format": "%Y-%m-%d"}, "not in the 'format'"),
    ],
)
def test_what_cannot_be_read_is_an_error_and_never_guessed(
    array: pa.Array, keys: dict[str, Any], reason: str
) -> None:
    state = counted(array, **keys)
    assert reason in state.error
    assert (state.rows, state.newest) == (0, None)


def judged(newest: int | None, *, rows: int = 10, reference: datetime = NOW, **keys: Any) -> Any:
    return judge_freshness(fresh(**keys), Newest(rows=rows, newest=newest), reference)


def test_age_up_to_the_limit_passes_and_a_nanosecond_more_fails() -> None:
    limit = NOW - timedelta(hours=24)
    assert judged(ns(limit)).outcome == "pass"
    assert judged(ns(limit, 1)).outcome == "pass"
    beyond = judged(ns(limit, -1))
    assert beyond.outcome == "fail"
    assert beyond.message == "newest 'at' is just over 1 d old, accepted 1 d"
    assert beyond.observed["newest"] == "2024-01-14T11:59:59.999999999Z"


def test_a_looser_limit_warns() -> None:
    keys: dict[str, Any] = {"warn": {"max_age": "48 hours"}}
    assert judged(ns(NOW - timedelta(hours=24)), **keys).outcome == "pass"
    assert judged(ns(NOW - timedelta(hours=24), -1), **keys).outcome == "warn"
    assert judged(ns(NOW - timedelta(hours=48)), **keys).outcome == "warn"
    assert judged(ns(NOW - timedelta(hours=48), -1), **keys).outcome == "fail"


def test_a_time_in_the_future_passes_up_to_max_future() -> None:
    assert judged(ns(NOW + timedelta(minutes=5))).outcome == "pass"
    beyond = judged(ns(NOW + timedelta(minutes=5), 1), warn={"max_age": "48 hours"})
    assert beyond.outcome == "fail"
    assert beyond.message == "newest 'at' is just over 5 min in the future, accepted 5 min"
    assert judged(ns(NOW + timedelta(hours=1)), max_future="2 hours").outcome == "pass"
    assert judged(ns(NOW, 1), max_future="0 s").outcome == "fail"


def test_infinity_fails_as_the_future_that_it_is() -> None:
    judgement = judged((2**63 - 1) * 10**9)
    assert judgement.outcome == "fail"
    assert "more than 999,999,999 days in the future" in judgement.message
    assert judged(-(2**63) * 1000).outcome == "fail"


def test_rows_without_any_time_fail() -> None:
    judgement = judge_freshness(fresh(), Newest(rows=10, nulls=10), NOW)
    assert judgement.outcome == "fail"
    assert "all 10 rows are null" in judgement.message
    assert judgement.observed == {"newest": None, "nulls": 10, "reference": "2024-01-15T12:00:00Z"}


def test_no_rows_fail() -> None:
    assert judged(None, rows=0).outcome == "fail"


def test_the_reference_may_be_in_any_zone_but_must_have_one() -> None:
    elsewhere = datetime.fromisoformat("2024-01-15T17:30:00+05:30")
    assert judged(ns(NOW - timedelta(hours=24)), reference=elsewhere).outcome == "pass"
    with pytest.raises(ValueError, match="zone"):
        judged(ns(NOW), reference=NOW.replace(tzinfo=None))


def test_a_message_speaks_in_hours_and_minutes() -> None:
    assert judged(ns(NOW - timedelta(hours=30, minutes=50))).message == (
        "newest 'at' is 1 d 6 h 50 min old, accepted 1 d"
    )
