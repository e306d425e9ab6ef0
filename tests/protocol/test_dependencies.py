"""The dependency decision, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from ecmbatch.errors import InvalidDocument
from ecmbatch.protocol.dependencies import Upstream, UpstreamRun, unmet
from ecmbatch.protocol.dependency_declaration import AllGroup, AnyGroup, Dependency, DependencyRule
from ecmbatch.protocol.job import JobDefinition
from ecmbatch.protocol.run import RunStatus

T = datetime(2026, 11, 23, 2, tzinfo=UTC)
DAY = timedelta(hours=24)
_numbers = count(1)

Runs = Sequence[UpstreamRun]


def run(scheduled: str, status: str = "success", as_of: str | None = None) -> UpstreamRun:
    """A live run at ``day hour:minute`` of November 2026; a success covers what was there at its tick."""
    covered = as_of or (scheduled if status == "success" else None)
    return UpstreamRun(
        run_id=f"run-{scheduled[:2]}",
        number=next(_numbers),
        status=RunStatus(status),
        live=True,
        scheduled_for=_time(scheduled),
        as_of=_time(covered) if covered else None,
    )


def backfill(created: str, as_of: str, status: str = "success") -> UpstreamRun:
    """A run of an interval that ends at *as_of*."""
    return UpstreamRun(
        run_id=f"fill-{created[:2]}",
        number=next(_numbers),
        status=RunStatus(status),
        live=False,
        scheduled_for=_time(created),
        as_of=_time(as_of),
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=UTC)


def reason(
    rule: DependencyRule,
    runs: Runs,
    *,
    for_backfill: bool = False,
    pending: str | None = None,
    paused: bool = False,
) -> str | None:
    upstream = Upstream(runs=runs, pending_tick=_time(pending) if pending else None, paused=paused)
    return unmet(rule, {"x": upstream}, at=T, backfill=for_backfill)


# The window: some successful run covers data later than T - 24 hours. T is the 23rd, 02:00.

FRESH = Dependency(job="x", window=DAY)
NEEDS_FRESH = "needs x as of > 2026-11-22 02:00"
WINDOW_CASES: dict[str, tuple[Runs, str | None]] = {
    "it never ran": ([], "it has never run"),
    "it ran this night": ([run("22 19:10")], None),
    "it is late": ([run("21 19:10")], "newest is 2026-11-21 19:10, short by 6 h 50 min"),
    "it is exactly at the bound": ([run("22 02:00")], "newest is 2026-11-22 02:00, which is not later"),
    "it is just later than the bound": ([run("22 02:00", as_of="22 02:00:01")], None),
    "its run on the same tick succeeded": ([run("23 02:00")], None),
    "its run after T covers more still": ([run("23 04:00")], None),
    "yesterday's success stays fresh while today's run is under way": (
        [run("22 12:00"), run("23 02:00", "in_progress")],
        None,
    ),
    "yesterday's success stays fresh though today's run failed": (
        [run("22 12:00"), run("22 20:00", "failed", as_of="22 20:00")],
        None,
    ),
    "a failed run covers nothing": (
        [run("22 12:00", "failed", as_of="22 12:00")],
        "no successful run covers that; blocked: its run of 2026-11-22 12:00 (run-22) failed; "
        "go on with it: ecmbatch resume run-22",
    ),
    "a failed run was retried and succeeded": ([run("22 12:00", "success", as_of="22 12:30")], None),
    "a failed run is being retried": (
        [run("20 02:00"), run("22 12:00", "in_progress")],
        "newest is 2026-11-20 02:00, short by 2 d; its run of 2026-11-22 12:00 (run-22) is in progress",
    ),
    "the validation of the fresh run failed": (
        [run("22 12:00", "validation_failed", as_of="22 12:00"), run("21 02:00")],
        "newest is 2026-11-21 02:00, short by 1 d; blocked: its run of 2026-11-22 12:00 (run-22) failed its "
        "validation; go on with it: ecmbatch resume run-22",
    ),
    "the fresh run was abandoned": (
        [run("22 12:00", "abandoned", as_of="22 12:00")],
        "no successful run covers that; blocked: its run of 2026-11-22 12:00 (run-22) was abandoned; "
        "run it again: ecmbatch run x",
    ),
    "an older run was superseded by a fresh one": (
        [run("21 02:00", "abandoned", as_of="21 02:00"), run("22 12:00")],
        None,
    ),
    "the fresh run is held": (
        [run("22 12:00", "held", as_of="22 12:00")],
        "no successful run covers that; blocked: its run of 2026-11-22 12:00 (run-22) is held; "
        "go on with it: ecmbatch resume run-22",
    ),
    "a run scheduled long ago caught up with the present": ([run("01 00:00", as_of="22 12:00")], None),
    "a new run reads old data only": (
        [run("22 23:00", as_of="01 00:00")],
        "newest is 2026-11-01 00:00, short by 21 d 2 h",
    ),
    "a backfill of long ago finished today": (
        [backfill("22 23:00", as_of="01 00:00")],
        "newest is 2026-11-01 00:00, short by 21 d 2 h",
    ),
    "a backfill of yesterday is as fresh as any run": ([backfill("22 23:00", as_of="22 12:00")], None),
    "the newest by what it covers decides": ([run("22 12:00"), run("20 00:00")], None),
    "its first run began after T": (
        [run("23 02:05", "in_progress")],
        "no successful run covers that; its run of 2026-11-23 02:05 (run-23) is in progress",
    ),
    "the next run is on its way": (
        [run("21 02:00"), run("23 02:05", "queued")],
        "newest is 2026-11-21 02:00, short by 1 d; its run of 2026-11-23 02:05 (run-23) is queued",
    ),
}


@pytest.mark.parametrize(("runs", "because"), WINDOW_CASES.values(), ids=WINDOW_CASES)
def test_a_window_asks_for_data_later_than_so_long_before(runs: Runs, because: str | None) -> None:
    assert reason(FRESH, runs) == (None if because is None else f"{NEEDS_FRESH}; {because}")


BACKFILL_WINDOW_CASES: dict[str, tuple[Runs, str | None]] = {
    "a backfill of the same interval": ([backfill("29 00:00", as_of="23 02:00")], None),
    "a live run of that day": ([run("22 12:00")], None),
    "only a later interval": ([run("23 04:00")], "no successful run covers that"),
    "later and too early ones": (
        [run("23 04:00"), run("20 00:00")],
        "newest is 2026-11-20 00:00, short by 2 d 2 h",
    ),
    "the interval failed": (
        [backfill("29 00:00", as_of="23 02:00", status="failed")],
        "no successful run covers that",
    ),
}


@pytest.mark.parametrize(("runs", "because"), BACKFILL_WINDOW_CASES.values(), ids=BACKFILL_WINDOW_CASES)
def test_a_backfill_looks_no_further_than_its_interval(runs: Runs, because: str | None) -> None:
    expected = None if because is None else f"{NEEDS_FRESH} and at most 2026-11-23 02:00; {because}"
    assert reason(FRESH, runs, for_backfill=True) == expected


# The status: one run decides.

SUCCESS = Dependency(job="x", status="success")
STATUS_CASES: dict[str, tuple[Runs, str | None]] = {
    "it never ran": ([], "it has never run"),
    "its newest run succeeded": ([run("22 02:00")], None),
    "its run on the same tick succeeded": ([run("22 02:00", "failed"), run("23 02:00")], None),
    "an older failure is forgotten": ([run("21 02:00", "failed"), run("22 02:00")], None),
    "an older success does not help": (
        [run("21 02:00"), run("22 02:00", "failed")],
        "blocked: its run of 2026-11-22 02:00 (run-22) failed; go on with it: ecmbatch resume run-22",
    ),
    "the failed run was resumed and succeeded": ([run("21 02:00"), run("22 02:00", "success")], None),
    "the failed run is being resumed": (
        [run("22 02:00", "in_progress")],
        "its run of 2026-11-22 02:00 (run-22) is in progress",
    ),
    "its validation failed": (
        [run("22 02:00", "validation_failed")],
        "blocked: its run of 2026-11-22 02:00 (run-22) failed its validation; "
        "go on with it: ecmbatch resume run-22",
    ),
    "it was stopped": (
        [run("22 02:00", "stopped")],
        "blocked: its run of 2026-11-22 02:00 (run-22) was stopped; go on with it: ecmbatch resume run-22",
    ),
    "it was abandoned": (
        [run("22 02:00", "abandoned")],
        "blocked: its run of 2026-11-22 02:00 (run-22) was abandoned; run it again: ecmbatch run x",
    ),
    "it was superseded by a success": ([run("21 02:00", "abandoned"), run("22 02:00")], None),
    "its tick waited for its own dependencies in vain": (
        [run("22 02:00"), run("23 02:00", "skipped")],
        "blocked: its run of 2026-11-23 02:00 (run-23) was skipped: its own dependencies were not met in time; "
        "run it again: ecmbatch run x",
    ),
    "it is held": (
        [run("22 02:00", "held")],
        "blocked: its run of 2026-11-22 02:00 (run-22) is held; go on with it: ecmbatch resume run-22",
    ),
    "its run on the same tick is queued": (
        [run("22 02:00"), run("23 02:00", "queued")],
        "its run of 2026-11-23 02:00 (run-23) is queued",
    ),
    "its run on the same tick waits": (
        [run("22 02:00"), run("23 02:00", "waiting")],
        "its run of 2026-11-23 02:00 (run-23) waits for its own dependencies",
    ),
    "its run on the same tick is under way": (
        [run("22 02:00"), run("23 02:00", "in_progress")],
        "its run of 2026-11-23 02:00 (run-23) is in progress",
    ),
    "its run on the same tick is stopping": (
        [run("23 02:00", "stopping")],
        "its run of 2026-11-23 02:00 (run-23) is stopping",
    ),
    "a late run from before T is still under way": (
        [run("22 02:00", "in_progress")],
        "its run of 2026-11-22 02:00 (run-22) is in progress",
    ),
    "a run after T repaired it": ([run("22 02:00", "failed"), run("23 03:00")], None),
    "a run after T failed": (
        [run("23 02:00"), run("23 03:00", "failed")],
        "blocked: its run of 2026-11-23 03:00 (run-23) failed; go on with it: ecmbatch resume run-23",
    ),
    "a run after T is under way, and that of the tick succeeded": (
        [run("23 02:00"), run("23 03:00", "in_progress")],
        None,
    ),
    "a run after T is under way to repair it": (
        [run("22 02:00", "failed"), run("23 03:00", "in_progress")],
        "its run of 2026-11-22 02:00 (run-22) failed, and that of 2026-11-23 03:00 (run-23) is in progress",
    ),
    "its first run began after T": (
        [run("23 03:00", "queued")],
        "its run of 2026-11-23 03:00 (run-23) is queued",
    ),
    "a run after T hides no tick that is still open": (
        [run("22 02:00", "in_progress"), run("23 03:00")],
        "its run of 2026-11-22 02:00 (run-22) is in progress",
    ),
    "only backfills ran": ([backfill("22 02:00", as_of="22 02:00")], "it has never run"),
    "a failed backfill says nothing about now": (
        [run("22 02:00"), backfill("22 20:00", as_of="01 00:00", status="failed")],
        None,
    ),
    "a backfill under way says nothing about now": (
        [run("22 02:00"), backfill("22 20:00", as_of="01 00:00", status="in_progress")],
        None,
    ),
    "of two on one tick the one made last decides": ([run("22 02:00", "failed"), run("22 02:00")], None),
}


@pytest.mark.parametrize(("runs", "because"), STATUS_CASES.values(), ids=STATUS_CASES)
def test_a_status_asks_how_the_deciding_live_run_ended(runs: Runs, because: str | None) -> None:
    assert reason(SUCCESS, runs) == (None if because is None else f"needs x to have succeeded; {because}")


TICK_CASES: dict[str, tuple[Runs, str, str | None]] = {
    "the tick of T has no run yet": (
        [run("22 02:00")],
        "23 02:00",
        "no scheduler has made its run of 2026-11-23 02:00 yet",
    ),
    "an earlier tick has no run yet": (
        [run("22 02:00")],
        "23 01:00",
        "no scheduler has made its run of 2026-11-23 01:00 yet",
    ),
    "its very first tick has no run yet": (
        [],
        "23 02:00",
        "no scheduler has made its run of 2026-11-23 02:00 yet",
    ),
    "an older failure does not stand for it": (
        [run("22 02:00", "failed")],
        "23 02:00",
        "no scheduler has made its run of 2026-11-23 02:00 yet",
    ),
    "somebody ran it since": ([run("23 01:30")], "23 01:00", None),
    "somebody ran it since, after T": ([run("23 02:10")], "23 02:00", None),
    "somebody runs it now, after T": (
        [run("22 02:00"), run("23 02:10", "in_progress")],
        "23 02:00",
        "no scheduler has made its run of 2026-11-23 02:00 yet",
    ),
    "a run before it is under way": (
        [run("23 01:45", "in_progress")],
        "23 02:00",
        "its run of 2026-11-23 01:45 (run-23) is in progress",
    ),
}


@pytest.mark.parametrize(("runs", "tick", "because"), TICK_CASES.values(), ids=TICK_CASES)
def test_a_tick_without_a_run_is_waited_for(runs: Runs, tick: str, because: str | None) -> None:
    expected = None if because is None else f"needs x to have succeeded; {because}"
    assert reason(SUCCESS, runs, pending=tick) == expected


def test_a_tick_without_a_run_takes_no_freshness_away() -> None:
    assert reason(FRESH, [run("22 12:00")], pending="23 02:00") is None
    assert reason(FRESH, [run("20 02:00")], pending="23 02:00") == (
        f"{NEEDS_FRESH}; newest is 2026-11-20 02:00, short by 2 d; "
        "no scheduler has made its run of 2026-11-23 02:00 yet"
    )


def test_it_is_said_that_the_other_job_is_paused() -> None:
    assert reason(SUCCESS, [], paused=True) == "needs x to have succeeded; it has never run; it is paused"
    assert reason(FRESH, [run("22 02:00")], paused=True) == (
        f"{NEEDS_FRESH}; newest is 2026-11-22 02:00, which is not later; it is paused"
    )
    assert reason(SUCCESS, [run("22 02:00")], paused=True) is None


BACKFILL_STATUS_CASES: dict[str, tuple[Runs, str | None]] = {
    "a backfill up to then succeeded": ([backfill("23 09:00", as_of="22 02:00")], None),
    "a live run up to then succeeded": ([run("23 01:00", as_of="22 02:00")], None),
    "one up to T itself": ([run("23 09:00", as_of="23 02:00")], None),
    "only later ones": (
        [run("23 09:00", as_of="23 02:01")],
        "it has no run as of at most 2026-11-23 02:00",
    ),
    "its window is not fixed yet": (
        [run("23 01:00", "in_progress")],
        "it has no run as of at most 2026-11-23 02:00",
    ),
    "the newest up to then failed": (
        [run("21 02:00"), run("22 02:00", "failed", as_of="22 02:00")],
        "blocked: its run of 2026-11-22 02:00 (run-22) failed; go on with it: ecmbatch resume run-22",
    ),
    "the newest up to then is under way": (
        [run("21 02:00"), backfill("29 02:00", as_of="22 02:00", status="in_progress")],
        "its run of 2026-11-29 02:00 (fill-29) is in progress",
    ),
    "the newest up to then was given up": (
        [backfill("29 02:00", as_of="22 02:00", status="abandoned")],
        "blocked: its run of 2026-11-29 02:00 (fill-29) was abandoned; run it again",
    ),
    "a failed interval was backfilled since": (
        [run("22 02:00", "failed", as_of="22 02:00"), backfill("23 09:00", as_of="22 02:00")],
        None,
    ),
    "what failed today is of no matter to the past": (
        [backfill("29 02:00", as_of="22 02:00"), run("29 02:00", "failed", as_of="29 02:00")],
        None,
    ),
}


@pytest.mark.parametrize(("runs", "because"), BACKFILL_STATUS_CASES.values(), ids=BACKFILL_STATUS_CASES)
def test_a_backfill_asks_how_the_run_up_to_its_interval_ended(runs: Runs, because: str | None) -> None:
    expected = None if because is None else f"needs x to have succeeded; {because}"
    assert reason(SUCCESS, runs, for_backfill=True) == expected


@pytest.mark.parametrize(
    ("asked", "met_by"),
    [
        ("success", {"success"}),
        ("failed", {"failed", "validation_failed"}),
        ("finished", {"success", "failed", "validation_failed"}),
    ],
)
def test_each_status_is_met_by_its_outcomes_only(asked: str, met_by: set[str]) -> None:
    dependency = Dependency.model_validate({"job": "x", "status": asked})
    met = {status.value for status in RunStatus if reason(dependency, [run("22 02:00", status)]) is None}
    assert met == met_by


def test_a_success_is_no_failure_and_nothing_is_blocked_by_it() -> None:
    wants_failure = Dependency(job="x", status="failed")
    assert reason(wants_failure, [run("22 02:00")]) == (
        "needs x to have failed; its run of 2026-11-22 02:00 (run-22) succeeded"
    )


# Both keys, neither, optional


def test_both_keys_must_hold_and_both_reasons_are_given() -> None:
    both = Dependency(job="x", window=DAY, status="success")
    assert reason(both, [run("22 12:00")]) is None
    assert reason(both, [run("20 02:00")]) == f"{NEEDS_FRESH}; newest is 2026-11-20 02:00, short by 2 d"
    failed = run("22 02:00", "failed")
    blocked = "blocked: its run of 2026-11-22 02:00 (run-22) failed; go on with it: ecmbatch resume run-22"
    assert reason(both, [run("20 02:00"), failed]) == (
        f"{NEEDS_FRESH}; newest is 2026-11-20 02:00, short by 2 d and needs x to have succeeded; {blocked}"
    )
    assert reason(both, [backfill("22 01:00", as_of="22 12:00"), failed]) == (
        f"needs x to have succeeded; {blocked}"
    )


def test_a_dependency_without_conditions_asks_for_success() -> None:
    plain = Dependency(job="x")
    assert reason(plain, [run("22 02:00")]) is None
    assert reason(plain, [run("22 02:00", "failed")])
    assert reason(plain, [])


def test_an_optional_dependency_is_met_only_while_the_other_job_never_ran() -> None:
    optional = Dependency(job="x", optional=True)
    assert reason(optional, []) is None
    assert reason(optional, [run("22 02:00", "skipped")]) is None
    assert reason(optional, [run("22 02:00", "failed")])
    assert reason(optional, [run("23 02:00", "queued")])
    assert reason(optional, [], pending="23 02:00"), "whether a scheduler was quick must not matter"


def test_a_window_longer_than_the_calendar_is_met_by_any_success() -> None:
    ever = Dependency(job="x", window=timedelta(days=999_999_999))
    assert reason(ever, [run("01 00:00")]) is None
    assert reason(ever, [])


# Groups

A, B, C = (Dependency(job=name) for name in "abc")


def of_three(rule: DependencyRule, *succeeded: str) -> str | None:
    upstreams = {name: Upstream(runs=[run("22 02:00")] if name in succeeded else []) for name in "abc"}
    return unmet(rule, upstreams, at=T)


def test_one_of_the_alternatives_is_enough() -> None:
    rule = AnyGroup(any=(A, B))
    assert of_three(rule, "a") is None
    assert of_three(rule, "b") is None
    assert of_three(rule) == (
        "needs one of 2: (1) needs a to have succeeded; it has never run, "
        "or (2) needs b to have succeeded; it has never run"
    )
    assert of_three(AnyGroup(any=(A,))) == "needs a to have succeeded; it has never run"


def test_all_of_a_group_must_be_met() -> None:
    rule = AllGroup(all=(A, B))
    assert of_three(rule, "a", "b") is None
    assert of_three(rule, "a") == "needs b to have succeeded; it has never run"
    assert of_three(rule) == (
        "needs a to have succeeded; it has never run and needs b to have succeeded; it has never run"
    )


def test_groups_stand_in_groups() -> None:
    rule = AnyGroup(any=(C, AllGroup(all=(A, B))))
    assert of_three(rule, "c") is None
    assert of_three(rule, "a", "b") is None
    assert of_three(rule, "a") == (
        "needs one of 2: (1) needs c to have succeeded; it has never run, "
        "or (2) needs b to have succeeded; it has never run"
    )


# What a job may declare


def declared(*dependencies: Any, **sections: Any) -> JobDefinition:
    return JobDefinition.from_value(
        {
            "job_id": "y",
            "source": {"connector": "warehouse", "table": "t"},
            "sink": {"store": "context_store", "mode": "upsert"},
            "dependencies": list(dependencies),
            **sections,
        }
    )


def test_every_job_in_a_group_is_an_upstream_job() -> None:
    job = declared({"job": "a"}, {"any": [{"job": "b", "window": "1 h"}, {"all": [{"job": "c"}], "x-": 1}]})
    assert [each.job for each in job.upstream_dependencies] == ["a", "b", "c"]
    assert JobDefinition.from_json(job.to_json()) == job
    source = {"connector": "warehouse", "query": "SELECT :a"}
    assert declared({"any": [{"job": "b"}]}, source=source, parameters={"a": "${upstream.b.as_of}"}), (
        "what is in a group may be referred to"
    )


def test_a_time_to_wait_may_be_given() -> None:
    assert declared({"job": "a"}, dependency_timeout="90 min").dependency_timeout == timedelta(minutes=90)
    assert declared({"job": "a"}).dependency_timeout is None


def _nested(depth: int) -> Any:
    return {"job": "a"} if depth == 0 else {"any" if depth % 2 else "all": [_nested(depth - 1)]}


@pytest.mark.parametrize(
    ("dependencies", "problem"),
    [
        ([{"any": []}], "/dependencies/0/any: must name at least one dependency"),
        ([{"all": []}], "/dependencies/0/all: must name at least one dependency"),
        ([{"any": {"job": "a"}}], "/dependencies/0/any: must be a list, not an object"),
        ([{"any": [{"job": "a"}, {"window": "1 h"}]}], "/dependencies/0/any/1/job: is required"),
        (
            [{"any": [{"job": "a"}], "optional": True}],
            "/dependencies/0/optional: stands beside a group, which has no other keys (write it inside the group)",
        ),
        (
            [{"any": [{"job": "a"}], "all": [{"job": "b"}]}],
            "/dependencies/0/all: stands beside a group, which has no other keys (write it inside the group)",
        ),
        (
            [{"all": [{"any": [{"job": "y"}]}]}],
            "/dependencies/0/all/0/any/0/job: is the job itself; no job waits for itself",
        ),
        ([_nested(4)], "/dependencies/0: has groups in groups more than 3 deep"),
    ],
)
def test_what_no_dependency_can_be_is_refused_with_its_place(dependencies: list[Any], problem: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        declared(*dependencies)
    assert [str(each) for each in raised.value.problems] == [problem]


def test_groups_may_stand_in_each_other_three_deep() -> None:
    assert declared(_nested(3))
