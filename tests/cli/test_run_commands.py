from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Ecmbatch = Callable[..., Any]


def test_run_prints_the_run_document_and_nothing_else_on_standard_output(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    result = ecmbatch("run", "people", "--json")
    assert result.exit_code == 0
    assert result.document["format"] == "ecmbatch.run/1"
    assert result.document["rows"]["inserted"] == 10
    assert "the first run of this job" in result.err
    assert ecmbatch("show", result.document["run_id"], "--json").document == result.document
    assert ecmbatch("runs", "--json").document == [result.document]


def test_run_tells_people_the_same_in_a_few_lines(project: Any, ecmbatch: Ecmbatch) -> None:
    out = ecmbatch("run", "jobs/people.json").out
    for text in ("people  success", "10 read, 10 staged", "context_store.people (upsert)", "10 inserted"):
        assert text in out
    assert "✓ pass  row_count  10 rows, expected at least 1" in out
    assert ecmbatch("run", "people", "--quiet").out == ""


def test_a_failed_validation_exits_3_and_resume_publishes_after_the_rule_was_corrected(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    project.job(validation={"rules": [{"type": "row_count", "min": 11}], "on_failure": "abort"})
    failed = ecmbatch("run", "people", "--json")
    assert (failed.exit_code, failed.document["status"]) == (3, "validation_failed")
    assert failed.document["validation"]["outcome"] == "fail"
    assert project.rows() == 0
    run_id = failed.document["run_id"]
    assert f"ecmbatch resume {run_id}" in ecmbatch("why", run_id).out

    project.job()
    resumed = ecmbatch("resume", run_id, "--json")
    assert (resumed.exit_code, resumed.document["status"]) == (0, "success")
    assert project.rows() == 10


def test_a_failed_run_exits_1_with_its_document_and_shows_no_value_of_a_row(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    project.job(transform={"processor": "breaks"})
    failed = ecmbatch("run", "people", "--json")
    assert (failed.exit_code, failed.document["status"]) == (1, "failed")
    assert failed.document["error"]["code"] == "transform"

    told = ecmbatch("run", "people")
    assert told.exit_code == 1
    assert "error: partition 0, rows 0 to 9" in told.err
    assert "people  failed" in told.out
    for text in (failed.out, failed.err, told.out, told.err):
        assert "Traceback" not in text
        assert "secret row value" not in text


def test_an_unmet_dependency_exits_4_with_the_skipped_run(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="later", dependencies=[{"job": "people"}])
    refused = ecmbatch("run", "later", "--json")
    assert (refused.exit_code, refused.document["status"]) == (4, "skipped")
    assert ecmbatch("run", "later", "--ignore-dependencies").exit_code == 0


def test_conflicts_exit_6_with_the_error_as_the_answer(project: Any, ecmbatch: Ecmbatch) -> None:
    run_id = ecmbatch("run", "people", "--json").document["run_id"]
    resumed = ecmbatch("resume", run_id, "--json")
    assert (resumed.exit_code, resumed.document["error"]["code"]) == (6, "run_already_complete")
    assert ecmbatch("abandon", run_id).exit_code == 6


def test_an_unreachable_ledger_exits_7(
    project: Any, ecmbatch: Ecmbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECMBATCH_LEDGER__URL", "sqlite:///ecmbatch.toml/ledger.db")
    result = ecmbatch("run", "people", "--json")
    assert (result.exit_code, result.document["error"]["code"]) == (7, "unreachable")


def test_an_abandoned_run_cannot_be_resumed(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(transform={"processor": "breaks"})
    run_id = ecmbatch("run", "people", "--json").document["run_id"]
    abandoned = ecmbatch("abandon", run_id, "--reason", "not needed", "--json")
    assert (abandoned.exit_code, abandoned.document["status"]) == (0, "abandoned")
    assert abandoned.document["error"]["message"] == "not needed"
    assert ecmbatch("resume", run_id).exit_code == 6


def test_a_backfill_takes_both_ends_of_its_window(project: Any, ecmbatch: Ecmbatch) -> None:
    window = ("--window-start", "2026-01-01T00:00:00Z", "--window-end", "2026-01-02T01:00:00+01:00")
    run = ecmbatch("run", "people", *window, "--json").document
    assert run["trigger"] == "backfill"
    assert run["window"] == {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    assert ecmbatch("run", "people", *window).exit_code == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument 'JOB'"),
        (["run", "people", "--colour"], "--colour"),
        (["walk"], "No such command 'walk'"),
        (["run", "people", "--workers", "0"], "--workers"),
        (["run", "peeple"], "did you mean 'people'?"),
        (["run", "people", "--param", "region"], "--param takes name=value"),
        (["run", "people", "--param", "a=1", "--param", "a=2"], "--param a is given twice"),
        (["run", "people", "--window-start", "2026-01-01T00:00:00Z"], "belong together"),
        (
            [
                "run",
                "people",
                "--window-start",
                "2026-01-01T00:00:00",
                "--window-end",
                "2026-01-02T00:00:00Z",
            ],
            "--window-start must be a time with a zone",
        ),
        (
            [
                "run",
                "people",
                "--window-start",
                "2026-01-02T00:00:00Z",
                "--window-end",
                "2026-01-02T00:00:00Z",
            ],
            "must be before",
        ),
        (["run", "people", "--project", "nowhere"], "cannot be read"),
        (["show", "no-such-run"], "there is no run 'no-such-run'"),
        (["watermark", "set", "people", "yesterday"], "TIME must be a time with a zone"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    project: Any, ecmbatch: Ecmbatch, arguments: list[str], message: str
) -> None:
    told = ecmbatch(*arguments)
    assert (told.exit_code, told.out) == (2, "")
    assert told.err.startswith("error: ")
    assert message in told.err
    error = ecmbatch(*arguments, "--json").document["error"]
    assert error["code"] == "usage"
    assert message in error["message"]


def test_an_unknown_run_is_answered_with_the_latest_ones(project: Any, ecmbatch: Ecmbatch) -> None:
    run_id = ecmbatch("run", "people", "--json").document["run_id"]
    assert f"the latest runs are {run_id} (people)" in ecmbatch("checkpoints", "run-1").err


def test_every_problem_of_a_job_is_told_with_its_place(project: Any, ecmbatch: Ecmbatch) -> None:
    (project.path / "jobs" / "people.json").write_text(
        json.dumps({"job_id": "people", "sink": {"stor": "x"}})
    )
    told = ecmbatch("run", "jobs/people.json")
    assert told.exit_code == 2
    assert "\n  /sink/stor: " in told.err
    problems = ecmbatch("run", "jobs/people.json", "--json").document["error"]["problems"]
    assert {"/source", "/sink/stor"} <= {problem["path"] for problem in problems}
    assert all(set(problem) == {"path", "message", "hint"} for problem in problems)


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_defect_is_one_sentence_and_a_trace_for_those_who_ask(
    project: Any, ecmbatch: Ecmbatch, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a value")

    monkeypatch.setattr("ecmbatch.engine.history.History.recent_runs", broken)
    result = ecmbatch("runs", "--json", "--log-level", level)
    assert (result.exit_code, result.document["error"]["code"]) == (1, "unexpected")
    assert "ZeroDivisionError" in result.document["error"]["message"]
    assert ("Traceback" in result.err) == (level == "debug")


def test_secrets_of_the_project_are_never_printed(
    project: Any, ecmbatch: Ecmbatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE", "hunter2.duckdb")
    text = (project.path / "ecmbatch.toml").read_text()
    (project.path / "ecmbatch.toml").write_text(text.replace("warehouse.duckdb", "${env:WAREHOUSE}"))
    for arguments in (["run", "people"], ["run", "people", "--json", "--log-level", "debug"]):
        result = ecmbatch(*arguments)
        assert result.exit_code == 1
        assert "***" in result.out + result.err
        assert "hunter2" not in result.out + result.err


def test_the_log_can_be_json_lines(project: Any, ecmbatch: Ecmbatch) -> None:
    lines = ecmbatch("run", "people", "--log-format", "json").err.splitlines()
    assert [json.loads(line)["level"] for line in lines] == ["info"]
