"""Jobs that depend on others, over days: late, failed, retried and backfilled upstreams, time-outs, releases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ecmbatch.engine.history import History
from ecmbatch.engine.job_files import read_job
from ecmbatch.engine.scheduling.gates import unmet_dependencies
from ecmbatch.engine.scheduling.known_jobs import KnownJobs
from ecmbatch.engine.scheduling.scheduler import Scheduler
from ecmbatch.engine.scheduling.waiting import tell_lateness
from ecmbatch.ledger import tables
from ecmbatch.ledger.database import Database
from ecmbatch.ledger.owner import Owner
from ecmbatch.protocol.run import RunStatus
from simulation import Simulation, Work

DAILY = "0 2 * * *"
SUCCESS = RunStatus.SUCCESS


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def after(*jobs: str, **sections: Any) -> dict[str, Any]:
    """A daily job that needs the success of *jobs*."""
    return {
        "schedule": DAILY,
        "dependencies": [{"job": job, "status": "success"} for job in jobs],
        **sections,
    }


def ended(simulation: Simulation, job_id: str) -> dict[datetime, tuple[str, datetime | None]]:
    """How the runs of a job ended, and when they began, by what they were scheduled for."""
    return {run.scheduled_for: (str(run.status), run.started_at) for run in simulation.runs(job_id)}


def test_of_jobs_on_the_same_tick_the_downstream_waits_for_the_upstream(tmp_path: Path) -> None:
    # Alphabetically the downstream is looked at first.
    simulation = Simulation(
        tmp_path,
        at(2),
        {"a-down": after("b-up"), "b-up": {"schedule": DAILY}},
        work=lambda *_: Work(takes=timedelta(minutes=40)),
        schedulers=2,
    )
    simulation.run_until(at(4, 12))
    assert ended(simulation, "a-down") == {at(day, 2): ("success", at(day, 2, 40)) for day in (2, 3, 4)}


def test_a_chain_and_a_diamond_run_in_order(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path,
        at(2),
        {
            "top": {"schedule": DAILY},
            "left": after("top"),
            "right": after("top"),
            "bottom": after("left", "right"),
        },
        work=lambda job, _tick: Work(takes=timedelta(minutes={"right": 30}.get(job, 10))),
    )
    simulation.run_until(at(3))
    started = {run.job_id: run.started_at for run in simulation.runs()}
    assert started == {"top": at(2, 2), "left": at(2, 2, 10), "right": at(2, 2, 10), "bottom": at(2, 2, 40)}


def test_a_failed_upstream_blocks_until_its_run_is_retried(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path,
        at(2),
        {"up": {"schedule": DAILY}, "down": after("up")},
        work=lambda job, _tick: Work(ends=RunStatus.FAILED if job == "up" else SUCCESS),
    )
    simulation.run_until(at(2, 9))
    (waiting,) = simulation.runs("down")
    (failed,) = simulation.runs("up")
    assert waiting.status is RunStatus.WAITING
    assert waiting.waiting and "failed" in waiting.waiting[0] and failed.run_id in waiting.waiting[0]
    _, fence = simulation.ledger.runs.resume(failed.run_id, Owner.this_process())
    simulation.ledger.runs.finish(fence, SUCCESS)
    simulation.tick()
    simulation.run_until(at(2, 10))
    assert ended(simulation, "down") == {at(2, 2): ("success", at(2, 9))}


def test_who_waits_too_long_is_skipped_with_an_alert_and_the_next_tick_has_a_run_of_its_own(
    tmp_path: Path,
) -> None:
    failing = at(2, 2)
    simulation = Simulation(
        tmp_path,
        at(2),
        {"up": {"schedule": DAILY}, "down": after("up", alerts=[])},
        work=lambda job, tick: Work(ends=RunStatus.FAILED if (job, tick) == ("up", failing) else SUCCESS),
    )
    simulation.run_until(at(4))
    assert [str(run.status) for run in simulation.runs("down")] == ["skipped", "success"]
    skipped, following = simulation.runs("down")
    assert skipped.error and skipped.error["code"] == "dependency_not_met"
    assert (skipped.finished_at, following.scheduled_for) == (at(3, 2), at(3, 2))
    assert [alert.run_id for alert in simulation.ledger.alerts.all() if alert.outcome == "skipped"] == [
        skipped.run_id
    ]


def test_the_job_says_how_long_to_wait(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path,
        at(2),
        {"up": {"schedule": "0 5 * * *"}, "down": after("up", dependency_timeout="90 minutes")},
    )
    simulation.run_until(at(2, 4))
    (run,) = simulation.runs("down")
    assert (run.status, run.finished_at) == (RunStatus.SKIPPED, at(2, 3, 30))


def test_a_window_asks_what_data_cover_and_not_when_they_were_loaded(tmp_path: Path) -> None:
    needs_today = {"schedule": DAILY, "dependencies": [{"job": "up", "window": "24 hours"}]}
    simulation = Simulation(tmp_path, at(2), {"up": {"schedule": {"type": "manual"}}, "down": needs_today})
    simulation.run_until(at(2, 3))
    (waiting,) = simulation.runs("down")
    assert waiting.waiting and "it has never run" in waiting.waiting[0]
    simulation.run_by_hand("up", window=(at(1), at(1, 1)))
    simulation.tick()
    (waiting,) = simulation.runs("down")
    assert waiting.status is RunStatus.WAITING
    simulation.run_by_hand("up")
    simulation.tick()
    simulation.run_until(at(2, 4))
    assert ended(simulation, "down") == {at(2, 2): ("success", at(2, 3))}


def test_without_a_schedule_dependencies_start_the_job(tmp_path: Path) -> None:
    jobs = {
        "up": {"schedule": DAILY},
        "other": {"schedule": "0 4 * * *"},
        "down": {
            "dependencies": [{"job": "up", "status": "success"}, {"job": "other", "window": "24 hours"}]
        },
    }
    simulation = Simulation(tmp_path, at(2), jobs, schedulers=2)
    simulation.run_until(at(4, 12))
    assert [run.started_at for run in simulation.runs("down")] == [at(day, 4, 1) for day in (2, 3, 4)]
    assert {run.trigger for run in simulation.runs("down")} == {"dependency"}


def test_any_of_several_upstreams_is_enough(tmp_path: Path) -> None:
    rule = {"any": [{"job": "up", "status": "success"}, {"job": "other", "status": "success"}]}
    simulation = Simulation(
        tmp_path,
        at(2),
        {
            "up": {"schedule": DAILY},
            "other": {"schedule": DAILY},
            "down": {"schedule": DAILY, "dependencies": [rule]},
        },
        work=lambda job, _tick: Work(ends=RunStatus.FAILED if job == "up" else SUCCESS),
    )
    simulation.run_until(at(2, 12))
    assert ended(simulation, "down") == {at(2, 2): ("success", at(2, 2, 1))}


def test_a_tick_joins_the_run_that_waits(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path,
        at(2),
        {
            "up": {"schedule": {"type": "manual"}},
            "down": {
                "schedule": "0 * * * *",
                "dependencies": [{"job": "up", "window": "24 hours"}],
                "dependency_timeout": "1 day",
            },
        },
    )
    simulation.run_until(at(2, 5, 30))
    (waiting,) = simulation.runs("down")
    assert waiting.options["ticks"] == {"first": "2026-03-02T01:00:00Z", "last": "2026-03-02T05:00:00Z"}


def test_late_runs_are_told_once_and_cost_no_writes_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_minute = {"every": "1 minute", "catch_up": "all"}
    simulation = Simulation(
        tmp_path, at(2), {"job": {"schedule": every_minute}}, work=lambda *_: Work(takes=timedelta(days=9))
    )
    simulation.run_until(at(2, 0, 10))
    simulation.clock.now = at(2, 0, 9) + timedelta(minutes=15)
    simulation.tick()
    late = [alert for alert in simulation.ledger.alerts.all() if alert.key.startswith("late ")]
    assert len(late) == 8
    monkeypatch.setattr(Database, "write", None)
    tell_lateness(simulation.ledger, KnownJobs(simulation.ledger), lambda _what, do: do())


def test_a_job_that_cannot_be_read_does_not_keep_the_lateness_of_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simulation = Simulation(
        tmp_path,
        at(2),
        {"a-broken": after("up"), "b": after("up"), "up": {"schedule": {"type": "manual"}}},
    )
    simulation.run_until(at(2, 2))
    with simulation.ledger._database.write() as connection:
        versions = tables.job_versions
        connection.execute(
            update(versions).where(versions.c.job_id == "a-broken").values(document={"job_id": "a-broken"})
        )
    simulation._schedulers = [Scheduler(simulation.resources)]
    for minute in range(14, 20):
        simulation.clock.now = at(2, 2, minute)
        simulation.tick()
    assert [alert.job_id for alert in simulation.ledger.alerts.all() if alert.outcome == "late"] == ["b"]
    told = [record for record in caplog.messages if record.startswith("job a-broken, version 1: ")]
    assert len(told) == 1


@pytest.mark.parametrize("released", [True, False])
def test_a_run_that_nobody_goes_on_with_is_told_once_with_where_its_rows_are(
    tmp_path: Path, released: bool
) -> None:
    simulation = Simulation(tmp_path, at(2), {"job": {"schedule": DAILY}})
    simulation.clock.now = at(2, 2)
    simulation._pass()
    owner = Owner.this_process() if released else replace(Owner.this_process(), pid=2**22 - 1, started="1")
    claimed = simulation.ledger.queue.claim(owner, lambda _: None)
    assert claimed is not None
    run, fence = claimed
    simulation._freeze(run, fence)
    simulation.ledger.runs.amend_stage(fence, {"id": "s", "host": "elsewhere", "path": "/stage"})
    if released:
        simulation.ledger.runs.finish(fence, RunStatus.QUEUED)
    for minute in range(0, 60, 2):
        simulation.clock.now = at(2, 2, minute)
        simulation._pass()
        assert not released or minute >= 15 or not simulation.ledger.alerts.all()
    (alert,) = simulation.ledger.alerts.all()
    assert (alert.outcome, alert.run_id) == ("late", run.run_id)
    assert alert.message.endswith(": its rows are staged in /stage on elsewhere")
    if released:
        why = History(simulation.ledger).why(run.run_id)
        assert any("Its rows are staged in /stage on elsewhere" in each for each in why)
        assert not any("next free worker" in each for each in why)


def test_the_past_of_a_job_whose_runs_are_forgotten_is_named(tmp_path: Path) -> None:
    down = {"dependencies": [{"job": "up", "window": "1 day"}], "schedule": {"type": "manual"}}
    simulation = Simulation(tmp_path, at(2), {"up": {"schedule": DAILY}, "down": down})
    simulation.run_until(at(6))
    job = read_job("down", simulation.root, simulation.root).job
    assert unmet_dependencies(job, at=at(3), backfill=True, ledger=simulation.ledger) == []
    for details in simulation.ledger.retention.runs_before(at(6)):
        simulation.ledger.retention.forget_run(details.run_id)
    (reason,) = unmet_dependencies(job, at=at(3), backfill=True, ledger=simulation.ledger)
    assert "blocked: it is loaded up to 2026-03-02 02:00, but no successful run as of then" in reason
    (reason,) = unmet_dependencies(job, at=at(2), backfill=True, ledger=simulation.ledger)
    assert "no successful run covers that" in reason
    simulation.run_by_hand("up", window=(at(1), at(2)))
    for details in simulation.ledger.retention.runs_before(at(7)):
        simulation.ledger.retention.forget_run(details.run_id)
    (reason,) = unmet_dependencies(job, at=at(2), backfill=True, ledger=simulation.ledger)
    assert "it is loaded up to 2026-03-02 00:00" in reason
