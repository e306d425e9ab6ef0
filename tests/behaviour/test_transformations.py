"""Transformations: jobs that read a store, also the table that they replace, each applied exactly once."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ecmbatch import JobDefinition, Plugins, Project
from ecmbatch.crash_points import CrashPoint, set_hook
from ecmbatch.errors import SourceChanged
from ecmbatch.stores.memory import MEMORY
from ecmbatch.testing.crashes import CRASH_POINTS
from harness import (
    Finished,
    command,
    customers,
    fill_warehouse,
    make_project,
    run_documents,
    start,
    stored,
    was_killed,
    write_job,
)

pytestmark = pytest.mark.slow

ROWS = customers(120)
NAMES = ROWS.column("id").to_pylist()
LOAD = {
    "job_id": "load",
    "source": {"connector": "warehouse", "table": "customers"},
    "sink": {"store": "context_store", "mode": "append", "table": "customers"},
}
DOUBLED = "SELECT id, name, amount * 2 AS amount FROM customers"


def amounts(factor: float = 1) -> list[tuple[Any, ...]]:
    return [(row["id"], row["name"], row["amount"] * factor) for row in ROWS.to_pylist()]


def transformation(
    *,
    mode: str = "replace",
    table: str = "customers",
    partitions: int = 1,
    query: str = DOUBLED,
    **sections: Any,
) -> dict[str, Any]:
    """Double the amounts of all customers."""
    job: dict[str, Any] = {
        "job_id": "double",
        "job_type": "transformation",
        "source": {"store": "context_store", "query": query, "order_by": "id"},
        "sink": {"store": "context_store", "mode": mode, "table": table},
        "checkpoint": {"every_rows": 10},
    }
    if mode == "upsert":
        job["sink"]["key"] = "id"
    if partitions > 1:
        job["partitioning"] = {"strategy": "hash", "key": "id", "partitions": partitions}
    return {**job, **sections}


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose store has the table ``customers``."""
    folder = make_project(tmp_path_factory.mktemp("loaded"))
    fill_warehouse(folder, ROWS)
    write_job(folder, LOAD, "load.json")
    assert command(folder, "run", "load.json").exit_code == 0
    return folder


@pytest.fixture
def folder(loaded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(loaded, tmp_path / "project"))


def run(folder: Path, job: dict[str, Any], *arguments: str, **options: Any) -> Finished:
    write_job(folder, job)
    return command(folder, "run", "job.json", "--json", *arguments, **options)


def load_again(folder: Path, *arguments: str) -> None:
    """Let another process publish to ``customers``, which adds its rows once more."""
    finished = start(folder, "run", "load.json", *arguments).wait()
    assert finished.exit_code == 0, finished.err


@contextmanager
def store(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(folder / "context.duckdb")) as connection:
        yield connection


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("mode", ["replace", "upsert", "append"])
def test_a_table_of_the_store_becomes_another_table(folder: Path, mode: str, partitions: int) -> None:
    finished = run(folder, transformation(mode=mode, table="doubled", partitions=partitions))
    assert finished.exit_code == 0, finished.err
    assert stored(folder, "doubled") == amounts(2)
    assert stored(folder) == amounts()


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_a_table_is_replaced_by_what_is_made_of_it_once_per_run(
    folder: Path, mode: str, partitions: int
) -> None:
    job = transformation(mode=mode, partitions=partitions)
    first = run(folder, job)
    assert first.exit_code == 0, first.err
    assert stored(folder) == amounts(2)
    second = run(folder, job)
    assert second.exit_code == 0 and second.document["run_id"] != first.document["run_id"]
    assert stored(folder) == amounts(4)


def test_a_whole_table_is_read_without_the_columns_that_the_store_added(folder: Path) -> None:
    job = transformation(table="copies")
    job["source"] = {"store": "context_store", "table": "customers"}
    finished = run(folder, job)
    assert finished.exit_code == 0, finished.err
    assert stored(folder, "copies") == amounts()


def test_a_query_that_reads_the_columns_of_the_store_is_told_how_to_leave_them_out(folder: Path) -> None:
    refused = run(folder, transformation(query="SELECT * FROM customers", table="copies"))
    assert refused.exit_code == 1
    assert "SELECT * EXCLUDE (_ecm_run_id)" in refused.document["error"]["hint"]


