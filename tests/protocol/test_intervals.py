"""The algebra of intervals, against sets of moments: what is done, what is missing, which interval is next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmbatch.errors import UsageError
from ecmbatch.protocol.intervals import (
    BackfillIntervals,
    Interval,
    IntervalStatus,
    Ranges,
    checked_split,
    gaps,
    marked,
    united,
    without,
)
from ecmbatch.protocol.schedule import CronSchedule, IntervalSchedule, ManualSchedule, Schedule

ZERO = datetime(2026, 1, 1, tzinfo=UTC)
MINUTES = 40
DAY = timedelta(days=1)


def at(minute: int) -> datetime:
    return ZERO + timedelta(minutes=minute)


def between(start: int, end: int) -> Interval:
    return Interval(at(start), at(end))


def minutes(interval: Interval) -> set[int]:
    return {minute for minute in range(MINUTES) if interval.start <= at(minute) < interval.end}


def status_by_minute(ranges: Ranges) -> dict[int, IntervalStatus]:
    return {minute: each.status for each in ranges for minute in minutes(each.interval)}


INTERVALS = (
    st.tuples(st.integers(0, MINUTES), st.integers(0, MINUTES))
    .filter(lambda ends: ends[0] < ends[1])
    .map(lambda ends: between(*ends))
)
MARKS = st.lists(st.tuples(INTERVALS, st.sampled_from(IntervalStatus)), max_size=12)


def ranges_of(marks: Sequence[tuple[Interval, IntervalStatus]]) -> Ranges:
    ranges: Ranges = ()
    for interval, status in marks:
        ranges = marked(ranges, interval, status)
    return ranges


@given(MARKS)
def test_every_moment_has_what_it_was_marked_with_last(marks: list[tuple[Interval, IntervalStatus]]) -> None:
    expected: dict[int, IntervalStatus] = {}
    for interval, status in marks:
        expected |= dict.fromkeys(minutes(interval), status)
    assert status_by_minute(ranges_of(marks)) == expected


@given(MARKS)
def test_ranges_are_as_few_as_can_be_and_ascend(marks: list[tuple[Interval, IntervalStatus]]) -> None:
    ranges = ranges_of(marks)
    assert all(each.start < each.end for each in ranges)
    assert all(
        one.end < other.start or (one.end == other.start and one.status is not other.status)
        for one, other in pairwise(ranges)
    )


@given(MARKS, INTERVALS)
def test_gaps_are_the_moments_without_a_status(
    marks: list[tuple[Interval, IntervalStatus]], asked: Interval
) -> None:
    ranges = ranges_of(marks)
    found = list(gaps(ranges, asked))
    moments = [moment for gap in found for moment in sorted(minutes(gap))]
    assert moments == sorted(minutes(asked) - status_by_minute(ranges).keys())


@given(st.lists(INTERVALS, max_size=8), INTERVALS)
def test_what_is_united_and_what_is_left_make_up_the_whole(others: list[Interval], whole: Interval) -> None:
    covered = {moment for each in others for moment in minutes(each)}
    joined = united(others)
    assert {moment for each in joined for moment in minutes(each)} == covered
    assert all(one.end < other.start for one, other in pairwise(joined))
    left = {moment for each in without(whole, others) for moment in minutes(each)}
    assert left == minutes(whole) - covered


def daily(number: int, split: str = "1 day") -> BackfillIntervals:
    return BackfillIntervals.of(Interval(ZERO, ZERO + number * DAY), split, ())


SCHEDULES: st.SearchStrategy[tuple[Schedule, ...]] = st.sampled_from(
    [
        (CronSchedule(cron="*/7 * * * *"),),
        (CronSchedule(cron="13 * * * *"), CronSchedule(cron="*/20 * * * *")),
        (IntervalSchedule(type="every", every=timedelta(minutes=9)),),
    ]
)
CUT = st.one_of(
    st.tuples(INTERVALS, st.integers(1, 50)).map(
        lambda asked: BackfillIntervals.of(asked[0], f"{asked[1]} minutes", ())
    ),
    INTERVALS.map(lambda whole: BackfillIntervals.of(whole, "none", ())),
    st.tuples(INTERVALS, SCHEDULES).map(lambda asked: BackfillIntervals.of(asked[0], "schedule", asked[1])),
)


@given(CUT)
def test_intervals_lie_side_by_side_and_make_up_the_whole(intervals: BackfillIntervals) -> None:
    found = list(intervals.each(intervals.whole, "asc"))
    assert (found[0], found[-1]) == (intervals.first, intervals.last)
    assert (found[0].start, found[-1].end) == (intervals.whole.start, intervals.whole.end)
    assert all(one.end == other.start for one, other in pairwise(found))
    assert all(each.start < each.end for each in found)
    assert len(found) == intervals.count()
    assert list(intervals.each(intervals.whole, "desc")) == found[::-1]


@given(CUT, INTERVALS)
def test_inside_and_around_a_part_are_the_whole_intervals_in_it_and_those_that_touch_it(
    intervals: BackfillIntervals, part: Interval
) -> None:
    every = list(intervals.each(intervals.whole, "asc"))
    within = [each for each in every if part.start <= each.start and each.end <= part.end]
    touched = [each for each in every if each.overlaps(part)]
    inside, around = intervals.inside(part), intervals.around(part)
    assert inside == (Interval(within[0].start, within[-1].end) if within else None)
    assert around == (Interval(touched[0].start, touched[-1].end) if touched else None)
    if inside is not None:
        assert list(intervals.each(inside, "asc")) == within
        assert intervals.count(inside) == len(within)


def test_the_last_interval_may_be_shorter() -> None:
    intervals = BackfillIntervals.of(between(0, 25), "10 minutes", ())
    assert [each.end - each.start for each in intervals.each(intervals.whole, "asc")] == [
        timedelta(minutes=10),
        timedelta(minutes=10),
        timedelta(minutes=5),
    ]


def test_a_split_by_schedule_has_the_intervals_of_live_runs_on_time_in_local_days() -> None:
    berlin = (CronSchedule(cron="0 0 * * *", timezone="Europe/Berlin"),)
    whole = Interval(datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 30, 22, tzinfo=UTC))
    found = list(BackfillIntervals.of(whole, "schedule", berlin).each(whole, "asc"))
    # The day on which clocks go forward has 23 hours.
    assert [each.end - each.start for each in found] == [timedelta(hours=23), timedelta(hours=24)]


def test_a_million_intervals_are_counted_found_and_left_out_without_making_them() -> None:
    million = daily(1_000_000)
    assert million.count() == 1_000_000
    assert million.last == Interval(ZERO + 999_999 * DAY, ZERO + 1_000_000 * DAY)
    middle = Interval(ZERO + 500_000 * DAY, ZERO + 700_000.5 * DAY)
    inside = million.inside(middle)
    assert inside is not None
    assert million.count(inside) == 200_000
    assert next(million.each(inside, "desc")).end == ZERO + 700_000 * DAY


@pytest.mark.parametrize("split", ["soon", "1 month", "", "0 s", "1 ms", "Schedule"])
def test_a_split_that_is_none_is_refused(split: str) -> None:
    with pytest.raises(UsageError, match="--split must be"):
        BackfillIntervals.of(between(0, 5), split, ())


@pytest.mark.parametrize("schedule", [(), (ManualSchedule(type="manual"),)])
def test_a_split_by_schedule_needs_one_that_goes_by_time(schedule: tuple[ManualSchedule, ...]) -> None:
    with pytest.raises(UsageError, match="no cron or interval schedule"):
        BackfillIntervals.of(between(0, 5), "schedule", schedule)


def test_a_split_is_remembered_by_the_same_text_however_it_is_written() -> None:
    assert {checked_split(text) for text in ("1 day", "24 hours", "1d", "PT24H")} == {"1 d"}
    assert (checked_split("none"), checked_split("schedule")) == ("none", "schedule")
