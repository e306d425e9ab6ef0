"""Cron against a simulator that looks at the clock every minute, and the answers to the rare and the impossible."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_simulator import Days, all_days, expressions
from ecmbatch.protocol.cron import Cron, check_cron, clock_changes

MICROSECOND = timedelta(microseconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(expression: str, zone: str, start: str, count: int) -> list[str]:
    found = islice(Cron.of(expression, zone).after(at(start)), count)
    return [instant.isoformat(" ", "minutes").removesuffix("+00:00") for instant in found]


def mismatches(days: Days, expression: str, chance: random.Random) -> Iterator[str]:
    cron = Cron.of(check_cron(expression), days.zone)
    expected = days.fires(expression)
    found = []
    for instant in cron.after(days.start - MICROSECOND):
        if instant > days.end:
            break
        found.append(instant)
    if found != expected:
        yield f"{expression} in {days.zone} around {days.around}: all"
    for moment in (*chance.sample(days.instants, 2), chance.choice(expected or days.instants)):
        if expected and expected[0] <= moment:
            latest = max(each for each in expected if each <= moment)
            if cron.latest(moment) != latest:
                yield f"{expression} in {days.zone}: latest until {moment}"
        if expected and expected[-1] > moment:
            following = min(each for each in expected if each > moment)
            if next(cron.after(moment)) != following:
                yield f"{expression} in {days.zone}: first after {moment}"


def compare(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    by_zone: dict[str, list[Days]] = {}
    for days in all_days():
        by_zone.setdefault(days.zone, []).append(days)
    assert len(by_zone) >= 8
    return [
        mismatch
        for expression in expressions(count, seed)
        for zone in chance.sample(sorted(by_zone), 2)
        for mismatch in mismatches(chance.choice(by_zone[zone]), expression, chance)
    ]


def test_cron_agrees_with_a_clock_that_is_looked_at_every_minute() -> None:
    assert compare(120, seed=1) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_thousands_of_expressions_agree_with_the_clock(seed: int) -> None:
    assert compare(1_600, seed) == []


@given(
    zone=st.sampled_from(sorted(available_timezones() - {"localtime"})),
    expression=st.sampled_from(expressions(300, seed=4)),
    days=st.integers(0, 365 * 60),
)
def test_every_zone_agrees_with_the_clock_when_its_clocks_change(
    zone: str, expression: str, days: int
) -> None:
    start = at("1975-01-01") + timedelta(days=days)
    change = next(clock_changes(ZoneInfo(zone), start, start + timedelta(days=400)), None)
    if change is not None:
        around = Days(zone, change.at.date().isoformat())
        assert list(mismatches(around, expression, random.Random(days))) == []


# Days on which clocks change


def test_a_fixed_time_in_a_gap_fires_at_its_end_and_in_a_repeat_the_first_time() -> None:
    assert fires("30 2 * * *", "Europe/Berlin", "2026-03-28", 3) == [
        "2026-03-28 01:30",
        "2026-03-29 01:00",
        "2026-03-30 00:30",
    ]
    assert fires("30 2 * * *", "Europe/Berlin", "2026-10-24", 3) == [
        "2026-10-24 00:30",
        "2026-10-25 00:30",
        "2026-10-26 01:30",
    ]


def test_two_fixed_times_in_one_gap_fire_once() -> None:
    assert fires("0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", 4) == [
        "2026-03-29 01:00",
        "2026-03-29 01:30",
        "2026-03-30 00:00",
        "2026-03-30 00:30",
    ]


def test_a_star_fires_never_in_a_gap_and_in_both_passes_of_a_repeat() -> None:
    assert fires("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == [
        "2026-03-30 00:00",
        "2026-03-30 00:30",
    ]
    assert fires("*/30 2 * * *", "Europe/Berlin", "2026-10-25", 5) == [
        "2026-10-25 00:30",
        "2026-10-25 01:00",
        "2026-10-25 01:30",
        "2026-10-26 01:00",
        "2026-10-26 01:30",
    ]
    assert fires("0 * * * *", "Europe/Berlin", "2026-10-24T23:30", 3) == [
        "2026-10-25 00:00",
        "2026-10-25 01:00",
        "2026-10-25 02:00",
    ]


def test_a_half_hour_change_a_change_at_midnight_and_a_day_that_never_was() -> None:
    assert fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T18:00", 2) == [
        "2026-10-03 15:30",
        "2026-10-04 15:15",
    ]
    assert fires("0 0 * * *", "America/Havana", "2026-03-07T12:00", 2) == [
        "2026-03-08 05:00",
        "2026-03-09 04:00",
    ]
    # There was no 30 December 2011 in Apia: what was due then was due when the 31st began.
    assert fires("0 12 * * *", "Pacific/Apia", "2011-12-29", 3) == [
        "2011-12-29 22:00",
        "2011-12-30 10:00",
        "2011-12-30 22:00",
    ]


def test_between_the_passes_of_a_repeat_the_latest_is_the_latest_instant() -> None:
    cron = Cron.of("*/20 2 * * *", "Europe/Berlin")
    assert cron.latest(at("2026-10-25T00:59")) == at("2026-10-25T00:40")
    assert cron.latest(at("2026-10-25T01:10")) == at("2026-10-25T01:00")
    fixed = Cron.of("50 2 * * *", "Europe/Berlin")
    assert fixed.latest(at("2026-10-25T01:10")) == at("2026-10-25T00:50")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Africa/Monrovia", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize("expression", ["*/30 * * * *", "10,40 0-23 * * *"])
def test_zones_with_odd_seconds_long_ago_are_no_trouble(zone: str, expression: str) -> None:
    for year in ("0001-01-01", "1893-03-28", "1972-01-05", "1883-11-16"):
        found = list(islice(Cron.of(expression, zone).after(at(year)), 200))
        assert len(found) == 200
        assert all(earlier < later for earlier, later in pairwise(found))


def test_fractions_of_a_second_neither_repeat_a_fire_nor_miss_one() -> None:
    cron = Cron.of("0 2 * * *")
    two = at("2026-01-01T02:00")
    assert next(cron.after(two - MICROSECOND)) == two
    assert next(cron.after(two)) == next(cron.after(two + MICROSECOND)) == two + timedelta(days=1)
    assert cron.latest(two) == cron.latest(two + MICROSECOND) == two
    assert cron.latest(two - MICROSECOND) == two - timedelta(days=1)


# The rare and the impossible


def calls_of(work: Callable[[], Any]) -> int:
    """Return how many functions *work* calls: what it takes, on any machine."""
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("0 0 29 2 *", "2104-02-29"),
        ("0 0 29 2 */8", "2128-02-29"),
        ("0 0 * 2 MON#5", "2112-02-29"),
        ("0 0 * 2 SAT#5", "2116-02-29"),
        ("59 23 31 12 */8", "2102-12-31T23:59"),
    ],
)
def test_what_is_decades_away_is_found_at_once(expression: str, first: str) -> None:
    cron = Cron.of(check_cron(expression), "Europe/Berlin")
    zone = ZoneInfo("Europe/Berlin")
    found = next(cron.after(at("2096-03-01")))
    assert found.astimezone(zone).replace(tzinfo=None) == datetime.fromisoformat(first)
    assert cron.latest(found) == found
    # Forty years have 21 million minutes.
    assert calls_of(lambda: next(cron.after(at("2096-03-01")))) < 30_000
    assert calls_of(lambda: cron.latest(at("2135-01-01"))) < 30_000


@pytest.mark.parametrize("expression", ["* * * * *", "0-59 0-23 * * *", "0 2 * * *", "*/5 2 * * *"])
def test_the_next_and_the_latest_take_little_work_even_while_clocks_change(expression: str) -> None:
    cron = Cron.of(expression, "Europe/Berlin")
    for moment in ("2026-10-25T00:30", "2026-10-25T01:30", "2026-03-29T00:59", "2026-07-01"):
        assert calls_of(lambda moment=moment: next(cron.after(at(moment)))) < 5_000
        assert calls_of(lambda moment=moment: cron.latest(at(moment))) < 5_000


@pytest.mark.parametrize(
    "expression", ["0 0 30 2 *", "0 0 31 FEB,APR,JUN *", "0 0 30,31 2 */2", "0 0 */40 * MON#5", "0 0 * 2 30"]
)
def test_what_never_fires_is_refused_at_once(expression: str) -> None:
    def refused() -> None:
        with pytest.raises(ValueError, match=r"never fires|not a cron expression"):
            check_cron(expression)

    assert calls_of(refused) < 300_000


def test_a_day_that_no_month_has_is_named() -> None:
    with pytest.raises(ValueError, match="never fires: no such month has that day"):
        check_cron("0 0 30 2 *")
    # With both day fields set either of them is enough.
    assert check_cron("0 0 30 2 MON")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"])
@pytest.mark.parametrize("expression", ["0 0 29 2 *", "0 0 31 12 *", "0 */6 * * *"])
def test_time_ends_cleanly_with_the_year_9999(zone: str, expression: str) -> None:
    cron = Cron.of(expression, zone)
    end, beginning = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    last = list(cron.after(at("9990-01-01")))
    assert last
    assert cron.latest(end) == last[-1]
    assert list(cron.after(end)) == []
    assert cron.latest(beginning) is None
    assert next(cron.after(beginning)) < at("0006-01-01")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "1,,2 * * * *",
        "? * * * *",
        "* * * * FRIL",
        "* * * * MON#6",
        "* * L-3 * *",
        "1-2-3 * * * *",
        "5-5/10 * * * *",
        "0 0 * * MON-MON/2",
        "٣ * * * *",
        "@reboot",
        "@DAILY",
        "*" * 201,
        "0 0 * * " + "MON," * 60 + "MON",
    ],
)
def test_what_is_no_cron_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(must be|is|has) "):
        check_cron(text)


@given(st.text(alphabet="0123456789*/,-#LW MONFRISAT@", max_size=40) | st.text(max_size=20))
def test_any_text_is_either_refused_or_fires_and_is_explained(text: str) -> None:
    try:
        check_cron(text)
    except ValueError:
        return
    cron = Cron.of(text, "Europe/Berlin")
    assert next(cron.after(at("2026-01-01")))
    assert cron.explained()


@pytest.mark.parametrize("text", expressions(300, seed=5))
def test_every_expression_is_explained(text: str) -> None:
    assert Cron.of(text).explained()[0].isupper()


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_names_are_short_for_expressions(name: str, spelt: str) -> None:
    assert fires(name, "UTC", "2026-01-01", 5) == fires(spelt, "UTC", "2026-01-01", 5)
    assert fires("0 0 * * 0", "UTC", "2026-01-01", 5) == fires("0 0 * * 7", "UTC", "2026-01-01", 5)


def test_changes_of_the_clocks_are_found_with_what_they_leave_out_or_repeat() -> None:
    spring, autumn = clock_changes(ZoneInfo("Europe/Berlin"), at("2026-01-01"), at("2027-01-01"))
    assert (spring.at, spring.is_gap, spring.length) == (at("2026-03-29T01:00"), True, timedelta(hours=1))
    assert (autumn.before, autumn.after) == (datetime(2026, 10, 25, 3), datetime(2026, 10, 25, 2))
    (apia,) = clock_changes(ZoneInfo("Pacific/Apia"), at("2011-12-01"), at("2012-01-15"))
    assert apia.length == timedelta(days=1)
    assert list(clock_changes(ZoneInfo("UTC"), at("2026-01-01"), at("2028-01-01"))) == []