PASSED = [
    point
    for point in CRASH_POINTS
    if point not in ("alert.delivered", "abandon.tombstone", "stage.reference", "run.references")
    and not point.startswith("gc.")
]


def combinations() -> list[Any]:
    """Return all; modes and partitions take turns."""
    found = []
    for number, point in enumerate(PASSED):
        for turn, (mode, partitions) in enumerate(itertools.product(("replace", "upsert"), (1, 4))):
            marks = [] if turn == number % 4 else [pytest.mark.every_combination]
            found.append(pytest.param(point, mode, partitions, marks=marks))
    return found


@pytest.mark.parametrize(("point", "mode", "partitions"), combinations())
def test_a_transformation_of_its_own_table_is_applied_once_wherever_it_is_killed(
    folder: Path, point: CrashPoint, mode: str, partitions: int
) -> None:
    job = transformation(mode=mode, partitions=partitions)
    repeated = point.startswith(("stage.", "checkpoint."))
    assert was_killed(run(folder, job, crash=point, occurrence=2 if repeated else 1)), point
    for crash in (point, "publish.after_commit"):
        if latest(folder)["status"] != "success":
            again = run(folder, job, crash=crash)
            assert was_killed(again) or again.exit_code == 0, again.err
    if latest(folder)["status"] != "success":
        last = run(folder, job)
        assert last.exit_code == 0, last.err
    assert stored(folder) == amounts(2)
    assert [run["job_id"] for run in run_documents(folder)] == ["double", "load"]
    assert latest(folder)["rows"]["read"] == 120


@pytest.mark.parametrize("mode", ["replace", "upsert"])
@pytest.mark.parametrize("point", ["checkpoint.after", "publish.before_commit", "publish.after_commit"])
def test_a_transformation_that_is_killed_is_applied_once(folder: Path, point: CrashPoint, mode: str) -> None:
    job = transformation(mode=mode, partitions=4)
    assert was_killed(run(folder, job, crash=point))
    assert was_killed(run(folder, job, crash="finish.before"))
    assert run(folder, job).exit_code == 0
    assert stored(folder) == amounts(2)


def latest(folder: Path) -> Any:
    return run_documents(folder)[0]


def test_a_table_that_changed_between_two_attempts_is_not_read_on(folder: Path) -> None:
    job = transformation(table="doubled", partitions=4)
    assert was_killed(run(folder, job, crash="checkpoint.after"))
    load_again(folder)
    refused = run(folder, job)
    error = refused.document["error"]
    assert (refused.exit_code, error["code"]) == (6, "source_changed")
    assert "published to context_store.customers" in error["message"]
    assert error["hint"] == "start a new run with --fresh"
    assert stored(folder, "doubled") == []
    assert run(folder, job, "--fresh").exit_code == 0
    assert stored(folder, "doubled") == sorted([*amounts(2), *amounts(2)], key=repr)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_table_that_changes_just_before_it_is_read_is_noticed_after_it_was_read(
    folder: Path, attempt: int
) -> None:
    job = transformation(table="doubled", partitions=4)
    write_job(folder, job)
    if attempt == 2:
        assert was_killed(run(folder, job, crash="checkpoint.after"))
    points: list[CrashPoint] = []

    def load_meanwhile(point: CrashPoint) -> None:
        if point == "scan.claimed" and point not in points:
            load_again(folder)
        points.append(point)

    set_hook(load_meanwhile)
    try:
        with Project.load(folder, environment={}) as project:
            result = project.run(folder / "job.json")
    finally:
        set_hook(None)
    assert isinstance(result.error, SourceChanged) and stored(folder, "doubled") == []
    assert run(folder, job).document["error"]["code"] == "source_changed"


def test_other_tables_may_change_between_two_attempts(folder: Path) -> None:
    job = transformation(table="doubled", partitions=4)
    assert was_killed(run(folder, job, crash="checkpoint.after"))
    write_job(folder, {**LOAD, "sink": {**LOAD["sink"], "table": "others"}}, "others.json")
    assert command(folder, "run", "others.json").exit_code == 0
    assert run(folder, job).exit_code == 0
    assert stored(folder, "doubled") == amounts(2)


