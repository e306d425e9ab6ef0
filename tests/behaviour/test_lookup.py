"""Looking rows up in another table, through the command line: read once per run, counted once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecmbatch.crash_points import CrashPoint
from harness import (
    Finished,
    command,
    customers,
    customers_job,
    fill_warehouse,
    make_project,
    run_documents,
    stored,
    was_killed,
    write_job,
)

ROWS = customers(120)
NAMES = ROWS.column("id").to_pylist()


def tiers(word: str, *, every: int = 3) -> pa.Table:
    """A table that has every third customer, with *word* for a tier."""
    return pa.table({"customer": NAMES[::every], "tier": [word] * len(NAMES[::every])})


def lookup(**config: Any) -> dict[str, Any]:
    return {
        "processor": "lookup",
        "config": {
            "connector": "warehouse",
            "table": "tiers",
            "key": {"id": "customer"},
            "columns": ["tier"],
            **config,
        },
    }


def lookup_job(*, partitions: int = 4, **config: Any) -> dict[str, Any]:
    job = customers_job(mode="append", partitions=partitions, every_rows=10, transform=lookup(**config))
    job["source"]["query"] = "SELECT id, amount FROM customers"
    return job


def expected(word: str, *, every: int = 3, rows: int = 120) -> list[tuple[Any, ...]]:
    known = set(NAMES[::every])
    return [
        (row["id"], row["amount"], word if row["id"] in known else None) for row in ROWS.to_pylist()[:rows]
    ]


def missing(document: Any) -> int:
    ((found),) = [step for step in document["processors"] if step["processor"] == "lookup"]
    return int(found["counts"]["missing"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_project(tmp_path)
    fill_warehouse(tmp_path, ROWS)
    fill_warehouse(tmp_path, tiers("old"), "tiers")
    return tmp_path


def run(folder: Path, job: dict[str, Any], **options: Any) -> Finished:
    write_job(folder, job)
    return command(folder, "run", "job.json", "--json", **options)


def test_a_table_of_a_connector_is_looked_up_and_missing_keys_are_reported(folder: Path) -> None:
    finished = run(folder, lookup_job())
    assert finished.exit_code == 0, finished.err
    assert finished.document["processors"] == [{"processor": "lookup", "counts": {"missing": 80}}]
    assert (finished.document["rows"]["filtered"], finished.document["rows"]["staged"]) == (0, 120)
    assert stored(folder) == expected("old")
    text = command(folder, "run", "job.json")
    assert "lookup      80 missing" in text.out.replace("\x1b", "")
    assert not list((folder / ".ecmbatch").rglob("*.arrow")), "what was looked up goes with the stage"


def test_dropped_rows_are_filtered_and_each_step_has_its_counts(folder: Path) -> None:
    regions = pa.table({"customer": NAMES[::2], "region": ["eu"] * 60})
    pq.write_table(regions, folder / "regions.parquet")
    job = lookup_job()
    job["transform"] = [
        lookup(missing="drop"),
        {"processor": "filter", "config": {"where": {"field": "amount", "op": ">=", "value": 45}}},
        lookup(connector="landing", table=None, path="regions.parquet", columns={"region": "region"}),
    ]
    del job["transform"][2]["config"]["table"]
    finished = run(folder, job)
    assert finished.exit_code == 0, finished.err
    kept = [row for row in expected("old") if row[2] and row[1] >= 45]
    evens = set(NAMES[::2])
    assert stored(folder) == [(*row, "eu" if row[0] in evens else None) for row in kept]
    assert finished.document["rows"]["filtered"] == 120 - len(kept)
    assert finished.document["processors"] == [
        {"processor": "lookup", "counts": {"missing": 80}},
        {"processor": "filter", "counts": {}},
        {"processor": "lookup", "counts": {"missing": sum(row[0] not in evens for row in kept)}},
    ]


def test_a_table_of_the_store_is_looked_up_also_where_the_job_publishes_to_that_file(folder: Path) -> None:
    job = {
        "job_id": "tiers",
        "source": {"connector": "warehouse", "table": "tiers"},
        "sink": {"store": "context_store", "mode": "replace"},
    }
    assert run(folder, job).exit_code == 0
    of_store = lookup_job(store="context_store", key={"id": "customer"})
    del of_store["transform"]["config"]["connector"]
    finished = run(folder, of_store)
    assert finished.exit_code == 0, finished.err
    assert stored(folder) == expected("old") and missing(finished.document) == 80


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [pytest.param(1, marks=pytest.mark.every_combination), 4])
@pytest.mark.parametrize(
    ("point", "occurrence", "word"),
    [
        # Nobody has used what was read: it is read again, as a whole.
        ("run.frozen", 1, "new"),
        ("stage.reference", 1, "new"),
        # From here on the run knows it.
        ("run.references", 1, "old"),
        ("scan.claimed", 1, "old"),
        ("checkpoint.after", 3, "old"),
        ("scan.completed", 1, "old"),
        ("publish.before_commit", 1, "old"),
    ],
)
def test_a_run_uses_one_table_whatever_happens_to_it_and_counts_each_row_once(
    folder: Path, point: CrashPoint, occurrence: int, word: str, partitions: int
) -> None:
    job = lookup_job(partitions=partitions)
    assert was_killed(run(folder, job, crash=point, occurrence=occurrence))
    fill_warehouse(folder, tiers("new", every=3 if word == "old" else 4), "tiers")
    again = run(folder, job, crash="checkpoint.after")
    assert was_killed(again) or again.exit_code == 0, again.err
    last = run(folder, job) if was_killed(again) else again
    assert last.exit_code == 0, last.err
    every = 3 if word == "old" else 4
    assert stored(folder) == expected(word, every=every)
    assert missing(last.document) == 120 - len(NAMES[::every])
    assert len(run_documents(folder)) == 1


@pytest.mark.slow
def test_a_scan_that_is_replayed_from_its_start_counts_missing_keys_once(folder: Path) -> None:
    job = lookup_job()
    job["checkpoint"]["resume"] = "partition"
    assert was_killed(run(folder, job, crash="checkpoint.after", occurrence=4))
    finished = run(folder, job)
    assert (missing(finished.document), finished.document["rows"]["read"]) == (80, 120)
    assert stored(folder) == expected("old")


def staged_reference(folder: Path) -> Path:
    (found,) = (folder / ".ecmbatch" / "stage").rglob("*.arrow")
    return found


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"old", b"odd", 1))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lose, cut, flip])
def test_a_staged_table_that_is_lost_or_damaged_is_named_and_nothing_is_published(
    folder: Path, damage: Any
) -> None:
    job = lookup_job()
    assert was_killed(run(folder, job, crash="checkpoint.after", occurrence=2))
    damage(staged_reference(folder))
    refused = run(folder, job)
    error = refused.document["error"]
    assert (refused.exit_code, error["code"]) == (1, "integrity")
    assert ".arrow, in which a processor looks things up, " in error["message"]
    assert "--fresh" in error["hint"] and stored(folder) == []
    write_job(folder, job)
    assert command(folder, "run", "job.json", "--fresh").exit_code == 0
    assert stored(folder) == expected("old")


def test_a_run_whose_rows_are_all_staged_needs_the_table_no_more(folder: Path) -> None:
    job = lookup_job()
    assert was_killed(run(folder, job, crash="publish.before"))
    staged_reference(folder).unlink()
    assert run(folder, job).exit_code == 0
    assert stored(folder) == expected("old")


@pytest.mark.slow
def test_a_table_with_a_key_twice_can_be_corrected_and_the_run_goes_on(folder: Path) -> None:
    fill_warehouse(folder, pa.concat_tables([tiers("old"), tiers("older")]), "tiers")
    refused = run(folder, lookup_job())
    assert refused.document["error"]["code"] == "transform"
    assert "40 rows whose key (customer) another row has too" in refused.document["error"]["message"]
    fill_warehouse(folder, tiers("old"), "tiers")
    again = run(folder, lookup_job())
    assert again.exit_code == 0 and again.document["run_id"] == refused.document["run_id"]
    assert stored(folder) == expected("old")


@pytest.mark.slow
def test_a_changed_lookup_that_an_operator_accepts_reads_the_table_it_names(folder: Path) -> None:
    fill_warehouse(folder, tiers("other", every=1), "others")
    assert was_killed(run(folder, lookup_job(), crash="checkpoint.after", occurrence=2))
    run_id = run_documents(folder)[0]["run_id"]
    write_job(folder, lookup_job(table="others"))
    accept = ("resume", run_id, "--accept-definition-change")
    assert was_killed(command(folder, *accept, crash="run.references"))
    fill_warehouse(folder, tiers("too late", every=1), "others")
    finished = command(folder, "resume", run_id, "--json")
    assert finished.exit_code == 0, finished.err
    assert Counter(row[2] for row in stored(folder)).keys() <= {"old", "other", None}
    assert {row[0] for row in stored(folder)} == set(NAMES)
    assert "other" in {row[2] for row in stored(folder)}


@pytest.mark.slow
def test_a_table_whose_columns_changed_since_the_run_was_planned_is_refused(folder: Path) -> None:
    assert was_killed(run(folder, lookup_job(), crash="run.frozen"))
    numbers = pa.table({"customer": NAMES, "tier": range(120)})
    fill_warehouse(folder, numbers, "tiers")
    refused = run(folder, lookup_job())
    assert (refused.exit_code, refused.document["error"]["code"]) == (6, "source_changed")
    assert "--fresh" in refused.document["error"]["hint"] and stored(folder) == []


@pytest.mark.slow
def test_a_worker_that_was_overtaken_does_not_exchange_the_table(folder: Path) -> None:
    """Two attempts read the table at different times: only the one that the ledger names counts."""
    assert was_killed(run(folder, lookup_job(), crash="stage.reference"))
    overtaken = staged_reference(folder)
    fill_warehouse(folder, tiers("new"), "tiers")
    assert was_killed(run(folder, lookup_job(), crash="checkpoint.after"))
    (winner,) = set((folder / ".ecmbatch" / "stage").rglob("*.arrow")) - {overtaken}
    assert winner.name != overtaken.name
    assert run(folder, lookup_job()).exit_code == 0
    assert stored(folder) == expected("new")


@pytest.mark.parametrize(
    ("config", "place", "message"),
    [
        ({"connector": "warehous"}, "/transform/config/connector", "no connector named 'warehous'"),
        ({"connector": None, "store": "lake"}, "/transform/config/store", "no store named 'lake'"),
        ({"table": None, "path": "tiers.csv"}, "/transform/config/path", "reads query or table, not a path"),
        ({"connector": "landing"}, "/transform/config/table", "reads path, not a table"),
        ({"key": {}}, "/transform/config/key", "at least"),
    ],
)
def test_validate_names_what_the_project_cannot_look_up(
    folder: Path, config: dict[str, Any], place: str, message: str
) -> None:
    job = lookup_job(**config)
    job["transform"]["config"] = {
        name: value for name, value in job["transform"]["config"].items() if value is not None
    }
    write_job(folder, job)
    refused = command(folder, "validate", "job.json", "--json")
    (problem,) = refused.document["problems"]
    assert refused.exit_code == 2 and problem["path"] == place and message in problem["message"]


def test_a_source_that_is_only_known_when_the_run_starts_is_checked_then(folder: Path) -> None:
    write_job(folder, lookup_job(connector="landing", table="${param.table}"))
    refused = command(folder, "run", "job.json", "--param", "table=tiers", "--json")
    assert refused.exit_code == 2, refused.out
    assert "connector 'landing' reads path, not a table" in str(refused.document["error"])


def test_a_table_that_does_not_exist_is_named_before_a_row_is_read(folder: Path) -> None:
    refused = run(folder, lookup_job(table="tires"))
    assert refused.exit_code == 1 and "tires" in refused.document["error"]["message"]
    assert refused.document["rows"]["read"] == 0


def test_the_plan_shows_the_columns_that_are_looked_up_and_reads_no_row(folder: Path) -> None:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute("CREATE VIEW bad AS SELECT customer, error('read')::VARCHAR AS tier FROM tiers")
    write_job(folder, lookup_job(table="bad"))
    planned = command(folder, "plan", "job.json", "--json")
    assert planned.exit_code == 0, planned.err
    assert planned.document["sink"]["columns"] == {"id": "string", "amount": "double", "tier": "string"}
