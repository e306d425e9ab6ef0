from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pytest

Ecmbatch = Callable[..., Any]


@pytest.fixture
def run_id(project: Any, ecmbatch: Ecmbatch) -> str:
    partitioning = {"strategy": "hash", "key": "id", "partitions": 4}
    project.job(partitioning=partitioning, checkpoint={"every_rows": 3})
    result: str = ecmbatch("run", "people", "--json").document["run_id"]
    return result


def test_checkpoints_prints_the_objects_of_the_protocol(ecmbatch: Ecmbatch, run_id: str) -> None:
    latest = ecmbatch("checkpoints", run_id, "--json").document
    assert [each["checkpoint"]["partition"] for each in latest] == [0, 1, 2, 3]
    assert sum(each["checkpoint"]["offset"] for each in latest) == 10
    assert all(set(each) == {"checkpoint", "x-ecmbatch"} for each in latest)
    fields = ["job_id", "run_id", "partition", "offset", "timestamp", "status"]
    assert all(list(each["checkpoint"]) == fields for each in latest)
    every = ecmbatch("checkpoints", run_id, "--all", "--json").document
    assert len(every) > len(latest)
    assert "completed" in ecmbatch("checkpoints", run_id).out


def test_runs_lists_the_newest_first(ecmbatch: Ecmbatch, run_id: str) -> None:
    second = ecmbatch("run", "people", "--json").document["run_id"]
    assert [run["run_id"] for run in ecmbatch("runs", "--json").document] == [second, run_id]
    assert [run["run_id"] for run in ecmbatch("runs", "--limit", "1", "--json").document] == [second]
    assert ecmbatch("runs", "--job", "other", "--json").document == []
    assert "there are no runs yet" in ecmbatch("runs", "--job", "other").out
    assert run_id in ecmbatch("runs").out


def test_why_is_a_list_of_sentences(ecmbatch: Ecmbatch, run_id: str) -> None:
    answer = ecmbatch("why", run_id, "--json").document
    assert answer["status"] == "success"
    assert answer["why"] == ecmbatch("why", run_id).out.splitlines()


def test_validate_answers_one_job_with_its_findings_and_several_with_a_list(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    one = ecmbatch("validate", "people", "--json")
    assert one.exit_code == 0
    assert one.document == {"job": "people", "valid": True, "problems": [], "warnings": [], "schedule": None}

    project.job(job_id="wrong", sink={"store": "nowhere", "mode": "append"})
    several = ecmbatch("validate", "people", "wrong", "absent", "--json")
    assert (several.exit_code, several.document["valid"]) == (2, False)
    assert [job["valid"] for job in several.document["jobs"]] == [True, False, False]
    assert several.document["jobs"][1]["problems"][0]["path"] == "/sink/store"
    assert "problem  /sink/store: " in ecmbatch("validate", "wrong").out


def test_plan_does_nothing_and_says_what_would_happen(project: Any, ecmbatch: Ecmbatch) -> None:
    plan = ecmbatch("plan", "people", "--json").document
    assert plan["format"] == "ecmbatch.plan/1"
    assert (len(plan["partitions"]), plan["sink"]["key"], plan["continues"]) == (1, ["id"], None)
    assert "start a new run" in ecmbatch("plan", "people").out
    assert ecmbatch("runs", "--json").document == []
    assert project.rows() == 0


def test_the_watermark_can_be_shown_moved_and_reset(ecmbatch: Ecmbatch, run_id: str) -> None:
    [mark] = ecmbatch("watermark", "show", "people", "--json").document
    assert mark["run_id"] == run_id
    moved = ecmbatch("watermark", "set", "people", "2026-01-01T00:00:00Z", "--reason", "load again", "--json")
    assert moved.document[0]["window_end"] == "2026-01-01T00:00:00Z"
    assert moved.document[0]["reason"] == "load again"
    assert ecmbatch("watermark", "reset", "people", "--json").document[0]["window_end"] is None
    assert ecmbatch("watermark", "show", "people", "--param", "region=EU", "--json").document == []
    assert "load again" in ecmbatch("watermark", "show", "people").out


def test_the_schema_accepts_the_jobs_of_a_new_project(
    project: Any, ecmbatch: Ecmbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ecmbatch("init", "new").exit_code == 0
    new = project.path / "new"
    schema = ecmbatch("schema").document
    assert json.loads((new / ".ecmbatch" / "job.schema.json").read_text()) == schema
    for path in (new / "jobs").glob("*.json"):
        jsonschema.validate(json.loads(path.read_text()), schema)
    again = ecmbatch("init", "new", "--json")
    assert (again.exit_code, again.document["error"]["code"]) == (2, "usage")
    assert ecmbatch("schema", "--output", "made/for/it.json").out == ""
    assert json.loads((project.path / "made/for/it.json").read_text()) == schema


def test_a_reader_that_goes_away_changes_nothing(project: Any) -> None:
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    assert reader.stdin is not None
    result = project.start("run", "people", "--json", "--quiet", stdout=reader.stdin).end()
    assert (result.exit_code, result.err) == (0, "")
    assert project.rows() == 10


def test_a_full_disk_behind_standard_output_is_an_error(project: Any) -> None:
    with Path("/dev/full").open("w") as full:
        result = project.start("schema", stdout=full).end()
    assert result.exit_code == 2
    assert result.err == "error: standard output cannot be written: No space left on device\n"


def test_control_characters_in_names_do_not_reach_the_terminal(project: Any, ecmbatch: Ecmbatch) -> None:
    with duckdb.connect(project.path / "warehouse.duckdb") as connection:
        connection.execute('ALTER TABLE people RENAME name TO "na\x1b[2Jme"')
    plan = ecmbatch("plan", "people")
    assert "\x1b" not in plan.out
    assert r"na\x1b[2Jme" in plan.out
