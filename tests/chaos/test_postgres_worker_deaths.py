"""SIGKILL for a worker process where everything is in PostgreSQL: its scan goes on in another one."""

from __future__ import annotations

from pathlib import Path

import pytest

import dying_worker
from ecmbatch import Project
from ecmbatch.crash_points import CrashPoint
from ecmbatch.engine.executors import worker_process
from harness import customers, customers_job, expected, write_job
from postgres_project import fill_postgres, make_postgres_project, stored_in_postgres
from postgres_server import PostgresServer

ROWS = customers(300)
RANGES = {"strategy": "range", "key": "id", "partitions": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "occurrence"),
    [
        ("scan.claimed", 1),
        pytest.param("stage.written", 2, marks=pytest.mark.every_combination),
        ("stage.sealed", 2),
        ("checkpoint.after", 2),
        pytest.param("scan.completed", 1, marks=pytest.mark.every_combination),
    ],
)
def test_its_scan_goes_on_in_another_one(
    point: CrashPoint,
    occurrence: int,
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = make_postgres_project(tmp_path, postgres, executor="processes")
    fill_postgres(url, ROWS)
    write_job(tmp_path, customers_job(mode="append", every_rows=30, partitioning=RANGES))
    killed = tmp_path / "killed"
    dying = dying_worker.command(point, occurrence=occurrence, once=killed)
    monkeypatch.setattr(worker_process, "COMMAND", dying)
    with Project.load(tmp_path) as project:
        result = project.run(tmp_path / "job.json")
    assert killed.exists()
    assert (result.error, result.view.run.attempt) == (None, 1)
    assert stored_in_postgres(url) == expected(ROWS)
    assert result.rows["read"] == ROWS.num_rows
