"""SIGKILL at every instant between two durable effects, and again during the recovery.

The store must equal that of a run that nobody killed, row for row; each source row is read once.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch import Project
from ecmbatch.crash_points import CrashPoint
from ecmbatch.testing.crashes import CRASH_POINTS
from harness import (
    command,
    customers,
    customers_job,
    expected,
    fill_warehouse,
    make_project,
    run_documents,
    stored,
    was_killed,
    write_job,
)

FIRST = customers(200)
SECOND = pa.concat_tables([customers(250, start=100), customers(20, start=1000)])
NOT_PASSED = ("alert.delivered", "abandon.tombstone", "stage.reference", "run.references")
ALL_POINTS = [point for point in CRASH_POINTS if point not in NOT_PASSED and not point.startswith("gc.")]
RULES = {
    "rules": [
        {"type": "row_count", "min": 1},
        {"type": "null_check", "fields": ["context_id"], "threshold": 0},
    ]
}


def merged(mode: str) -> list[tuple[Any, ...]]:
    if mode == "replace":
        return expected(SECOND)
    if mode == "append":
        return sorted(expected(FIRST) + expected(SECOND), key=repr)
    changed = set(SECOND.column("id").to_pylist())
    kept = FIRST.filter(pa.array([key not in changed for key in FIRST.column("id").to_pylist()]))
    return sorted(expected(kept) + expected(SECOND), key=repr)


def combinations() -> list[Any]:
    """Return all; modes and partitions take turns. Each step of publishing, in each mode: `test_duckdb_kills`."""
    found = []
    for number, point in enumerate(ALL_POINTS):
        for turn, mode in enumerate(("append", "upsert", "replace")):
            for partitions in (1, 4):
                chosen = turn == number % 3 and partitions == (1, 4)[(number + turn) % 2]
                marks = [] if chosen else [pytest.mark.every_combination]
                found.append(pytest.param(point, mode, partitions, marks=marks))
    return found


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    return {}


def project_with_first_load(
    loaded: dict[tuple[str, int], Path], factory: pytest.TempPathFactory, mode: str, partitions: int
) -> Path:
    """A project whose first 200 rows are published, made once for each kind of job and then copied."""
    if (mode, partitions) not in loaded:
        folder = make_project(factory.mktemp("loaded"))
        fill_warehouse(folder, FIRST)
        write_job(folder, customers_job(mode=mode, partitions=partitions, validation=RULES))
        assert command(folder, "run", "job.json", "--json").exit_code == 0
        fill_warehouse(folder, SECOND)
        loaded[mode, partitions] = folder
    copy = factory.mktemp("project")
    return Path(shutil.copytree(loaded[mode, partitions], copy, dirs_exist_ok=True))


@pytest.mark.slow
@pytest.mark.parametrize(("point", "mode", "partitions"), combinations())
def test_a_run_killed_anywhere_ends_as_if_nobody_had_killed_it(
    point: CrashPoint,
    mode: str,
    partitions: int,
    loaded: dict[tuple[str, int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = project_with_first_load(loaded, tmp_path_factory, mode, partitions)

    first = command(
        folder, "run", "job.json", "--json", crash=point, occurrence=2 if is_repeated(point) else 1
    )
    assert was_killed(first), f"{point} was never passed: {first.err}"
    killed_during_recovery(folder, point)
    finish(folder)

    assert stored(folder) == merged(mode)
    latest, before = run_documents(folder)
    assert (latest["status"], before["status"]) == ("success", "success")
    assert latest["rows"]["read"] == latest["rows"]["staged"] == SECOND.num_rows
    assert not list((folder / ".ecmbatch" / "stage").rglob("*.parquet")) or point == "finish.after"


@pytest.mark.slow
@pytest.mark.parametrize("point", ["verdict.before", "verdict.recorded", "alert.delivered"])
def test_a_failing_verdict_survives_a_kill_and_is_told(point: CrashPoint, tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    fill_warehouse(folder, FIRST)
    write_job(folder, customers_job(validation={"rules": [{"type": "row_count", "min": 10_000}]}))
    assert was_killed(command(folder, "run", "job.json", crash=point))
    again = command(folder, "run", "job.json", "--json")
    assert (again.exit_code, again.document["status"]) == (3, "validation_failed")
    assert stored(folder) == []
    with Project.load(folder, environment={}) as project:
        alerts = project.alerts()
    assert len(alerts) == 1 and alerts[0].delivered_at is not None


@pytest.mark.slow
def test_a_killed_abandon_can_be_repeated(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    fill_warehouse(folder, FIRST)
    write_job(folder, customers_job(mode="append"))
    assert was_killed(command(folder, "run", "job.json", crash="publish.before"))
    run_id = run_documents(folder)[0]["run_id"]
    assert was_killed(command(folder, "abandon", run_id, crash="abandon.tombstone"))
    # Somebody who goes on with the run finds the tombstone before anything is published.
    assert command(folder, "resume", run_id).exit_code == 5
    assert run_documents(folder)[0]["status"] == "abandoned"
    assert command(folder, "run", "job.json").exit_code == 0
    assert stored(folder) == expected(FIRST)


def is_repeated(point: CrashPoint) -> bool:
    return point.startswith(("stage.", "checkpoint."))


def killed_during_recovery(folder: Path, point: CrashPoint) -> None:
    """Kill the recovery too, at the same place if it comes by there and at the next commit if not."""
    if run_documents(folder)[0]["status"] == "success":
        return
    again = command(folder, "run", "job.json", "--json", crash=point)
    assert was_killed(again) or again.exit_code == 0, again.err
    if run_documents(folder)[0]["status"] == "success":
        return
    command(folder, "run", "job.json", "--json", crash="publish.after_commit")


def finish(folder: Path) -> None:
    """Run once more, unless the run that was killed had already done everything."""
    if run_documents(folder)[0]["status"] == "success":
        return
    last = command(folder, "run", "job.json", "--json")
    assert last.exit_code == 0, last.err
    assert last.document["status"] == "success"
