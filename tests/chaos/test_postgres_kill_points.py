"""SIGKILL at every instant between two durable effects where everything is in PostgreSQL.

Where a mode makes no difference, modes take turns; so do partitions and executors. ``--every-combination`` tries
all. Inside a scan it is a worker that dies where there are processes: that is another test.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ecmbatch.crash_points import CrashPoint
from ecmbatch.testing.crashes import CRASH_POINTS
from harness import command, customers, customers_job, expected, run_documents, was_killed, write_job
from postgres_project import fill_postgres, make_postgres_project, stored_in_postgres
from postgres_server import PostgresServer

FIRST = customers(200)
SECOND = pa.concat_tables([customers(250, start=100), customers(20, start=1000)])
NOT_PASSED = ("alert.delivered", "abandon.tombstone", "stage.reference", "run.references")
POINTS = [point for point in CRASH_POINTS if point not in NOT_PASSED and not point.startswith("gc.")]
IN_SCANS = [point for point in POINTS if point.startswith(("scan.", "stage.", "checkpoint."))]
MODES = ("append", "upsert", "replace")
WAYS = ((1, "threads"), (4, "processes"), (4, "threads"), (1, "processes"))


def combinations() -> list[Any]:
    """Return all, marked where they are left out unless all are asked for."""
    found = []
    for number, point in enumerate(POINTS):
        ways = [way for way in WAYS if way[1] == "threads" or point not in IN_SCANS]
        for turn, (mode, (partitions, executor)) in enumerate(itertools.product(MODES, ways)):
            chosen = turn // len(ways) == number % len(MODES)
            chosen = chosen and turn % len(ways) == (number + turn // len(ways)) % len(ways)
            marks = [] if chosen else [pytest.mark.every_combination]
            found.append(pytest.param(point, mode, partitions, executor, marks=marks))
    return found


def merged(mode: str) -> list[tuple[Any, ...]]:
    if mode == "replace":
        return expected(SECOND)
    if mode == "append":
        return sorted(expected(FIRST) + expected(SECOND), key=repr)
    changed = set(SECOND.column("id").to_pylist())
    kept = FIRST.filter(pa.array([key not in changed for key in FIRST.column("id").to_pylist()]))
    return sorted(expected(kept) + expected(SECOND), key=repr)


@pytest.mark.slow
@pytest.mark.parametrize(("point", "mode", "partitions", "executor"), combinations())
def test_a_run_killed_anywhere_ends_as_if_nobody_had_killed_it(
    point: CrashPoint, mode: str, partitions: int, executor: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    folder = tmp_path
    url = make_postgres_project(folder, postgres, executor=executor)
    fill_postgres(url, FIRST)
    write_job(folder, customers_job(mode=mode, partitions=partitions))
    first = command(folder, "run", "job.json", "--json")
    assert first.exit_code == 0, first.err
    fill_postgres(url, SECOND)

    repeated = point.startswith(("stage.", "checkpoint."))
    for attempt, occurrence in enumerate((2 if repeated else 1, 1), start=1):
        killed = command(folder, "run", "job.json", "--json", crash=point, occurrence=occurrence)
        # The recovery need not come by there again.
        assert was_killed(killed) or (killed.exit_code == 0 and attempt == 2), killed.err
        if run_documents(folder)[0]["status"] == "success":
            break
    else:
        last = command(folder, "run", "job.json", "--json")
        assert last.exit_code == 0, last.err

    assert stored_in_postgres(url) == merged(mode)
    latest, before = run_documents(folder)
    assert (latest["status"], before["status"]) == ("success", "success")
    assert latest["rows"]["read"] == latest["rows"]["staged"] == SECOND.num_rows
    shutil.rmtree(folder)
