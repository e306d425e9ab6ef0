"""The dependency decision, case by case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ecmbatch.protocol.dependencies import UpstreamRun, unmet
from ecmbatch.protocol.job import Dependency
from ecmbatch.protocol.run import RunStatus

T = datetime(2026, 11, 23, 2, tzinfo=UTC)
FRESH = Dependency(job="reference-data-sync", window=timedelta(hours=24))
SUCCESS = Dependency(job="customer-extract", status="success")


def run(
    scheduled: str,
    status: str = "success",
    *,
    as_of: str | None = None,
    live: bool = True,
) -> UpstreamRun:
    """A run at ``day hour:minute`` of November 2026."""
    return UpstreamRun(
        run_id=f"run-{scheduled[:2]}",
        status=RunStatus(status),
        live=live,
        scheduled_for=_time(scheduled),
        as_of=_time(as_of) if as_of else None,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=UTC)


NEEDS_FRESH = "needs reference-data-sync as of > 2026-11-22 02:00"


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([], "; it has never run"),
        ([run("22 19:10", as_of="22 19:10")], None),
        ([run("21 19:10", as_of="21 19:10")], "; newest is 2026-11-21 19:10, short by 6 h 50 min"),
        ([run("22 02:00", as_of="22 02:00")], "; newest is 2026-11-22 02:00, which is not later"),
        ([run("22 02:00", as_of="22 02:00:01")], None),
        # What counts is what the data cover, not when the run was.
        ([run("22 23:00", as_of="01 00:00", live=False)], "; newest is 2026-11-01 00:00, short by 21 d 2 h"),
        ([run("01 00:00", as_of="22 12:00")], None),
        ([run("22 12:00", as_of="22 12:00", live=False)], None),
        # The newest by as_of decides, wherever it stands, and later than T is fresh too.
        ([run("22 12:00", as_of="22 12:00"), run("20 00:00", as_of="20 00:00")], None),
        ([run("23 04:00", as_of="23 04:00")], None),
        # Only success covers anything.
        ([run("22 12:00", "failed", as_of="22 12:00")], "; no successful run covers that"),
        ([run("22 12:00", "abandoned", as_of="22 12:00")], "; no successful run covers that"),
        ([run("22 12:00", "in_progress")], "; no successful run covers that"),
        (
            [run("22 12:00", "validation_failed", as_of="22 12:00"), run("21 02:00", as_of="21 02:00")],
            "; newest is 2026-11-21 02:00, short by 1 d",
        ),
        # An earlier success does not stop being fresh because a later run failed.
        ([run("22 12:00", as_of="22 12:00"), run("22 20:00", "failed", as_of="22 20:00")], None),
    ],
)
def test_a_window_asks_for_data_later_than_so_long_before(
    runs: list[UpstreamRun], reason: str | None
) -> None:
    expected = None if reason is None else NEEDS_FRESH + reason
    assert unmet(FRESH, runs, at=T) == expected


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([run("23 00:00", as_of="22 12:00", live=False)], None),
        ([run("23 00:00", as_of="23 02:00")], None),
        ([run("23 04:00", as_of="23 04:00")], "; no successful run covers that"),
        (
            [run("23 04:00", as_of="23 04:00"), run("20 00:00", as_of="20 00:00")],
            "; newest is 2026-11-20 00:00, short by 2 d 2 h",
        ),
    ],
)
def test_a_backfill_looks_no_further_than_its_interval(runs: list[UpstreamRun], reason: str | None) -> None:
    expected = None if reason is None else f"{NEEDS_FRESH} and at most 2026-11-23 02:00{reason}"
    assert unmet(FRESH, runs, at=T, backfill=True) == expected


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([], "; it has never run"),
        ([run("22 02:00")], None),
        ([run("22 02:00"), run("21 02:00", "failed")], None),
        # The newest decides: not any success ever.
        (
            [run("21 02:00"), run("22 02:00", "failed")],
            "; its run of 2026-11-22 02:00 (run-22) ended as failed",
        ),
        (
            [run("22 02:00", "validation_failed")],
            "; its run of 2026-11-22 02:00 (run-22) ended as validation failed",
        ),
        ([run("22 02:00", "abandoned")], "; its run of 2026-11-22 02:00 (run-22) ended as abandoned"),
        ([run("22 02:00", "stopped")], "; its run of 2026-11-22 02:00 (run-22) ended as stopped"),
        # The same tick is waited for.
        (
            [run("22 02:00"), run("23 02:00", "in_progress")],
            "; its run of 2026-11-23 02:00 (run-23) is in progress",
        ),
        ([run("22 02:00"), run("23 02:00", "queued")], "; its run of 2026-11-23 02:00 (run-23) is queued"),
        ([run("22 02:00", "held")], "; its run of 2026-11-22 02:00 (run-22) is held"),
        # A repair after T counts, but does not hide a tick that is still open.
        ([run("22 02:00", "failed"), run("23 03:00")], None),
        (
            [run("22 02:00", "in_progress"), run("23 03:00")],
            "; its run of 2026-11-22 02:00 (run-22) is in progress",
        ),
        # Backfills say nothing about now.
        ([run("22 02:00", live=False, as_of="22 02:00")], "; it has never run"),
        ([run("22 02:00"), run("22 20:00", "failed", live=False)], None),
    ],
)
def test_a_status_asks_how_the_newest_live_run_ended(runs: list[UpstreamRun], reason: str | None) -> None:
    expected = None if reason is None else f"needs customer-extract to have succeeded{reason}"
    assert unmet(SUCCESS, runs, at=T) == expected


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([run("23 09:00", as_of="22 02:00", live=False)], None),
        ([run("23 09:00", as_of="23 02:00")], None),
        ([run("23 09:00", as_of="23 02:01")], "; it has no run as of at most 2026-11-23 02:00"),
        ([run("23 09:00", "in_progress")], "; it has no run as of at most 2026-11-23 02:00"),
        (
            [run("21 02:00", as_of="21 02:00"), run("22 02:00", "failed", as_of="22 02:00")],
            "; its run of 2026-11-22 02:00 (run-22) ended as failed",
        ),
        # Of two for the same interval the one scheduled last decides.
        ([run("22 02:00", "failed", as_of="22 02:00"), run("23 09:00", as_of="22 02:00", live=False)], None),
    ],
)
def test_a_backfill_asks_how_the_run_up_to_its_interval_ended(
    runs: list[UpstreamRun], reason: str | None
) -> None:
    expected = None if reason is None else f"needs customer-extract to have succeeded{reason}"
    assert unmet(SUCCESS, runs, at=T, backfill=True) == expected


@pytest.mark.parametrize(
    ("asked", "met_by"),
    [
        ("success", {"success"}),
        ("failed", {"failed", "validation_failed"}),
        ("finished", {"success", "failed", "validation_failed"}),
    ],
)
def test_each_status_is_met_by_its_outcomes_only(asked: str, met_by: set[str]) -> None:
    dependency = Dependency.model_validate({"job": "a", "status": asked})
    met = {status.value for status in RunStatus if unmet(dependency, [run("22 02:00", status)], at=T) is None}
    assert met == met_by


def test_both_keys_must_hold_and_both_reasons_are_given() -> None:
    both = Dependency(job="a", window=timedelta(hours=24), status="success")
    stale = run("20 02:00", as_of="20 02:00")
    failed = run("22 02:00", "failed", as_of="22 02:00")
    assert unmet(both, [run("22 12:00", as_of="22 12:00")], at=T) is None
    assert (
        unmet(both, [stale], at=T)
        == "needs a as of > 2026-11-22 02:00; newest is 2026-11-20 02:00, short by 2 d"
    )
    assert unmet(both, [stale, failed], at=T) == (
        "needs a as of > 2026-11-22 02:00; newest is 2026-11-20 02:00, short by 2 d"
        " and needs a to have succeeded; its run of 2026-11-22 02:00 (run-22) ended as failed"
    )


def test_a_dependency_without_conditions_asks_for_success() -> None:
    plain = Dependency(job="a")
    assert unmet(plain, [run("22 02:00")], at=T) is None
    assert unmet(plain, [run("22 02:00", "failed")], at=T)
    assert unmet(plain, [], at=T)


def test_an_optional_dependency_is_met_only_while_the_other_job_never_ran() -> None:
    optional = Dependency(job="a", optional=True)
    assert unmet(optional, [], at=T) is None
    assert unmet(optional, [run("22 02:00", "failed")], at=T)


def test_a_window_longer_than_the_calendar_is_met_by_any_success() -> None:
    ever = Dependency(job="a", window=timedelta(days=999_999_999))
    assert unmet(ever, [run("01 00:00", as_of="01 00:00")], at=T) is None
    assert unmet(ever, [], at=T)
