"""The command ``deps``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Ecmbatch = Callable[..., Any]


@pytest.fixture
def jobs(project: Any) -> Any:
    """People, which a report needs; the report starts a letter."""
    project.job(job_id="report", dependencies=[{"job": "people", "window": "24 hours", "status": "success"}])
    project.job(job_id="letter", schedule={"type": "event", "on": {"job": "report"}})
    return project


def test_deps_shows_what_is_above_and_below_and_what_is_not_met(jobs: Any, ecmbatch: Ecmbatch) -> None:
    result = ecmbatch("deps", "report")
    assert result.exit_code == 0
    lines = result.out.splitlines()
    assert lines[:3] == ["report", "depends on", "  people  window 1 d; status success  not met"]
    assert "needs people as of > " in lines[3]
    assert "needs people to have succeeded; it has never run" in result.out
    assert lines[-3:] == ["is needed by", "  letter  event success", "a run would wait now"]

    assert ecmbatch("run", "people").exit_code == 0
    met = ecmbatch("deps", "report").out.splitlines()
    assert met[2] == "  people  window 1 d; status success  met"
    assert met[-1] == "a run could begin now"


def test_deps_tells_scripts_the_same(jobs: Any, ecmbatch: Ecmbatch) -> None:
    document = ecmbatch("deps", "report", "--json").document
    assert (document["job_id"], document["met"], len(document["unmet"])) == ("report", False, 1)
    window, status, event = sorted(document["edges"], key=lambda edge: edge["kind"], reverse=True)
    assert (window["needs"], window["asks"], window["met"]) == ("people", "1 d", False)
    assert (status["kind"], status["asks"], status["optional"]) == ("status", "success", False)
    assert event == {
        "job": "letter",
        "needs": "report",
        "kind": "event",
        "asks": "success",
        "optional": False,
    }
    assert document["mermaid"].startswith("flowchart LR\n")


def test_deps_draws_a_chart_whose_lines_are_whole(project: Any, ecmbatch: Ecmbatch) -> None:
    long = "a" * 100 + "b"
    project.job(job_id=long, sink={"store": "context_store", "mode": "append", "table": "a"})
    project.job(job_id="report", dependencies=[{"job": long, "window": "24 hours"}])
    chart = ecmbatch("deps", "report", "--mermaid").out
    assert f'  job1["{long}"]\n  job1 -->|"window 1 d"| job0\n' in chart


def test_deps_of_a_job_alone_and_of_one_that_needs_what_is_not_there(
    project: Any, ecmbatch: Ecmbatch
) -> None:
    assert ecmbatch("deps", "people").out.splitlines() == [
        "people",
        "depends on no job",
        "is needed by no job",
    ]
    project.job(job_id="report", dependencies=[{"job": "nowhere"}])
    assert "  nowhere  status success  not in the project  not met" in ecmbatch("deps", "report").out
    assert ecmbatch("deps", "absent").exit_code == 2


def test_validate_refuses_what_deps_shows_as_a_circle(project: Any, ecmbatch: Ecmbatch) -> None:
    project.job(job_id="report", dependencies=[{"job": "letter"}])
    project.job(job_id="letter", schedule={"type": "event", "on": {"job": "report"}})
    assert "is a circle: letter → report → letter" in ecmbatch("validate", "letter").out
    assert ecmbatch("validate", "report").exit_code == 2
    assert "as above" in ecmbatch("deps", "report").out