def test_rows_that_were_all_read_before_may_be_published_after_the_table_changed(folder: Path) -> None:
    job = transformation(table="doubled", partitions=4)
    assert was_killed(run(folder, job, crash="publish.before"))
    load_again(folder)
    assert run(folder, job).exit_code == 0
    assert stored(folder, "doubled") == amounts(2)


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_a_run_whose_own_table_moved_on_since_it_read_it_publishes_nothing(folder: Path, mode: str) -> None:
    job = transformation(mode=mode)
    assert was_killed(run(folder, job, crash="publish.before"))
    load_again(folder)
    both = stored(folder)
    refused = run(folder, job)
    assert (refused.exit_code, refused.document["error"]["code"]) == (6, "superseded")
    statuses = [(document["job_id"], document["status"]) for document in run_documents(folder)]
    assert statuses[:2] == [("load", "success"), ("double", "abandoned")]
    assert stored(folder) == both
    assert run(folder, transformation(mode="replace")).exit_code == 0
    assert sum(row[2] for row in stored(folder)) == 2 * sum(row[2] for row in both)


def test_a_table_that_no_run_was_published_to_is_watched_through_a_view(folder: Path) -> None:
    """Which tables a view reads is not known, so each of them counts, also those without a publication yet."""
    with store(folder) as connection:
        connection.execute("CREATE TABLE mine AS SELECT id, name, amount FROM customers")
        connection.execute("CREATE VIEW shown AS SELECT * FROM mine")
    job = transformation(query=DOUBLED.replace("customers", "shown"), table="mine")
    assert was_killed(run(folder, job, crash="publish.before"))
    write_job(folder, {**LOAD, "job_id": "more", "sink": {**LOAD["sink"], "table": "mine"}}, "more.json")
    assert command(folder, "run", "more.json").exit_code == 0
    both = stored_by_hand(folder, "mine")
    refused = run(folder, job)
    assert (refused.exit_code, refused.document["error"]["code"]) == (6, "superseded")
    assert stored_by_hand(folder, "mine") == both


def test_a_view_is_not_read_on_after_a_publication_to_any_table(folder: Path) -> None:
    with store(folder) as connection:
        connection.execute("CREATE VIEW shown AS SELECT * FROM customers")
    job = transformation(query=DOUBLED.replace("customers", "shown"), table="doubled", partitions=4)
    assert was_killed(run(folder, job, crash="checkpoint.after"))
    write_job(folder, {**LOAD, "sink": {**LOAD["sink"], "table": "others"}}, "others.json")
    assert command(folder, "run", "others.json").exit_code == 0
    assert run(folder, job).document["error"]["code"] == "source_changed"


def stored_by_hand(folder: Path, table: str) -> list[tuple[Any, ...]]:
    with store(folder) as connection:
        return sorted(connection.execute(f"SELECT id, name, amount FROM {table}").fetchall(), key=repr)


def test_a_store_that_is_looked_up_while_it_is_transformed_is_one_file(folder: Path) -> None:
    job = transformation(partitions=4)
    job["transform"] = {
        "processor": "lookup",
        "config": {
            "store": "context_store",
            "query": "SELECT id, amount AS before FROM customers WHERE amount > 90",
            "key": "id",
            "columns": "before",
        },
    }
    assert was_killed(run(folder, job, crash="checkpoint.after", occurrence=2))
    assert was_killed(run(folder, job, crash="publish.after_commit"))
    finished = run(folder, job)
    assert finished.exit_code == 0, finished.err
    assert [row[-1] for row in stored(folder)] == [row[2] if row[2] > 90 else None for row in amounts()]
    assert finished.document["processors"] == [{"processor": "lookup", "counts": {"missing": 61}}]


def test_the_plan_of_a_transformation_names_the_store_and_the_query(folder: Path) -> None:
    write_job(folder, transformation(partitions=4))
    document = command(folder, "plan", "job.json", "--json").document
    assert document["source"] == {
        "store": "context_store",
        "columns": {"id": "string", "name": "string", "amount": "double"},
    }
    assert DOUBLED in document["scans"][0]["statement"]
    assert [part["estimated_rows"] for part in document["partitions"]]
    text = command(folder, "plan", "job.json").out
    assert "reads       context_store: id string" in text
    assert stored(folder) == amounts()


