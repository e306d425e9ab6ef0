"""Backfills in the ledger: which interval is next, what is remembered of it, and that it is loaded once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from ecmbatch.errors import ConflictError, RunAlreadyComplete, UsageError
from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.backfill_queries import BackfillState, NewBackfill
from ecmbatch.ledger.intervals import interval_of
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.place import LedgerPlace
from ecmbatch.ledger.queue import MOST_LOST_WORKERS
from ecmbatch.ledger.records import Fence, NewRun, RunRecord
from ecmbatch.protocol.checkpoint import rfc3339
from ecmbatch.protocol.intervals import (
    BackfillIntervals,
    BackfillStatus,
    Interval,
    IntervalStatus,
)
from ecmbatch.protocol.recovery import Launch, LaunchDecision
from ecmbatch.protocol.run import RunStatus
from ecmbatch.protocol.scalars import encode_scalar
from ecmbatch.testing.clock import ManualClock

ZERO = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ME = Owner.this_process()
GONE = replace(ME, pid=2**22 - 1, started="1")
LOADED, FAILED, SKIPPED = IntervalStatus.LOADED, IntervalStatus.FAILED, IntervalStatus.SKIPPED


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ZERO + 3_000_000 * timedelta(hours=1))


@pytest.fixture
def ledger(place: LedgerPlace, clock: ManualClock) -> Iterator[Ledger]:
    ledger = Ledger(place, clock=clock)
    yield ledger
    ledger.close()


def days(start: float, end: float) -> Interval:
    return Interval(ZERO + start * DAY, ZERO + end * DAY)


_numbers = count(1)


def interval_run(interval: Interval, *, backfill_id: str | None = None) -> NewRun:
    key = f"backfill:default:{rfc3339(interval.start)}/{rfc3339(interval.end)}"
    window = {"start": encode_scalar(interval.start), "end": encode_scalar(interval.end)}
    return NewRun(
        run_id=f"run-{next(_numbers)}",
        job_id="job",
        run_key=key,
        stream="default",
        lane=key,
        live=False,
        trigger="backfill",
        digest="d",
        definition={},
        job_file=None,
        options={"params": {}, "window": window, "full_refresh": False, "ignore_dependencies": False},
        scheduled_for=ZERO,
        job_version=1 if backfill_id else None,
        backfill_id=backfill_id,
    )


@dataclass
class Work:
    """A job whose definition is always the same, or never."""

    backfill_id: str
    intervals: BackfillIntervals
    same: bool = True
    waits: bool = False
    told: list[str] = field(default_factory=list)

    def new_run(self, interval: Interval, now: datetime) -> NewRun:
        new = interval_run(interval, backfill_id=self.backfill_id)
        return replace(new, waiting=[]) if self.waits else new

    def continues(self, run: RunRecord) -> bool:
        return self.same

    def digest(self, state: BackfillState, warned: int) -> NewAlert | None:
        self.told.append(str(state.backfill.status))
        failed = state.backfill.status is BackfillStatus.FAILED
        return NewAlert(
            key="backfill", outcome="failed" if failed else "pass", recipients=[], message="it ended"
        )


def make(ledger: Ledger, days_: int = 5, backfill_id: str = "b", **changes: Any) -> Work:
    whole = changes.pop("whole", days(0, days_))
    values: dict[str, Any] = {
        "backfill_id": backfill_id,
        "job_id": "job",
        "job_version": 1,
        "stream": "default",
        "options": {"params": {}},
        "window_start": whole.start,
        "window_end": whole.end,
        "split": "1 d",
        "order": "asc",
        "concurrency": 1,
        "reprocess": "missing",
        "on_failure": "stop",
    }
    new = NewBackfill(**{**values, **changes})
    intervals = BackfillIntervals.of(whole, new.split, ())
    backfill, _ = ledger.backfills.create(new, intervals)
    return Work(backfill.backfill_id, intervals)


def advance(ledger: Ledger, work: Work) -> list[Interval]:
    """Advance and return the intervals that got runs."""
    step = ledger.backfills.advance(work.backfill_id, work)
    intervals = [interval_of(ledger.runs.get(run_id)) for run_id in step.started]
    return [interval for interval in intervals if interval is not None]


def claim(ledger: Ledger, work: Work) -> tuple[RunRecord, Fence]:
    claimed = ledger.queue.claim(ME, lambda _: None, backfill_id=work.backfill_id)
    assert claimed is not None
    return claimed


def end(ledger: Ledger, work: Work, status: RunStatus = RunStatus.SUCCESS) -> RunRecord:
    """Execute the next run of a backfill."""
    _, fence = claim(ledger, work)
    return ledger.runs.finish(
        fence, status, error={"message": "no"} if status is not RunStatus.SUCCESS else None
    )


def run_by_hand(ledger: Ledger, interval: Interval, status: RunStatus = RunStatus.SUCCESS) -> RunRecord:
    return ledger.runs.finish(start_by_hand(ledger, interval)[1], status)


def start_by_hand(ledger: Ledger, interval: Interval, owner: Owner = ME) -> tuple[RunRecord, Fence]:
    _, run, fence = ledger.runs.launch(
        interval_run(interval), lambda _: LaunchDecision(launch=Launch.START, reason="anew"), owner
    )
    assert fence is not None
    return run, fence


def ranges(ledger: Ledger, work: Work) -> list[tuple[Interval, IntervalStatus]]:
    return [(each.interval, each.status) for each in ledger.backfills.state(work.backfill_id).ranges]


def status(ledger: Ledger, work: Work) -> BackfillStatus:
    return ledger.backfills.get(work.backfill_id).status


def finish_all(ledger: Ledger, work: Work) -> list[Interval]:
    """Load everything; return the intervals in the order in which they were started."""
    started = []
    while True:
        started += advance(ledger, work)
        claimed = ledger.queue.claim(ME, lambda _: None, backfill_id=work.backfill_id)
        if claimed is None:
            return started
        ledger.runs.finish(claimed[1], RunStatus.SUCCESS)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_intervals_are_loaded_one_after_the_other_in_the_order_asked_for(ledger: Ledger, order: str) -> None:
    work = make(ledger, order=order)
    started = finish_all(ledger, work)
    expected = [days(day, day + 1) for day in range(5)]
    assert started == (expected if order == "asc" else expected[::-1])
    assert ranges(ledger, work) == [(days(0, 5), LOADED)]
    assert status(ledger, work) is BackfillStatus.COMPLETED
    assert work.told == ["completed"]
    assert not ledger.backfills.unsettled()


def test_no_more_than_asked_for_are_under_way_at_once(ledger: Ledger) -> None:
    work = make(ledger, concurrency=2)
    assert advance(ledger, work) == [days(0, 1), days(1, 2)]
    assert advance(ledger, work) == []
    claim(ledger, work)
    assert advance(ledger, work) == []
    end(ledger, work)
    assert advance(ledger, work) == [days(2, 3)]


def test_any_number_of_schedulers_and_workers_load_each_interval_once(ledger: Ledger) -> None:
    work = make(ledger, 30, concurrency=4)
    chance = random.Random(0)
    executed: list[Interval | None] = []

    def take_part(_: int) -> None:
        for _ in range(40):
            if chance.random() < 0.5:
                ledger.backfills.advance("b", work)
            claimed = ledger.queue.claim(ME, lambda _: None, backfill_id="b")
            if claimed is not None:
                executed.append(interval_of(claimed[0]))
                ledger.runs.finish(claimed[1], RunStatus.SUCCESS)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take_part, range(4)))
    finish_all(ledger, work)
    assert len(executed) == len(set(executed))
    assert ranges(ledger, work) == [(days(0, 30), LOADED)]
    assert len(ledger.runs.of_job("job")) == 30


def test_a_million_intervals_are_a_few_rows(ledger: Ledger) -> None:
    whole = Interval(ZERO, ZERO + 1_000_000 * timedelta(hours=1))
    run_by_hand(ledger, Interval(ZERO + timedelta(minutes=30), ZERO + 400_000 * timedelta(hours=1)))
    work = make(ledger, whole=whole, split="1 h")
    hour = timedelta(hours=1)
    # The first is loaded in part only.
    assert advance(ledger, work) == [Interval(ZERO, ZERO + hour)]
    end(ledger, work)
    assert advance(ledger, work) == [Interval(ZERO + 400_000 * hour, ZERO + 400_001 * hour)]
    state = ledger.backfills.state("b")
    counted = {each.status: work.intervals.count(each.interval) for each in state.ranges}
    assert counted == {LOADED: 1, SKIPPED: 399_999}


@pytest.mark.parametrize(
    ("reprocess", "expected"),
    [
        ("missing", [days(1, 2), days(3, 4)]),
        ("failed", [days(1, 2), days(2, 3), days(3, 4)]),
        ("all", [days(0, 1), days(1, 2), days(2, 3), days(3, 4)]),
    ],
)
def test_what_is_loaded_again_is_what_was_asked_for(
    ledger: Ledger, reprocess: str, expected: list[Interval]
) -> None:
    run_by_hand(ledger, days(0, 1))
    failed = run_by_hand(ledger, days(2, 3), RunStatus.FAILED)
    work = make(ledger, 4, reprocess=reprocess)
    if reprocess == "all":
        # What was begun before is not gone on with: its rows are those of then.
        assert advance(ledger, work) == [days(0, 1)]
        end(ledger, work)
        assert advance(ledger, work) == [days(1, 2)]
        end(ledger, work)
        step = ledger.backfills.advance("b", work)
        assert (step.started, step.in_the_way) == ([], [failed.run_id])
        ledger.runs.settle(failed.run_id, RunStatus.ABANDONED, error=None)
        assert [*finish_all(ledger, work)] == expected[2:]
    else:
        assert finish_all(ledger, work) == expected
    assert status(ledger, work) is BackfillStatus.COMPLETED


def test_loading_all_again_makes_runs_of_their_own(ledger: Ledger) -> None:
    first = run_by_hand(ledger, days(0, 1))
    work = make(ledger, 1, reprocess="all")
    advance(ledger, work)
    again = end(ledger, work)
    assert (again.run_id != first.run_id, again.lane) == (True, first.lane)
    assert again.run_key == f"{first.run_key}:{again.run_id}"


def test_a_failure_stops_the_backfill_and_no_queued_run_starts_after_it(ledger: Ledger) -> None:
    work = make(ledger, concurrency=3)
    advance(ledger, work)
    end(ledger, work, RunStatus.FAILED)
    assert status(ledger, work) is BackfillStatus.FAILED
    assert ledger.queue.claim(ME, lambda _: None, backfill_id="b") is None
    assert advance(ledger, work) == []
    assert work.told == ["failed"]
    assert ledger.backfills.unsettled() == []
    assert [alert.outcome for alert in ledger.alerts.all()] == ["failed"]


def test_a_retry_goes_on_with_the_run_that_failed(ledger: Ledger) -> None:
    work = make(ledger, concurrency=2)
    advance(ledger, work)
    failed = end(ledger, work, RunStatus.FAILED)
    advance(ledger, work)
    ledger.backfills.retry("b")
    assert advance(ledger, work) == [days(0, 1), days(1, 2)]
    again, fence = claim(ledger, work)
    assert (again.run_id, again.attempt) == (failed.run_id, 2)
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    finish_all(ledger, work)
    assert ranges(ledger, work) == [(days(0, 5), LOADED)]
    with pytest.raises(ConflictError, match="no interval of backfill b has failed"):
        ledger.backfills.retry("b")


def test_when_everything_that_failed_has_succeeded_by_hand_the_backfill_goes_on(ledger: Ledger) -> None:
    work = make(ledger)
    advance(ledger, work)
    failed = end(ledger, work, RunStatus.FAILED)
    advance(ledger, work)
    assert status(ledger, work) is BackfillStatus.FAILED
    _, fence = ledger.runs.resume(failed.run_id, ME)
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    assert status(ledger, work) is BackfillStatus.RUNNING
    assert finish_all(ledger, work) == [days(day, day + 1) for day in range(1, 5)]
    assert status(ledger, work) is BackfillStatus.COMPLETED


def test_a_backfill_that_goes_on_after_failures_tells_of_them_once_at_its_end(ledger: Ledger) -> None:
    work = make(ledger, on_failure="continue")
    for day in range(5):
        assert advance(ledger, work) == [days(day, day + 1)]
        end(ledger, work, RunStatus.FAILED if day in (1, 3) else RunStatus.SUCCESS)
        assert work.told == []
    assert advance(ledger, work) == []
    assert status(ledger, work) is BackfillStatus.FAILED
    assert work.told == ["failed"]
    advance(ledger, work)
    assert work.told == ["failed"]
    ledger.backfills.resume("b")
    assert finish_all(ledger, work) == [days(1, 2), days(3, 4)]
    assert status(ledger, work) is BackfillStatus.COMPLETED
    assert [alert.outcome for alert in ledger.alerts.all()] == ["failed", "pass"]


def test_what_validation_refused_is_read_anew_by_a_retry(ledger: Ledger) -> None:
    work = make(ledger, 1)
    advance(ledger, work)
    refused = end(ledger, work, RunStatus.VALIDATION_FAILED)
    ledger.backfills.retry("b")
    step = ledger.backfills.advance("b", work)
    assert (step.started, step.in_the_way) == ([], [refused.run_id])
    ledger.runs.settle(refused.run_id, RunStatus.ABANDONED, error=None)
    assert finish_all(ledger, work) == [days(0, 1)]
    assert len(ledger.runs.of_job("job")) == 2


def test_a_run_under_another_definition_is_in_the_way(ledger: Ledger) -> None:
    stopped = run_by_hand(ledger, days(0, 1), RunStatus.STOPPED)
    work = replace(make(ledger, 1), same=False)
    step = ledger.backfills.advance("b", work)
    assert (step.started, step.in_the_way) == ([], [stopped.run_id])


def test_pausing_lets_what_is_under_way_end_and_takes_the_rest_back(ledger: Ledger) -> None:
    work = make(ledger, concurrency=2)
    advance(ledger, work)
    _, fence = claim(ledger, work)
    ledger.backfills.pause("b")
    assert ledger.queue.claim(ME, lambda _: None, backfill_id="b") is None
    assert ledger.backfills.unsettled() == []
    assert advance(ledger, work) == []
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    assert ranges(ledger, work) == [(days(0, 1), LOADED)]
    ledger.backfills.resume("b")
    assert finish_all(ledger, work) == [days(day, day + 1) for day in range(1, 5)]
    # What was taken back is the same run again.
    assert len(ledger.runs.of_job("job")) == 5
    with pytest.raises(RunAlreadyComplete):
        ledger.backfills.resume("b")
    with pytest.raises(ConflictError, match="nothing to pause"):
        ledger.backfills.pause("b")


def test_cancelling_stops_what_is_under_way_and_can_be_taken_back(ledger: Ledger) -> None:
    work = make(ledger, concurrency=2)
    advance(ledger, work)
    run, fence = claim(ledger, work)
    ledger.backfills.cancel("b")
    assert ledger.runs.renew(fence) is RunStatus.STOPPING
    ledger.runs.finish(fence, RunStatus.STOPPED)
    assert advance(ledger, work) == []
    assert status(ledger, work) is BackfillStatus.CANCELLED
    ledger.backfills.cancel("b")
    ledger.backfills.resume("b")
    assert advance(ledger, work)[0] == interval_of(run)
    assert ledger.runs.get(run.run_id).status is RunStatus.QUEUED
    finish_all(ledger, work)
    assert status(ledger, work) is BackfillStatus.COMPLETED
    with pytest.raises(RunAlreadyComplete):
        ledger.backfills.cancel("b")


def test_an_interval_whose_run_somebody_stopped_is_left_until_the_backfill_is_resumed(ledger: Ledger) -> None:
    work = make(ledger, 2)
    advance(ledger, work)
    end(ledger, work, RunStatus.STOPPED)
    assert finish_all(ledger, work) == [days(1, 2)]
    assert status(ledger, work) is BackfillStatus.PAUSED
    ledger.backfills.resume("b")
    assert finish_all(ledger, work) == [days(0, 1)]
    assert status(ledger, work) is BackfillStatus.COMPLETED


def test_a_run_may_be_stopped_before_it_began(ledger: Ledger) -> None:
    work = make(ledger, 2)
    (first,) = ledger.backfills.advance("b", work).started
    ledger.runs.request_stop(first)
    assert finish_all(ledger, work) == [days(1, 2)]
    assert status(ledger, work) is BackfillStatus.PAUSED


def test_what_a_worker_puts_back_stays_where_it_is_while_the_backfill_is_paused(ledger: Ledger) -> None:
    work = make(ledger)
    advance(ledger, work)
    run, fence = claim(ledger, work)
    ledger.backfills.pause("b")
    ledger.runs.finish(fence, RunStatus.QUEUED)
    assert ledger.runs.get(run.run_id).status is RunStatus.STOPPED
    ledger.backfills.resume("b")
    assert advance(ledger, work) == [days(0, 1)]


def test_a_run_whose_worker_died_is_gone_on_with_and_keeps_its_place(ledger: Ledger) -> None:
    work = make(ledger)
    advance(ledger, work)
    claimed = ledger.queue.claim(GONE, lambda _: None, backfill_id="b")
    assert claimed is not None
    assert advance(ledger, work) == []
    run, fence = claim(ledger, work)
    assert (run.run_id, run.attempt) == (claimed[0].run_id, 2)
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    assert ranges(ledger, work) == [(days(0, 1), LOADED)]


def test_while_a_run_by_hand_loads_a_part_the_backfill_does_the_others(ledger: Ledger) -> None:
    work = make(ledger)
    by_hand, fence = start_by_hand(ledger, days(0.5, 2))
    assert [run.run_id for run in ledger.backfills.state("b").others] == [by_hand.run_id]
    assert finish_all(ledger, work) == [days(2, 3), days(3, 4), days(4, 5)]
    assert status(ledger, work) is BackfillStatus.RUNNING
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    # Its first half day was not part of that.
    assert finish_all(ledger, work) == [days(0, 1)]
    assert ranges(ledger, work) == [(days(0, 1), LOADED), (days(1, 2), SKIPPED), (days(2, 5), LOADED)]


def test_a_run_by_hand_that_died_or_failed_is_gone_on_with(ledger: Ledger, clock: ManualClock) -> None:
    died, _ = start_by_hand(ledger, days(0, 1), GONE)
    work = make(ledger, 2)
    stopped = run_by_hand(ledger, days(1, 2), RunStatus.STOPPED)
    assert finish_all(ledger, work) == [days(0, 1), days(1, 2)]
    assert {run.run_id for run in ledger.runs.of_job("job")} == {died.run_id, stopped.run_id}
    assert {run.backfill_id for run in ledger.runs.of_job("job")} == {"b"}


def test_the_same_backfill_again_goes_on_with_the_first_one(ledger: Ledger) -> None:
    work = make(ledger)
    advance(ledger, work)
    end(ledger, work)
    ledger.backfills.pause("b")
    again = make(ledger, backfill_id="other", concurrency=2, on_failure="continue")
    assert again.backfill_id == "b"
    backfill = ledger.backfills.get("b")
    assert (backfill.status, backfill.concurrency) == (BackfillStatus.RUNNING, 2)
    assert finish_all(ledger, again) == [days(day, day + 1) for day in range(1, 5)]
    # One that is through is not gone on with; the next one finds nothing left to do.
    new = make(ledger, backfill_id="new")
    assert new.backfill_id == "new"
    assert advance(ledger, new) == []
    assert ranges(ledger, new) == [(days(0, 5), SKIPPED)]
    assert status(ledger, new) is BackfillStatus.COMPLETED


@pytest.mark.parametrize(
    "changes",
    [
        {"whole": days(4, 9)},
        {"split": "12 h"},
        {"reprocess": "all"},
        {"job_version": 2},
    ],
)
def test_another_backfill_of_a_part_of_the_range_is_refused_while_the_first_one_is_unfinished(
    ledger: Ledger, changes: dict[str, Any]
) -> None:
    make(ledger)
    with pytest.raises(ConflictError, match="backfill b of job has a part of this range"):
        make(ledger, backfill_id="other", **changes)
    make(ledger, backfill_id="of another stream", stream="other", **changes)
    ledger.backfills.cancel("b")
    other = make(ledger, backfill_id="other", **changes)
    assert other.backfill_id == "other"
    with pytest.raises(ConflictError, match="backfill other of job has a part of this range"):
        ledger.backfills.resume("b")


def test_a_failure_changes_nothing_about_what_was_loaded_before(ledger: Ledger) -> None:
    run_by_hand(ledger, days(0, 1))
    run_by_hand(ledger, days(0, 3), RunStatus.FAILED)
    done = ledger.backfills.done("job", "default", days(0, 3))
    assert [(each.interval, each.status) for each in done] == [(days(0, 1), LOADED), (days(1, 3), FAILED)]


def test_runs_that_wait_for_dependencies_are_not_claimed(ledger: Ledger) -> None:
    work = replace(make(ledger), waits=True)
    step = ledger.backfills.advance("b", work)
    assert ledger.queue.claim(ME, lambda _: None, backfill_id="b") is None
    assert ledger.backfills.advance("b", work).started == []
    ledger.queue.release(step.started[0])
    end(ledger, work)
    assert ranges(ledger, work) == [(days(0, 1), LOADED)]


def test_a_run_that_is_given_up_before_it_ended_is_replaced(ledger: Ledger) -> None:
    work = make(ledger, 1)
    (first,) = ledger.backfills.advance("b", work).started
    ledger.runs.settle(first, RunStatus.ABANDONED, error=None)
    assert finish_all(ledger, work) == [days(0, 1)]
    assert status(ledger, work) is BackfillStatus.COMPLETED


def test_one_that_failed_and_is_given_up_stays_failed(ledger: Ledger) -> None:
    work = make(ledger, 1)
    advance(ledger, work)
    failed = end(ledger, work, RunStatus.FAILED)
    ledger.runs.settle(failed.run_id, RunStatus.ABANDONED, error=None)
    assert ranges(ledger, work) == [(days(0, 1), FAILED)]


def test_a_backfill_that_is_not_there_is_told(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="there is no backfill 'x'"):
        ledger.backfills.get("x")


def test_what_waited_when_it_was_paused_waits_when_it_goes_on(ledger: Ledger) -> None:
    work = make(ledger, 2)
    work.waits = True
    (run_id,) = ledger.backfills.advance("b", work).started
    ledger.backfills.pause("b")
    ledger.backfills.resume("b")
    assert ledger.backfills.advance("b", work).started == [run_id]
    run = ledger.runs.get(run_id)
    assert (run.status, run.waiting) == (RunStatus.WAITING, [])
    assert ledger.queue.claimable() == 0
    ledger.queue.release(run_id)
    # What has begun never waits again.
    _, fence = claim(ledger, work)
    freeze(ledger, fence)
    ledger.runs.finish(fence, RunStatus.STOPPED)
    ledger.backfills.resume("b")
    assert ledger.backfills.advance("b", work).started == [run_id]
    assert ledger.runs.get(run_id).status is RunStatus.QUEUED


def freeze(ledger: Ledger, fence: Fence) -> None:
    ledger.runs.freeze(
        fence,
        started_at=ZERO,
        window=(None, ZERO),
        plan={"any": 1},
        digest="d",
        definition={},
        partitions_of_scan=[[0]],
        stage={},
    )


def test_a_run_that_lost_its_workers_gets_as_many_again_when_it_is_tried_again(ledger: Ledger) -> None:
    work = make(ledger, 1)

    def lose_all() -> int:
        advance(ledger, work)
        lost = 0
        while ledger.queue.claim(GONE, lambda _: None, backfill_id="b") is not None:
            lost += 1
        return lost

    assert lose_all() == MOST_LOST_WORKERS
    assert status(ledger, work) is BackfillStatus.FAILED
    (failed,) = ledger.backfills.latest_failures("b")
    assert failed.error and failed.error["code"] == "worker_lost"
    ledger.backfills.retry("b")
    assert lose_all() == MOST_LOST_WORKERS
    ledger.backfills.resume("b")
    advance(ledger, work)
    end(ledger, work)
    assert ranges(ledger, work) == [(days(0, 1), LOADED)]


@pytest.mark.parametrize("ended", [None, "cancelled"])
def test_success_by_hand_lets_one_that_failed_go_on_only_if_no_other_had_its_range(
    ledger: Ledger, clock: ManualClock, ended: str | None
) -> None:
    failed = make(ledger, 4)
    advance(ledger, failed)
    run = end(ledger, failed, RunStatus.FAILED)
    clock.advance(timedelta(seconds=1))
    other = make(ledger, backfill_id="c", whole=days(2, 4), split="2 d")
    if ended is not None:
        ledger.backfills.cancel("c")
    _, fence = ledger.runs.resume(run.run_id, ME)
    ledger.runs.finish(fence, RunStatus.SUCCESS)
    assert status(ledger, failed) is BackfillStatus.FAILED
    if ended is None:
        with pytest.raises(ConflictError, match="backfill c of job has a part of this range"):
            ledger.backfills.resume("b")
        assert finish_all(ledger, other) == [days(2, 4)]
    ledger.backfills.resume("b")
    assert finish_all(ledger, failed) == [days(1, 2), *([] if ended is None else [days(2, 3), days(3, 4)])]
