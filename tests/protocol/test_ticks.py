"""What all schedules of a job have together: their ticks, their policy, and how they are put in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_simulator import expressions
from ecmbatch.errors import InvalidDocument
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.schedule import Schedule, SchedulePolicy, policy_of
from ecmbatch.protocol.schedule_words import describe, schedule_warnings
from ecmbatch.protocol.ticks import Ticks

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def job_with(schedule: Any, **sections: Any) -> JobDefinition:
    job = {
        "job_id": "orders",
        "source": {"connector": "warehouse", "table": "orders"},
        "sink": {"store": "context_store", "mode": "upsert"},
        "schedule": schedule,
    }
    return JobDefinition.from_value({**job, **sections})


def schedule_of(value: Any) -> Sequence[Schedule]:
    return job_with(value).schedule


def ticks_of(value: Any) -> Ticks:
    ticks = Ticks.of(schedule_of(value))
    assert ticks is not None
    return ticks


def problems_of(value: Any, **sections: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as raised:
        job_with(value, **sections)
    return [str(problem) for problem in raised.value.problems]


# Ticks


def test_ticks_of_several_schedules_are_one_ascending_series_without_doubles() -> None:
    ticks = ticks_of(["0 */2 * * *", "0 */3 * * *", {"every": "6 hours"}])
    found = [tick.hour for tick in ticks.between(at("2026-01-01"), at("2026-01-02"))]
    assert found == [2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20, 21, 22, 0]


@pytest.mark.parametrize(
    "value", [[], {"type": "manual"}, {"type": "event", "on": {"event": "files.landed"}}]
)
def test_what_does_not_go_by_time_has_no_ticks(value: Any) -> None:
    assert Ticks.of(schedule_of(value)) is None


def test_intervals_are_counted_from_1970_whoever_asks_and_when() -> None:
    assert list(islice(ticks_of({"every": "90 minutes"}).after(at("1970-01-01")), 2)) == [
        at("1970-01-01T01:30"),
        at("1970-01-01T03:00"),
    ]
    ticks = ticks_of({"every": "7 minutes"})
    following = ticks.next_after(NOW)
    assert following is not None
    assert (following - at("1970-01-01")) % timedelta(minutes=7) == timedelta(0)
    assert ticks.next_after(NOW + timedelta(seconds=1)) == following
    assert ticks.latest(after=NOW, until=following) == following


def test_a_tick_is_after_its_lower_bound_and_may_be_its_upper_bound() -> None:
    ticks = ticks_of("0 2 * * *")
    first, second = at("2026-01-01T02:00"), at("2026-01-02T02:00")
    assert list(ticks.between(first, second)) == [second]
    assert ticks.latest(after=first, until=second) == second
    assert ticks.latest(after=second, until=second) is None
    assert ticks.next_after(first) == second


def test_instants_may_be_in_any_zone_but_need_one() -> None:
    ticks = ticks_of("0 2 * * *")
    elsewhere = datetime.fromisoformat("2026-01-01T04:00:00+02:00")
    following = ticks.next_after(elsewhere)
    assert following == at("2026-01-02T02:00")
    assert following.tzinfo is UTC
    with pytest.raises(ValueError, match="needs a time zone"):
        ticks.next_after(elsewhere.replace(tzinfo=None))


@pytest.mark.parametrize("value", [{"every": "366 days"}, {"every": "1 minute"}, {"every": "1.5 minutes"}])
def test_intervals_begin_and_end_with_the_calendar(value: Any) -> None:
    ticks = ticks_of(value)
    end, beginning = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    last = ticks.latest(after=beginning, until=end)
    assert last is not None
    assert ticks.next_after(last) is None
    assert ticks.latest(after=beginning, until=beginning) is None
    assert ticks.next_after(beginning) is not None


SCHEDULES = st.lists(
    st.builds(
        lambda expression, zone: {"cron": expression, "timezone": zone},
        st.sampled_from(expressions(200, seed=6)),
        st.sampled_from(["Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]),
    )
    | st.integers(1, 5_000).map(lambda minutes: {"every": f"{minutes} minutes"}),
    min_size=1,
    max_size=3,
)
MOMENTS = st.datetimes(datetime(2011, 1, 1), datetime(2040, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))


@given(SCHEDULES, MOMENTS, st.integers(0, 20))
def test_next_between_and_latest_agree(value: Any, start: datetime, count: int) -> None:
    ticks = ticks_of(value)
    found = list(islice(ticks.after(start), count))
    assert found == sorted(set(found))
    for earlier, later in zip([start, *found], found, strict=False):
        assert ticks.next_after(earlier) == later
        assert ticks.latest(after=earlier, until=later) == later
        assert ticks.latest(after=earlier, until=later - timedelta(microseconds=1)) is None
    if found:
        assert list(ticks.between(start, found[-1])) == found
        alone = [Ticks((source,)) for source in ticks.sources]
        assert found == sorted({tick for each in alone for tick in each.between(start, found[-1])})


@given(SCHEDULES, MOMENTS, st.timedeltas(timedelta(0), timedelta(days=2)))
def test_the_latest_is_the_last_of_all_between(value: Any, start: datetime, length: timedelta) -> None:
    ticks = ticks_of(value)
    between = list(ticks.between(start, start + length))
    assert ticks.latest(after=start, until=start + length) == (between[-1] if between else None)


def test_three_years_of_minutes_are_not_walked_to_find_the_last() -> None:
    taken = 0

    class Counted:
        def after(self, instant: datetime) -> Any:
            raise AssertionError("walks over what lies between")

        def latest(self, until: datetime) -> datetime | None:
            nonlocal taken
            taken += 1
            return source.latest(until)

    (source,) = ticks_of("* * * * *").sources
    ticks = Ticks((Counted(),))
    assert ticks.latest(after=NOW, until=NOW + timedelta(days=1_096)) == NOW + timedelta(days=1_096)
    assert taken == 1


# The grammar


def test_a_policy_that_is_not_stated_is_the_default() -> None:
    default = SchedulePolicy(catch_up="merge", overlap="queue_one", late_after=timedelta(minutes=15))
    assert policy_of(()) == policy_of(schedule_of("@daily")) == default
    assert policy_of(schedule_of({"type": "manual"})) == default


def test_a_policy_is_stated_once_for_all_schedules_of_a_list() -> None:
    first = {"cron": "0 2 * * *", "catch_up": "all"}
    second = {"every": "1 hour", "overlap": "queue_all", "late_after": "1 hour"}
    policy = SchedulePolicy(catch_up="all", overlap="queue_all", late_after=timedelta(hours=1))
    assert policy_of(schedule_of([first, second])) == policy_of(schedule_of([second, first])) == policy
    assert policy_of(schedule_of(["@daily", {**first, "catch_up": "merge"}])).catch_up == "merge"


@pytest.mark.parametrize("overlap", ["skip", "replace"])
def test_to_make_up_for_all_and_to_leave_some_out_contradict_each_other(overlap: str) -> None:
    (problem,) = problems_of({"every": "1 hour", "catch_up": "all", "overlap": overlap})
    assert problem.startswith(f"/schedule: has catch_up all and overlap {overlap}, which contradict")


def test_events_have_an_overlap_and_a_lateness_but_nothing_to_catch_up() -> None:
    event = {"type": "event", "on": {"event": "files.landed"}}
    policy = policy_of(schedule_of({**event, "overlap": "queue_all", "late_after": "5 minutes"}))
    assert policy == SchedulePolicy(overlap="queue_all", late_after=timedelta(minutes=5))
    assert problems_of({**event, "catch_up": "all"})[0].startswith(
        "/schedule/catch_up: is not a key known here"
    )
    assert problems_of({"type": "manual", "overlap": "skip"})[0].startswith("/schedule/overlap: is not a key")


def test_policies_that_contradict_each_other_are_refused_where_they_stand() -> None:
    value = [
        {"cron": "0 2 * * *", "catch_up": "all"},
        "@daily",
        {"every": "1 hour", "catch_up": "none", "overlap": "skip"},
    ]
    (problem,) = problems_of(value)
    assert problem.startswith("/schedule/2/catch_up: is not the same as in schedule 0")


@pytest.mark.parametrize(
    "other", [{"type": "manual"}, {"type": "event", "on": {"event": "files.landed"}}], ids=["manual", "event"]
)
def test_only_schedules_that_go_by_time_stand_in_a_list_with_others(other: dict[str, Any]) -> None:
    (problem,) = problems_of(["@daily", other])
    assert problem.startswith(f"/schedule/1: is of type {other['type']}: only cron and every")
    assert len(schedule_of([other])) == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"cron": "@daily", "catch_up": "last"}, "/schedule/catch_up: must be one of"),
        ({"cron": "@daily", "overlap": "queue"}, "/schedule/overlap: must be one of"),
        ({"cron": "@daily", "late_after": "30 seconds"}, "/schedule/late_after: must be at least 1 minute"),
        ({"every": "59 seconds"}, "/schedule/every: must be at least 1 minute"),
        ({"every": "367 days"}, "/schedule/every: must be at most 366 days"),
        ("0 0 30 2 *", "/schedule: is a cron expression that never fires"),
        ({"type": "backfill"}, "/schedule: a backfill is not a schedule"),
    ],
)
def test_what_is_wrong_in_a_schedule_is_named(value: Any, says: str) -> None:
    (problem,) = problems_of(value)
    assert problem.startswith(says)


def test_a_backfill_is_answered_with_the_command() -> None:
    assert "ecmbatch backfill create JOB --from … --to …" in problems_of({"type": "backfill"})[0]


WINDOWED = {
    "connector": "warehouse",
    "query": "SELECT * FROM orders WHERE at >= :window_start AND at < :window_end",
}


def test_runs_whose_windows_follow_each_other_cannot_run_beside_each_other() -> None:
    allowed = {"cron": "@daily", "overlap": "allow"}
    (problem,) = problems_of(allowed, source=WINDOWED)
    assert problem.startswith("/schedule: overlap allow is not possible")
    assert "use queue_one" in problem
    since = {"connector": "warehouse", "query": "SELECT * FROM orders WHERE at >= :since"}
    assert problems_of(allowed, source=since, parameters={"since": "${previous_job.end_time}"})
    assert policy_of(schedule_of(allowed)).overlap == "allow"


def test_jobs_with_policies_are_written_back_as_they_were() -> None:
    job = job_with([{"cron": "@daily", "catch_up": "merge", "late_after": "1 hour"}, {"every": "1 hour"}])
    assert JobDefinition.from_json(job.to_json()) == job
    assert "overlap" not in job.to_json()


# Words


def test_a_description_has_the_next_ticks_in_the_zone_and_in_utc() -> None:
    described = describe(schedule_of({"cron": "0 2 * * *", "timezone": "Europe/Berlin"}), at("2026-03-28"), 3)
    assert described.document() == {
        "explanation": "At 02:00 every day (Europe/Berlin)",
        "next": [
            {"local": "2026-03-28T02:00:00+01:00", "utc": "2026-03-28T01:00:00Z"},
            {"local": "2026-03-29T03:00:00+02:00", "utc": "2026-03-29T01:00:00Z"},
            {"local": "2026-03-30T02:00:00+02:00", "utc": "2026-03-30T00:00:00Z"},
        ],
    }


def test_ticks_of_a_list_are_told_in_the_zone_of_the_schedule_they_come_from() -> None:
    value = [{"every": "12 hours"}, {"cron": "30 9 * * *", "timezone": "Asia/Kolkata"}]
    assert [tick.local.isoformat() for tick in describe(schedule_of(value), at("2026-01-01"), 3).next] == [
        "2026-01-01T09:30:00+05:30",
        "2026-01-01T12:00:00+00:00",
        "2026-01-02T00:00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("value", "explained"),
    [
        ("30 2 * * MON-FRI", "At 02:30 on Monday through Friday (UTC)"),
        ("0 0 21 * *", "At 00:00 on the 21st day of every month (UTC)"),
        ("0 0 12 * *", "At 00:00 on the 12th day of every month (UTC)"),
        ("*/22 * * * *", "Every 22nd minute of every hour (UTC)"),
        ({"every": "90 minutes"}, "Every 1 h 30 min, counted from 1970-01-01 00:00 (UTC)"),
        ({"type": "manual"}, "Only when somebody asks"),
        ([], "No schedule"),
        (
            {"type": "event", "match": "any", "on": [{"job": "a", "status": "failed"}, {"event": "b.c"}]},
            "When a has failed or b.c has come",
        ),
        (
            {"type": "event", "on": {"job": "a"}, "debounce": {"quiet": "5 min", "max_wait": "1 hour"}},
            "When a has succeeded, as soon as that has paused for 5 min, at most 1 h later",
        ),
        (["0 * * * *", {"every": "1 day"}], "At the start of every hour (UTC); Every 1 d, counted from 1970"),
    ],
)
def test_every_schedule_is_put_in_words(value: Any, explained: str) -> None:
    described = describe(schedule_of(value), NOW, 2)
    assert described.explanation.startswith(explained)


def test_what_never_comes_again_has_no_next_tick() -> None:
    assert describe(schedule_of("@yearly"), at("9999-06-01"), 5).next == ()


def warnings_of(value: Any, now: datetime = NOW) -> list[str]:
    return [str(problem) for problem in schedule_warnings(schedule_of(value), now)]


def test_fixed_times_in_a_gap_or_a_repeat_of_the_zone_are_warned_of_with_their_days() -> None:
    gap, repeat = warnings_of({"cron": "30 2 * * *", "timezone": "Europe/Berlin"})
    assert gap.startswith(
        "/schedule: there is no 02:30 in Europe/Berlin on 2026-03-29: clocks go from 02:00 to 03:00, "
        "and the run of that day is due at 03:00"
    )
    assert repeat.startswith(
        "/schedule: 02:30 comes twice in Europe/Berlin on 2026-10-25: clocks go from 03:00 back to 02:00, "
        "and only the first time counts"
    )
    (listed,) = warnings_of(["@daily", {"cron": "15 23 * 10 *", "timezone": "Africa/Cairo"}])
    assert listed.startswith("/schedule/1: 23:15 comes twice in Africa/Cairo on 2026-10-29")


@pytest.mark.parametrize(
    "value",
    [
        "30 2 * * *",
        {"cron": "0 1 * * *", "timezone": "Europe/Berlin"},
        {"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
        {"cron": "30 2 * * MON", "timezone": "Europe/Berlin"},
        {"cron": "*/30 * * * *", "timezone": "Europe/Berlin"},
        {"cron": "30 2 * * *", "timezone": "Asia/Kolkata"},
        {"every": "1 hour"},
        {"type": "manual"},
        "0 2 * * MON",
        "0 2 */2 * MON",
    ],
)
def test_there_are_no_warnings_without_a_reason(value: Any) -> None:
    assert warnings_of(value) == []


def test_two_day_fields_are_warned_of_because_either_is_enough() -> None:
    (problem,) = warnings_of("0 2 1 * MON")
    assert problem.startswith("/schedule: both the day and the weekday are set: either of them is enough")
