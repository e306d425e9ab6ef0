"""Running jobs through the command line: what users see, and what the store holds afterwards."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from ecmbatch.stage.stage import Stage
from harness import (
    command,
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

ROWS = customers(120)
TOO_FEW = {"rules": [{"type": "row_count", "min": 1000}], "on_failure": "abort_and_alert"}
ENOUGH = {"rules": [{"type": "row_count", "min": 100}], "on_failure": "abort_and_alert"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_project(tmp_path)
    fill_warehouse(tmp_path, ROWS)
    return tmp_path


def test_a_run_prints_the_promised_document(folder: Path) -> None:
    write_job(folder, customers_job(partitions=4, validation=ENOUGH))
    ran = command(folder, "run", "job.json", "--json")
    document = ran.document
    assert ran.exit_code == 0
    assert document["format"] == "ecmbatch.run/1"
    assert (document["status"], document["attempt"], document["trigger"]) == ("success", 1, "manual")
    assert document["partitions"] == {"total": 4, "completed": 4, "skipped_completed": 0, "resumed": 0}
    assert document["rows"]["read"] == document["rows"]["inserted"] == 120
    assert document["validation"]["rules"][0]["evaluated_rows"] == 120
    assert document["publication"]["table"] == "customers"
    assert document["error"] is None and document["as_of"] == document["window"]["end"]
    assert stored(folder) == expected(ROWS)
    shown = command(folder, "show", document["run_id"], "--json")
    assert shown.document == document


def test_checkpoints_are_the_protocols_objects(folder: Path) -> None:
    write_job(folder, customers_job(partitions=4, every_rows=10))
    run_id = command(folder, "run", "job.json", "--json").document["run_id"]
    latest = command(folder, "checkpoints", run_id, "--json").document
    assert [entry["checkpoint"]["partition"] for entry in latest] == [0, 1, 2, 3]
    for entry in latest:
        assert entry.keys() == {"checkpoint", "x-ecmbatch"}
        assert entry["checkpoint"].keys() == {
            "job_id",
            "run_id",
            "partition",
            "offset",
            "timestamp",
            "status",
        }
        assert entry["checkpoint"]["status"] == "completed"
    assert sum(entry["checkpoint"]["offset"] for entry in latest) == 120
    every = command(folder, "checkpoints", run_id, "--all", "--json").document
    assert len(every) > len(latest)


def test_a_failed_validation_leaves_the_store_as_it_was_to_the_byte(folder: Path) -> None:
    write_job(folder, customers_job(mode="append", validation=ENOUGH))
    assert command(folder, "run", "job.json", "--json").exit_code == 0
    before = (folder / "context.duckdb").read_bytes()
    write_job(folder, customers_job(mode="append", validation=TOO_FEW))
    failed = command(folder, "run", "job.json", "--json")
    assert failed.exit_code == 3
    assert failed.document["status"] == "validation_failed"
    assert failed.document["validation"]["rules"][0]["outcome"] == "fail"
    assert (folder / "context.duckdb").read_bytes() == before
    assert "alert" in failed.err and "row_count" in failed.err


def test_the_corrected_rule_publishes_through_resume_without_reading_the_source(folder: Path) -> None:
    write_job(folder, customers_job(partitions=4, validation=TOO_FEW))
    failed = command(folder, "run", "job.json", "--json")
    (folder / "warehouse.duckdb").unlink()
    write_job(folder, customers_job(partitions=4, validation=ENOUGH))
    resumed = command(folder, "resume", failed.document["run_id"], "--json")
    assert (resumed.exit_code, resumed.document["status"]) == (0, "success"), resumed.err
    assert resumed.document["partitions"]["skipped_completed"] == 4
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_a_rule_added_after_the_failure_is_counted_from_the_stage(folder: Path) -> None:
    write_job(folder, customers_job(partitions=4, validation=TOO_FEW))
    failed = command(folder, "run", "job.json", "--json")
    (folder / "warehouse.duckdb").unlink()
    nulls = {"type": "null_check", "fields": ["data.name"], "threshold": 0}
    write_job(folder, customers_job(partitions=4, validation={"rules": [nulls]}))
    again = command(folder, "resume", failed.document["run_id"], "--json")
    assert again.exit_code == 3
    null_names = ROWS.column("name").null_count
    assert again.document["validation"]["rules"][0]["observed"]["nulls"] == {"data.name": null_names}
    write_job(folder, customers_job(partitions=4, validation={"rules": [{**nulls, "threshold": null_names}]}))
    assert command(folder, "resume", failed.document["run_id"], "--json").exit_code == 0
    assert stored(folder) == expected(ROWS)


def test_a_new_rule_on_source_rows_cannot_be_judged_after_the_fact(folder: Path) -> None:
    write_job(folder, customers_job(validation=TOO_FEW))
    failed = command(folder, "run", "job.json", "--json")
    rule = {"type": "null_check", "fields": ["name"], "stage": "source"}
    write_job(folder, customers_job(validation={"rules": [rule]}))
    again = command(folder, "resume", failed.document["run_id"])
    assert again.exit_code == 2 and "--fresh" in again.err


def test_warnings_publish_and_are_told(folder: Path) -> None:
    warn = {"rules": TOO_FEW["rules"], "on_failure": "warn"}
    write_job(folder, customers_job(validation=warn))
    ran = command(folder, "run", "job.json", "--json")
    assert (ran.exit_code, ran.document["validation"]["outcome"]) == (0, "warn")
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_a_failed_run_is_not_continued_by_run_but_by_resume_after_validation(folder: Path) -> None:
    write_job(folder, customers_job(mode="append", validation=TOO_FEW))
    first = command(folder, "run", "job.json", "--json").document["run_id"]
    write_job(folder, customers_job(mode="append", validation=ENOUGH))
    second = command(folder, "run", "job.json", "--json").document
    assert second["run_id"] != first and second["status"] == "success"
    late = command(folder, "resume", first, "--json")
    assert late.exit_code == 6 and "error" in late.document
    assert stored(folder) == expected(ROWS)


@pytest.mark.parametrize("mode", ["append", pytest.param("replace", marks=pytest.mark.slow)])
def test_a_failed_run_cannot_be_resumed_after_a_newer_one_succeeded(folder: Path, mode: str) -> None:
    write_job(folder, customers_job(mode=mode, validation=TOO_FEW))
    first = command(folder, "run", "job.json", "--json").document["run_id"]
    fill_warehouse(folder, customers(150))
    write_job(folder, customers_job(mode=mode, validation=ENOUGH))
    assert command(folder, "run", "job.json").exit_code == 0
    assert command(folder, "resume", first).exit_code == 6
    assert stored(folder) == expected(customers(150))


@pytest.mark.slow
def test_streams_have_watermarks_of_their_own(folder: Path) -> None:
    query = "SELECT * FROM customers WHERE id >= :from AND :last_sync < :window_end"
    write_job(
        folder,
        customers_job(
            source={"connector": "warehouse", "query": query},
            parameters={"from": "${param.from}", "last_sync": "${previous_job.end_time}"},
        ),
    )
    europe = command(folder, "run", "job.json", "--param", "from=c00100", "--json").document
    assert europe["parameters"]["last_sync"] == "1970-01-01T00:00:00Z"
    assert europe["rows"]["read"] == 20
    america = command(folder, "run", "job.json", "--param", "from=c00110", "--json").document
    assert america["parameters"]["last_sync"] == "1970-01-01T00:00:00Z"
    again = command(folder, "run", "job.json", "--param", "from=c00100", "--json").document
    assert again["parameters"]["last_sync"] == europe["window"]["end"]


def test_a_changed_definition_starts_anew_and_says_why(folder: Path) -> None:
    write_job(folder, customers_job(partitions=4))
    killed = command(folder, "run", "job.json", crash="publish.before")
    assert was_killed(killed)
    first = run_documents(folder)[0]["run_id"]
    write_job(folder, customers_job(partitions=2))
    refused = command(folder, "resume", first)
    assert refused.exit_code == 6 and "partitions" in refused.err
    ran = command(folder, "run", "job.json", "--json")
    assert ran.exit_code == 0 and "4 → 2" in ran.err
    assert [document["status"] for document in run_documents(folder)] == ["success", "abandoned"]
    assert command(folder, "resume", first).exit_code == 6
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_an_accepted_change_goes_on_with_the_new_transform(folder: Path) -> None:
    write_job(folder, customers_job(partitions=4))
    command(folder, "run", "job.json", crash="scan.claimed")
    run_id = run_documents(folder)[0]["run_id"]
    fields = {"context_id": "id", "data.name": {"lower": "name"}, "amount": "amount"}
    job = customers_job(partitions=4, transform={"processor": "field_mapper", "config": {"fields": fields}})
    write_job(folder, job)
    resumed = command(folder, "resume", run_id, "--accept-definition-change", "--json")
    assert resumed.exit_code == 0, resumed.err
    assert stored(folder)[1][1] == {"name": "name 1"}


@pytest.mark.slow
def test_an_unmet_dependency_refuses_the_run_with_reasons(folder: Path) -> None:
    (folder / "jobs").mkdir()
    write_job(folder, customers_job() | {"job_id": "reference-data-sync"}, "jobs/reference-data-sync.json")
    dependent = customers_job(dependencies=[{"job": "reference-data-sync", "window": "24 hours"}])
    write_job(folder, dependent, "jobs/customers.json")
    refused = command(folder, "run", "customers", "--json")
    assert refused.exit_code == 4
    assert refused.document["status"] == "skipped"
    assert "it has never run" in refused.document["error"]["message"]
    why = command(folder, "why", refused.document["run_id"])
    assert "reference-data-sync" in why.out
    assert command(folder, "run", "reference-data-sync").exit_code == 0
    assert command(folder, "run", "customers").exit_code == 0


def test_ignored_dependencies_are_recorded(folder: Path) -> None:
    (folder / "jobs").mkdir()
    write_job(folder, customers_job() | {"job_id": "other"}, "jobs/other.json")
    write_job(folder, customers_job(dependencies=[{"job": "other"}]), "jobs/customers.json")
    assert command(folder, "run", "customers", "--ignore-dependencies").exit_code == 0


@pytest.mark.slow
def test_a_backfill_reads_its_interval_and_leaves_the_watermark(folder: Path) -> None:
    query = "SELECT *, :window_start AS lower_bound FROM customers WHERE :window_start < :window_end"
    write_job(folder, customers_job(mode="append", source={"connector": "warehouse", "query": query}))
    interval = ("--window-start", "2025-01-01T00:00:00Z", "--window-end", "2025-01-02T00:00:00Z")
    done = command(folder, "run", "job.json", *interval, "--json")
    assert done.document["trigger"] == "backfill"
    assert done.document["window"] == {"start": "2025-01-01T00:00:00Z", "end": "2025-01-02T00:00:00Z"}
    again = command(folder, "run", "job.json", *interval, "--json")
    assert again.exit_code == 6 and again.document["error"]["code"] == "run_already_complete"
    live = command(folder, "run", "job.json", "--json").document
    assert live["window"]["start"] is None


def test_a_stopped_run_goes_on_where_it_stopped(folder: Path) -> None:
    write_job(folder, customers_job(mode="append", partitions=4, every_rows=10))
    command(folder, "run", "job.json", crash="checkpoint.after", occurrence=3)
    run_id = run_documents(folder)[0]["run_id"]
    stopped = command(folder, "stop", run_id)
    assert stopped.exit_code in (0, 5)
    before = run_documents(folder)[0]
    assert before["status"] == "stopped" and 0 < before["rows"]["read"] < 120
    assert command(folder, "run", "job.json", "--json").document["run_id"] == run_id
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_an_abandoned_run_is_over(folder: Path) -> None:
    write_job(folder, customers_job(mode="append"))
    command(folder, "run", "job.json", crash="publish.before")
    run_id = run_documents(folder)[0]["run_id"]
    assert command(folder, "abandon", run_id).exit_code == 0
    assert command(folder, "resume", run_id).exit_code == 6
    assert command(folder, "run", "job.json", "--json").document["run_id"] != run_id
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_a_published_run_cannot_be_abandoned_but_becomes_a_success(folder: Path) -> None:
    write_job(folder, customers_job(mode="append"))
    command(folder, "run", "job.json", crash="publish.after_commit")
    run_id = run_documents(folder)[0]["run_id"]
    command(folder, "abandon", run_id)
    assert run_documents(folder)[0]["status"] == "success"
    assert stored(folder) == expected(ROWS)


def test_fresh_gives_an_unfinished_run_up(folder: Path) -> None:
    write_job(folder, customers_job(mode="append"))
    command(folder, "run", "job.json", crash="publish.before")
    assert command(folder, "run", "job.json", "--fresh").exit_code == 0
    assert [document["status"] for document in run_documents(folder)] == ["success", "abandoned"]
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_files_that_changed_since_the_run_started_are_refused(folder: Path) -> None:
    (folder / "in").mkdir()
    pq.write_table(ROWS, folder / "in" / "a.parquet", row_group_size=20)
    write_job(folder, customers_job(source={"connector": "landing", "path": "in/*.parquet"}, every_rows=10))
    command(folder, "run", "job.json", crash="checkpoint.after", occurrence=2)
    pq.write_table(customers(130), folder / "in" / "a.parquet")
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 6 and "a.parquet" in refused.document["error"]["message"]
    assert command(folder, "run", "job.json", "--fresh").exit_code == 0
    assert stored(folder) == expected(customers(130))


@pytest.mark.slow
def test_a_lost_ledger_is_noticed_before_anything_is_doubled(folder: Path) -> None:
    write_job(folder, customers_job(mode="append"))
    assert command(folder, "run", "job.json").exit_code == 0
    shutil.rmtree(folder / ".ecmbatch")
    refused = command(folder, "run", "job.json")
    assert refused.exit_code == 6 and "ecmbatch watermark" in refused.err
    assert command(folder, "watermark", "reset", "job.json", "--reason", "ledger lost").exit_code == 0
    assert command(folder, "run", "job.json").exit_code == 0


def test_a_torn_staged_file_stops_publishing(folder: Path) -> None:
    write_job(folder, customers_job(mode="append"))
    command(folder, "run", "job.json", crash="publish.before")
    (staged,) = list((folder / ".ecmbatch" / "stage").rglob("*.parquet"))[:1]
    staged.write_bytes(staged.read_bytes()[:-10])
    failed = command(folder, "run", "job.json", "--json")
    assert failed.exit_code == 1 and failed.document["error"]["code"] == "integrity"
    assert stored(folder) == []


def test_a_processor_that_raises_names_partition_and_rows(folder: Path) -> None:
    (folder / "processors.py").write_text(
        "import pyarrow as pa\nimport ecmbatch\n"
        "@ecmbatch.processor('picky')\n"
        "def picky(batch: pa.RecordBatch, config: dict) -> pa.RecordBatch:\n"
        "    if 'c00077' in batch.column('id').to_pylist():\n"
        "        raise ValueError('secret row c00077')\n"
        "    return batch\n"
    )
    with (folder / "ecmbatch.toml").open("a") as opened:
        opened.write('[processors]\nmodules = ["processors"]\n')
    job = customers_job(partitions=4, every_rows=10, transform={"processor": "picky"})
    write_job(folder, {**job, "sink": {**job["sink"], "key": ["id"]}})
    failed = command(folder, "run", "job.json", "--json")
    assert failed.exit_code == 1
    message = failed.document["error"]["message"]
    assert "partition " in message and "rows " in message and "ValueError" in message
    assert "c00077" not in failed.out + failed.err


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_one_process_wins_and_the_others_are_told(folder: Path, count: int) -> None:
    write_job(folder, customers_job(mode="append", partitions=4, every_rows=10))
    racers = [start(folder, "run", "job.json", "--json") for _ in range(count)]
    finished = [racer.wait() for racer in racers]
    winners = [each for each in finished if each.exit_code == 0]
    losers = [each for each in finished if each.exit_code != 0]
    assert winners and all(each.exit_code == 6 for each in losers), [each.err for each in losers]
    assert all("already running" in each.document["error"]["message"] for each in losers)
    runs = run_documents(folder)
    assert len(runs) == len(winners) and all(run["status"] == "success" for run in runs)
    # A process that came when an earlier winner was done made a run of its own; runs never overlap.
    assert stored(folder) == sorted(expected(ROWS) * len(winners), key=repr)
    times = sorted((run["started_at"], run["finished_at"]) for run in runs)
    assert all(before[1] <= after[0] for before, after in pairwise(times))


@pytest.mark.slow
def test_a_store_held_by_another_process_is_waited_for_then_resume_only_publishes(folder: Path) -> None:
    with (folder / "ecmbatch.toml").open("a") as opened:
        opened.write(
            '[stores.context_store]\ntype = "duckdb"\npath = "context.duckdb"\nbusy_timeout = "1 second"\n'
        )
    write_job(folder, customers_job(mode="append", partitions=4))
    command(folder, "run", "job.json", crash="publish.before")
    run_id = run_documents(folder)[0]["run_id"]
    with duckdb.connect(str(folder / "context.duckdb")):
        busy = start(folder, "resume", run_id, "--json").wait()
    assert busy.exit_code == 7 and "context.duckdb" in busy.err
    (folder / "warehouse.duckdb").unlink()
    resumed = command(folder, "resume", run_id, "--json")
    assert resumed.exit_code == 0, resumed.err
    assert stored(folder) == expected(ROWS)


@pytest.mark.slow
def test_a_full_disk_loses_nothing(folder: Path) -> None:
    write_job(folder, customers_job(mode="append", partitions=4))
    stage = folder / ".ecmbatch" / "stage"
    stage.parent.mkdir()
    stage.write_text("a file where the stage should be")
    failed = command(folder, "run", "job.json", "--json")
    assert failed.exit_code == 1 and failed.document["error"]["code"] == "stage"
    stage.unlink()
    again = command(folder, "run", "job.json", "--json")
    assert again.document["run_id"] == failed.document["run_id"]
    assert stored(folder) == expected(ROWS)


def test_a_run_without_an_order_is_replayed_from_its_start(folder: Path) -> None:
    job = customers_job(mode="append", partitions=4, every_rows=10)
    job["checkpoint"]["resume"] = "partition"
    write_job(folder, job)
    assert was_killed(command(folder, "run", "job.json", crash="checkpoint.after", occurrence=3))
    done = command(folder, "run", "job.json", "--json").document
    assert done["rows"]["read"] == done["rows"]["staged"] == 120
    assert stored(folder) == expected(ROWS)


def test_an_empty_source_is_a_success_of_zero_rows(folder: Path) -> None:
    fill_warehouse(folder, ROWS.slice(0, 0))
    write_job(folder, customers_job(partitions=4))
    done = command(folder, "run", "job.json", "--json")
    assert (done.exit_code, done.document["rows"]["read"]) == (0, 0)


def test_a_secret_is_never_shown(folder: Path, tmp_path: Path) -> None:
    secret = "canary-7f3a9c"
    (folder / "secret.txt").write_text(secret + "\n")
    toml = (
        (folder / "ecmbatch.toml")
        .read_text()
        .replace('path = "warehouse.duckdb"', 'path = "${file:secret.txt}.duckdb"')
    )
    (folder / "ecmbatch.toml").write_text(toml)
    write_job(folder, customers_job())
    printed = ""
    for arguments in (
        ("run", "job.json", "--json"),
        ("run", "job.json", "--log-level", "debug"),
        ("validate", "job.json"),
        ("plan", "job.json", "--json"),
    ):
        finished = command(folder, *arguments)
        printed += finished.out + finished.err
    shutil.copy(folder / "warehouse.duckdb", folder / f"{secret}.duckdb")
    printed += command(folder, "run", "job.json", "--json").out
    assert secret not in printed
    remembered = b"".join(path.read_bytes() for path in (folder / ".ecmbatch").rglob("*") if path.is_file())
    assert secret.encode() not in remembered


def test_every_broken_job_of_the_corpus_ends_with_problems(folder: Path) -> None:
    corpus = sorted((Path(__file__).parent.parent / "corpus" / "jobs").glob("*.json"))
    assert corpus
    validated = command(folder, "validate", *map(str, corpus), "--json")
    assert validated.exit_code == 2
    assert "Traceback" not in validated.err


@pytest.mark.parametrize(
    ("toml", "place"),
    [
        ("[ledger]\nurl = 5\n", "/ledger/url"),
        ("[connectors.x]\npath = 'a'\n", "/connectors/x"),
        ("[run]\nworkers = 0\n", "/run/workers"),
        ("[rum]\nworkers = 1\n", "/rum"),
        ("[connectors.warehouse]\ntype = 'duckdb'\npath = '${env:NOT_SET}'\n", "/connectors/warehouse/path"),
        ("not toml", ""),
        ("[connectors.warehouse]\ntype = 'duckdb'\nfile = 'x'\n", "/connectors/warehouse/file"),
    ],
)
def test_a_broken_project_file_names_the_place(folder: Path, toml: str, place: str) -> None:
    (folder / "ecmbatch.toml").write_text(toml)
    write_job(folder, customers_job())
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 2, refused.err
    text = json.dumps(refused.document)
    assert place in text and "Traceback" not in refused.err


@pytest.mark.slow
def test_a_store_in_the_file_of_its_source_can_be_published(folder: Path) -> None:
    with (folder / "ecmbatch.toml").open("a") as opened:
        opened.write('[stores.context_store]\ntype = "duckdb"\npath = "warehouse.duckdb"\n')
    job = customers_job(partitions=4)
    write_job(folder, {**job, "sink": {**job["sink"], "table": "context"}})
    ran = command(folder, "run", "job.json", "--json")
    assert ran.exit_code == 0, ran.err
    assert stored(folder, "context", file="warehouse.duckdb") == expected(ROWS)


def test_a_run_refused_before_it_had_a_plan_leaves_nothing_to_resume(folder: Path) -> None:
    job = customers_job(parameters={"from": "${param.from}"})
    query = "SELECT * FROM customers WHERE id >= :from"
    write_job(folder, {**job, "source": {"connector": "warehouse", "query": query}})
    refused = command(folder, "run", "job.json", "--json")
    assert refused.exit_code == 2 and "--param from" in refused.out
    assert [document["status"] for document in run_documents(folder)] == ["skipped"]
    assert command(folder, "run", "job.json", "--param", "from=c00000").exit_code == 0


@pytest.mark.slow
def test_success_tidies_the_stage_of_runs_it_supersedes(folder: Path) -> None:
    write_job(folder, customers_job(validation=TOO_FEW))
    assert command(folder, "run", "job.json").exit_code == 3
    assert Stage(folder / ".ecmbatch" / "stage").run_ids()
    write_job(folder, customers_job(validation=ENOUGH))
    assert command(folder, "run", "job.json").exit_code == 0
    assert not Stage(folder / ".ecmbatch" / "stage").run_ids()