def test_an_unknown_store_is_refused_in_its_place(folder: Path) -> None:
    job = transformation()
    job["source"]["store"] = "contxt_store"
    write_job(folder, job)
    refused = command(folder, "validate", "job.json", "--json")
    assert refused.exit_code == 2
    (problem,) = refused.document["problems"]
    assert problem["path"] == "/source/store" and "did you mean 'context_store'?" in str(problem)


def test_a_store_of_a_type_that_cannot_be_read_is_refused(folder: Path) -> None:
    with (folder / "ecmbatch.toml").open("a") as opened:
        opened.write('[stores.scratch]\ntype = "memory"\n')
    plugins = Plugins()
    plugins.stores.add(MEMORY)
    job = transformation()
    job["source"]["store"] = "scratch"
    with Project.load(folder, environment={}, plugins=plugins) as project:
        (problem,) = project.validate(JobDefinition.from_value(job)).problems
    assert problem.path == "/source/store"
    assert problem.message == "the store 'scratch' cannot be read by jobs: its type 'memory' has no reader"


def test_a_path_cannot_be_asked_of_a_duckdb_store(folder: Path) -> None:
    job = transformation()
    job["source"] = {"store": "context_store", "path": "customers.parquet"}
    write_job(folder, job)
    (problem,) = command(folder, "validate", "job.json", "--json").document["problems"]
    assert problem["path"] == "/source/path"


def test_a_store_without_a_file_or_without_the_table_is_told(folder: Path) -> None:
    refused = run(folder, transformation(query=DOUBLED.replace("customers", "customer")))
    assert refused.exit_code == 1 and "customer" in refused.document["error"]["message"]
    (folder / "context.duckdb").unlink()
    refused = run(folder, transformation())
    assert refused.exit_code == 1 and refused.document["error"]["code"] == "source"
    assert "there is no DuckDB file" in refused.document["error"]["message"]
    assert "first published" in refused.document["error"]["hint"]
    assert not (folder / "context.duckdb").exists()


def test_a_table_without_rows_replaces_nothing_by_accident(folder: Path) -> None:
    with store(folder) as connection:
        connection.execute("DELETE FROM customers")
    finished = run(folder, transformation())
    assert finished.exit_code == 0, finished.err
    refused = run(folder, transformation(query=f"{DOUBLED} WHERE false", table="customers"))
    assert refused.exit_code == 0 and stored(folder) == []


def test_a_transformation_of_the_rows_of_a_window_goes_on_where_the_last_one_ended(folder: Path) -> None:
    changed = (
        "SELECT id, amount * 2 AS amount, updated_at FROM customers "
        "WHERE updated_at >= :window_start AND updated_at < :window_end"
    )
    with store(folder) as connection:
        connection.execute(
            "ALTER TABLE customers ADD COLUMN updated_at TIMESTAMPTZ DEFAULT '2024-01-01 00:00Z'"
        )
    job = transformation(mode="upsert", query=changed, table="doubled")
    first = run(folder, job)
    assert first.exit_code == 0, first.err
    assert (first.document["rows"]["inserted"], first.document["window"]["start"]) == (120, None)
    second = run(folder, job)
    assert second.document["rows"]["read"] == 0
    assert second.document["window"]["start"] == first.document["window"]["end"]
    again = run(folder, job, "--full-refresh")
    assert again.exit_code == 0, again.err
    assert (again.document["rows"]["read"], again.document["rows"]["unchanged"]) == (120, 120)
    assert again.document["parameters"]["window_start"] == "1970-01-01T00:00:00Z"


def test_two_streams_of_one_transformation_do_not_undo_each_other(folder: Path) -> None:
    one_half = (
        "SELECT id, name, CASE WHEN id >= :first AND id < :end THEN amount * 2 ELSE amount END AS amount "
        "FROM customers"
    )
    job = transformation(query=one_half, parameters={"first": "${param.first}", "end": "${param.end}"})
    lower = ("--param", "first=c00000", "--param", "end=c00060")
    upper = ("--param", "first=c00060", "--param", "end=c00120")
    assert was_killed(run(folder, job, *lower, crash="publish.before"))
    assert run(folder, job, *upper).exit_code == 0
    assert run(folder, job, *lower).document["error"]["code"] == "superseded"
    assert run(folder, job, *lower).exit_code == 0
    assert stored(folder) == amounts(2)
