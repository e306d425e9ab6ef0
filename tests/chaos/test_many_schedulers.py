"""Eight schedulers and four workers on one ledger, any of them killed at any time: each tick has one run."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ecmbatch.engine.resources import Resources
from ecmbatch.ledger.records import RunRecord
from ecmbatch.project_file import load_project_file
from ecmbatch.protocol.run import UNFINISHED, RunStatus
from postgres_project import make_postgres_project
from postgres_server import PostgresServer
from scheduling_process import FileClock, schedule_forever, work_forever

START = datetime(2026, 3, 2, tzinfo=UTC)
TICK = timedelta(minutes=1)
TICKS, TIMED = 50, ("timed-1", "timed-2", "timed-3", "timed-4")
TICKS_BEHIND = 5
LONGEST_WAIT_SECONDS = 300

_processes = multiprocessing.get_context("forkserver")


class Crew:
    """Processes of which one is killed and another takes its place."""

    def __init__(self, project: Path, clock: Path, random_: random.Random) -> None:
        self._arguments = (project, clock)
        self._random = random_
        self._crew = [(role, self._start(role)) for role in [schedule_forever] * 8 + [work_forever] * 4]
        self.kills = 0

    def kill_one(self) -> None:
        place = self._random.randrange(len(self._crew))
        role, process = self._crew[place]
        process.kill()
        process.join()
        self.kills += 1
        self._crew[place] = (role, self._start(role))

    def stop(self) -> None:
        for _, process in self._crew:
            process.kill()
            process.join()

    def _start(self, role: Any) -> Any:
        process = _processes.Process(target=role, args=self._arguments, daemon=True)
        process.start()
        return process


@contextmanager
def crew_of(project: Path, clock: Path, random_: random.Random) -> Iterator[Crew]:
    _processes.set_forkserver_preload(["scheduling_process", "ecmbatch.stores.postgres_store"])
    crew = Crew(project, clock, random_)
    try:
        yield crew
    finally:
        crew.stop()


def write_job(folder: Path, job_id: str, **sections: Any) -> None:
    job = {
        "job_id": job_id,
        "source": {"connector": "files", "path": "row.csv"},
        "sink": {"store": "context_store", "mode": "append"},
        **sections,
    }
    (folder / "jobs" / f"{job_id}.json").write_text(json.dumps(job))


def make_project(folder: Path, server: PostgresServer) -> Path:
    make_postgres_project(folder, server, of_postgres=("store", "ledger"))
    (folder / "jobs").mkdir()
    (folder / "data").mkdir()
    (folder / "data" / "row.csv").write_text("n\n1\n")
    every_tick = {"every": "1 minute", "catch_up": "all"}
    for job_id in TIMED:
        write_job(folder, job_id, schedule=every_tick)
    write_job(
        folder,
        "listener",
        schedule={"type": "event", "on": {"event": "landed"}, "overlap": "queue_all"},
    )
    write_job(
        folder,
        "follower",
        schedule={"type": "event", "on": {"job": "listener"}, "overlap": "queue_all"},
    )
    return folder / "ecmbatch.toml"


def wait_for_runs(resources: Resources, expected: int) -> None:
    """Wait until at least so many runs ended."""
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while expected > sum(run.status not in UNFINISHED for run in resources.ledger.runs.recent(limit=10_000)):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_every_tick_has_one_run_and_every_event_is_consumed_once(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    random_ = random.Random(20260302)
    project = make_project(tmp_path, postgres)
    clock = FileClock(tmp_path / "clock")
    clock.set(START)
    resources = Resources(load_project_file(project, {}), clock=clock)
    emitted = []
    with crew_of(project, tmp_path / "clock", random_) as crew:
        wait_until_known(resources, jobs=len(TIMED) + 2)
        for tick in range(1, TICKS + 1):
            clock.set(START + tick * TICK)
            if tick % 5 == 0:
                emitted.append(resources.ledger.events.emit("landed", key=str(tick))[0].sequence)
                resources.ledger.events.emit("landed", key=str(tick))
            time.sleep(random_.uniform(0, 0.5))
            crew.kill_one()
            # A run whose workers die eight times in a row is given up: on a slow machine too the crew gets on.
            wait_for_runs(resources, len(TIMED) * (tick - TICKS_BEHIND))
        wait_for_runs(resources, len(TIMED) * TICKS + 2 * len(emitted))
    check(resources, emitted)
    assert crew.kills == TICKS
    resources.close()


def wait_until_known(resources: Resources, *, jobs: int) -> None:
    """No tick may pass before every job is known: what fires begins with that."""
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while len(resources.ledger.jobs.all()) < jobs:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def check(resources: Resources, emitted: list[int]) -> None:
    runs = resources.ledger.runs.recent(limit=10_000)
    assert {run.status for run in runs} == {RunStatus.SUCCESS}
    by_job: dict[str, list[RunRecord]] = {}
    for run in reversed(runs):
        by_job.setdefault(run.job_id, []).append(run)
    for job_id in TIMED:
        assert [run.scheduled_for for run in by_job[job_id]] == [
            START + tick * TICK for tick in range(1, TICKS + 1)
        ]
    consumed = [event["sequence"] for run in by_job["listener"] for event in run.options["events"]]
    assert consumed == emitted
    followed = [event["run_id"] for run in by_job["follower"] for event in run.options["events"]]
    assert sorted(followed) == sorted(run.run_id for run in by_job["listener"])
    for job_id, of_job in by_job.items():
        table = resources.store("context_store").table(job_id.replace("-", "_"))
        assert table is not None and table.rows == len(of_job), job_id
