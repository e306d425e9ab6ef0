"""Events start jobs: each is consumed once by each job, however many schedulers look and however often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ecmbatch.protocol.run import RunStatus
from simulation import Simulation, Work

MINUTE = timedelta(minutes=1)


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 2, hour, minute, tzinfo=UTC)


def on(*legs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schedule": {"type": "event", "on": list(legs), **more}}


LANDED = {"event": "files.landed"}
APPROVED = {"event": "approved"}


def sequences(simulation: Simulation, job_id: str = "job") -> list[list[int]]:
    """The events that each run of a job has consumed."""
    return [[event["sequence"] for event in run.options["events"]] for run in simulation.runs(job_id)]


@pytest.mark.parametrize("schedulers", [1, 3])
def test_every_event_starts_one_run(tmp_path: Path, schedulers: int) -> None:
    jobs = {"job": on(LANDED, match="any", overlap="queue_all"), "other": on(LANDED, match="any")}
    simulation = Simulation(tmp_path, at(9), jobs, schedulers=schedulers)
    emitted = []
    for minute in (1, 2, 2, 30):
        simulation.run_until(at(9, minute))
        emitted.append(simulation.ledger.events.emit("files.landed")[0].sequence)
        simulation.tick()
    simulation.run_until(at(10))
    assert sequences(simulation) == [[each] for each in emitted]
    assert [each for run in sequences(simulation, "other") for each in run] == emitted


def test_how_often_a_scheduler_looks_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "fast").mkdir(), (tmp_path / "slow").mkdir()
    job = {"job": on(LANDED, APPROVED, overlap="queue_all")}
    fast, slow = (Simulation(tmp_path / name, at(9), job) for name in ("fast", "slow"))
    for name in ("files.landed", "files.landed", "approved", "approved", "files.landed", "approved"):
        for simulation in (fast, slow):
            simulation.ledger.events.emit(name)
        fast.tick()
    slow.tick()
    for simulation in (fast, slow):
        simulation.run_until(at(10))
    assert sequences(fast) == sequences(slow) == [[1, 2, 3], [4, 5]]


def test_an_event_with_an_id_counts_once(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(9), {"job": on(LANDED)})
    first, again = (simulation.ledger.events.emit("files.landed", key="2026-03-02") for _ in range(2))
    simulation.tick()
    simulation.run_until(at(10))
    assert (first[1], again[1]) == (True, False) and first[0] == again[0]
    assert sequences(simulation) == [[1]]


def test_events_from_before_a_job_was_known_are_not_its_business(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(9), {})
    simulation.ledger.events.emit("files.landed")
    simulation.write("job", on(LANDED))
    simulation.tick()
    simulation.ledger.events.emit("files.landed")
    simulation.tick()
    assert sequences(simulation) == [[2]]


def test_a_paused_job_keeps_its_events(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(9), {"job": on(LANDED)})
    simulation.ledger.jobs.pause("job", None)
    simulation.ledger.events.emit("files.landed")
    simulation.run_until(at(10))
    assert sequences(simulation) == []
    simulation.ledger.jobs.resume("job")
    simulation.tick()
    assert sequences(simulation) == [[1]]


def test_another_leg_begins_with_what_happens_from_then_on(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, at(9), {"job": on(LANDED, {"event": "other"})})
    simulation.ledger.events.emit("files.landed")
    simulation.ledger.events.emit("approved")
    simulation.write("job", on(LANDED, APPROVED))
    simulation.tick()
    assert sequences(simulation) == []
    simulation.ledger.events.emit("approved")
    simulation.tick()
    assert sequences(simulation) == [[1, 3]]


def test_events_that_pause_are_one(tmp_path: Path) -> None:
    debounce = {"quiet": "5 minutes", "max_wait": "30 minutes"}
    simulation = Simulation(tmp_path, at(9), {"job": on(LANDED, debounce=debounce)})
    for minute in (1, 3, 6, 20):
        simulation.sleep_until(at(9, minute))
        simulation.ledger.events.emit("files.landed")
    for minute in range(21, 40):
        simulation.run_until(at(9, minute))
    assert sequences(simulation) == [[1, 2, 3], [4]]


def test_the_end_of_a_run_is_an_event_and_that_of_a_backfill_is_not(tmp_path: Path) -> None:
    jobs = {"up": {"schedule": {"type": "manual"}}, "down": on({"job": "up", "status": "success"})}
    simulation = Simulation(tmp_path, at(9), jobs)
    simulation.run_by_hand("up", window=(at(1), at(2)))
    simulation.tick()
    assert simulation.runs("down") == []
    upstream = simulation.run_by_hand("up")
    simulation.tick()
    (run,) = simulation.runs("down")
    assert run.options["events"][0]["run_id"] == upstream.run_id


def test_a_job_may_wait_for_a_failure(tmp_path: Path) -> None:
    jobs = {
        "up": {"schedule": "0 10 * * *"},
        "clean-up": on({"job": "up", "status": "failed"}),
        "report": on({"job": "up", "status": "finished"}),
        "next": on({"job": "up"}),
    }
    simulation = Simulation(
        tmp_path,
        at(9),
        jobs,
        work=lambda job, _: Work(ends=RunStatus.FAILED if job == "up" else RunStatus.SUCCESS),
    )
    simulation.run_until(at(11))
    assert [len(simulation.runs(job)) for job in ("clean-up", "report", "next")] == [1, 1, 0]


def test_events_join_the_run_that_waits_for_its_turn(tmp_path: Path) -> None:
    simulation = Simulation(
        tmp_path, at(9), {"job": on(LANDED)}, work=lambda *_: Work(takes=timedelta(minutes=10))
    )
    for minute in range(1, 6):
        simulation.run_until(at(9, minute))
        simulation.ledger.events.emit("files.landed")
        simulation.tick()
    simulation.run_until(at(10))
    assert sequences(simulation) == [[1], [2, 3, 4, 5]]
