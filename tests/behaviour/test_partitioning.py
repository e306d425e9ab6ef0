"""Jobs in ranges and groups through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ecmbatch import Project
from harness import (
    Finished,
    command,
    fill_warehouse,
    make_project,
    run_documents,
    stored,
    was_killed,
    write_job,
)

HALF_YEARS = {"strategy": "range", "key": "day", "bounds": ["2013-01-01", "2013-07-01"]}
REGIONS = {"strategy": "list", "key": "region", "values": {"emea": ["DE", "FR"], "amer": ["US"]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_project(tmp_path)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
        warehouse.execute(
            """CREATE TABLE visits AS SELECT range AS id,
            CASE WHEN range % 20 <> 0 THEN DATE '2012-12-01' + (range % 400)::INTEGER END AS day,
            CASE WHEN range % 10 <> 0 THEN ['DE', 'FR', 'US'][1 + range % 3] END AS region,
            CASE WHEN range < 300 THEN 7 ELSE range END AS shop
            FROM range(500)"""
        )
    return tmp_path


def visits_job(partitioning: dict[str, Any], **source: Any) -> dict[str, Any]:
    return {
        "job_id": "visits",
        "source": {"connector": "warehouse", "table": "visits", **source},
        "sink": {"store": "context_store", "mode": "append", "table": "visits"},
        "partitioning": partitioning,
        "checkpoint": {"every_rows": 20},
    }


def run(folder: Path, partitioning: dict[str, Any], *options: str, **source: Any) -> Finished:
    write_job(folder, visits_job(partitioning, **source))
    return command(folder, "run", "job.json", "--json", *options)


def plan(folder: Path, partitioning: dict[str, Any], **source: Any) -> Any:
    write_job(folder, visits_job(partitioning, **source))
    planned = command(folder, "plan", "job.json", "--json")
    assert planned.exit_code == 0, planned.err
    return planned.document


def source_rows(folder: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as warehouse:
        return sorted(warehouse.execute("SELECT * FROM visits").fetchall(), key=repr)


def offsets(folder: Path) -> list[int]:
    """How many rows each partition of the latest run has read."""
    run_id = run_documents(folder)[0]["run_id"]
    entries = command(folder, "checkpoints", run_id, "--json").document
    return [entry["checkpoint"]["offset"] for entry in entries]


@pytest.mark.parametrize(
    "partitioning",
    [
        {**HALF_YEARS, "ordered": True},
        {**REGIONS, "default": "emea"},
        *(
            pytest.param(partitioning, marks=pytest.mark.slow)
            for partitioning in (
                {"strategy": "range", "key": "day", "partitions": 5},
                HALF_YEARS,
                {"strategy": "range", "key": "id", "partitions": 4, "ordered": True},
                {"strategy": "range", "key": "region", "bounds": ["A", "F", "FR", "Z"]},
                {"strategy": "range", "key": "shop", "partitions": 4},
                REGIONS,
                {"strategy": "list", "key": "region", "values": [["DE"]], "default": "others"},
                {"strategy": "list", "key": "shop", "values": {"seven": [7]}, "default": "others"},
            )
        ),
    ],
    ids=str,
)
def test_every_row_is_loaded_once(folder: Path, partitioning: dict[str, Any]) -> None:
    ran = run(folder, partitioning)
    assert ran.exit_code == 0, ran.err
    assert stored(folder, "visits") == source_rows(folder)
    planned = plan(folder, partitioning)["partitions"]
    # The sample is all of so small a table.
    assert [each["estimated_rows"] for each in planned] == offsets(folder)
    assert ran.document["rows"]["read"] == 500


def test_ranges_are_shown_with_their_bounds_rows_and_statements(folder: Path) -> None:
    document = plan(folder, HALF_YEARS)
    assert document["partitioning"] == {
        "strategy": "range",
        "key": "day",
        "bounds": [15706, 15887],
        "shown": ["2013-01-01", "2013-07-01"],
        "ordered": False,
    }
    assert [(each["rows"], each["resume"]) for each in document["partitions"]] == [
        ("< 2013-01-01, NULL", "cursor"),
        (">= 2013-01-01, < 2013-07-01", "cursor"),
        (">= 2013-07-01", "cursor"),
    ]
    assert "CAST('2013-01-01' AS DATE)" in document["scans"][1]["statement"]
    shown = command(folder, "plan", "job.json").out
    assert ">= 2013-01-01, < 2013-07-01" in shown
    assert "all 3 queries with --json" in shown


def test_lists_are_shown_by_their_names(folder: Path) -> None:
    document = plan(folder, {**REGIONS, "default": "elsewhere"})
    assert [(each["rows"], each["resume"]) for each in document["partitions"]] == [
        ("emea", "cursor"),
        ("amer", "none"),
        ("elsewhere", "cursor"),
    ]
    shown = command(folder, "plan", "job.json").out
    assert "set source.order_by to resume in the middle" in shown


def test_too_few_values_for_the_ranges_are_told(folder: Path) -> None:
    document = plan(folder, {"strategy": "range", "key": "region", "partitions": 16})
    # NULL, DE, FR and US.
    assert len(document["partitions"]) == 4
    assert document["notes"] == ["column 'region' has too few different values for 16 ranges; the run has 4"]


def test_most_rows_with_one_key_leave_the_other_ranges_even(folder: Path) -> None:
    run(folder, {"strategy": "range", "key": "shop", "partitions": 4})
    assert sorted(offsets(folder)) == [66, 67, 67, 300]


@pytest.mark.slow
def test_empty_ranges_and_groups_are_completed_with_nothing(folder: Path) -> None:
    assert run(folder, {"strategy": "range", "key": "id", "bounds": [-10, -5, 500, 600]}).exit_code == 0
    assert offsets(folder) == [0, 0, 500, 0, 0]
    assert (
        run(folder, {**REGIONS, "values": {"none": ["XX"], "emea": ["DE", "FR"], "amer": ["US"]}}).exit_code
        == 0
    )
    assert offsets(folder)[0] == 0


def test_an_empty_source_has_one_range(folder: Path) -> None:
    fill_warehouse(folder, pa.table({"day": pa.array([], pa.date32())}), "visits")
    assert run(folder, {"strategy": "range", "key": "day", "partitions": 8}).exit_code == 0
    assert offsets(folder) == [0]


@pytest.mark.slow
def test_a_value_that_no_list_names_fails_the_run_and_publishes_nothing(folder: Path) -> None:
    values = {"emea": ["DE", "FR"]}
    failed = run(folder, {**REGIONS, "values": values})
    assert failed.exit_code == 1
    error = failed.document["error"]
    assert "'region' has values that no list partition names" in error["message"]
    assert 'add "default"' in error["hint"]
    assert "US" not in f"{error}{failed.err}"
    assert stored(folder, "visits") == []

    # The partitions of a run are fixed when it starts: with others, it is another run.
    run_id = failed.document["run_id"]
    write_job(folder, visits_job({**REGIONS, "values": values, "default": "others"}))
    resumed = command(folder, "resume", run_id)
    assert resumed.exit_code == 6
    assert "partitioning" in resumed.err and "--fresh" in resumed.err
    assert command(folder, "run", "job.json", "--fresh").exit_code == 0
    assert stored(folder, "visits") == source_rows(folder)


def test_bounds_that_do_not_fit_the_key_are_refused_by_their_place(folder: Path) -> None:
    refused = run(folder, {**HALF_YEARS, "bounds": ["2013-07-01", "in spring", "2013-01-01"]})
    assert refused.exit_code == 2
    assert "/partitioning/bounds/1: must be a text such as 2013-01-31" in refused.out
    refused = run(folder, {**HALF_YEARS, "bounds": ["2013-07-01", "2013-01-01"]})
    assert "/partitioning/bounds/1: must be greater than the bound before it" in refused.out
    refused = run(folder, {**REGIONS, "key": "id"})
    assert "/partitioning/values/emea/0: must be a whole number" in refused.out
    assert stored(folder, "visits") == []


@pytest.mark.slow
def test_ranges_in_order_are_completed_one_after_the_other(folder: Path) -> None:
    """Killed at any checkpoint: what is complete is the beginning, and is not read again."""
    partitioning = {"strategy": "range", "key": "day", "partitions": 5, "ordered": True}
    write_job(folder, visits_job(partitioning))
    for occurrence in (3, 9, 8):
        killed = command(
            folder, "run", "job.json", "--workers", "4", crash="checkpoint.after", occurrence=occurrence
        )
        assert was_killed(killed)
        run_id = run_documents(folder)[0]["run_id"]
        latest = command(folder, "checkpoints", run_id, "--json").document
        statuses = [entry["checkpoint"]["status"] for entry in latest]
        complete = statuses.count("completed")
        assert statuses[:complete] == ["completed"] * complete
        assert statuses[complete + 1 :] == ["pending"] * len(statuses[complete + 1 :])
    finished = command(folder, "run", "job.json", "--json")
    assert finished.document["partitions"]["skipped_completed"] == complete > 0
    assert finished.document["attempt"] == 4
    assert finished.document["rows"]["read"] == 500
    assert stored(folder, "visits") == source_rows(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "partitioning",
    [{"strategy": "range", "key": "id", "partitions": 4}, {**REGIONS, "default": "amer"}],
    ids=str,
)
def test_a_killed_run_keeps_the_partitions_it_began_with(folder: Path, partitioning: dict[str, Any]) -> None:
    write_job(folder, visits_job(partitioning))
    assert was_killed(command(folder, "run", "job.json", crash="checkpoint.after", occurrence=4))
    before = plan(folder, partitioning)
    assert before["continues"] == run_documents(folder)[0]["run_id"]
    with duckdb.connect(str(folder / "warehouse.duckdb")) as warehouse:
        # Rows that would move the bounds and are behind every cursor: they belong to the last range.
        warehouse.execute("INSERT INTO visits SELECT 1000 + range, NULL, 'US', 7 FROM range(200)")
    assert plan(folder, partitioning)["partitioning"] == before["partitioning"]
    finished = command(folder, "run", "job.json", "--json")
    assert (finished.exit_code, finished.document["attempt"]) == (0, 2), finished.err


def test_python_callers_see_the_labels_too(folder: Path) -> None:
    write_job(folder, visits_job({**REGIONS, "default": "elsewhere"}))
    with Project.load(folder, environment={}) as project:
        document = project.plan(folder / "job.json").document()
    assert [each["rows"] for each in document["partitions"]] == ["emea", "amer", "elsewhere"]
