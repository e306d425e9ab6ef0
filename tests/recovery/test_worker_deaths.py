"""SIGKILL for workers and for their driver: every row arrives once, and no process stays behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dying_worker
from ecmbatch import Project
from ecmbatch.crash_points import CrashPoint
from ecmbatch.engine.executors import worker_process
from ecmbatch.errors import WorkerDied
from ecmbatch.project import RunResult
from harness import (
    command,
    customers,
    customers_job,
    expected,
    fill_warehouse,
    run_documents,
    start,
    stored,
    was_killed,
    write_job,
)
from worker_project import ROWS, Pulse, on_linux, processed_by, wait_until_gone, worker_project

IN_SCANS: list[CrashPoint] = [
    "scan.claimed",
    "scan.leftovers",
    "stage.opened",
    "stage.written",
    "stage.sealed",
    "checkpoint.before",
    "checkpoint.after",
    "scan.completed",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return worker_project(tmp_path)


@pytest.fixture
def pulse(folder: Path) -> Iterator[Pulse]:
    pulse = Pulse(folder)
    yield pulse
    pulse.close()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, ...]], None]:
    return lambda started_with: monkeypatch.setattr(worker_process, "COMMAND", started_with)


def run(folder: Path, job: str = "job.json") -> RunResult:
    with Project.load(folder) as project:
        return project.run(folder / job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "resume"),
    [
        # Every other point, with the ways to resume in turn.
        pytest.param(point, resume, marks=[] if 2 * turn == number % 4 else [pytest.mark.every_combination])
        for number, point in enumerate(IN_SCANS)
        for turn, resume in enumerate(("checkpoint", "partition"))
    ],
)
def test_a_scan_whose_worker_was_killed_goes_on_in_another(
    point: CrashPoint,
    resume: str,
    folder: Path,
    workers: Callable[[tuple[str, ...]], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    killed = folder / "killed"
    workers(dying_worker.command(point, occurrence=1 if point.startswith("scan.") else 2, once=killed))
    job = customers_job(mode="append", partitions=4, checkpoint={"every_rows": 50, "resume": resume})
    write_job(folder, job)
    result = run(folder)
    assert killed.exists()
    assert (result.error, result.view.run.attempt) == (None, 1)
    assert "was killed by SIGKILL" in caplog.text
    assert stored(folder) == expected(ROWS)
    assert result.rows["read"] == result.rows["staged"] == ROWS.num_rows


@pytest.mark.slow
def test_workers_that_are_killed_at_random_cost_no_row(folder: Path, pulse: Pulse) -> None:
    rows = customers(2_000)
    fill_warehouse(folder, rows)
    write_job(folder, processed_by("pulse", pulse.config(), mode="append", every_rows=20))

    def kill_now_and_then() -> None:
        for number, pid in enumerate(pulse):
            if number in (7, 30, 31, 52):
                os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill_now_and_then, daemon=True).start()
    result = run(folder)
    assert (result.error, result.view.run.attempt) == (None, 1)
    assert stored(folder) == expected(rows)


@pytest.mark.slow
def test_a_scan_that_kills_its_workers_fails_the_run_and_can_be_resumed(
    folder: Path, workers: Callable[[tuple[str, ...]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(worker_process, "COMMAND", dying_worker.command("stage.written"))
        failed = run(folder)
    assert isinstance(failed.error, WorkerDied)
    assert failed.error.message.startswith("3 workers died over scan ")
    assert "(partitions " in failed.error.message
    assert failed.error.message.endswith("was killed by SIGKILL")
    assert failed.error.hint is not None
    assert "memory" in failed.error.hint and f"ecmbatch resume {failed.run_id}" in failed.error.hint
    assert (failed.status, failed.exit_code, failed.error.error_class) == ("failed", 1, "infra")
    assert stored(folder) == []
    assert run(folder).run_id == failed.run_id
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_workers_may_die_often_as_long_as_the_scan_gets_further(
    folder: Path, workers: Callable[[tuple[str, ...]], None]
) -> None:
    # 400 rows are more checkpoints than workers may die without getting further.
    write_job(folder, customers_job(mode="append", every_rows=80))
    workers(dying_worker.command("checkpoint.after"))
    result = run(folder)
    assert (result.error, result.view.run.attempt) == (None, 1)
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_replaying_a_partition_from_its_start_is_no_progress(
    folder: Path, workers: Callable[[tuple[str, ...]], None]
) -> None:
    write_job(folder, customers_job(checkpoint={"every_rows": 50, "resume": "partition"}))
    workers(dying_worker.command("checkpoint.after", occurrence=2))
    assert isinstance(run(folder).error, WorkerDied)


@pytest.mark.slow
def test_a_worker_that_ends_by_itself_is_told_with_its_exit_status(folder: Path) -> None:
    write_job(folder, processed_by("leaves", {}))
    error = run(folder).error
    assert isinstance(error, WorkerDied)
    assert "ended with exit status 3" in error.message


@on_linux
@pytest.mark.slow
def test_when_the_driver_is_killed_its_workers_die_and_the_run_can_go_on(folder: Path, pulse: Pulse) -> None:
    rows = customers(1_000)
    fill_warehouse(folder, rows)
    write_job(folder, processed_by("pulse", pulse.config(), mode="append", every_rows=10))
    started = start(folder, "run", "job.json")
    beats = iter(pulse)
    at_work = {next(beats) for _ in range(20)}
    # One that cannot hear of it.
    os.kill(max(at_work), signal.SIGSTOP)
    started.process.kill()
    assert was_killed(started.wait())
    for worker in at_work:
        wait_until_gone(worker)

    again = command(folder, "run", "job.json", "--json")
    assert again.exit_code == 0, again.err
    assert again.document["attempt"] == 2
    assert stored(folder) == expected(rows)
    assert run_documents(folder)[0]["rows"]["read"] == rows.num_rows
