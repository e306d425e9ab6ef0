"""A worker that sleeps past its lease is taken over from another host, and changes nothing when it wakes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ecmbatch.crash_points import CrashPoint
from harness import customers, customers_job, expected, run_documents, write_job
from host import start_on_host, take_over, wait_until_stopped
from postgres_project import fill_postgres, make_postgres_project, stored_in_postgres
from postgres_server import PostgresServer

ROWS = customers(400)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "executor"),
    [
        # With processes, scans are not run by the process that sleeps.
        ("scan.claimed", "threads"),
        ("checkpoint.before", "threads"),
        ("publish.before", "threads"),
        ("publish.before", "processes"),
        # The successor waits until the server ends the session of the sleeper.
        ("publish.apply", "threads"),
        pytest.param("publish.apply", "processes", marks=pytest.mark.every_combination),
        ("publish.after_commit", "threads"),
        pytest.param("publish.after_commit", "processes", marks=pytest.mark.every_combination),
    ],
)
def test_a_sleeping_worker_is_taken_over_and_fenced(
    point: CrashPoint, executor: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    url = make_postgres_project(tmp_path, postgres, executor=executor)
    fill_postgres(url, ROWS)
    write_job(tmp_path, customers_job(mode="append", partitions=4))

    sleeper = start_on_host("first", tmp_path, "run", "job.json", "--json", stop_at=point)
    wait_until_stopped(sleeper)
    successor = take_over("second", tmp_path, "run", "job.json", "--json")
    assert successor.returncode == 0, successor.stderr
    assert stored_in_postgres(url) == expected(ROWS)
    before = run_documents(tmp_path)

    os.kill(sleeper.pid, signal.SIGCONT)
    out, err = sleeper.communicate()
    assert sleeper.returncode == 6, err
    assert json.loads(out)["error"]["code"] == "fenced"
    assert stored_in_postgres(url) == expected(ROWS)
    assert run_documents(tmp_path) == before and len(before) == 1
    assert before[0]["attempt"] >= 2 and before[0]["rows"]["read"] == ROWS.num_rows
