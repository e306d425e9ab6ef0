"""Processes of the command line, killed at random moments until they get through."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness import (
    customers,
    customers_job,
    expected,
    fill_warehouse,
    make_project,
    run_documents,
    start,
    stored,
    was_killed,
    write_job,
)

ROWS = customers(20_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.every_combination)])
@pytest.mark.parametrize("source", ["duckdb", "parquet"])
def test_a_run_killed_again_and_again_ends_as_if_nobody_had_killed_it(
    source: str, seed: int, tmp_path: Path
) -> None:
    folder = make_project(tmp_path)
    job = customers_job(mode="append", partitions=8, every_rows=500)
    if source == "duckdb":
        fill_warehouse(folder, ROWS)
    else:
        (folder / "in").mkdir()
        for part in range(4):
            rows = ROWS.slice(part * 5_000, 5_000)
            pq.write_table(rows, folder / "in" / f"{part}.parquet", row_group_size=700)
        job["source"] = {"connector": "landing", "path": "in/*.parquet"}
    write_job(folder, job)
    moments = random.Random(seed)

    kills = 0
    while not any(document["status"] == "success" for document in run_documents(folder)):
        running = start(folder, "run", "job.json", "--quiet")
        # After a few kills the process gets longer and longer to live, so that the loop comes to an end.
        running.process.join(moments.uniform(0, 0.8) + 0.3 * max(kills - 5, 0))
        running.process.kill()
        kills += 1
        finished = running.wait()
        assert was_killed(finished) or finished.exit_code == 0, finished.err

    assert stored(folder) == expected(ROWS)
    (document,) = run_documents(folder)
    assert (document["status"], document["rows"]["read"]) == ("success", ROWS.num_rows)
