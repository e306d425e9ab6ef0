from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from ecmbatch.ledger.alerts import NewAlert
from ecmbatch.ledger.ledger import Ledger
from ecmbatch.ledger.owner import Owner
from ecmbatch.ledger.place import LedgerPlace
from ecmbatch.ledger.queue import Firing
from ecmbatch.ledger.records import NewRun
from ecmbatch.protocol.run import RunStatus
from ecmbatch.testing.clock import ManualClock

START = ManualClock().now
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def ledger(place: LedgerPlace, clock: ManualClock) -> Iterator[Ledger]:
    with closing(Ledger(place, clock=clock)) as opened:
        yield opened


def new_run(run_id: str, job_id: str) -> NewRun:
    return NewRun(
        run_id=run_id,
        job_id=job_id,
        run_key=run_id,
        stream="default",
        lane="default",
        live=True,
        trigger="schedule",
        digest="d",
        definition={},
        job_file=None,
        options={"params": {}, "window": None, "full_refresh": False},
        scheduled_for=START,
        job_version=1,
    )


def fire(ledger: Ledger, job_id: str, *runs: tuple[str, RunStatus]) -> None:
    if ledger.jobs.find(job_id) is None:
        ledger.jobs.register(job_id, {}, "d", None, legs=[])
    new = [(new_run(run_id, job_id), status) for run_id, status in runs]
    ledger.queue.fire(job_id, lambda moment: Firing(new=new))


def succeed(ledger: Ledger, clock: ManualClock) -> None:
    """Let the next run load everything up to now and succeed a minute later."""
    claimed = ledger.queue.claim(Owner.this_process(), lambda run: None)
    assert claimed is not None
    ledger.runs.freeze(
        claimed[1],
        started_at=clock.now,
        window=(None, clock.now),
        plan={},
        digest="d",
        definition={},
        partitions_of_scan=[[0]],
        stage={},
    )
    clock.advance(MINUTE)
    ledger.runs.finish(claimed[1], RunStatus.SUCCESS)


def test_an_empty_ledger_has_no_figures(ledger: Ledger) -> None:
    found = ledger.statistics.now("default")
    assert (found.at, found.undelivered_alerts) == (START, 0)
    assert not any((found.unfinished, found.ended, found.window_ends, found.last_success, found.late))


def test_figures_are_counted_by_job_and_status(ledger: Ledger, clock: ManualClock) -> None:
    fire(ledger, "a", ("a1", RunStatus.QUEUED))
    succeed(ledger, clock)
    fire(ledger, "a", ("a2", RunStatus.QUEUED))
    succeed(ledger, clock)
    fire(ledger, "b", ("b1", RunStatus.WAITING))
    clock.advance(MINUTE)
    fire(ledger, "b", ("b2", RunStatus.WAITING), ("b3", RunStatus.QUEUED))
    clock.advance(MINUTE)
    found = ledger.statistics.now("default")
    assert found.ended == {("a", "success"): 2}
    assert found.unfinished == {("b", "waiting"): 2, ("b", "queued"): 1}
    assert found.waiting_since == {"b": START + 2 * MINUTE}
    assert found.queued_since == {"b": START + 3 * MINUTE}
    assert found.last_success == {"a": START + 2 * MINUTE}
    assert found.window_ends == {"a": START + MINUTE}
    assert found.at == START + 4 * MINUTE


def test_a_job_without_a_file_and_other_streams_have_no_watermark_to_look_at(
    ledger: Ledger, clock: ManualClock
) -> None:
    fire(ledger, "a", ("a1", RunStatus.QUEUED))
    succeed(ledger, clock)
    assert ledger.statistics.now("other").window_ends == {}
    ledger.jobs.deactivate("a")
    assert ledger.statistics.now("default").window_ends == {}


def test_a_run_is_late_from_its_alert_until_it_begins(ledger: Ledger, clock: ManualClock) -> None:
    fire(ledger, "a", ("a1", RunStatus.QUEUED))
    late = NewAlert(key="late a1", outcome="late", recipients=[], message="late")
    ledger.alerts.put("a", late, run_id="a1")
    ledger.alerts.put("a", replace(late, key="run", outcome="failed"), run_id="a1")
    found = ledger.statistics.now("default")
    assert (found.late, found.undelivered_alerts) == ({"a": 1}, 2)
    succeed(ledger, clock)
    assert ledger.statistics.now("default").late == {}
